"""The page an operator sees: the scene in 3-D, the cameras, the handle, the buttons and the state of things."""

import socket
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from robopolicy.interfaces import Scene
from robopolicy.rotations import quat_to_matrix
from robopolicy.spec import PolicySpec
from robopolicy.types import Observation, Shape, Status
from robopolicy_hardware.teleop.browser_door import Door, guarded_viser, quietly
from robopolicy_hardware.teleop.browser_hand import Hand
from robopolicy_hardware.teleop.browser_panel import Panel, for_people

EYE, TARGET = (1.30, -0.85, 0.80), (0.36, 0.0, 0.18)  # m, of the first view: from the front right, down at the table
UPRIGHT_EYE, UPRIGHT_TARGET = (1.85, -1.25, 0.85), (0.38, 0.0, -0.16)  # on a telephone, whose lower half is buttons
FIELD_OF_VIEW = np.deg2rad(45)  # from the top of the picture to its bottom
HANDLE = "/handle"
HANDLE_PX = 110  # of each arrow, on a screen of any size: wide enough for a finger
SWITCH_S = 0.001  # the loop, when it wakes, waits at most this long for the page's threads to let go of the interpreter
PATIENCE = 5  # failures in a row of bringing the page up to date until the robot holds
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
        scene: what to draw, or None.
        max_hz: pages are brought up to date this often at most.
        camera_hz: each camera's pictures are sent this often at most.

    Attributes:
        trouble: why the page is no longer kept up to date, or nothing: a person must not drive by an old picture.
    """

    def __init__(
        self,
        listening: socket.socket,
        door: Door,
        hand: Hand,
        spec: PolicySpec,
        scene: Scene | None,
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
        self.trouble = ""
        self._camera_due_s = 0.0
        self._place: np.ndarray | None = None  # (3,) m, where the handle belongs
        self._handles: dict[int, Any] = {}  # of each browser that drives: one, or none
        self._listeners: dict[int, threading.Thread] = {}
        self._server = guarded_viser(door, listening)
        self._parts: dict[str, Any] = {}
        self._poses: dict[str, np.ndarray] = {}
        self._thread = threading.Thread(target=self._run, name="browser page", daemon=True)
        try:
            self._draw_surroundings()
            if scene is not None:
                self._draw(scene.shapes(), scene.poses())
            self._panel = Panel(self._server, hand, spec)
        except BaseException:
            with quietly():
                self._server.stop()
            raise
        self._server.on_client_connect(self._on_connect)
        self._server.on_client_disconnect(self._on_disconnect)
        self._switch_s = sys.getswitchinterval()
        sys.setswitchinterval(min(SWITCH_S, self._switch_s))
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
        sys.setswitchinterval(self._switch_s)

    def _draw_surroundings(self) -> None:
        server = self._server
        server.gui.configure_theme(control_width="medium", show_logo=False, show_share_button=False)
        # Shadows and the light of surroundings cost a page without a GPU 3/4 of its frames; the plumb line shows depth.
        server.scene.configure_default_lights(False)
        server.scene.configure_environment_map(None)
        server.scene.add_light_hemisphere("/light/sky", ground_color=(150, 145, 140), intensity=1.6)
        server.scene.add_light_directional("/light/lamp", intensity=1.7, position=(0.8, -1.0, 2.0))
        sky = np.linspace((206, 214, 222), (242, 245, 247), 64).astype(np.uint8)  # from above to below
        server.scene.set_background_image(np.repeat(sky[:, None], 2, axis=1), format="png")
        server.scene.world_axes.visible = False
        camera = server.initial_camera
        camera.position, camera.look_at, camera.fov = EYE, TARGET, float(FIELD_OF_VIEW)
        camera.near = 0.02
        self._plumb = server.scene.add_line_segments(
            "/plumb", np.array([[[0, 0, 0], [0, 0, -2.0]]]), (230, 73, 128), thickness=0.003
        )  # from the tool down to what it is above; the table hides the rest
        self._grid = server.scene.add_grid(
            "/grid", width=4, height=4, cell_size=0.1, section_size=0.5, position=(0.4, 0, 0),
            cell_color=(205, 210, 216), section_color=(170, 178, 188), fade_distance=6.0,
        )  # fmt: skip

    def _draw(self, shapes: Sequence[Shape], poses: Mapping[str, np.ndarray]) -> None:
        lowest = 0.0
        for shape in shapes:
            pose = self._poses[shape.name] = poses[shape.name]
            self._parts[shape.name] = self._server.scene.add_mesh_simple(
                f"/scene/{shape.name}", shape.vertices, shape.faces, position=pose[:3], wxyz=pose[3:],
                color=shape.colour[:3], opacity=None if shape.colour[3] >= 1 else shape.colour[3],
            )  # fmt: skip
            up = quat_to_matrix(pose[3:])[2]
            lowest = min(lowest, float(pose[2] + (shape.vertices @ up).min()))
        self._grid.position = (0.4, 0, lowest + 0.002)  # on the floor

    async def _on_connect(self, client: Any) -> None:
        self._hand.joined(client.client_id, f"browser {client.client_id + 1}")
        if client.camera.aspect < 1:  # a telephone held upright
            client.camera.position, client.camera.look_at = UPRIGHT_EYE, UPRIGHT_TARGET
        with self._wake:
            self._wake.notify()

    async def _on_disconnect(self, client: Any) -> None:
        self._hand.left(client.client_id)

    def _run(self) -> None:
        failed = 0
        while True:
            started_s = time.monotonic()
            with self._wake:
                self._wake.wait(timeout=BEAT_S)
                if self._closing:
                    return
                frame, self._frame = self._frame, None
            try:
                self._bring_up_to_date(frame)
                failed, self.trouble = 0, ""
            except Exception as error:  # a browser that goes while it is written to fails once; more is a defect
                failed += 1
                if failed >= PATIENCE:
                    self.trouble = f"the page cannot be kept up to date: {type(error).__name__}: {error}"
            time.sleep(max(0.0, self._period_s - (time.monotonic() - started_s)))

    def _bring_up_to_date(self, frame: Frame | None) -> None:
        clients = self._server.get_clients()
        for number in clients.keys() - self._listeners.keys():
            self._listen_to(number, clients[number])
        for number in self._listeners.keys() - clients.keys():
            del self._listeners[number]
        if frame is not None:
            self._place = frame.handle
        if self._place is None or not clients:
            return
        self._give_handle(clients, self._place)
        self._panel.update(self._status, self._hand.look(), None if frame is None else frame.gripper)
        if frame is not None:
            self._send(frame)

    def _send(self, frame: Frame) -> None:
        with self._server.atomic():
            for name, pose in frame.poses.items():
                part, before = self._parts.get(name), self._poses.get(name)
                if part is None or (before is not None and _still(before, pose)):
                    continue
                self._poses[name] = pose
                part.position, part.wxyz = pose[:3], pose[3:]
        if (tool := frame.observation.state.get("tool_pos")) is not None:
            _move(self._plumb, tool)
        state = self._hand.look()
        for handle in self._handles.values():
            if handle.disable_rotations == state.turning:
                handle.disable_rotations = not state.turning
                handle.disable_axes = handle.disable_sliders = state.turning
            if state.grasp is None:
                _move(handle, frame.handle)
                if handle.wxyz[0] < 1 - 1e-6:
                    handle.wxyz = (1.0, 0.0, 0.0, 0.0)
        now_s = time.monotonic()
        if now_s >= self._camera_due_s:
            self._panel.pictures({name: for_people(image) for name, image in frame.observation.images.items()})
            self._camera_due_s = now_s + self._camera_period_s

    def _give_handle(self, clients: Mapping[int, Any], place: np.ndarray) -> None:
        """The driver's browser has the handle, the others do not."""
        driver = self._hand.look().driver
        for number in [number for number in self._handles if number != driver or number not in clients]:
            handle = self._handles.pop(number)
            if number in clients:
                handle.remove()
        if driver is None or driver in self._handles or driver not in clients:
            return
        handle = clients[driver].scene.add_transform_controls(
            HANDLE, scale=HANDLE_PX, fixed=True, line_width=5.0, depth_test=False, opacity=0.9,
            active_axes=(True, True, self._spec.action.kind != "vector"), disable_rotations=True, position=place,
        )  # fmt: skip
        hand = self._hand

        async def moved(event: Any) -> None:
            if event.phase == "start":
                hand.grasped(event.client_id, event.target.position)
            elif event.phase == "update":
                hand.moved(event.client_id, event.target.position, event.target.wxyz)
            else:
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


def _move(node: Any, place: np.ndarray) -> None:
    if np.abs(np.subtract(node.position, place)).max() > STILL_M:
        node.position = place


def _still(before: np.ndarray, pose: np.ndarray) -> bool:
    step = np.abs(pose - before)
    return bool(step[:3].max() < STILL_M and step[3:].max() < STILL)
