"""What a monitor is evaluated on, fixed in a file before anything is scored."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from robopolicy.errors import MonitorError
from robopolicy.monitor.conformal import min_calibration
from robopolicy.monitor.episodes import Episodes
from robopolicy.monitor.judged import NOMINAL, Labelled
from robopolicy.monitor.measures import task_time_of
from robopolicy.monitor.roles import MIN_FIT, Roles
from robopolicy.training.files import replace_file

FILE = "protocol.json"


@dataclass(frozen=True)
class Split:
    """Who is for what, of one seed: nominal successes that fit, calibrate and test; all else tests."""

    seed: int
    roles: Roles  # of the seeds of the calibration rollouts' successes
    fit: tuple[Labelled, ...]
    calibrate: tuple[Labelled, ...]
    test: tuple[Labelled, ...]
    task_time: float  # decisions, the median of ``fit`` and ``calibrate``: no test episode has a say
    failed: tuple[Labelled, ...] = ()  # failures to learn from; none unless asked for

    @property
    def learning(self) -> tuple[Episodes, list[int]]:
        """The decisions of ``fit`` and ``calibrate``, and their seeds."""
        both = (*self.fit, *self.calibrate)
        return [episode.decisions for episode in both], [episode.seed for episode in both]


def split(
    rollouts: Sequence[Labelled],
    test: Sequence[Labelled],
    *,
    alpha: float,
    seed: int,
    hold_out: float = 0.25,
    learn_failures: bool = False,
) -> Split:
    """Draw the roles of nominal rollouts at random, whole episodes, and add the episodes of other folders to the test.

    Of the successes ``hold_out`` are tested on, fewer if ``alpha`` needs them; failures are tested on, or all learnt
    from.

    Args:
        rollouts: of the world and policy to calibrate on.
        test: of other worlds, or of other starts; no one of ``rollouts``.
        alpha: false-alarm rate.
        seed: of the draw.
        hold_out: share of the successes among ``rollouts``.
        learn_failures: whether the failures among ``rollouts`` are to learn from.

    Raises:
        NotEnoughCalibration: naming how many successes there are and how many it takes.
        MonitorError: if a rollout is not nominal, or an episode is both rollout and test.
    """
    if odd := next((episode for episode in rollouts if episode.ood), None):
        raise MonitorError(f"calibration episode {odd.name} is of a perturbed world ({odd.stratum}); want nominal ones")
    again = {episode.seed for episode in rollouts} & {episode.seed for episode in test if episode.stratum == NOMINAL}
    if again:
        raise MonitorError(
            f"{len(again)} nominal test episodes have starts of the calibration rollouts, seed {min(again)} first; "
            "test on others"
        )
    good = {episode.seed: episode for episode in rollouts if episode.success}
    spare = len(good) - min_calibration(alpha) - MIN_FIT
    held = max(0, min(round(hold_out * len(good)), spare))
    roles = Roles.split(sorted(good), alpha=alpha, seed=seed, test=held)
    failed = tuple(episode for episode in rollouts if not episode.success)
    fit, calibrate = (tuple(good[s] for s in part) for part in (roles.fit, roles.calibrate))
    tested = (*(good[s] for s in roles.test), *(() if learn_failures else failed), *test)
    lengths = [len(episode.decisions) for episode in (*fit, *calibrate)]
    return Split(seed, roles, fit, calibrate, tested, task_time_of(lengths), failed if learn_failures else ())


def freeze(folder: str | Path, splits: Sequence[Split], about: Mapping[str, Any]) -> str:
    """Write what is to be done into ``folder/protocol.json`` and each split's roles beside it; return its sha256.

    A protocol that is there must say the same: what is scored was fixed before.

    Args:
        folder: of the evaluation of the monitor.
        splits: of each seed.
        about: what else decides the result, JSON-able: policy, folders, methods, alpha.

    Raises:
        MonitorError: if the folder holds another protocol; the first key that differs is named.
    """
    path = Path(folder) / FILE
    said = {"about": dict(about), "splits": [_plain(one) for one in splits]}
    said = json.loads(json.dumps(said))
    content = (json.dumps(said, indent=1) + "\n").encode()
    if path.exists():
        _require_same(path, said)
    else:
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(path, content)
    for one in splits:
        one.roles.save(path.with_name(f"roles-{one.seed}.json"))
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _plain(split: Split) -> dict[str, Any]:
    return {
        "seed": split.seed,
        "task_time": split.task_time,
        **{part: [episode.name for episode in getattr(split, part)] for part in ("fit", "calibrate", "failed", "test")},
    }


def _require_same(path: Path, said: Mapping[str, Any]) -> None:
    try:
        there = json.loads(path.read_bytes())
        other = next((key for key in said["about"] if there["about"].get(key) != said["about"][key]), None)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise MonitorError(f"{path} holds no protocol: {error}") from error
    if there != said:
        what = f"{other} {there['about'].get(other)!r}, asked for {said['about'][other]!r}" if other else "episodes"
        raise MonitorError(f"{path} is frozen and has other {what}; name another folder")
