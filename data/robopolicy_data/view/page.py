"""A dataset as a folder of files that a browser opens straight from the disk, with no network."""

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from robopolicy.errors import DatasetError
from robopolicy_data.episode import Episode
from robopolicy_data.files import disk_full_as
from robopolicy_data.numbers import numbers_in_words, require_episodes
from robopolicy_data.reader import Dataset
from robopolicy_data.view.describe import describe_dataset, describe_episode, frame_seconds
from robopolicy_data.view.pictures import THUMB_WIDTH, depth_in_words, depth_range, layout, reduced, sheets, thumbnail

ASSETS = Path(__file__).parent / "assets"
SCRIPTS = ("state.js", "list.js", "film.js", "plots.js", "player.js")
WIDTH = 320  # px, of a frame on the page
RATES_HZ = (10.0, 8.0, 6.0, 5.0, 4.0, 3.0, 2.0, 1.5, 1.0)  # of the frames kept
BYTES_A_PIXEL = 0.11  # of a JPEG of this quality, on the average
MARK = "robopolicy.js"  # by which a page of ours is known


@dataclass(frozen=True)
class Page:
    """What was written."""

    index: Path
    episodes: int
    megabytes: float
    note: str  # how the frames were reduced, and which episodes are damaged


def write_page(
    path: Path | str,
    out: Path | str,
    *,
    episodes: Sequence[int] | None = None,
    megabytes: float = 48.0,
    progress: Callable[[int, int], None] | None = None,
) -> Page:
    """Write the page; `index.html` opens from the disk and asks nothing of any network.

    Frames are reduced to `WIDTH` and to the highest rate with which the page stays at about ``megabytes``, but at least
    1 a second; the page says so. An episode that is damaged is listed, and says why it cannot be shown.

    Args:
        path: the dataset.
        out: the folder; made, or an older page, which is replaced.
        episodes: their numbers; None is all.
        megabytes: aimed at.
        progress: called with (episodes done, episodes in all).

    Raises:
        DatasetError: if there is no such dataset or episode, or ``out`` holds other things.
        DiskFull: if there is no room.
    """
    dataset, folder = Dataset(path), Path(out)
    chosen = choose(dataset, episodes)
    if not chosen:
        raise DatasetError(f"{path}: there are no episodes to look at")
    _require_ours(folder)
    about = describe_dataset(dataset, chosen)
    whole = [episode for episode, row in zip(chosen, about["episodes"], strict=True) if "damaged" not in row]
    width, rate_hz = _reduction(dataset, whole, megabytes)
    note = f"frames at most {width} px wide and {rate_hz:g} a second"
    with disk_full_as(lambda: f"cannot write the page to {folder}"):
        for name in ("episodes", "frames", "thumbs"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        (folder / MARK).write_text(script("dataset", None))  # a page of ours from now on, also if this is killed
        for done, (episode, row) in enumerate(zip(chosen, about["episodes"], strict=True), 1):
            try:
                row["thumb"] = _write_thumb(dataset, episode, folder)
                _write_episode(dataset, episode, folder, width, rate_hz)
            except DatasetError as error:
                row["damaged"] = str(error)
            if progress is not None:
                progress(done, len(chosen))
        if damaged := [row["number"] for row in about["episodes"] if "damaged" in row]:
            note += f"; DAMAGED, as `robopolicy data check` says: {numbers_in_words(damaged)}"
        about |= {"mode": "static", "note": note}
        (folder / MARK).write_text(script("dataset", about))
        (folder / "index.html").write_text(html(Path(dataset.where).name))
    size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    return Page(folder / "index.html", len(chosen), size / 1e6, note)


def choose(dataset: Dataset, numbers: Sequence[int] | None) -> list[Episode]:
    """Return the episodes of the given numbers, all for None; DatasetError naming those that are not there."""
    if numbers is None:
        return list(dataset)
    require_episodes(numbers, (episode.number for episode in dataset), dataset.where)
    return [episode for episode in dataset if episode.number in set(numbers)]


def html(name: str) -> str:
    """Return the page without its data: markup, style and scripts in one file."""
    style = (ASSETS / "view.css").read_text()
    scripts = "\n".join(f"<script>\n{(ASSETS / name).read_text()}</script>" for name in SCRIPTS)
    page = (ASSETS / "view.html").read_text()
    page = page.replace("{{title}}", escape(name)).replace("{{style}}", style).replace("{{scripts}}", scripts)
    return page.replace("{{data}}", MARK)


def script(call: str, data: Any) -> str:
    """Return JavaScript that hands ``data`` to the page: a page from the disk may run scripts, but read no files."""
    text = json.dumps(data, allow_nan=False, separators=(",", ":"), default=_plain, ensure_ascii=False)
    return f"robopolicy.{call}({text.replace('</', '<' + chr(92) + '/')});\n"


def thumb_camera(dataset: Dataset) -> str | None:
    """Return the camera of the thumbnails: the first with colours, else the first, None if there is none."""
    cameras = dataset.spec.cameras
    return next((name for name, camera in cameras.items() if camera.kind == "colour"), next(iter(cameras), None))


def _write_thumb(dataset: Dataset, episode: Episode, folder: Path) -> dict[str, Any] | None:
    camera = thumb_camera(dataset)
    if camera is None:
        return None
    data, count, cell = thumbnail(episode, camera, dataset.spec.cameras[camera])
    name = f"thumbs/{episode.number:06d}.jpg"
    (folder / name).write_bytes(data)
    return {"src": name, "count": count, "width": cell.width, "height": cell.height, "stride": cell.padded[1]}


def _write_episode(dataset: Dataset, episode: Episode, folder: Path, width: int, rate_hz: float) -> None:
    body = describe_episode(episode, dataset.spec)
    body["films"] = [_write_film(dataset, episode, k, folder, width, rate_hz) for k in dataset.spec.cameras]
    (folder / "episodes" / f"{episode.number:06d}.js").write_text(script("episode", body))


def _write_film(
    dataset: Dataset, episode: Episode, camera: str, folder: Path, width: int, rate_hz: float
) -> dict[str, Any]:
    spec = dataset.spec.cameras[camera]
    cell, times = reduced(spec, width), frame_seconds(episode, camera)
    kept = thin(times, rate_hz)
    names = []
    for i, data in enumerate(sheets(episode, camera, spec, kept, cell)):
        name = f"frames/{episode.number:06d}-{camera}-{i}.jpg"
        (folder / name).write_bytes(data)
        names.append(name)
    columns, count = layout(cell)
    words = depth_in_words(depth_range(episode, camera)) if spec.kind == "depth" else ""
    return {
        "camera": camera, "kind": spec.kind, "range": words,
        "width": cell.width, "height": cell.height, "sheets": names,
        "columns": columns, "per_sheet": count, "stride": cell.padded[::-1],
        "times": [round(float(t), 4) for t in times[kept]],
    }  # fmt: skip


def thin(times: np.ndarray, rate_hz: float) -> np.ndarray:
    """Return which of the frames taken at ``times`` (N,) s to keep so that there are at most ``rate_hz`` a second."""
    slot = np.floor((times - times[0]) * rate_hz + 1e-6)
    return np.flatnonzero(np.diff(slot, prepend=-1) > 0)


def _reduction(dataset: Dataset, episodes: Sequence[Episode], megabytes: float) -> tuple[int, float]:
    """Return the width and the rate with which the page stays at about so many megabytes."""
    cameras = dataset.spec.cameras
    for width in (WIDTH, 240, 160):
        pixels = {name: math.prod(reduced(c, width).padded) for name, c in cameras.items()}
        for rate_hz in RATES_HZ if width == WIDTH else RATES_HZ[-3:]:
            size = sum(
                min(episode.frame_count(name), rate_hz * _lasts(episode)) * pixels[name] * BYTES_A_PIXEL
                for episode in episodes
                for name in cameras
            )
            if size <= megabytes * 1e6 and (rate_hz >= 2 or width == 160):
                return width, rate_hz
    return THUMB_WIDTH, RATES_HZ[-1]


def _lasts(episode: Episode) -> float:
    return episode.length / (episode.meta.rate_hz or 10.0)


def _require_ours(folder: Path) -> None:
    """Refuse to write among other things; DatasetError."""
    if folder.exists() and not folder.is_dir():
        raise DatasetError(f"{folder} is a file; a page is a folder")
    if folder.is_dir() and any(folder.iterdir()) and not (folder / MARK).is_file():
        raise DatasetError(f"{folder} is neither empty nor such a page; name another folder")
    for name in ("episodes", "frames", "thumbs"):
        for file in (folder / name).glob("*"):
            file.unlink()


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    raise TypeError(f"{type(value).__name__} {value!r}")
