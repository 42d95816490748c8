"""A ChArUco board: what it looks like, printed at its true size in a file that says which board it is."""

import json
import re
import struct
import zlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from robopolicy.errors import ConfigError, ContractError, UnknownName

DPI = 300
MARGIN_M = 0.01  # white around the board
PAGES_M = {"A4": (0.297, 0.210), "A3": (0.420, 0.297)}  # wide x high, and turned
POINT_M = 0.0254 / 72
KEYWORD = "robopolicy-board"  # of the PNG's text, and in the PDF's keywords
_PNG = b"\x89PNG\r\n\x1a\n"


@dataclass(frozen=True)
class Board:
    """A chessboard with a marker in each white square.

    Its frame: the origin is the outer corner of the top left square, x to the right, y down, z into the board.

    Args:
        columns: of squares.
        rows: of squares.
        square_m: edge of a square.
        marker_m: edge of a marker's black square.
        dictionary: of cv2.aruco.
        legacy: the pattern of OpenCV before 4.6, which differs if the rows are even: it begins with a white square.

    Raises:
        ContractError: naming what is no such board.
    """

    columns: int = 7
    rows: int = 5
    square_m: float = 0.035
    marker_m: float = 0.026
    dictionary: str = "DICT_5X5_100"
    legacy: bool = False

    def __post_init__(self) -> None:
        if min(self.columns, self.rows) < 3:
            raise ContractError(f"a board of {self.columns} x {self.rows} squares; want 3 or more both ways")
        if not (np.isfinite(self.square_m) and 0 < self.marker_m < self.square_m):
            raise ContractError(
                f"board: a marker of {1000 * self.marker_m:g} mm in a square of {1000 * self.square_m:g} mm; "
                "want 0 < marker < square"
            )
        if self.square_m > 1:
            raise ContractError(f"board: a square of {1000 * self.square_m:g} mm; was it given in mm?")

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "Board":
        """Return the board that `to_json` told of; ContractError if it did not."""
        try:
            return cls(**{one.name: data[one.name] for one in fields(cls) if one.name in data})
        except TypeError as error:
            raise ContractError(f"board: {error}") from error

    def to_json(self) -> dict[str, Any]:
        """Return what a file of it holds."""
        return asdict(self)

    def __str__(self) -> str:
        square, marker = (f"{1000 * size:.6g}" for size in (self.square_m, self.marker_m))
        old = ", legacy pattern" if self.legacy else ""
        return f"{self.columns} x {self.rows} squares of {square} mm, markers of {marker} mm, {self.dictionary}{old}"

    @property
    def size_m(self) -> tuple[float, float]:
        """(width, height) of the chessboard."""
        return self.columns * self.square_m, self.rows * self.square_m

    @property
    def corners(self) -> np.ndarray:
        """Inner corners ((columns - 1) (rows - 1), 3) m in the board's frame, row by row; ids are their places here."""
        x, y = np.meshgrid(np.arange(1, self.columns), np.arange(1, self.rows))
        flat = np.stack([x.ravel(), y.ravel(), np.zeros(x.size)], axis=1)
        return flat * self.square_m

    def opencv(self) -> Any:
        """Return it as a `cv2.aruco.CharucoBoard`.

        Raises:
            UnknownName: if OpenCV has no such dictionary; the valid ones are named.
            ContractError: if the dictionary has too few markers.
        """
        import cv2

        known = [name for name in dir(cv2.aruco) if name.startswith("DICT_")]
        if self.dictionary not in known:
            raise UnknownName("ArUco dictionary", self.dictionary, known)
        dictionary = cv2.aruco.getPredefinedDictionary(getattr(cv2.aruco, self.dictionary))
        wanted, there = self.columns * self.rows // 2, len(dictionary.bytesList)
        if wanted > there:
            raise ContractError(
                f"board: {self.columns} x {self.rows} squares want {wanted} markers; {self.dictionary} has {there}"
            )
        board = cv2.aruco.CharucoBoard((self.columns, self.rows), self.square_m, self.marker_m, dictionary)
        board.setLegacyPattern(self.legacy)
        return board

    def picture(self, pixels_a_square: int, margin: int = 0) -> np.ndarray:
        """Return it drawn, grey (H, W) uint8, exactly so many pixels a square and a white ``margin``."""
        import cv2

        board, scale = self.opencv(), pixels_a_square / self.square_m
        drawn = np.zeros((self.rows * pixels_a_square, self.columns * pixels_a_square), np.uint8)
        side = max(round(self.marker_m * scale), 1)
        for number, corners in zip(np.ravel(board.getIds()), board.getObjPoints(), strict=True):
            middle = np.mean(corners, axis=0)[:2] * scale
            column, row = (middle // pixels_a_square * pixels_a_square).astype(int)
            drawn[row : row + pixels_a_square, column : column + pixels_a_square] = 255
            x, y = np.round(middle - side / 2).astype(int)
            drawn[y : y + side, x : x + side] = cv2.aruco.generateImageMarker(board.getDictionary(), int(number), side)
        return np.pad(drawn, margin, constant_values=255)


def write_board(path: Path | str, board: Board) -> str:
    """Write a board to print at 100 %, as .png or .pdf; return the page it fits on, in words.

    Raises:
        ConfigError: if the name ends in neither.
    """
    path = Path(path)
    if path.suffix.lower() not in (".png", ".pdf"):
        raise ConfigError(f"{path}: a board is written as .png or .pdf")
    across = max(round(board.square_m / 0.0254 * DPI), 8)
    drawn = board.picture(across)
    text = json.dumps(board.to_json())
    page = _page(board)
    if path.suffix.lower() == ".png":
        margin = round(MARGIN_M / board.square_m * across)
        path.write_bytes(_png(np.pad(drawn, margin, constant_values=255), across / board.square_m, text))
    else:
        path.write_bytes(_pdf(drawn, board.size_m, page[1:], text))
    return page[0]


def read_board(path: Path | str) -> Board:
    """Return the board that a file of `write_board`, or a JSON file of `Board.to_json`, says it shows.

    Raises:
        ConfigError: naming the file, if it says none.
    """
    try:
        raw = Path(path).read_bytes()
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}; want a board as .png, .pdf or .json") from error
    try:
        if raw.startswith(_PNG):
            text = _png_text(raw)
        elif raw.startswith(b"%PDF"):
            found = re.search(rb"/Keywords <([0-9A-F]*)>", raw)
            text = bytes.fromhex(found[1].decode()).decode() if found else ""
        else:
            text = raw.decode()
        return Board.from_json(json.loads(text))
    except (ValueError, TypeError, AttributeError, struct.error) as error:
        why = f" ({error})" if isinstance(error, ContractError) else ""
        raise ConfigError(
            f"{path} does not say which board it shows{why}; give --board COLUMNSxROWS, --square-mm, --marker-mm "
            "and --dictionary"
        ) from error


def _page(board: Board) -> tuple[str, float, float]:
    """Return what it fits on, and the width and height of that, m."""
    width, height = (size + 2 * MARGIN_M for size in board.size_m)
    for name, (long, short) in PAGES_M.items():
        for a, b, how in ((long, short, ", landscape"), (short, long, "")):
            if width <= a and height <= b:
                return f"{name}{how}", a, b
    return f"a page of {1000 * width:.0f} x {1000 * height:.0f} mm", width, height


def _png(drawn: np.ndarray, pixels_a_metre: float, text: str) -> bytes:
    """Return a grey PNG that says how large a pixel is and which board it shows (PNG specification, pHYs and tEXt)."""
    height, width = drawn.shape
    rows = np.pad(drawn, ((0, 0), (1, 0))).tobytes()  # filter 0 before each
    ppm = round(pixels_a_metre)
    return _PNG + b"".join([
        _chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)),
        _chunk(b"pHYs", struct.pack(">IIB", ppm, ppm, 1)),
        _chunk(b"tEXt", f"{KEYWORD}\0{text}".encode("latin-1")),
        _chunk(b"IDAT", zlib.compress(rows, 9)),
        _chunk(b"IEND", b""),
    ])  # fmt: skip


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _png_text(raw: bytes) -> str:
    at = len(_PNG)
    while at + 8 <= len(raw):
        (length,) = struct.unpack(">I", raw[at : at + 4])
        kind, data = raw[at + 4 : at + 8], raw[at + 8 : at + 8 + length]
        if kind == b"tEXt" and data.startswith(f"{KEYWORD}\0".encode()):
            return data.partition(b"\0")[2].decode("latin-1")
        at += length + 12
    return ""


def _pdf(drawn: np.ndarray, size_m: tuple[float, float], page_m: tuple[float, float], text: str) -> bytes:
    """Return one page with the board in its middle at its true size (PDF 1.4; a point is 1/72 inch)."""
    (width, height), (across, up) = ([x / POINT_M for x in pair] for pair in (size_m, page_m))
    data = zlib.compress(drawn.tobytes(), 9)
    left, low = (across - width) / 2, (up - height) / 2
    content = f"q {width:.4f} 0 0 {height:.4f} {left:.4f} {low:.4f} cm /Board Do Q".encode()
    rows, columns = drawn.shape
    box = f"[0 0 {across:.4f} {up:.4f}]"
    keywords = text.encode().hex().upper()
    image = (
        f"<< /Type /XObject /Subtype /Image /Width {columns} /Height {rows} /ColorSpace /DeviceGray "
        f"/BitsPerComponent 8 /Interpolate false /Filter /FlateDecode /Length {len(data)} >>"
    )
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R /ViewerPreferences << /PrintScaling /None >> >>",
        b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
        f"<< /Type /Page /Parent 2 0 R /MediaBox {box} /Contents 4 0 R "
        "/Resources << /XObject << /Board 5 0 R >> >> >>".encode(),
        f"<< /Length {len(content)} >>\nstream\n".encode() + content + b"\nendstream",
        image.encode() + b"\nstream\n" + data + b"\nendstream",
        f"<< /Title ({KEYWORD}) /Keywords <{keywords}> >>".encode(),
    ]
    made, places = b"%PDF-1.4\n%\xe2\xe3\xcf\xd3\n", []
    for number, body in enumerate(objects, 1):
        places.append(len(made))
        made += f"{number} 0 obj\n".encode() + body + b"\nendobj\n"
    table = "".join(f"{place:010d} 00000 n \n" for place in places)
    tail = (
        f"trailer << /Size {len(objects) + 1} /Root 1 0 R /Info {len(objects)} 0 R >>\nstartxref\n{len(made)}\n%%EOF\n"
    )
    return made + f"xref\n0 {len(objects) + 1}\n0000000000 65535 f \n{table}{tail}".encode()
