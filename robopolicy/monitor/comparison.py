"""A monitor against single scores, a stopwatch, chance and the published method, on the same episodes."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from robopolicy.errors import ContractError, MonitorError, NotEnoughCalibration, SpecMismatch
from robopolicy.interfaces import Monitor
from robopolicy.monitor.baselines import RandomTrigger, Stopwatch, clock_at
from robopolicy.monitor.judged import NOMINAL, Judged, judge
from robopolicy.monitor.layout import ActionLayout
from robopolicy.monitor.measures import MEASURES, Measure, Panel, median_lead, tnr, tpr, twa
from robopolicy.monitor.monitor import MonitorConfig, fit_monitor
from robopolicy.monitor.paper import fiper_paper
from robopolicy.monitor.protocol import Split
from robopolicy.monitor.resampled import RESAMPLES, Draws, Estimate, difference, estimate, summary

Kind = Literal["monitor", "score", "baseline", "published"]
CLOCK, MATCHED, RANDOM, ALONE = "clock", "clock, same false alarms", "random, same alarm rate", "without overrun"
PAIRED = ("balanced_accuracy", "twa", "auroc", "auroc_25", "auroc_50", "tpr", "tnr", "caught_in_time")
STRATUM: Mapping[str, Measure] = {"tpr": tpr, "false_alarm_free": tnr, "twa": twa, "median_lead_s": median_lead}


@dataclass(frozen=True)
class Method:
    """Something that makes a monitor of a split's fit and calibration episodes."""

    name: str
    kind: Kind
    make: Callable[[Split], Monitor]
    words: str = ""  # what it is


@dataclass(frozen=True)
class Row:
    """One monitor's numbers over all splits."""

    name: str
    kind: Kind
    words: str
    panels: tuple[Panel, ...]  # of each split
    measures: Mapping[str, Estimate]  # by name, see `MEASURES`
    strata: Mapping[str, Mapping[str, Estimate]]  # by stratum and name, see `STRATUM`
    behind: Mapping[str, Estimate]  # by measure: the first row's minus this one's, paired; none of the first

    @property
    def leads(self) -> dict[str, int]:
        """Failures of the first split whose onset the task stamped, by when the alarm came; and those without one."""
        panel = self.panels[0]
        lead = panel.lead_s[~panel.success]
        return {
            "before": int(np.count_nonzero(np.isfinite(lead) & (lead > 0))),
            "after": int(np.count_nonzero(np.isfinite(lead) & (lead <= 0))),
            "never": int(np.count_nonzero(np.isneginf(lead))),
            "no_onset": int(np.count_nonzero(np.isnan(lead))),
        }

    @property
    def latency_ms(self) -> dict[str, float]:
        """Median and 99th percentile of a step of the monitor on this machine; empty where none was timed."""
        timed = np.concatenate([episode.latency_s for panel in self.panels for episode in panel.episodes])
        if not timed.any():
            return {}
        return {f"p{p}": float(np.percentile(timed, p) * 1e3) for p in (50, 99)}


@dataclass(frozen=True)
class Comparison:
    """All methods on the same episodes; the first row is the monitor in question."""

    rows: tuple[Row, ...]
    alpha: float
    guarantee: str  # of the first split's monitor
    notes: tuple[str, ...] = ()  # what is not in the table, and why

    def row(self, name: str) -> Row:
        """Return the row of this name.

        Raises:
            MonitorError: if there is none; those there are are named.
        """
        found = next((row for row in self.rows if row.name == name), None)
        if found is None:
            raise MonitorError(f"no method {name!r} in this table; it has {', '.join(row.name for row in self.rows)}")
        return found

    @property
    def ours(self) -> Row:
        """The monitor in question."""
        return self.rows[0]

    @property
    def strata(self) -> list[str]:
        """The nominal one first, then by name."""
        names = {episode.stratum for panel in self.ours.panels for episode in panel.episodes}
        return sorted(names, key=lambda name: (name != NOMINAL, name))

    def to_json(self) -> dict[str, Any]:
        """Return plain dicts, lists and finite numbers; an infinite lead, of failures without alarm, is None."""
        return {
            "alpha": self.alpha,
            "guarantee": self.guarantee,
            "notes": list(self.notes),
            "strata": self.strata,
            "methods": {
                row.name: {
                    "kind": row.kind,
                    "words": row.words,
                    "measures": {name: _plain(found) for name, found in row.measures.items()},
                    "strata": {s: {n: _plain(found) for n, found in part.items()} for s, part in row.strata.items()},
                    "behind": {name: _plain(found) for name, found in row.behind.items()},
                    "leads": row.leads,
                    "latency_ms": row.latency_ms,
                }
                for row in self.rows
            },
        }


def fitted(
    name: str, config: MonitorConfig, kind: Kind = "monitor", words: str = "", *, layout: ActionLayout | None = None
) -> Method:
    """Return the method that fits and calibrates a monitor of ``config`` on each split, with the split's seed."""

    def make(split: Split) -> Monitor:
        episodes, seeds = split.learning
        failures = [episode.decisions for episode in split.failed]
        return fit_monitor(
            episodes, replace(config, seed=split.seed), layout=layout, roles=split.roles, seeds=seeds,
            failures=failures, failure_seeds=[episode.seed for episode in split.failed], failed=len(failures),
        )  # fmt: skip

    return Method(name, kind, make, words)


def published(*, alpha: float, layout: ActionLayout | None = None, small: bool = False) -> list[Method]:
    """Return FIPER as its authors coded it, on all of a split's successes, and with thresholds that hold.

    Args:
        alpha: 1 less their quantile; false alarms of the valid one.
        layout: what the elements of an action are.
        small: with narrow networks in place of the paper's, which take many minutes a split on a CPU.
    """
    settings = {"rnd": {"small": True}} if small else {}
    size = "small networks" if small else "the paper's networks"

    def coded(split: Split) -> Monitor:
        made = fiper_paper(alpha=alpha, seed=split.seed, layout=layout, settings=settings)
        return made.fit(split.learning[0], [episode.decisions for episode in split.failed])

    def valid(split: Split) -> Monitor:
        made = fiper_paper(True, alpha=alpha, seed=split.seed, layout=layout, settings=settings)
        episodes, seeds = split.learning
        return made.fit(episodes, roles=split.roles, seeds=seeds)

    return [
        Method("FIPER", "published", coded, f"as coded, thresholds of what it was fitted on; {size}"),
        Method("FIPER, fixed", "published", valid, f"the same scores, both high at once, calibrated by rank; {size}"),
    ]


def compare(
    splits: Sequence[Split],
    ours: Method,
    others: Sequence[Method] = (),
    *,
    alpha: float,
    notes: Sequence[str] = (),
    resamples: int = RESAMPLES,
    seed: int = 0,
    on_progress: Callable[[str], None] = lambda name: None,
) -> Comparison:
    """Let every method judge the test episodes of every split, and measure.

    The stopwatch, the stopwatch at the same false alarm rate, and the random trigger are always among them. Overruns
    are alarms of ``ours``, which is told without them too; of single scores and published methods only their own
    alarms count. A method that cannot be made on these episodes is left out, and a note says why; ``ours`` has to be.

    Args:
        splits: one a seed.
        ours: the monitor in question.
        others: to compare with.
        alpha: false-alarm rate of ``ours``, and of the stopwatch.
        notes: what else is to be said.
        resamples: of the bootstrap.
        seed: of the bootstrap and of the random trigger.
        on_progress: called with each method's name before it begins.

    Raises:
        MonitorError, NotEnoughCalibration, SpecMismatch: if ``ours`` or the stopwatch cannot be made or asked.
        ContractError: if there is no split.
    """
    if not splits:
        raise ContractError("no split to compare on; want one at least")
    on_progress(ours.name)
    monitors = [ours.make(split) for split in splits]
    mine = [judge(monitor, split.test) for monitor, split in zip(monitors, splits, strict=True)]
    notes, found = list(notes), [(ours, mine)]
    if any(episode.overrun is not None for judged in mine for episode in judged):
        alone = replace(ours, name=f"{ours.name}, {ALONE}", words="alarms of its scores alone")
        found.append((alone, [[episode.without_overrun() for episode in judged] for judged in mine]))
    stopwatch = Method(
        CLOCK, "baseline", lambda split: Stopwatch([len(e.decisions) for e in split.calibrate], alpha),
        "score = time, calibrated on the lengths of the same episodes at the same alpha",
    )  # fmt: skip
    for method in (*others, stopwatch):
        on_progress(method.name)
        try:
            judged = [judge(method.make(split), split.test) for split in splits]
        except (MonitorError, NotEnoughCalibration, SpecMismatch, ContractError) as error:
            if method is stopwatch:
                raise
            notes.append(f"{method.name} is not in the table: {error}")
            continue
        if method.kind in ("score", "published"):
            judged = [[episode.without_overrun() for episode in one] for one in judged]
        found.append((method, judged))
    found.append((Method(MATCHED, "baseline", ours.make, _MATCHED), [clock_at(judged) for judged in mine]))
    on_progress(RANDOM)
    found.append(_random(splits, mine, alpha, seed))
    guarantee = getattr(monitors[0], "guarantee", lambda: "")()
    return _measured(found, splits, alpha, guarantee, notes, resamples, seed)


_MATCHED = "the earliest time that successes of this very test outlast no more often than the monitor alarms at them"


def _random(splits: Sequence[Split], mine: Sequence[Sequence[Judged]], alpha: float, seed: int) -> Any:
    """The random trigger: its rate is the monitor's on nominal test successes, alpha where there are none."""
    calm = [episode for judged in mine for episode in judged if episode.success and not episode.ood]
    lengths = [e.length for e in calm] or [len(e.decisions) for split in splits for e in split.calibrate]
    rate = sum(e.first is not None for e in calm) / len(calm) if calm else alpha

    def make(split: Split) -> RandomTrigger:
        return RandomTrigger.like(lengths, rate, seed=seed + split.seed)

    words = f"{make(splits[0]).hazard.per_decision:.2%} a decision: {rate:.1%} of nominal successes"
    method = Method(RANDOM, "baseline", make, words)
    return method, [judge(make(split), split.test) for split in splits]


def _measured(
    found: Sequence[tuple[Method, Sequence[Sequence[Judged]]]],
    splits: Sequence[Split],
    alpha: float,
    guarantee: str,
    notes: Sequence[str],
    resamples: int,
    seed: int,
) -> Comparison:
    panels = [
        tuple(Panel.of(judged, split.task_time) for judged, split in zip(one, splits, strict=True)) for _, one in found
    ]
    draws = Draws(panels[0], np.random.default_rng(seed), resamples)
    strata = sorted({episode.stratum for panel in panels[0] for episode in panel.episodes})
    rows = []
    for (method, _), mine in zip(found, panels, strict=True):
        behind = {} if mine is panels[0] else {n: difference(panels[0], mine, MEASURES[n], draws) for n in PAIRED}
        by_stratum = {}
        for stratum in strata:
            part = [panel for panel in (panel.only(stratum) for panel in mine) if panel is not None]
            by_stratum[stratum] = {name: estimate(part, measure, draws) for name, measure in STRATUM.items()}
        rows.append(
            Row(method.name, method.kind, method.words, mine, summary(mine, MEASURES, draws), by_stratum, behind)
        )
    return Comparison(tuple(rows), alpha, guarantee, tuple(notes))


def _plain(found: Estimate) -> dict[str, Any]:
    finite = {
        name: None if value is None or not np.isfinite(value) else value
        for name, value in (("value", found.value), ("low", found.low), ("high", found.high))
    }
    splits = [None if value is None or not np.isfinite(value) else value for value in found.splits]
    counts = None if found.counts is None else {"k": found.counts[0], "n": found.counts[1]}
    return {**finite, "confidence": found.confidence, "method": found.method, "splits": splits, "counts": counts}
