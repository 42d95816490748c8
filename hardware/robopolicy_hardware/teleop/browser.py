"""Teleoperation from a browser: a 3-D page with a handle for the tool, on a laptop or a telephone."""

import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from robopolicy.interfaces import Scene
from robopolicy.rotations import matrix_to_quat, quat_to_matrix
from robopolicy.spec import PolicySpec
from robopolicy.types import Command, EpisodeMeta, Event, Observation, Status, Step
from robopolicy_hardware.teleop.browser_door import Door, address, is_loopback, listen
from robopolicy_hardware.teleop.browser_hand import Grasp, Hand
from robopolicy_hardware.teleop.browser_page import Frame, Page
from robopolicy_hardware.teleop.target import ToolTarget


@dataclass(frozen=True)
class Anchor:
    """Where handle and target belong together during one grasp, all in the base frame."""

    grasp: int
    handle: np.ndarray  # (3,) m
    turn: np.ndarray  # (3, 3), of the handle since it was taken
    position: np.ndarray  # (3,) m, of the target
    rotation: np.ndarray  # (3, 3), R_base_target


class BrowserTeleop:
    """Drives with a handle on a web page; satisfies `Teleop`, and `Watcher` to show also what a policy does.

    The target moves only while the handle is held, by as much as the handle moves, and stays when it is let go. The
    robot holds when no browser is connected, when the driver's page has not answered for ``silence_s``, and until the
    driver touches something. ``read``, ``events`` and ``show`` leave the work to the page's own threads.

    Args:
        spec: of the robot.
        scene: what to draw in 3-D; None draws the handle alone.
        host: address to listen on; the default is reached from this machine only (or through ``ssh -L``).
        port: to listen on; 0 is any free one.
        token: what a browser must show; None makes one.
        silence_s: a page that has not answered for so long is not there, and the robot holds.
        max_hz: how often the page is brought up to date at most.
        camera_hz: how often each camera's picture is sent at most.

    Raises:
        UsageError: if the robot takes no motion of a hand, the port is taken or the token too short.
        MissingExtra: without viser.
    """

    def __init__(
        self,
        spec: PolicySpec,
        *,
        scene: Scene | None = None,
        host: str = "127.0.0.1",
        port: int = 8765,
        token: str | None = None,
        silence_s: float = 1.0,
        max_hz: float = 30.0,
        camera_hz: float = 15.0,
    ) -> None:
        self._target = ToolTarget(spec)
        self._plane = spec.action.kind == "vector"
        self._scene = scene
        self._frame_period_s, self._frame_due_s = 1 / max_hz, 0.0
        self._held = True
        self._anchor: Anchor | None = None
        self._read_ns = -1  # stamp of the newest observation read
        self._gripped = (-1, 1.0)  # stamp of the observation at which an opening was asked for, and the opening
        self._met = (0, 0)  # newest grasp followed, and the stamp of the observation it was first seen at
        token = token or secrets.token_urlsafe(16)
        door = Door(token)
        self._hand = Hand(silence_s)
        listening = listen(host, port)
        self._port = listening.getsockname()[1]
        self._exposed = not is_loopback(host)
        self.url = address(host, self._port, token)
        try:
            self._page = Page(listening, door, self._hand, spec, scene, max_hz=max_hz, camera_hz=camera_hz)
        except BaseException:
            listening.close()
            raise

    @property
    def help(self) -> str:
        """What to tell the person who started it."""
        if self._exposed:
            return f"open {self.url} in a browser; WARNING: unencrypted on the network: who overhears it can drive"
        return f"open {self.url} in a browser (from another machine: ssh -L {self._port}:localhost:{self._port} ...)"

    @property
    def latency_s(self) -> float:
        """Newest round trip to the driver's page and back; 0 when nobody drives."""
        return self._hand.look().latency_s

    def engage(self, observation: Observation, set_point: np.ndarray | None) -> None:
        """Put the target where the robot is; a handle in somebody's hand moves it from there."""
        self._target.engage(observation, set_point)
        self._anchor, self._held = None, False
        if self._gripped[0] == observation.stamp_ns:  # asked for in this very tick: the reason to engage
            self._target.move(np.zeros(3), None, self._gripped[1])

    def read(self, observation: Observation) -> Command:
        """Return the target as a command, or a hold when the driver is not there."""
        state, grip = self._hand.look(), self._hand.take_grip()
        self._read_ns = observation.stamp_ns
        if reason := state.reason or self._page.trouble:
            self._held = True
            self._pass_over(state.grasp, observation.stamp_ns)
            self._offer(observation, following=False)
            return Command(None, "hold", reason=reason)
        self._target.see(observation)
        if self._held:
            self._resume(observation)
        if state.grasp is None:
            self._anchor = None
        else:
            self._follow(state.grasp, observation.stamp_ns)
        if grip is not None:
            self._gripped = (observation.stamp_ns, grip)
            self._target.move(np.zeros(3), None, grip)
        self._offer(observation, following=True)
        return Command(self._target.command(), "human")

    def events(self) -> Sequence[Event]:
        """Return what was pressed since the last call."""
        return self._hand.take_events()

    def show(self, status: Status) -> None:
        """Show the state of things on every page."""
        self._page.show(status)

    def close(self) -> None:
        """Stop serving; idempotent."""
        self._page.close()

    def on_start(self, meta: EpisodeMeta, spec: PolicySpec) -> None:
        """As a watcher: nothing to show yet."""

    def on_step(self, step: Step) -> None:
        """As a watcher: show also what a policy does, or a robot that is paused.

        What the hand did meanwhile is not made up for when it gets the robot.
        """
        if step.observation.stamp_ns == self._read_ns:
            return
        self._hand.take_grip()
        self._pass_over(self._hand.look().grasp, step.observation.stamp_ns)
        self._offer(step.observation, following=False)

    def on_end(self, meta: EpisodeMeta) -> None:
        """As a watcher: nothing to show any more."""

    def _pass_over(self, grasp: Grasp | None, stamp_ns: int) -> None:
        """The handle may be in somebody's hand, but it does not move the robot at this tick."""
        self._anchor = None
        if grasp is not None:
            self._met = (grasp.number, stamp_ns)
            if grasp.over:  # or the handle would stay on the page where it was let go
                self._hand.followed(grasp.number)

    def _resume(self, observation: Observation) -> None:
        """After a hold go on from where the robot stopped, with the grip it has: a measured one would let things go."""
        gripper = self._target.gripper
        self._target.engage(observation, None)
        self._target.move(np.zeros(3), None, gripper)
        self._held, self._anchor = False, None

    def _follow(self, grasp: Grasp, stamp_ns: int) -> None:
        """Move the target by what the handle moved since it was taken, or since the last engagement."""
        anchor = self._anchored(grasp, stamp_ns)
        step = grasp.position - anchor.handle
        if self._plane:  # its units are not the handle's: by steps
            self._target.move(step)
            self._anchor = replace(anchor, handle=grasp.position)
        else:
            self._target.place(anchor.position + step, self._turned(grasp, anchor))
        if grasp.over:
            self._hand.followed(grasp.number)

    def _turned(self, grasp: Grasp, anchor: Anchor) -> np.ndarray | None:
        """Return the target's rotation as a quaternion, or None if this grasp has never turned it."""
        if not grasp.turned:
            return None
        return matrix_to_quat(quat_to_matrix(grasp.quat) @ anchor.turn.T @ anchor.rotation)

    def _anchored(self, grasp: Grasp, stamp_ns: int) -> Anchor:
        """Return where handle and target belong together.

        That is where the handle was taken; but where it is now if the loop had followed this grasp before and was
        interrupted (by a silence, a pause, a policy): what was moved meanwhile is not made up for.
        """
        if self._anchor is not None and self._anchor.grasp == grasp.number:
            return self._anchor
        if self._met[0] != grasp.number:
            self._met = (grasp.number, stamp_ns)
        fresh = self._met[1] == stamp_ns
        handle, turn = (grasp.origin, np.eye(3)) if fresh else (grasp.position, quat_to_matrix(grasp.quat))
        self._anchor = Anchor(grasp.number, handle, turn, self._target.position, quat_to_matrix(self._target.quat))
        return self._anchor

    def _offer(self, observation: Observation, *, following: bool) -> None:
        """Leave the newest state for the page, at most ``max_hz`` times a second and only if somebody looks."""
        now_s = time.monotonic()
        if now_s < self._frame_due_s or not self._page.watched:
            return
        self._frame_due_s = now_s + self._frame_period_s
        poses = {} if self._scene is None else self._scene.poses()
        tool = observation.state.get("tool_pos")
        handle = self._target.position if following or tool is None else np.asarray(tool, np.float64)
        self._page.offer(Frame(observation, poses, np.zeros(3) if self._plane else handle, self._target.gripper))
