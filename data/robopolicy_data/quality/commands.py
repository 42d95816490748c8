"""What the commands of an episode tell: how often they hit their end stops, how late the robot follows them."""

from collections.abc import Sequence

import numpy as np

from robopolicy.spec import PolicySpec
from robopolicy_data.quality.signals import Pair
from robopolicy_data.windows import Arrays

AT_STOP = 1e-3  # of an element's range: that near to an extreme is at the stop
ARRIVALS = 2  # an end met once is where somebody happened to wait, not a stop
SWITCH = 8  # an element with fewer values than this is a switch (a gripper), and may sit at its ends
MAX_LAG_S = 1.0
FIT_FOR_LAG = 0.3  # correlation below which a lag means nothing


def saturated(arrays: Arrays, spec: PolicySpec) -> np.ndarray:
    """Return (N,) bool: steps at which an action element stands at the smallest or largest value of the dataset.

    Only an end that is held counts, by at least 2 % of all steps, and that was come to more than once, a start at it
    left out: every range has a largest value, and demonstrations have one start. Switches and the rotation of a tool
    pose, which is bounded by nature, do not count.
    """
    action = arrays.action.astype(np.float64)
    at_stop = np.zeros(len(action), bool)
    first = np.concatenate([[0], arrays.episode_ends[:-1]]).astype(np.int64)  # step of each episode
    for i in range(action.shape[1]):
        column = action[:, i]
        if (spec.action.kind == "tool_pose" and 3 <= i < 9) or len(np.unique(column[:10_000])) < SWITCH:
            continue
        low, high = column.min(), column.max()
        for here in (column <= low + AT_STOP * (high - low), column >= high - AT_STOP * (high - low)):
            came = here & ~np.roll(here, 1)
            came[first] = False
            if here.mean() > 0.02 and np.count_nonzero(came) >= ARRIVALS:
                at_stop |= here
    return at_stop


def follow_lag_s(
    action: np.ndarray, state: dict[str, np.ndarray], pairs: Sequence[Pair], rate_hz: float
) -> float | None:
    """Return by how many seconds the state follows the command in one episode, or None where it cannot be told.

    The shift that best correlates the changes of command and state, to a fraction of a step by a parabola through the
    three best; the median over the elements that move.

    Args:
        action: (T, A).
        state: {name: (T, D)}.
        pairs: which state follows which command.
        rate_hz: of the steps.
    """
    lags = []
    for pair in pairs:
        lag = _best_shift(action[:, pair.action], state[pair.stream][:, pair.element], round(MAX_LAG_S * rate_hz))
        if lag is not None:
            lags.append(lag / rate_hz)
    return float(np.median(lags)) if lags else None


def _best_shift(command: np.ndarray, followed: np.ndarray, longest: int) -> float | None:
    a, b = np.diff(command.astype(np.float64)), np.diff(followed.astype(np.float64))
    longest = min(longest, len(a) // 3)
    if longest < 1 or a.std() == 0 or b.std() == 0:
        return None
    fits = np.array([_correlation(a[: len(a) - k], b[k:]) for k in range(longest + 1)])
    best = int(np.argmax(fits))
    if fits[best] < FIT_FOR_LAG:
        return None
    if 0 < best < longest:
        left, middle, right = fits[best - 1 : best + 2]
        curve = left - 2 * middle + right
        return best + (0.5 * (left - right) / curve if curve < 0 else 0.0)
    return float(best)


def _correlation(a: np.ndarray, b: np.ndarray) -> float:
    a, b = a - a.mean(), b - b.mean()
    scale = float(np.sqrt((a @ a) * (b @ b)))
    return float(a @ b) / scale if scale > 0 else 0.0
