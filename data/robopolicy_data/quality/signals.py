"""Which numbers of a dataset are the robot's own motion, found from the commands and what followed them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from robopolicy.errors import DatasetError, UnknownName
from robopolicy.spec import ActionSpec, PolicySpec, StateSpec
from robopolicy_data.windows import Arrays

LENGTHS = ("m", "mm", "px")  # units whose motion is a path, best first
MAX_MISS = 0.25  # of the command's own spread: a state further off than this does not follow the command
KNOWN = ("tool_pos", "eef_pos", "robot_eef_pos", "ee_pos")  # taken where no state follows the commands (deltas)


@dataclass(frozen=True)
class Pair:
    """A command and the state element that follows it."""

    action: int  # element of the action
    stream: str
    element: int  # of the stream
    unit: str


@dataclass(frozen=True)
class Motion:
    """What of a dataset's state is the robot's own."""

    pairs: tuple[Pair, ...]
    path: tuple[tuple[str, int], ...]  # (stream, element)s whose motion is the path
    unit: str  # of the path
    groups: tuple[tuple[tuple[str, int], ...], ...]  # what must all stand still for the robot to be idle

    def positions(self, state: Mapping[str, np.ndarray]) -> np.ndarray:
        """Return the path (N, P) float64 in ``unit``."""
        return columns(state, self.path)


def find_motion(arrays: Arrays, spec: PolicySpec, *, stream: str | None = None) -> Motion:
    """Return what moves when the robot is commanded.

    Args:
        arrays: of the dataset.
        spec: of the dataset.
        stream: state whose motion is the path; None finds it.

    Raises:
        UnknownName: if there is no such state.
        DatasetError: if there is no state at all.
    """
    pairs = pair_commands(arrays, spec)
    chosen = _named_path(spec, stream) if stream is not None else _found_path(pairs, spec)
    by_unit: dict[str, list[tuple[str, int]]] = {}
    for pair in pairs:
        by_unit.setdefault(pair.unit, []).append((pair.stream, pair.element))
    groups = [tuple(group) for group in by_unit.values()]
    if chosen not in groups:
        groups.insert(0, chosen)
    if spec.action.kind == "tool_pose" and "tool_quat" in spec.state:
        groups.append(tuple(("tool_quat", i) for i in range(4)))  # turning on the spot is not idle
    name, element = chosen[0]
    return Motion(tuple(pairs), chosen, each_unit(spec.state[name])[element], tuple(groups))


def pair_commands(arrays: Arrays, spec: PolicySpec) -> list[Pair]:
    """Return, for each command element that a state of its unit follows one step later, the state nearest to it."""
    last = np.zeros(len(arrays.action), bool)
    last[arrays.episode_ends - 1] = True
    now = np.flatnonzero(~last)
    found = []
    for i, unit in enumerate(each_unit(spec.action)):
        sent = arrays.action[now, i].astype(np.float64)
        spread = float(np.ptp(np.quantile(sent, (0.02, 0.98)))) if len(sent) else 0.0
        best = (MAX_MISS * spread, "", -1)
        for name, part in spec.state.items():
            for j, other in enumerate(each_unit(part)):
                if other == unit and spread > 0:
                    miss = float(np.median(np.abs(arrays.state[name][now + 1, j] - sent)))
                    best = min(best, (miss, name, j), key=lambda item: item[0])
        if best[2] >= 0:
            found.append(Pair(i, best[1], best[2], unit))
    return found


def require_finite(arrays: Arrays, numbers: Sequence[int], where: str) -> None:
    """Raise DatasetError naming the first step that is NaN or infinite: one of them spoils every measure of all.

    Args:
        arrays: of the dataset.
        numbers: of the episodes in it.
        where: the dataset, for the message.
    """
    streams = {**{f"state {name}": values for name, values in arrays.state.items()}, "action": arrays.action}
    for name, values in streams.items():
        odd = np.flatnonzero(~np.isfinite(values).all(axis=1))
        if len(odd):
            i = int(np.searchsorted(arrays.episode_ends, odd[0], side="right"))
            step = int(odd[0]) - (int(arrays.episode_ends[i - 1]) if i else 0)
            raise DatasetError(
                f"{where}: episode {numbers[i]}, {name} is not finite at step {step}; robopolicy data trim or delete"
            )


def columns(state: Mapping[str, np.ndarray], elements: tuple[tuple[str, int], ...]) -> np.ndarray:
    """Return the named elements side by side, (N, P) float64; angles modulo 2 pi are not unwrapped."""
    return np.stack([state[name][:, i] for name, i in elements], axis=1).astype(np.float64)


def state_space(arrays: Arrays, spec: PolicySpec) -> np.ndarray:
    """Return every state (N, F) float64 scaled for distances.

    Elements are scaled by their 2 to 98 % range, those of a quaternion left as they are, angles modulo 2 pi become
    (sin, cos); what never changes is dropped, and so are speeds, which say nothing of where one has been.
    """
    parts = []
    for name, part in spec.state.items():
        values = arrays.state[name].astype(np.float64)
        for j, unit in enumerate(each_unit(part)):
            column = values[:, j]
            if unit == "rad_wrapped":
                parts += [np.sin(column), np.cos(column)]
            elif unit == "quat":
                parts.append(column)
            elif not unit.endswith("/s") and (spread := float(np.ptp(np.quantile(column, (0.02, 0.98))))) > 1e-9:
                parts.append((column - column.mean()) / spread)
    return np.stack(parts, axis=1) if parts else np.zeros((len(arrays.action), 1))


def each_unit(part: StateSpec | ActionSpec) -> tuple[str, ...]:
    """Return the unit of each element."""
    return part.units * part.dim if len(part.units) == 1 else part.units


def _named_path(spec: PolicySpec, stream: str) -> tuple[tuple[str, int], ...]:
    if stream not in spec.state:
        raise UnknownName("state", stream, spec.state)
    return tuple((stream, i) for i in range(spec.state[stream].dim))


def _found_path(pairs: list[Pair], spec: PolicySpec) -> tuple[tuple[str, int], ...]:
    units = sorted({pair.unit for pair in pairs}, key=lambda u: (u not in LENGTHS, u != "rad", u == "open", u))
    if units:
        return tuple((pair.stream, pair.element) for pair in pairs if pair.unit == units[0])
    for name in KNOWN:
        if name in spec.state:
            return _named_path(spec, name)
    if not spec.state:
        raise DatasetError("there are no states to measure; pictures alone do not do")
    return _named_path(spec, next(iter(spec.state)))
