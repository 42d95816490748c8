"""A browser without a screen: it speaks the page's websocket, answers as the page does, and presses buttons."""

import sys
import threading
import time
from typing import Any
from urllib.parse import urlsplit

import msgspec.msgpack
import viser
import zstandard
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

CAMERA = {
    "type": "ViewerCameraMessage", "wxyz": (1, 0, 0, 0), "position": (1, 0, 1), "fov": 1.0, "near": 0.1, "far": 100.0,
    "image_height": 600, "image_width": 800, "look_at": (0, 0, 0), "up_direction": (0, 0, 1),
}  # fmt: skip


class RawBrowser:
    """A connection to the page.

    Attributes:
        answering: whether it answers when it is asked if it is there.
        buttons: {words: uuid} of the buttons seen so far, under all the words they had.
        texts: {uuid: content} of the HTML seen so far.
        handle: the owner of the handle this browser was given, or None.
        counts: messages received so far, by type.
    """

    def __init__(self, url: str) -> None:
        where = urlsplit(url)
        self.answering = True
        self.buttons: dict[str, str] = {}
        self.texts: dict[str, str] = {}
        self.handle: str | None = None
        self.counts: dict[str, int] = {}
        self._socket = connect(
            f"ws://{where.netloc}/?{where.query}", subprotocols=[f"viser-v{viser.__version__}"], max_size=None
        )
        self.send(CAMERA)
        self._thread = threading.Thread(target=self._listen)
        self._thread.start()

    def send(self, message: dict[str, Any]) -> None:
        """Send one message."""
        self._socket.send(msgspec.msgpack.encode(message))

    def press(self, words: str) -> None:
        """Press the button with these words."""
        self.send({"type": "GuiUpdateMessage", "uuid": self.buttons[words], "updates": {"value": True}})

    def drag(self, phase: str, position: tuple[float, ...] = (0, 0, 0)) -> None:
        """Take the handle ("Start"), move it ("Update") or let it go ("End")."""
        kind = "Update" if phase == "Update" else f"Drag{phase}"
        message = {"type": f"TransformControls{kind}Message", "name": "/handle", "owner": self.handle}
        self.send(message | ({"wxyz": (1, 0, 0, 0), "position": position} if phase == "Update" else {}))

    def says(self, words: str) -> bool:
        """Whether the page shows these words."""
        return any(words in content for content in self.texts.values())

    def close(self) -> None:
        """Go away, as a browser does that is closed."""
        self._socket.close()
        self._thread.join()

    def _listen(self) -> None:
        unpack = zstandard.ZstdDecompressor()
        try:
            for data in self._socket:
                size, packed = (int.from_bytes(data[i : i + 8], "little") for i in (0, 8))
                inner = unpack.decompress(data[16 : 16 + packed], max_output_size=size)
                for message in msgspec.msgpack.decode(inner)["messages"]:
                    self._take(message)
        except ConnectionClosed:
            pass

    def _take(self, message: dict[str, Any]) -> None:
        kind = message["type"]
        self.counts[kind] = self.counts.get(kind, 0) + 1
        if kind == "LocalStorageGetItemRequestMessage" and self.answering:
            answer = {"value": None, "error": None, "request_uuid": message["request_uuid"]}
            self.send({"type": "LocalStorageGetItemResponseMessage", **answer})
        elif kind == "GuiButtonMessage":
            self.buttons[message["props"]["label"]] = message["uuid"]
        elif kind == "GuiHtmlMessage":
            self.texts[message["uuid"]] = message["props"]["content"]
        elif kind == "GuiUpdateMessage" and "content" in message["updates"]:
            self.texts[message["uuid"]] = message["updates"]["content"]
        elif kind == "GuiUpdateMessage" and "label" in message["updates"]:
            self.buttons[message["updates"]["label"]] = message["uuid"]
        elif kind == "TransformControlsMessage":
            self.handle = message.get("owner", "")


def drive(url: str, seconds: float) -> None:
    """Take the handle and move it to and fro, twenty times a second."""
    browser = RawBrowser(url)
    while browser.handle is None:
        time.sleep(0.05)
    browser.drag("Start")
    for k in range(int(20 * seconds)):
        browser.drag("Update", (0.42 + 0.001 * (k % 20), 0, 0.2))
        time.sleep(0.05)
    browser.close()


if __name__ == "__main__":
    drive(sys.argv[1], float(sys.argv[2]))
