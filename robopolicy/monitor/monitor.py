"""Make a failure monitor from successful episodes, and calibrate one anew."""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from robopolicy.errors import MonitorError, NotEnoughCalibration
from robopolicy.interfaces import Score
from robopolicy.monitor.alike import IN_THE_LOOP, require_same
from robopolicy.monitor.artefact import load_monitor
from robopolicy.monitor.calibration import Calibration
from robopolicy.monitor.conformal import conformal_rank
from robopolicy.monitor.episodes import Episodes, score_episode
from robopolicy.monitor.layout import ActionLayout
from robopolicy.monitor.roles import Roles
from robopolicy.monitor.runtime import ConformalMonitor, DecisionShape, Provenance
from robopolicy.monitor.scores import copied, make_score, score_from_arrays
from robopolicy.monitor.statistic import Combination, Statistic
from robopolicy.types import Decision

__all__ = ["DEFAULT", "MonitorConfig", "fit_monitor", "load_monitor", "recalibrated"]


@dataclass(frozen=True)
class MonitorConfig:
    """Which scores, how they are combined, and how often they may be wrong.

    The defaults did best over three tasks, on starts by which nothing is judged (`bench_monitor_tasks.py`).
    """

    scores: tuple[str, ...] = ("mahalanobis", "chunk_overlap")  # keys of `SCORES`
    how: Combination = field(default_factory=lambda: Combination(window=5))
    alpha: float = 0.05  # false alarms of the scores, a fraction of successful episodes
    alpha_time: float | None = None  # false overruns; None: the longest calibrated success, 1 / (n + 1)
    alpha_warn: float | None = None  # p-value of a warning; None: twice alpha
    seed: int = 0  # of the split, and of what the scores draw
    settings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # {score: its settings}


DEFAULT = MonitorConfig()


def fit_monitor(
    episodes: Episodes,
    config: MonitorConfig = DEFAULT,
    *,
    layout: ActionLayout | None = None,
    roles: Roles | None = None,
    seeds: Sequence[int] = (),
    failures: Episodes = (),
    failure_seeds: Sequence[int] = (),
    failed: int = 0,
    scores: Sequence[Score] | None = None,
    policy_sha: str = "",
    sampler: str = "",
    env: str = "",
    timing: str = IN_THE_LOOP,
) -> ConformalMonitor:
    """Fit and calibrate a monitor on successful episodes of one policy.

    Episodes that calibrate fit nothing, or the threshold would promise nothing: they are told apart whole, by ``roles``
    or at random. Scores are standardised by what they give on held-out episodes.

    Args:
        episodes: decisions of each *successful* episode.
        config: see there.
        layout: what the elements of an action are; None takes all for plain numbers.
        roles: which of ``seeds`` fits and which calibrates; None splits at random by ``config.seed``.
        seeds: of the episodes, in their order; None numbers them from 0.
        failures: decisions of failed episodes, for a logistic combination and supervised scores.
        failure_seeds: of these, for the record.
        failed: how many failed episodes were set aside, for the record.
        scores: scores of one's own in place of ``config.scores`` (which cannot be saved and loaded by name).
        policy_sha: identifies the policy; ``load_monitor`` compares it.
        sampler: its solver in words, for the record.
        env: world or robot of the episodes, for the record; ``monitor recalibrate`` compares it.
        timing: how plans came to the robot, in words; where the monitor is used it must be the same.

    Raises:
        NotEnoughCalibration: naming how many episodes there are and how many it takes.
        MonitorError: if a score does not exist or needs what the policy does not give, an episode has no decision,
            decisions of another shape or ones that are not finite, ``roles`` name an episode that is not there, or
            no calibration episode is longer than the patience.
    """
    numbers = [int(seed) for seed in seeds] or list(range(len(episodes)))
    roles = roles or Roles.split(numbers, alpha=config.alpha, seed=config.seed)
    if absent := sorted(set(roles.fit + roles.calibrate) - set(numbers)):
        raise MonitorError(f"roles name episode {absent[0]}; there is no successful episode of this number")
    conformal_rank(len(roles.calibrate), config.alpha)
    if not roles.fit:
        raise NotEnoughCalibration("no episode to fit the scores on; roles name at least one")
    shape = _common_shape([*episodes, *failures])
    _require_finite([*numbers, *failure_seeds], [*episodes, *failures])
    layout = layout or ActionLayout(shape.action)
    by_number = dict(zip(numbers, episodes, strict=True))
    fit, calibrate = [by_number[i] for i in roles.fit], [by_number[i] for i in roles.calibrate]
    by_name = scores is None
    if scores is None:
        scores = [
            make_score(name, layout=layout, seed=config.seed, **config.settings.get(name, {})) for name in config.scores
        ]
    if not scores or len({score.name for score in scores}) < len(scores):
        raise MonitorError(f"scores {[score.name for score in scores]}; want at least one, and none twice")
    _require(scores, shape, episodes[0][0])
    for score in scores:
        more = {"failures": failures} if getattr(score, "learns_failures", False) else {}
        score.fit(fit, **more)
    held = [score.held_out(fit) for score in scores]  # m lists of (T_i,)
    successes = [np.stack(columns, axis=1) for columns in zip(*held, strict=True)]
    if by_name:  # as they will be loaded: the same bits, whatever order in memory a fit left its arrays in
        scores = [score_from_arrays(score.name, copied(score)) for score in scores]
    statistic = Statistic.fit(
        [score.name for score in scores], successes, config.how, [_scored(scores, one) for one in failures]
    )
    calibration = Calibration(
        tuple(statistic.trace(_scored(scores, one)) for one in calibrate),
        config.alpha,
        config.alpha_time,
        config.alpha_warn,
    )
    if config.how.patience >= calibration.calibrated:
        raise MonitorError(
            f"patience {config.how.patience}: no calibration episode has more than {calibration.calibrated} decisions, "
            "so no alarm could ever come; want less"
        )
    provenance = Provenance(
        policy_sha, sampler, env, timing, config.seed, roles.fit, roles.calibrate,
        tuple(int(s) for s in failure_seeds), failed,
    )  # fmt: skip
    return ConformalMonitor(scores, statistic, calibration, shape, layout, provenance)


def recalibrated(
    monitor: ConformalMonitor,
    episodes: Episodes,
    seeds: Sequence[int],
    *,
    alpha: float | None = None,
    only_new: bool = False,
    parent: str = "",
    env: str | None = None,
    timing: str | None = None,
) -> ConformalMonitor:
    """Return a monitor of the same scores whose threshold comes from more successful episodes.

    Args:
        monitor: stays as it is.
        episodes: decisions of confirmed successes.
        seeds: their numbers; none may have fitted a score or calibrated this monitor.
        alpha: another rate; None keeps it.
        only_new: forget the old calibration episodes: the world has changed.
        parent: sha256 of the monitor's json, for the record.
        env: of the new episodes; None is that of the monitor, from which only ``only_new`` may differ.
        timing: of the new episodes; the same.

    Raises:
        MonitorError: if an episode was used before, or has decisions of another shape.
        SpecMismatch: if old and new episodes, of two worlds or timings, were to calibrate together.
        NotEnoughCalibration: if there are too few.
    """
    old = monitor.provenance
    used = set(old.fit_seeds) | set(old.calibration_seeds) | set(old.failure_seeds)
    if twice := sorted(used & {int(seed) for seed in seeds}):
        raise MonitorError(
            f"episode {', '.join(map(str, twice[:5]))} was used to make this monitor; a threshold needs others"
        )
    if episodes and (shape := _common_shape(episodes)) != monitor.shape:
        raise MonitorError(f"the monitor was calibrated on {monitor.shape}; these episodes have {shape}")
    env, timing = old.env if env is None else env, old.timing if timing is None else timing
    if not only_new:
        why = "a threshold of both together promises nothing about either: --only-new forgets the old ones"
        if old.env and env:
            require_same("world", "these episodes are of", env, "the monitor's of", old.env, why)
        require_same("plans made", "these episodes are of", timing, "the monitor's of", old.timing, why)
    scores, statistic = copy.deepcopy((monitor.scores, monitor.statistic))  # they remember an episode
    new = tuple(statistic.trace(_scored(scores, one)) for one in episodes)
    before = monitor.calibration
    calibration = Calibration(
        new if only_new else before.traces + new,
        before.alpha if alpha is None else alpha,
        before.alpha_time,
        None if alpha is not None else before.alpha_warn,
    )
    kept = () if only_new else old.calibration_seeds
    provenance = replace(
        Provenance(),
        policy_sha=old.policy_sha, sampler=old.sampler, env=env, timing=timing, seed=old.seed, fit_seeds=old.fit_seeds,
        calibration_seeds=kept + tuple(int(seed) for seed in seeds), failure_seeds=old.failure_seeds, parent=parent,
    )  # fmt: skip
    return ConformalMonitor(scores, statistic, calibration, monitor.shape, monitor.layout, provenance)


def _scored(scores: Sequence[Score], episode: Sequence[Decision]) -> np.ndarray:
    """Return the scores (T, m) of one episode."""
    return np.stack([score_episode(score, episode) for score in scores], axis=1)


def _require(scores: Sequence[Score], shape: DecisionShape, decision: Decision) -> None:
    """Refuse scores that need what the policy does not give."""
    for score in scores:
        needs, least = getattr(score, "requires", frozenset()), getattr(score, "min_candidates", 1)
        if absent := sorted(needs - set(decision.aux)):
            raise MonitorError(f"score {score.name} needs {', '.join(absent)} of the policy; it gives {_had(decision)}")
        if shape.candidates < least:
            raise MonitorError(
                f"score {score.name} needs {least} chunks a decision or more; these rollouts have {shape.candidates}"
            )


def _require_finite(numbers: Sequence[int], episodes: Episodes) -> None:
    """Refuse what is no number, by the episode's name: left out in silence, it would be an easy episode less."""
    for number, episode in zip(numbers, episodes, strict=False):
        for decision in episode:
            for what, array in (("embedding", decision.embedding), ("chunk", decision.chunks)):
                if not np.all(np.isfinite(array)):
                    raise MonitorError(
                        f"episode {number}, decision {decision.number}: the {what} is not finite; nothing can be "
                        "learnt from it"
                    )


def _had(decision: Decision) -> str:
    return ", ".join(sorted(decision.aux)) or "embedding and chunks only"


def _common_shape(episodes: Episodes) -> DecisionShape:
    for i, episode in enumerate(episodes):
        if not episode:
            raise MonitorError(f"calibration episode {i} has no decisions")
    shapes = {DecisionShape.of(decision) for episode in episodes for decision in episode}
    if len(shapes) > 1:
        raise MonitorError("calibration episodes differ: " + " and ".join(sorted(str(s) for s in shapes)))
    return shapes.pop()
