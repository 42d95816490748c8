"""Whether datasets teach tracks together: at one rate, with grasps that change in all of them, and of one task."""

from collections.abc import Iterator, Sequence
from typing import Any

from robopolicy.errors import DatasetError, UsageError

MOVES = 0.03  # of its opening: a gripper that is commanded over less is meant to stay as it is
LOWEST_HZ = 5.0  # to fewer steps a second data are not thinned unasked
MOST = 5  # tasks that are told by name


def require_robot(spec: Any, kind: str) -> None:
    """Refuse data of hands alone for a policy that a robot is to run.

    Args:
        spec: of the data.
        kind: of the policy.

    Raises:
        UsageError: if their actions are tracks, which no robot takes.
    """
    if spec.action.kind == "tracks":
        raise UsageError(
            f"--data holds only hands, whose tracks no robot takes as the actions of a {kind} policy; want --policy "
            "motion-track, with a robot's --data as well"
        )


def strides(rates: Sequence[float]) -> tuple[int, ...]:
    """Return every how many rows of each dataset make one rate of all, the highest they have in common.

    Args:
        rates: steps a second of each dataset.

    Returns:
        1 each if they are equal, and if there is none of `LOWEST_HZ` or more.
    """
    for first in range(1, int(rates[0] / LOWEST_HZ) + 1):
        common = rates[0] / first
        found = tuple(max(round(rate / common), 1) for rate in rates)
        if all(abs(rate / n - common) <= 1e-6 for rate, n in zip(rates, found, strict=True)):
            return found
    return (1,) * len(rates)


def one_rate(datasets: Sequence[Any]) -> str:
    """Return how datasets without a common rate come to one, to follow what is wrong; nothing if they have one.

    The robots' is kept, without robots the slowest: hands can be imported again at a slower rate.
    """
    rates = [dataset.recorded.rate_hz for dataset in datasets]
    if any(dataset.stride > 1 for dataset in datasets) or max(rates) - min(rates) <= 1e-6:
        return ""
    hands = [_of_hands(dataset) for dataset in datasets]
    robots = [rate for rate, hand in zip(rates, hands, strict=True) if not hand] or [min(rates)]
    slowest = min(rates)
    thinner = [robots[0] / n for n in range(1, int(robots[0] / LOWEST_HZ) + 1)]
    fitting = [rate for rate in thinner if rate <= slowest and rate == round(rate, 3)]
    if len(set(robots)) > 1 or not fitting:
        return f"; want rates that are whole multiples of one of {LOWEST_HZ:g} Hz or more"
    odd = [
        hand and abs(rate - round(rate / fitting[0]) * fitting[0]) > 1e-6
        for hand, rate in zip(hands, rates, strict=True)
    ]
    told = ", ".join(_again(dataset, fitting[0]) for dataset, wrong in zip(datasets, odd, strict=True) if wrong)
    return f"; {told}" + (", to which the rest is thinned" if fitting[0] < robots[0] else "")


def _of_hands(dataset: Any) -> bool:
    return bool(dataset.recorded.action.kind == "tracks")


def _again(dataset: Any, rate_hz: float) -> str:
    """Return how a dataset of hands is made again at another rate."""
    if any(str(episode.meta.extra.get("imported", "")).startswith("landmarks") for episode in dataset):
        return f"record what {dataset.where} was made of with --rate {rate_hz:g}, then import its landmarks"
    return f"import the videos of {dataset.where} into a new dataset with --rate {rate_hz:g} (data import video)"


def described_together(datasets: Sequence[Any], every: int) -> Iterator[str]:
    """Yield lines for people: which rows are left out for the sake of one rate, which tasks are not told apart.

    Args:
        datasets: of tracks.
        every: rows of the common rate a step of the policy.

    Raises:
        DatasetError: if the grasps of one of them cannot be right; see `_grasps`.
    """
    if any(dataset.stride > 1 for dataset in datasets):
        told = ", ".join(
            f"1 of {n} of {d.where}" if (n := d.stride * every) > 1 else f"all of {d.where}" for d in datasets
        )
        rates = ", ".join(f"{dataset.recorded.rate_hz:g}" for dataset in datasets)
        yield f"recorded at {rates} Hz, learnt at {datasets[0].spec.rate_hz / every:g} Hz; of the rows {told}"
    yield from _grasps(datasets)
    tasks: dict[str, dict[str, None]] = {}
    for dataset in datasets:
        for episode in _kept(dataset):
            tasks.setdefault(episode.meta.task, {})[dataset.where] = None
    if len(tasks) > 1:
        told = "; ".join(f"{task!r} ({', '.join(where)})" for task, where in list(tasks.items())[:MOST])
        more = f"; and {len(tasks) - MOST} more" if len(tasks) > MOST else ""
        yield f"{len(tasks)} tasks, which the policy is not told and learns as one: {told}{more}"


def _kept(dataset: Any) -> list[Any]:
    from robopolicy_data.mixture import not_failed

    return [episode for episode in dataset if not_failed(episode)]


def _grasps(datasets: Sequence[Any]) -> Iterator[str]:
    """Refuse grasps that are all the same because of how they were told; yield that robots' alone are all the same.

    Raises:
        DatasetError: if a robot's gripper is commanded over a range that is closed, or open, from end to end; or if
            hands grasp and let go and robots never, though their grippers do, or hands never and robots do.
    """
    import numpy as np

    from robopolicy.geometry.keypoints import GRASP, GRASPED_BELOW, grasped

    found: dict[bool, dict[str, set[float]]] = {False: {}, True: {}}  # {human: {where: grasps}}
    moved = False  # any robot's gripper, as it was measured
    for dataset in datasets:
        for human in (False, True):
            episodes = [episode for episode in _kept(dataset) if episode.human == human]
            if not episodes:
                continue
            values = np.concatenate([each.state(GRASP) if human else each.commanded() for each in episodes])
            grasps = set((values if human else grasped(values)).ravel().tolist())
            found[human][dataset.where] = grasps
            low, high = float(values.min()), float(values.max())
            if not human and len(grasps) == 1 and high - low > MOVES:
                raise DatasetError(
                    f"the gripper of {dataset.where} is commanded between {low:.2f} and {high:.2f}, so {_how(grasps)} "
                    f"throughout: it grasps below {GRASPED_BELOW:g}; want 0 closed to 1 open"
                )
            moved |= not human and len(set(np.concatenate([e.state(GRASP) for e in episodes]).ravel().tolist())) > 1
    robots, hands = (set().union(*found[human].values()) for human in (False, True))
    names = [", ".join(found[human]) for human in (False, True)]
    if len(robots) == 2 and len(hands) == 1:
        raise DatasetError(
            f"the gripper of {names[0]} opens and closes, the hand of {names[1]} is {_how(hands)} throughout; import "
            "it with other --grasp-close and --grasp-open (data import video) or --closed-below (data import landmarks)"
        )
    if len(robots) == 1 and len(hands) == 2:
        told = (
            f"the hand of {names[1]} opens and closes, the gripper of {names[0]} is commanded {_how(robots)} throughout"
        )
        if moved:
            raise DatasetError(f"{told}, though it moves; want its commands, 0 closed to 1 open")
        yield f"{told}: the policy learns to grasp from hands alone"


def _how(grasps: set[float]) -> str:
    return "closed" if 1.0 in grasps else "open"
