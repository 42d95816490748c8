"""Replaying a recorded episode: its commands again, at their own times, and how closely the states follow."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from robopolicy.chunks import ChunkPlayer
from robopolicy.errors import ContractError
from robopolicy.rotations import matrix_to_rotvec, rot6d_to_matrix
from robopolicy.spec import PolicySpec
from robopolicy.types import ActionChunk, Command, Decision, EpisodeMeta, Observation, Step

ARRIVED = 1e-3  # in every element, between the first recorded command and what safety let through


@dataclass(frozen=True)
class Recording:
    """What was sent and seen.

    Raises:
        ContractError: if there are no steps, or a command is not finite.
    """

    commands: np.ndarray  # (T, A) float32, as sent
    due_ns: np.ndarray  # (T,) int64, when each was to take effect
    stamps_ns: np.ndarray  # (T,) int64, of the observations
    state: Mapping[str, np.ndarray]  # {name: (T, D) float32}

    def __post_init__(self) -> None:
        if len(self.commands) == 0:
            raise ContractError("the episode has no steps to replay")
        if not np.all(np.isfinite(self.commands)):
            raise ContractError(f"command {int(np.argmin(np.isfinite(self.commands).all(axis=1)))} is not finite")


class Replay:
    """An agent that sends a recording's commands, and the watcher that compares what is seen with what was.

    It first goes to the first command, at the speed that safety allows, and only then lets the recording's time run;
    after `reset` of the simulated world to the recorded seed that takes no step. Give it to the loop as both.

    Attributes:
        finished: whether the last command has been sent and had its period.
    """

    def __init__(self, recording: Recording, spec: PolicySpec) -> None:
        self.decision: Decision | None = None
        self._recording, self._spec = recording, spec
        self.reset()

    def reset(self, seed: int = 0) -> None:
        """Start from the first command."""
        self.finished = False
        self._started_ns: int | None = None
        self._player = ChunkPlayer(self._spec.period_ns)
        self._seen: list[tuple[int, Mapping[str, np.ndarray]]] = []  # time into the recording, states

    def act(self, observation: Observation) -> Command:
        """Return the recorded command that is due now."""
        if self._started_ns is None:
            return Command(self._recording.commands[0].copy(), "policy", reason="going to the start")
        self._note(observation)
        return Command(self._player.at(observation.stamp_ns + self._spec.period_ns // 2), "policy")

    def done(self, observation: Observation) -> bool:
        """Say whether the recording is over, as of ``observation``."""
        if self._started_ns is None:
            return False
        length_ns = int(self._recording.due_ns[-1] - self._recording.due_ns[0])
        into_ns = observation.stamp_ns - self._started_ns
        self.finished = into_ns >= length_ns + self._spec.period_ns // 2
        return self.finished

    def on_start(self, meta: EpisodeMeta, spec: PolicySpec) -> None:
        """As a watcher: nothing to note yet."""

    def on_step(self, step: Step) -> None:
        """As a watcher: the time of the recording starts once the first command is sent as it was."""
        if self._started_ns is None and np.max(np.abs(step.sent - self._recording.commands[0])) < ARRIVED:
            self._started_ns = step.observation.stamp_ns
            stamps_ns = self._recording.due_ns - self._recording.due_ns[0] + step.observation.stamp_ns
            self._player.put(ActionChunk(stamps_ns, self._recording.commands, step.observation.stamp_ns))
            self._note(step.observation)

    def on_end(self, meta: EpisodeMeta) -> None:
        """As a watcher: nothing to note any more."""

    def difference(self) -> dict[str, tuple[float, float]]:
        """Return {state: (root mean square, largest)} of what was seen against the recording at the same time.

        Of every stream that both have, in its own unit; quaternions are compared as angles in rad, with the name
        ``tool_quat (rad)``. A stream of nothing but zeros is one that this robot does not measure.
        """
        if not self._seen:
            return {}
        at_ns = np.array([at for at, _ in self._seen])
        recorded_ns = self._recording.stamps_ns - self._recording.stamps_ns[0]
        differences = {}
        for name, values in self._recording.state.items():
            if name not in self._seen[0][1] or name not in self._spec.state:
                continue
            now = np.stack([state[name] for _, state in self._seen]).astype(np.float64)
            if not now.any():
                continue  # this robot does not measure it
            then = np.stack([np.interp(at_ns, recorded_ns, column) for column in values.T.astype(np.float64)], axis=1)
            if set(self._spec.state[name].units) == {"quat"}:
                name, error = f"{name} (rad)", _angles(now, then)[:, None]
            else:
                error = now - then
            differences[name] = (float(np.sqrt(np.mean(np.sum(error**2, axis=1)))), float(np.abs(error).max()))
        return differences

    def _note(self, observation: Observation) -> None:
        if self._started_ns is not None:
            self._seen.append((observation.stamp_ns - self._started_ns, observation.state))


@dataclass(frozen=True)
class Preview:
    """What a replay would send, without sending it."""

    steps: int
    time_s: float
    low: np.ndarray  # (A,) units of the action
    high: np.ndarray  # (A,)
    fastest: np.ndarray  # (A,) units a second
    speed_m_s: float | None  # of a tool pose
    turn_rad_s: float | None


def preview(recording: Recording, spec: PolicySpec) -> Preview:
    """Return the range and the highest speeds of a recording's commands."""
    commands = recording.commands.astype(np.float64)
    elapsed_s = np.maximum(np.diff(recording.due_ns) / 1e9, 1e-9)
    rates = np.diff(commands, axis=0) / elapsed_s[:, None]
    speed = turn = None
    if spec.action.kind == "tool_pose" and len(rates):
        speed = float(np.linalg.norm(rates[:, :3], axis=1).max())
        rotations = rot6d_to_matrix(commands[:, 3:9])
        turns = [np.linalg.norm(matrix_to_rotvec(b @ a.T)) for a, b in pairwise(rotations)]
        turn = float(np.max(np.array(turns) / elapsed_s))
    fastest = np.abs(rates).max(axis=0) if len(rates) else np.zeros(commands.shape[1])
    time_s = float(recording.due_ns[-1] - recording.due_ns[0]) / 1e9
    return Preview(len(commands), time_s, commands.min(axis=0), commands.max(axis=0), fastest, speed, turn)


def _angles(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Angles (T,) rad between rotations given as quaternions (T, 4) of either sign."""
    b = b / np.maximum(np.linalg.norm(b, axis=1, keepdims=True), 1e-12)
    b = np.where(np.sum(a * b, axis=1, keepdims=True) < 0, -b, b)
    angles: np.ndarray = 4.0 * np.arctan2(np.linalg.norm(a - b, axis=1), np.linalg.norm(a + b, axis=1))
    return angles
