"""Where the pictures of a board and the poses of tool and board come from: folders, datasets, files, numbers."""

import csv
import glob
import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from robopolicy.errors import ConfigError, ContractError, UnknownName, UsageError
from robopolicy.rotations import matrix_to_quat, matrix_to_rotvec, quat_to_matrix

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".ppm", ".pgm")
POSES = ("tool_pos", "tool_quat")  # the dataset's states: m, quaternion wxyz
SLOW_M_S, SLOW_RAD_S = 0.01, 0.05  # slower is at rest
APART_M, APART_RAD = 0.1, math.radians(20)  # as far apart as each other, where different poses are chosen
ALIKE = 0.05  # of these: nearer is the same pose
FACES_DOWN = 0.2  # the board's front looks down so far, the sine of the angle: about 12 degrees


@dataclass
class Shots:
    """Pictures to be looked at, and what is known of the moments they were taken at.

    Args:
        pictures: (view, moment, reads the picture (H, W, 3) or (H, W) uint8).
        tools: {moment: T_base_tool (4, 4)}.
    """

    pictures: list[tuple[str, str, Callable[[], np.ndarray]]] = field(default_factory=list)
    tools: dict[str, np.ndarray] = field(default_factory=dict)


def shots_of_files(words: Sequence[str], option: str) -> Shots:
    """Return the pictures of VIEW=FOLDER or VIEW='GLOB' each; a moment is a file's name without its ending.

    Raises:
        UsageError: naming a word that is none, or where no picture is.
    """
    shots = Shots()
    for word in words:
        view, equals, where = word.partition("=")
        if not (equals and view and where):
            raise UsageError(f"{option} {word}: want VIEW=FOLDER or VIEW='FOLDER/*.png'")
        folder = Path(where)
        names = [str(one) for one in folder.iterdir()] if folder.is_dir() else glob.glob(where)
        names = sorted(name for name in names if Path(name).suffix.lower() in SUFFIXES)
        if not names:
            raise UsageError(f"{option} {word}: there is no picture ({', '.join(SUFFIXES)})")
        shots.pictures += [(view, Path(name).stem, _reader(name)) for name in names]
    seen = [(view, moment) for view, moment, _ in shots.pictures]
    if len(set(seen)) < len(seen):
        view, moment = next(one for one in seen if seen.count(one) > 1)
        raise UsageError(f"{option}: camera {view} has two pictures {moment}")
    return shots


def shots_of_data(
    where: str, episodes: Sequence[int] | None, cameras: Sequence[str] | None, most: int, slow_m_s: float
) -> Shots:
    """Return pictures of a dataset, at steps at which its tool rests, in poses as different as can be.

    A picture and a pose that are some milliseconds apart agree only while nothing moves.

    Raises:
        UsageError: if the tool never rests, or there is no such episode.
        UnknownName: naming a state or camera that the dataset lacks.
    """
    from robopolicy_data.reader import Dataset

    dataset = Dataset(where)
    for name in POSES:
        if name not in dataset.spec.state:
            raise UnknownName("state", name, dataset.spec.state)
    colour = [name for name, one in dataset.spec.cameras.items() if one.kind == "colour"]
    for name in cameras or ():
        if name not in colour:
            raise UnknownName("colour camera", name, colour)
    there = [one.number for one in dataset]
    if missing := [number for number in episodes or () if number not in there]:
        raise UsageError(f"--episode {missing[0]}: {where} holds {', '.join(map(str, there)) or 'no episode'}")
    found, slowest = [], np.inf
    for episode in dataset:
        if episodes is not None and episode.number not in episodes:
            continue
        tools = np.tile(np.eye(4), (episode.length, 1, 1))
        tools[:, :3, :3] = quat_to_matrix(episode.state(POSES[1]))
        tools[:, :3, 3] = episode.state(POSES[0])
        pace = _pace(tools, episode.stamps_ns("step"), slow_m_s)
        slowest = min(slowest, float(pace.min()))
        found += [(episode, int(step), tools[step]) for step in np.flatnonzero(pace <= 1)]
    if not found:
        raise UsageError(
            f"{where}: the tool is never at rest (its slowest step is {slowest * slow_m_s:.3g} m/s, or turns as fast, "
            f"where {slow_m_s:g} is rest): let it stop at each pose, or allow more with --still"
        )
    shots = Shots()
    for k in _apart([tool for _, _, tool in found], most):
        episode, step, tool = found[k]
        moment = f"episode {episode.number} step {step}"
        shots.tools[moment] = tool
        shots.pictures += [(view, moment, _frame(episode, view, step)) for view in cameras or colour]
    return shots


def read_tool_poses(path: Path) -> dict[str, np.ndarray]:
    """Return {moment: T_base_tool} of a JSON or CSV file: the picture's name, then x y z (m) and quaternion wxyz.

    Raises:
        ConfigError: naming the file and the picture whose pose is none.
    """
    poses = {}
    for name, values in _rows(path):
        if np.shape(values) == (7,):
            poses[Path(name).stem if Path(name).suffix.lower() in SUFFIXES else name] = pose_of_numbers(
                values, f"{path}: {name}"
            )
        else:
            raise ConfigError(f"{path}: {name} has {np.size(values)} numbers; want x y z (m) and quaternion wxyz")
    return poses


def read_touched(path: Path, corners: np.ndarray) -> tuple[np.ndarray, float]:
    """Return T_base_board (4, 4) from corners that were touched with the tool, and how far off they lie, mm RMS.

    Args:
        path: JSON or CSV: the corner's number, row by row from the top left inner one, 0; then x y z (m) in the base.
        corners: (N, 3) m, all inner corners in the board's frame.

    Corners on a plane fit as well where they were counted from a corner that mirrors them: the board is then turned
    over, and with it goes the camera, which sees its front either way. Only that the front looks down then tells.

    Raises:
        ConfigError: if there are fewer than three, they lie on a line, a number is none, or the board faces down.
    """
    rows = _rows(path)
    numbers, places = [name for name, _ in rows], [values for _, values in rows]
    for name, values in rows:
        if not (name.isdecimal() and int(name) < len(corners)) or np.shape(values) != (3,):
            raise ConfigError(f"{path}: {name!r}: want a corner's number, 0 to {len(corners) - 1}, and x y z (m)")
    source = corners[[int(one) for one in numbers]]
    flat = source - source.mean(axis=0) if len(source) else source
    if len(source) < 3 or np.linalg.svd(flat, compute_uv=False)[1] < 1e-6:
        raise ConfigError(f"{path}: {len(source)} corners; want three or more that are not on a line")
    target = np.array(places)
    u, _, vt = np.linalg.svd(flat.T @ (target - target.mean(axis=0)))  # Kabsch
    turn = vt.T @ np.diag([1, 1, np.sign(np.linalg.det(vt.T @ u.T))]) @ u.T
    pose = np.eye(4)
    pose[:3, :3], pose[:3, 3] = turn, target.mean(axis=0) - turn @ source.mean(axis=0)
    if turn[2, 2] > FACES_DOWN:  # z is into the board
        numbers = " ".join(f"{number:.5f}" for number in [*pose[:3, 3], *matrix_to_quat(turn)])
        raise ConfigError(
            f"{path}: by these corners the board faces down, and a camera that sees it would be below it; want them "
            f"counted row by row from the top left inner one, 0. If it does face down: --board-pose {numbers}"
        )
    left = source @ turn.T + pose[:3, 3] - target
    return pose, 1000 * float(np.sqrt(np.mean(np.sum(left**2, axis=1))))


def pose_of_numbers(values: Sequence[float], where: str) -> np.ndarray:
    """Return (4, 4) of x y z (m) and either roll pitch yaw (degrees, about the fixed x, y, z) or a quaternion wxyz.

    Raises:
        ConfigError: naming ``where``, if they are neither.
    """
    numbers = np.asarray(values, np.float64)
    pose = np.eye(4)
    if not np.isfinite(numbers).all() or numbers.shape not in ((6,), (7,)):
        raise ConfigError(f"{where}: want finite x y z (m), then roll pitch yaw (degrees) or a quaternion wxyz")
    pose[:3, 3] = numbers[:3]
    if len(numbers) == 6:
        (cr, cp, cy), (sr, sp, sy) = np.cos(np.radians(numbers[3:])), np.sin(np.radians(numbers[3:]))
        about_z = np.array([[cy, -sy, 0], [sy, cy, 0], [0, 0, 1]])
        about_y = np.array([[cp, 0, sp], [0, 1, 0], [-sp, 0, cp]])
        pose[:3, :3] = about_z @ about_y @ np.array([[1, 0, 0], [0, cr, -sr], [0, sr, cr]])
        return pose
    if abs(np.linalg.norm(numbers[3:]) - 1) > 0.01:
        raise ConfigError(f"{where}: quaternion {numbers[3:].tolist()} is of length {np.linalg.norm(numbers[3:]):.3g}")
    pose[:3, :3] = quat_to_matrix(numbers[3:])
    return pose


def _rows(path: Path) -> list[tuple[str, np.ndarray]]:
    """Return (name, numbers) of a JSON object {name: numbers} or of CSV rows; a head without numbers is passed over."""
    try:
        text = path.read_text()
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}; want .json or .csv") from error
    try:
        if path.suffix.lower() == ".json":
            return [(str(name), np.array(values, np.float64)) for name, values in json.loads(text).items()]
        rows = [row for row in csv.reader(text.splitlines()) if row and not row[0].startswith("#")]
        if rows and not any(map(_number, rows[0][1:])):
            rows = rows[1:]
        return [(row[0].strip(), np.array(row[1:], np.float64)) for row in rows]
    except (ValueError, TypeError, AttributeError) as error:
        raise ConfigError(f"{path}: {' '.join(str(error).split())[:120]}; want a name and numbers each") from error


def _number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _reader(name: str) -> Callable[[], np.ndarray]:
    def read() -> np.ndarray:
        import cv2

        picture = cv2.imread(name, cv2.IMREAD_COLOR)
        if picture is None:
            raise ContractError(f"{name} is no picture that OpenCV reads")
        return np.asarray(picture[..., ::-1])

    return read


def _frame(episode: Any, view: str, step: int) -> Callable[[], np.ndarray]:
    return lambda: episode.images(view, [step])[0]


def _pace(tools: np.ndarray, stamps_ns: np.ndarray, slow_m_s: float) -> np.ndarray:
    """Return how fast the tool is at each step (T,), in what counts as rest: before and after it, whichever is more."""
    seconds = np.maximum(np.diff(stamps_ns) / 1e9, 1e-6)
    ways = np.linalg.norm(np.diff(tools[:, :3, 3], axis=0), axis=1)
    turns = [np.linalg.norm(matrix_to_rotvec(a[:3, :3].T @ b[:3, :3])) for a, b in pairwise(tools)]
    pace = np.maximum(ways / slow_m_s, np.array(turns) * (SLOW_M_S / SLOW_RAD_S / slow_m_s)) / seconds
    return np.maximum(np.append(pace, 0), np.append(0, pace))


def _apart(tools: list[np.ndarray], most: int) -> list[int]:
    """Return the numbers of poses as different as can be, in order: each the farthest from those before it."""
    places = np.array([tool[:3, 3] for tool in tools]) / APART_M
    turns = np.array([tool[:3, :3] for tool in tools])

    def far_from(k: int) -> np.ndarray:
        trace = np.einsum("nij,ij->n", turns, turns[k])
        angle = np.arccos(np.clip((trace - 1) / 2, -1, 1)) / APART_RAD
        return np.linalg.norm(places - places[k], axis=1) + angle

    chosen, away = [0], far_from(0)
    while len(chosen) < most and away.max() > ALIKE:
        chosen.append(int(away.argmax()))
        away = np.minimum(away, far_from(chosen[-1]))
    return sorted(chosen)


def looked_at(shots: Shots, finder: Any, label: str = "look") -> Iterator[tuple[str, str, Any]]:
    """Yield (view, moment, sighting or None) of each picture, with a progress bar."""
    from robopolicy.cli.progress import bar

    with bar(label, len(shots.pictures), "pictures") as progress:
        for view, moment, read in shots.pictures:
            yield view, moment, finder.find(read(), view, moment)
            progress.advance()
