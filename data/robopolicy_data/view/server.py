"""The page from a local server: the bytes of a frame go straight from the shard to the browser, full size."""

import re
from collections.abc import Callable, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from robopolicy.errors import DatasetError, RobopolicyError
from robopolicy_data.episode import Episode
from robopolicy_data.reader import Dataset
from robopolicy_data.view.describe import describe_dataset, describe_episode, frame_seconds
from robopolicy_data.view.page import MARK, choose, html, script, thumb_camera
from robopolicy_data.view.pictures import (
    THUMB_FRAMES,
    THUMB_WIDTH,
    colour,
    depth_in_words,
    depth_range,
    jpeg,
    reduced,
    thumbnail,
)

_LOOPBACK = ("127.0.0.1", "localhost", "[::1]")
_FOREVER = "private, max-age=86400, immutable"  # a frame of an episode never changes
Answer = tuple[str, bytes, str]  # content type, body, how long it may be kept


class Viewer:
    """Answers what the page asks; the dataset is opened anew whenever the page is, so that it grows while recording.

    Args:
        path: the dataset: a folder, a zip or a URL.
        episodes: their numbers; None is all.

    Raises:
        DatasetError: if there is no such dataset or episode.
    """

    def __init__(self, path: Path | str, episodes: Sequence[int] | None = None) -> None:
        self._path, self._chosen = path, episodes
        self._open()

    def answer(self, path: str) -> Answer | None:
        """Return content type, body and how long it may be kept of a path such as ``/frame/3/front/17.jpg``.

        Raises:
            DatasetError: if what is asked for is damaged.
        """
        if path in ("/", "/index.html"):
            self._open()
            return "text/html; charset=utf-8", html(Path(self._dataset.where).name).encode(), "no-store"
        if path == f"/{MARK}":
            return "text/javascript; charset=utf-8", script("dataset", self._about()).encode(), "no-store"
        if match := re.fullmatch(r"/episodes/(\d+)\.js", path):
            return self._found(int(match[1]), self._episode)
        if match := re.fullmatch(r"/thumb/(\d+)\.jpg", path):
            return self._found(int(match[1]), self._thumb)
        if match := re.fullmatch(r"/frame/(\d+)/([^/]+)/(\d+)\.jpg", path):
            camera, frame = match[2], int(match[3])
            return self._found(int(match[1]), lambda episode: self._frame(episode, camera, frame))
        return None

    def _open(self) -> None:
        self._dataset = Dataset(self._path)
        self._episodes = {episode.number: episode for episode in choose(self._dataset, self._chosen)}
        self._depths: dict[tuple[int, str], tuple[int, int]] = {}

    def _found(self, number: int, then: Callable[[Episode], Answer | None]) -> Answer | None:
        episode = self._episodes.get(number)
        return None if episode is None else then(episode)

    def _about(self) -> dict[str, Any]:
        about = describe_dataset(self._dataset, list(self._episodes.values()))
        camera = thumb_camera(self._dataset)
        for row in about["episodes"]:
            if camera is None or "damaged" in row:
                continue
            cell = reduced(self._dataset.spec.cameras[camera], THUMB_WIDTH)
            count = min(self._episodes[row["number"]].frame_count(camera), THUMB_FRAMES)
            size = {"width": cell.width, "height": cell.height, "stride": cell.padded[1], "count": count}
            identity = _identity(self._episodes[row["number"]])
            row["thumb"] = {"src": f"thumb/{row['number']}.jpg?{identity}", **size}
        return about | {"mode": "server", "note": "frames as they were recorded, straight from the dataset"}

    def _episode(self, episode: Episode) -> Answer:
        body = describe_episode(episode, self._dataset.spec)
        body["films"] = [self._film(episode, name) for name in self._dataset.spec.cameras]
        return "text/javascript; charset=utf-8", script("episode", body).encode(), "no-store"

    def _film(self, episode: Episode, camera: str) -> dict[str, Any]:
        spec = self._dataset.spec.cameras[camera]
        film = {
            "camera": camera, "kind": spec.kind, "width": spec.width, "height": spec.height,
            "src": f"frame/{episode.number}/{camera}/{{frame}}.jpg?{_identity(episode)}",
            "times": [round(float(t), 4) for t in frame_seconds(episode, camera)],
        }  # fmt: skip
        if spec.kind == "depth":
            film["range"] = depth_in_words(self._depth(episode, camera))
        return film

    def _thumb(self, episode: Episode) -> Answer | None:
        camera = thumb_camera(self._dataset)
        if camera is None:
            return None
        data, _, _ = thumbnail(episode, camera, self._dataset.spec.cameras[camera])
        return "image/jpeg", data, _FOREVER

    def _frame(self, episode: Episode, camera: str, frame: int) -> Answer | None:
        spec = self._dataset.spec.cameras.get(camera)
        if spec is None or frame >= episode.frame_count(camera):
            return None
        data = next(iter(episode.frame_bytes(camera, [frame])))
        if not data.startswith(b"\xff\xd8"):  # no JPEG: depth, or lossless
            depths = self._depth(episode, camera) if spec.kind == "depth" else None
            data = jpeg(colour(episode.frames(camera, [frame])[0], depths))
        return "image/jpeg", data, _FOREVER

    def _depth(self, episode: Episode, camera: str) -> tuple[int, int]:
        key = episode.number, camera
        if key not in self._depths:
            self._depths[key] = depth_range(episode, camera)
        return self._depths[key]


def _identity(episode: Episode) -> str:
    """Return what tells an episode from one of another dataset that this port has served, or will."""
    return str(episode.attributes.get("uuid", ""))[:12]


class ViewServer(ThreadingHTTPServer):
    """Serves a dataset on loopback, read-only, until closed.

    Args:
        path: the dataset.
        port: 0 lets the system choose.
        episodes: their numbers; None is all.

    Attributes:
        url: where the page is.

    Raises:
        DatasetError: if there is no such dataset or episode, or the port is taken.
    """

    daemon_threads = True

    def __init__(self, path: Path | str, *, port: int = 0, episodes: Sequence[int] | None = None) -> None:
        self.viewer = Viewer(path, episodes)
        try:
            super().__init__(("127.0.0.1", port), _Handler)
        except OSError as error:
            raise DatasetError(f"port {port} of this machine cannot be used: {error.strerror}; try --port 0") from error
        self.url = f"http://127.0.0.1:{self.server_address[1]}/"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of a browser that went away."""


class _Handler(BaseHTTPRequestHandler):
    server: ViewServer
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        host = (self.headers.get("Host") or "").rpartition(":")[0] or (self.headers.get("Host") or "")
        if host not in _LOOPBACK:  # a page from elsewhere whose name was pointed here
            self._send(403, "text/plain", b"this server answers to 127.0.0.1 and localhost", "no-store")
            return
        try:
            found = self.server.viewer.answer(unquote(urlsplit(self.path).path))
        except RobopolicyError as error:
            self._send(500, "text/plain; charset=utf-8", str(error).encode(), "no-store")
            return
        if found is None:
            self._send(404, "text/plain", b"not here", "no-store")
        else:
            self._send(200, *found)

    def _send(self, status: int, kind: str, body: bytes, keep: str) -> None:
        self.send_response(status)
        headers = {"Content-Type": kind, "Content-Length": str(len(body)), "Cache-Control": keep}
        for name, value in {**headers, "X-Content-Type-Options": "nosniff"}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing of each request."""
