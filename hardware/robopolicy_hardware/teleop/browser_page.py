"""The page an operator sees: the scene in 3-D, the cameras, the handle, the buttons and the state of things."""

import socket
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from robopolicy.spec import PolicySpec
from robopolicy.types import Observation, Shape, Status
from robopolicy_hardware.teleop.browser_door import Door, guarded_viser, quietly
from robopolicy_hardware.teleop.browser_hand import Hand
from robopolicy_hardware.teleop.browser_panel import Panel, for_people

EYE, TARGET = (1.25, -0.80, 0.72), (0.40, 0.0, 0.12)  # m, of the first view: from the front right, down at the table
FIELD_OF_VIEW = np.deg2rad(42)  # from the top of the picture to its bottom
HANDLE = "/handle"
HANDLE_PX = 110  # of each arrow, on a screen of any size: wide enough for a finger
BEAT_S = 0.1  # between two questions to a page whether it is there
STILL_M, STILL = 2e-4, 1e-3  # what moved less is not sent again


@dataclass(frozen=True)
class Frame:
    """What the loop gives the page at one tick."""

    observation: Observation
    poses: Mapping[str, np.ndarray]  # of Scene
    handle: np.ndarray  # (3,) m, where the handle belongs while nobody holds it
    gripper: float  # 0 closed .. 1 open, as it is commanded


class Page:
    """A viser server behind a token, and the thread that keeps it up to date.

    The loop only leaves frames and the status here; encoding and sending happen in the page's own thread, for those
    browsers that are connected, at a bounded rate: one that is slow misses frames, never the newest.

    Args:
        listening: where to serve.
        door: who may come in.
        hand: where to put what the browsers want.
        spec: of the robot: its cameras, and what of a hand's motion it follows.
        shapes: of the scene.
        max_hz: pages are brought up to date this often at most.
        camera_hz: each camera's pictures are sent this often at most.
    """

    def __init__(
        self,
        listening: socket.socket,
        door: Door,
        hand: Hand,
        spec: PolicySpec,
        shapes: Sequence[Shape],
        *,
        max_hz: float,
        camera_hz: float,
    ) -> None:
        self._hand, self._spec = hand, spec
        self._period_s, self._camera_period_s = 1 / max_hz, 1 / camera_hz
        self._wake = threading.Condition()
        self._frame: Frame | None = None
        self._status: Status | None = None
        self._closing = False
        self._camera_due_s = 0.0
        self._handles: dict[int, Any] = {}  # of each browser that drives: one, or none
        self._listeners: dict[int, threading.Thread] = {}
        self._server = guarded_viser(door, listening)
        self._draw_scene(shapes)
        self._panel = Panel(self._server, hand, spec)
        self._server.on_client_connect(self._on_connect)
        self._server.on_client_disconnect(self._on_disconnect)
        self._thread = threading.Thread(target=self._run, name="browser page", daemon=True)
        self._thread.start()

    @property
    def watched(self) -> bool:
        """Whether any browser is connected."""
        return bool(self._hand.look().clients)

    def offer(self, frame: Frame) -> None:
        """Take the newest frame; one that nobody looked at yet is dropped."""
        with self._wake:
            self._frame = frame
            self._wake.notify()

    def show(self, status: Status) -> None:
        """Take the newest status."""
        self._status = status

    def close(self) -> None:
        """Stop serving; idempotent."""
        with self._wake:
            if self._closing:
                return
            self._closing = True
            self._wake.notify()
        self._thread.join()
        with quietly():
            self._server.stop()

    def _draw_scene(self, shapes: Sequence[Shape]) -> None:
        server = self._server
        server.gui.configure_theme(control_width="medium", show_logo=False, show_share_button=False)
        server.scene.world_axes.visible = False
        server.scene.configure_default_lights(True, cast_shadow=True)
        server.scene.add_grid(
            "/grid", width=4, height=4, cell_size=0.1, section_size=0.5, position=(0.4, 0, -0.002),
            cell_color=(205, 210, 216), section_color=(170, 178, 188), fade_distance=6.0,
        )  # fmt: skip
        camera = server.initial_camera
        camera.position, camera.look_at, camera.fov = EYE, TARGET, float(FIELD_OF_VIEW)
        camera.near = 0.02
        self._parts = {
            shape.name: server.scene.add_mesh_simple(
                f"/scene/{shape.name}", shape.vertices, shape.faces,
                color=shape.colour[:3], opacity=None if shape.colour[3] >= 1 else shape.colour[3],
            )
            for shape in shapes
        }  # fmt: skip
        self._poses: dict[str, np.ndarray] = {}

    async def _on_connect(self, client: Any) -> None:
        self._hand.joined(client.client_id, f"browser {client.client_id + 1}")
        if client.camera.aspect < 1:  # a telephone upright: from further away, so that the table fits in
            away = np.subtract(EYE, TARGET) * min(1.6, 1 / client.camera.aspect**0.6)
            client.camera.position = np.add(TARGET, away)
        with self._wake:
            self._wake.notify()

    async def _on_disconnect(self, client: Any) -> None:
        self._hand.left(client.client_id)

    def _run(self) -> None:
        while True:
            started_s = time.monotonic()
            with self._wake:
                self._wake.wait(timeout=BEAT_S)
                if self._closing:
                    return
                frame, self._frame = self._frame, None
            clients = self._server.get_clients()
            for number in clients.keys() - self._listeners.keys():
                self._listen_to(number, clients[number])
            for number in self._listeners.keys() - clients.keys():
                del self._listeners[number]
            self._give_handle(clients)
            if clients:
                self._panel.update(self._status, self._hand.look(), None if frame is None else frame.gripper)
            if clients and frame is not None:
                self._send(frame)
            time.sleep(max(0.0, self._period_s - (time.monotonic() - started_s)))

    def _send(self, frame: Frame) -> None:
        with self._server.atomic():
            for name, pose in frame.poses.items():
                part, before = self._parts.get(name), self._poses.get(name)
                if part is None or (before is not None and _still(before, pose)):
                    continue
                self._poses[name] = pose
                part.position, part.wxyz = pose[:3], pose[3:]
        for handle in self._handles.values():
            if self._hand.look().grasp is None:
                place = frame.handle
                if np.abs(np.subtract(handle.position, place)).max() > STILL_M or handle.wxyz[0] < 1 - 1e-6:
                    handle.position, handle.wxyz = place, (1.0, 0.0, 0.0, 0.0)
        if time.monotonic() >= self._camera_due_s:
            self._camera_due_s = time.monotonic() + self._camera_period_s
            self._panel.pictures({name: for_people(image) for name, image in frame.observation.images.items()})

    def _give_handle(self, clients: Mapping[int, Any]) -> None:
        """The driver's browser has the handle, the others do not."""
        driver = self._hand.look().driver
        for number in [number for number in self._handles if number != driver or number not in clients]:
            handle = self._handles.pop(number)
            if number in clients:
                handle.remove()
        if driver is None or driver in self._handles or driver not in clients:
            return
        plane = self._spec.action.kind == "vector"
        turns = self._spec.action.kind == "tool_pose" or self._spec.action.dim in (6, 7)
        handle = clients[driver].scene.add_transform_controls(
            HANDLE, scale=HANDLE_PX, fixed=True, line_width=5.0, depth_test=False, opacity=0.9,
            active_axes=(True, True, not plane), disable_rotations=plane or not turns, position=TARGET,
        )  # fmt: skip
        hand = self._hand

        async def moved(event: Any) -> None:
            if event.phase == "update":
                hand.grasped(event.client_id, event.target.position, event.target.wxyz)
            elif event.phase == "end":
                hand.let_go(event.client_id)

        handle.on_update(moved)
        self._handles[driver] = handle

    def _listen_to(self, number: int, client: Any) -> None:
        """Ask a page over and over whether it is there, as long as it is connected: the page's own script answers."""

        def listen() -> None:
            while number in self._server.get_clients() and not self._closing:
                asked_s = time.monotonic()
                try:
                    client.local_storage.get_item("robopolicy", timeout=2.0)
                except TimeoutError:
                    continue
                except RuntimeError:  # it is gone, or its storage is blocked: then it answered all the same
                    if number not in self._server.get_clients():
                        return
                took_s = time.monotonic() - asked_s
                self._hand.beat(number, took_s)
                time.sleep(max(0.0, BEAT_S - took_s))

        self._listeners[number] = threading.Thread(target=listen, name=f"browser {number} beat", daemon=True)
        self._listeners[number].start()


def _still(before: np.ndarray, pose: np.ndarray) -> bool:
    step = np.abs(pose - before)
    return bool(step[:3].max() < STILL_M and step[3:].max() < STILL)
