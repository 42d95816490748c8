"""Shared control: a policy drives, a person takes over in mid-episode and gives back, with no bump either way."""

from collections import deque
from dataclasses import replace

import numpy as np

from robopolicy.interfaces import Agent, Teleop, Watcher
from robopolicy.rotations import (
    matrix_to_rot6d,
    matrix_to_rotvec,
    rot6d_to_matrix,
    rotvec_to_matrix,
)
from robopolicy.spec import PolicySpec
from robopolicy.types import Command, Decision, EpisodeMeta, Observation, Source, Step

BLEND_S = 0.5  # the least time in which the policy takes back what the person left
BLEND_SPEED_M_S = 0.1  # of a tool pose, beside the policy's own motion
HISTORY = 16  # observations kept for a policy that comes back


class Shared:
    """An agent in which a policy or a person drives, and the watcher that knows what was really sent.

    A person who takes over starts from the command now in force. A policy that gets the robot back plans anew, from
    what was seen meanwhile, and the step between the command in force and its own first one is faded out smoothly.
    Paused, it holds; a device that holds (nobody there) and comes back is engaged anew, from where the robot stopped.
    Giving back arms an agent that alarmed again (its ``rearm``); a pause alone never does. An agent that asks for the
    operator (its ``hands_over`` says why) is taken over from in the same step.

    Give it to the loop as the agent *and* as a watcher: without the second it knows only what it asked for, not what
    safety made of it.

    Args:
        agent: the policy's agent, or None: only the person drives.
        teleop: the person's hand.
        spec: of the robot.
        blend_s: the least time of the fade.

    Attributes:
        set_point: the command (A,) now in force, or None before the first; set it to what holds a robot at its start.
        reason: why it holds, if it does.
        waiting: True between episodes: the policy does not drive, the person may.
        handed_over: why the agent gave the robot to the person, "" if they took it or it drives.
    """

    def __init__(self, agent: Agent | None, teleop: Teleop, spec: PolicySpec, *, blend_s: float = BLEND_S) -> None:
        self.decision: Decision | None = None
        self.set_point: np.ndarray | None = None
        self.waiting = False
        self._agent, self._teleop, self._spec, self._blend_s = agent, teleop, spec, blend_s
        self.reset()

    def reset(self, seed: int = 0) -> None:
        """Start a new episode: the policy drives if there is one."""
        if self._agent is not None:
            self._agent.reset(seed)
        self.decision = None
        self._seed = seed
        self._human = self._agent is None
        self._paused = self._engaged = False
        self._stale = self._given_back = False  # the policy's plan; whether a person drove since it was made
        self._coming_back = False  # from its next command on, the step to it is faded out
        self._source: Source = "hold"
        self.reason = self.handed_over = ""
        self._history: deque[Observation] = deque(maxlen=HISTORY)
        self._offset: np.ndarray | None = None
        self._fade = (0, 0)  # steps done, steps in all

    @property
    def paused(self) -> bool:
        """Whether the robot is made to hold."""
        return self._paused

    @property
    def driver(self) -> Source:
        """Whose turn it is, ``"policy"`` or ``"human"``, whether or not they hold."""
        return "human" if self._human else "policy"

    @property
    def source(self) -> Source:
        """Who gave the newest command."""
        return self._source

    def takeover(self) -> None:
        """Give the robot to the person, from the next step on."""
        self._engaged = self._engaged and self._human
        self._human = True

    def release(self) -> None:
        """Give the robot back to the policy; nothing if there is none."""
        if self._agent is not None and self._human:
            self._human, self.handed_over = False, ""
            self._coming_back = self._stale = self._given_back = True

    def switch(self) -> None:
        """Take over, or release what was taken over."""
        (self.release if self._human else self.takeover)()

    def pause(self, on: bool) -> None:
        """Hold, or go on from where the robot stands."""
        if self._paused and not on:
            self._engaged = False
            self._coming_back = self._stale = self._agent is not None
        self._paused = on

    def act(self, observation: Observation) -> Command:
        """Return the command of who drives now, labelled with it."""
        self.decision = None
        if self._paused:
            command = Command(None, "hold", reason="paused")
        elif self._human or self.waiting:
            command = self._by_person(observation)
        else:
            command = self._by_policy(observation)
        self._history.append(observation)
        self._source, self.reason = command.source, command.reason
        if command.values is not None:
            self.set_point = command.values
        return command

    def on_start(self, meta: EpisodeMeta, spec: PolicySpec) -> None:
        """As a watcher: nothing to note yet."""

    def on_step(self, step: Step) -> None:
        """As a watcher: note what was really sent, and let the agent note it."""
        self.set_point = step.sent
        if isinstance(self._agent, Watcher):
            self._agent.on_step(step)

    def on_end(self, meta: EpisodeMeta) -> None:
        """As a watcher: nothing to note any more."""

    def _by_person(self, observation: Observation) -> Command:
        if not self._engaged:
            self._teleop.engage(observation, self.set_point)
        command = self._teleop.read(observation)
        if self._engaged and self._source == "hold" and command.source != "hold":
            self._teleop.engage(observation, self.set_point)  # meanwhile the robot stopped elsewhere
            command = self._teleop.read(observation)
        self._engaged = True
        return command

    def _by_policy(self, observation: Observation) -> Command:
        assert self._agent is not None
        if self._stale:
            self._plan_anew()
            self._stale = self._given_back = False  # once: planning anew every step would forget every alarm
        command = self._agent.act(observation)
        self.decision = self._agent.decision
        if why := getattr(self._agent, "hands_over", ""):
            self.takeover()
            self.handed_over = why
            return replace(self._by_person(observation), verdict=command.verdict)
        if command.values is None or command.source == "hold":
            return command
        if self._coming_back:
            self._coming_back = False
            self._begin_fade(command.values)
        return Command(self._faded(command.values), command.source, command.verdict, command.reason)

    def _plan_anew(self) -> None:
        """What was planned before the pause or the takeover is of no use now."""
        assert self._agent is not None
        replan, rearm = getattr(self._agent, "replan", None), getattr(self._agent, "rearm", None)
        if self._given_back and rearm is not None:
            rearm()
        if replan is not None:
            replan(list(self._history))
        elif self._given_back:  # not after a pause: a reset would forget an alarm
            self._agent.reset(self._seed)

    def _begin_fade(self, values: np.ndarray) -> None:
        self._offset = None
        if self.set_point is None or self._spec.action.kind in ("tool_delta", "tracks"):
            return  # relative commands have no step between them
        self._offset = self._difference(self.set_point, values)
        far_m = float(np.linalg.norm(self._offset[:3])) if self._spec.action.kind == "tool_pose" else 0.0
        blend_s = max(self._blend_s, 1.5 * far_m / BLEND_SPEED_M_S)  # a smooth step is 1.5 times its mean at its peak
        self._fade = (0, max(1, round(blend_s * self._spec.rate_hz)))

    def _faded(self, values: np.ndarray) -> np.ndarray:
        done, steps = self._fade
        if self._offset is None:
            return values
        self._fade = (done + 1, steps)
        u = (done + 1) / (steps + 1)
        left = 1.0 - u * u * (3.0 - 2.0 * u)
        if done + 1 >= steps:
            faded, self._offset = self._moved(values, self._offset * left), None
        else:
            faded = self._moved(values, self._offset * left)
        return faded

    def _difference(self, to: np.ndarray, start: np.ndarray) -> np.ndarray:
        """What leads from ``start`` to ``to``: of a tool pose (7,) m, rotation vector, gripper; otherwise (A,)."""
        if self._spec.action.kind != "tool_pose":
            difference: np.ndarray = np.asarray(to, np.float64) - start
            return difference
        turn = matrix_to_rotvec(rot6d_to_matrix(to[3:9]) @ rot6d_to_matrix(start[3:9]).T)
        return np.concatenate([np.subtract(to[:3], start[:3], dtype=np.float64), turn, to[9:] - start[9:]])

    def _moved(self, start: np.ndarray, by: np.ndarray) -> np.ndarray:
        if self._spec.action.kind != "tool_pose":
            moved: np.ndarray = (start + by).astype(np.float32)
            return moved
        rotation = rotvec_to_matrix(by[3:6]) @ rot6d_to_matrix(start[3:9])
        parts = [start[:3] + by[:3], matrix_to_rot6d(rotation), start[9:] + by[6:]]
        return np.concatenate(parts).astype(np.float32)
