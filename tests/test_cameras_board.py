"""Boards: drawn as OpenCV reads them, at their true size, in files that say what they show."""

import re
import struct
import sys
import zlib
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))
from charuco_pictures import BOARD, Sensor, facing

from robopolicy.errors import ConfigError, ContractError, UnknownName
from robopolicy.geometry.cameras import Camera
from robopolicy_hardware.cameras.board import DPI, MARGIN_M, Board, read_board, write_board
from robopolicy_hardware.cameras.charuco import BoardFinder, rms

BOARDS = [
    BOARD,
    Board(6, 4, 0.05, 0.03, "DICT_6X6_250"),
    Board(6, 4, 0.05, 0.03, legacy=True),
    Board(12, 9, 0.03, 0.022),
]


@pytest.mark.parametrize("board", BOARDS, ids=str)
def test_every_corner_of_a_drawn_board_is_found_where_its_frame_says(board):
    seen = BoardFinder(board).find(board.picture(50, margin=40))
    assert len(seen.points) == (board.columns - 1) * (board.rows - 1)
    np.testing.assert_allclose(seen.points, board.opencv().getChessboardCorners(), atol=1e-6)
    want = seen.points[:, :2] / board.square_m * 50 + 40 - 0.5  # edges lie between pixels
    np.testing.assert_allclose(seen.pixels, want, atol=0.25)  # sharp edges: no finer; half a pixel would be a fault


def test_a_legacy_board_with_even_rows_is_another_one():
    old = replace(BOARDS[1], legacy=True)
    assert BoardFinder(BOARDS[1]).find(old.picture(50, margin=40)) is None


@pytest.mark.parametrize("suffix", [".png", ".pdf", ".PDF"])
@pytest.mark.parametrize("board", BOARDS, ids=str)
def test_a_printed_file_says_which_board_it_shows(tmp_path, board, suffix):
    write_board(tmp_path / f"b{suffix}", board)
    assert read_board(tmp_path / f"b{suffix}") == board


def test_a_png_has_the_boards_true_size_and_shows_it(tmp_path):
    assert write_board(tmp_path / "b.png", BOARD) == "A4, landscape"
    raw = (tmp_path / "b.png").read_bytes()
    across, down, unit = struct.unpack(">IIB", raw[raw.index(b"pHYs") + 4 :][:9])
    assert (across, unit) == (down, 1)
    assert across * 0.0254 == pytest.approx(DPI, rel=0.01)
    picture = cv2.imread(str(tmp_path / "b.png"), cv2.IMREAD_GRAYSCALE)
    size_m = np.array(picture.shape[::-1]) / across
    np.testing.assert_allclose(size_m, np.array(BOARD.size_m) + 2 * MARGIN_M, atol=1e-4)
    pixels = BoardFinder(BOARD).find(picture).pixels
    assert (pixels[1] - pixels[0])[0] / across == pytest.approx(BOARD.square_m, rel=1e-3)


def test_a_pdf_has_the_boards_true_size_in_the_middle_of_a_page_and_shows_it(tmp_path):
    assert write_board(tmp_path / "b.pdf", BOARD) == "A4, landscape"
    raw = (tmp_path / "b.pdf").read_bytes()
    box = [float(x) for x in re.search(rb"/MediaBox \[([^]]*)\]", raw)[1].split()]
    np.testing.assert_allclose(np.array(box) / 72 * 25.4, [0, 0, 297, 210], atol=0.01)
    width, _, _, height, left, low = map(float, re.search(rb"q ([-0-9. ]*) cm", raw)[1].split())
    np.testing.assert_allclose(np.array([width, height]) / 72 * 0.0254, BOARD.size_m, atol=1e-6)
    np.testing.assert_allclose([2 * left + width, 2 * low + height], box[2:], atol=1e-3)
    columns, rows, length = (
        int(re.search(key + rb" (\d+)", raw)[1]) for key in (rb"/Width", rb"/Height", rb"Decode /Length")
    )
    data = raw[raw.index(b"stream\n", raw.index(b"/Image")) + 7 :][:length]
    picture = np.frombuffer(zlib.decompress(data), np.uint8).reshape(rows, columns)
    assert len(BoardFinder(BOARD).find(np.pad(picture, 100, constant_values=255)).points) == 24
    for place in re.findall(rb"(\d{10}) 00000 n", raw):  # the table of objects points at them
        assert re.match(rb"\d+ 0 obj", raw[int(place) :])
    assert raw[int(re.search(rb"startxref\n(\d+)", raw)[1]) :].startswith(b"xref")


def test_corners_are_found_within_a_fifth_of_a_pixel_in_a_noisy_picture_through_a_lens():
    camera = Camera(
        np.array([[611.0, 0, 318.7], [0, 608.0, 241.2], [0, 0, 1]]), np.eye(4), [-0.21, 0.07, 0, 0], (480, 640)
    )
    errors = []
    for k, tilt in enumerate(([0, 0, 0], [0.5, 0, 0.2], [-0.3, 0.5, 0])):
        pose = facing(0.45, tilt, (0.05, 0.02))
        seen = BoardFinder(BOARD).find(Sensor(camera, noise=3.0, seed=k).picture(pose))
        errors.append(camera.project(seen.points @ pose[:3, :3].T + pose[:3, 3]) - seen.pixels)
        assert len(seen.points) == 24
    assert rms(np.concatenate(errors)) < 0.2
    assert np.abs(np.mean(np.concatenate(errors), axis=0)).max() < 0.1  # half a pixel would be another convention


def test_a_picture_that_shows_too_little_shows_nothing():
    finder, picture = BoardFinder(BOARD), BOARD.picture(50, margin=40)
    assert finder.find(np.full((240, 320, 3), 200, np.uint8)) is None
    one_row = picture.copy()
    one_row[: 40 + 55] = one_row[40 + 155 :] = 255
    found = finder.find(one_row)
    assert found is None or np.ptp(found.points[:, 1]) > 0


@pytest.mark.parametrize(("board", "message"), [
    ({"columns": 2}, "3 or more both ways"), ({"marker_m": 0.035}, "0 < marker < square"),
    ({"square_m": 35.0, "marker_m": 26.0}, "was it given in mm"), ({"square_m": float("nan")}, "0 < marker < square"),
])  # fmt: skip
def test_what_is_no_board_is_refused(board, message):
    with pytest.raises(ContractError, match=message):
        replace(BOARD, **board)


def test_a_dictionary_that_is_none_or_too_small_is_refused():
    with pytest.raises(UnknownName, match="DICT_5X5_100"):
        replace(BOARD, dictionary="DICT_9X9").opencv()
    with pytest.raises(ContractError, match=r"77 markers; DICT_4X4_50 has 50"):
        Board(14, 11, dictionary="DICT_4X4_50").opencv()


def test_files_that_say_no_board_are_refused_in_one_line(tmp_path):
    with pytest.raises(ConfigError, match=r"written as .png or .pdf"):
        write_board(tmp_path / "b.jpg", BOARD)
    cv2.imwrite(str(tmp_path / "plain.png"), BOARD.picture(20))
    (tmp_path / "cut.png").write_bytes((tmp_path / "plain.png").read_bytes()[:40])
    (tmp_path / "b.json").write_text('{"columns": 7, "rows": 5, "square_m": "35"}')
    for name in ("plain.png", "cut.png", "b.json"):
        with pytest.raises(ConfigError, match="does not say which board"):
            read_board(tmp_path / name)
    with pytest.raises(ConfigError, match="No such file"):
        read_board(tmp_path / "none.pdf")
