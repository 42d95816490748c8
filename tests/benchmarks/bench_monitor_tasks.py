"""Failure monitors on our tasks: python tests/benchmarks/bench_monitor_tasks.py --work DIR [--tasks peg,lift,drawer]

Records, trains and rolls out whatever DIR does not hold yet, fits monitors on frozen roles, and prints how they do
beside a stopwatch, chance, single scores and the published method; ``DIR/judged`` has a report a task. An episode lasts
twice the median demonstration. Severities and the method were chosen on starts of their own (``--tune``), by what was
best on the whole over the three tasks there; none of these episodes is judged.
"""

import argparse
import shlex
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from monitor_tasks import CHOOSING, N_EXECUTE, NOMINAL, PERTURBED, TASKS, collect, make_policy

import sim_envs.tasks
from robopolicy.evaluation.failures import taxonomy
from robopolicy.evaluation.outcomes import load_counted, load_outcomes
from robopolicy.evaluation.statistics import success_rate
from robopolicy.interfaces import Monitor
from robopolicy.monitor.comparison import CLOCK, Comparison, Method, compare, fitted, published
from robopolicy.monitor.comparison_page import write_results
from robopolicy.monitor.comparison_verdicts import verdicts
from robopolicy.monitor.decisions import load_decisions
from robopolicy.monitor.judged import read_labelled
from robopolicy.monitor.layout import ActionLayout
from robopolicy.monitor.measures import MEASURES, Panel, nominal_false_alarms, twa
from robopolicy.monitor.monitor import DEFAULT, MonitorConfig, fit_monitor
from robopolicy.monitor.protocol import Split, freeze, split
from robopolicy.monitor.resampled import Draws, Estimate, difference, estimate
from robopolicy.monitor.scores.supervised import MIN_FAILURES
from robopolicy.monitor.statistic import Combination
from robopolicy.training.checkpoint import read_spec
from robopolicy.types import Decision

ALPHA = 0.05
LEARN = 50  # nominal successes that fit, and as many that calibrate
CHOSEN = DEFAULT  # on the episodes from ``CHOOSING`` on
FORMER = MonitorConfig(("kernel_density", "chunk_overlap"), Combination())  # the default before
SINGLE = ("mahalanobis", "kernel_density", "chunk_overlap", "ace", "stac")
PAIRED = ("twa", "balanced_accuracy", "auroc_50")
SHOWN = {
    "nominal_false_alarms": "false, nominal", "ood_false_alarms": "false, perturbed", "tpr": "failures alarmed",
    "balanced_accuracy": "balanced accuracy", "twa": "TWA", "auroc_25": "AUROC 25 %", "auroc_50": "AUROC 50 %",
    "median_lead_s": "lead, s",
}  # fmt: skip


def tune(work: Path, task: str, perturbation: str, episodes: int, jobs: int) -> None:
    """Print how often a perturbation makes the policy fail, on the episodes for choosing."""
    start = time.perf_counter()
    perturbations = () if perturbation == "nominal" else (perturbation,)
    seeds = range(CHOOSING, CHOOSING + episodes)
    outcomes = load_outcomes(collect(work, task, perturbations, seeds, jobs=jobs, purpose="choosing"))
    failed = sum(not outcome.success for outcome in outcomes)
    rate = success_rate(failed, len(outcomes))
    causes = ", ".join(f"{len(cause.seeds)} {cause.failure}" for cause in taxonomy(outcomes))
    print(
        f"{task} {perturbation}: {failed} of {len(outcomes)} failed [{rate.low:.0%}, {rate.high:.0%}] ({causes}), "
        f"{time.perf_counter() - start:.0f} s",
        flush=True,
    )


def collect_all(work: Path, task: str, episodes: int, jobs: int) -> list[Path]:
    """Run what is judged by; return the folders, the undisturbed world's first."""
    folders = [collect(work, task, (), range(NOMINAL, NOMINAL + TASKS[task].nominal), jobs=jobs)]
    for axis, severity in TASKS[task].severities.items():
        seeds = range(PERTURBED, PERTURBED + episodes)
        folders.append(collect(work, task, (f"{axis}:{severity:g}",), seeds, jobs=jobs))
    return folders


def judge(work: Path, task: str, folders: Sequence[Path], seeds: int, full: bool) -> Comparison:
    """Compare the chosen monitor with all else on frozen roles, ``LEARN`` nominal successes each to fit and calibrate.

    Args:
        work: folder of everything.
        task: key of ``TASKS``.
        folders: of `collect_all`.
        seeds: splits.
        full: with the published networks, which take minutes a split, in place of narrow ones.
    """
    rollouts, *shaken = [read_labelled(folder) for folder in folders]
    test = [episode for one in shaken for episode in one]
    good = sum(episode.success for episode in rollouts)
    layout = ActionLayout.of(read_spec(work / task))
    spare = 1 - 2 * LEARN / good
    splits = [split(rollouts, test, alpha=ALPHA, seed=seed, hold_out=spare) for seed in range(seeds)]
    config = replace(CHOSEN, alpha=ALPHA)
    singles = [
        fitted(name, replace(config, scores=(name,), how=Combination()), "score", layout=layout) for name in SINGLE
    ]
    former = fitted("former default", replace(FORMER, alpha=ALPHA), layout=layout)
    others = [former, *singles, *published(alpha=ALPHA, layout=layout, small=not full)]
    if len(failures := failures_of(work, task)) >= MIN_FAILURES:
        others.append(taught("supervised", replace(config, scores=("supervised",)), failures, layout))
        others.append(
            taught("chosen + supervised", replace(config, scores=(*config.scores, "supervised")), failures, layout)
        )
    out = work / "judged" / task
    about = {"scores": config.scores, "how": str(config.how), "alpha": ALPHA, "folders": [f.name for f in folders]}
    sha = freeze(out, splits, about)
    comparison = compare(splits, fitted("chosen", config, layout=layout), others, alpha=ALPHA, on_progress=print)
    facts = {"env": f"twin:{task}", "scores": ", ".join(config.scores), "command": shlex.join(sys.argv)}
    write_results(out, comparison, title=f"Failure monitors on {task}", facts=facts, protocol=sha)
    return comparison


def failures_of(work: Path, task: str) -> list[list[Decision]]:
    """Return the failed episodes that things were chosen by: what a person could have labelled."""
    failures = []
    for folder in sorted((work / "choosing").glob(f"{task}-*")):  # of one that was killed, what there is
        files = [outcome.decisions for outcome in load_counted(folder)[0] if not outcome.success]
        failures += [load_decisions(folder / file) for file in files if file]
    return failures


def taught(name: str, config: MonitorConfig, failures: Sequence[list[Decision]], layout: ActionLayout) -> Method:
    """Return the method that learns from labelled failures too."""

    def make(split: Split) -> Monitor:
        episodes, seeds = split.learning
        now = replace(config, seed=split.seed)
        return fit_monitor(episodes, now, layout=layout, roles=split.roles, seeds=seeds, failures=failures)

    return Method(name, "monitor", make, f"has seen {len(failures)} labelled failures")


def tell(task: str, comparison: Comparison) -> None:
    """Print a table, a row a method."""
    panel = comparison.ours.panels[0]
    failed = int(np.count_nonzero(~panel.success))
    print(f"\n{task}: {len(panel.episodes) - failed} successes and {failed} failures tested on in each split")
    print(f"{'':32}" + "".join(f"{head:>22}" for head in SHOWN.values()))
    for row in comparison.rows:
        print(f"{row.name:32}" + "".join(f"{_told(row.measures[name]):>22}" for name in SHOWN))
    tell_strata(comparison)
    for row in comparison.rows[1:]:
        gaps = ", ".join(f"{SHOWN[name]} {_told(row.behind[name])}" for name in PAIRED)
        print(f"chosen less {row.name}: {gaps}")
    for sentence in verdicts(comparison):
        print(sentence)


def tell_strata(comparison: Comparison) -> None:
    """Print how the chosen monitor does in each world, means over the splits."""
    for stratum, found in comparison.ours.strata.items():
        panel = comparison.ours.panels[0].only(stratum)
        assert panel is not None
        failed = int(np.count_nonzero(~panel.success))
        told = ", ".join(f"{name} {_told(one)}" for name, one in found.items())
        print(f"  {stratum}: {failed} of {len(panel.episodes)} failed; {told}")


def pool(tasks: Sequence[str], comparisons: Sequence[Comparison]) -> None:
    """Print the same over all tasks, each split of each task weighing the same.

    TWA is told by the tasks' own limits of time too, by which an alarm counts as earlier, a stopwatch's above all. It
    takes for granted that what failed within the shorter limit would have failed within that one.
    """
    names = [row.name for row in comparisons[0].rows if all(row.name in {r.name for r in c.rows} for c in comparisons)]
    panels = {name: [panel for c in comparisons for panel in c.row(name).panels] for name in names}
    draws = Draws(panels[names[0]], np.random.default_rng(0))
    print("\nall tasks")
    print(f"{'':32}" + "".join(f"{head:>22}" for head in SHOWN.values()))
    for name in names:
        print(f"{name:32}" + "".join(f"{_told(_over(panels[name], measure, draws)):>22}" for measure in SHOWN))
    for name in names[1:]:
        gaps = [f"{SHOWN[m]} {_told(difference(panels[names[0]], panels[name], MEASURES[m], draws))}" for m in PAIRED]
        print(f"chosen less {name}: " + ", ".join(gaps))
    counts = [nominal_false_alarms.counts(_alone(panel)) for c in comparisons for panel in c.ours.panels]
    alarms, n = (float(np.sum(part)) / len(comparisons[0].ours.panels) for part in zip(*counts, strict=True))
    allowed = ALPHA + 1.64 * np.sqrt(ALPHA * (1 - ALPHA) / n)
    told = f"{alarms:.1f} of {n:g} nominal successes a split, {alarms / n:.3f}; at most {allowed:.3f} allowed"
    print(f"false alarms of the scores: {told}")
    _tell_own_limits(tasks, comparisons, draws)


def _tell_own_limits(tasks: Sequence[str], comparisons: Sequence[Comparison], draws: Draws) -> None:
    limits = [sim_envs.tasks.TASKS[task].max_steps // N_EXECUTE for task in tasks]

    def relaxed(name: str) -> list[Panel]:
        pairs = zip(comparisons, limits, strict=True)
        return [replace(panel, longest=limit) for c, limit in pairs for panel in c.row(name).panels]

    ours, clock = relaxed(comparisons[0].ours.name), relaxed(CLOCK)
    told = f"{_told(estimate(ours, twa, draws))}, clock {_told(estimate(clock, twa, draws))}"
    print(f"TWA by the tasks' own limits: chosen {told}, difference {_told(difference(ours, clock, twa, draws))}")


def _alone(panel: Panel) -> Panel:
    return replace(panel, episodes=tuple(episode.without_overrun() for episode in panel.episodes))


def _over(panels: Sequence[Panel], name: str, draws: Draws) -> Estimate:
    return estimate(panels, MEASURES[name], draws)


def _told(found: Estimate) -> str:
    if found.value is None:
        return "none"
    limits = "" if found.low is None or found.high is None else f" [{found.low:.2f}, {found.high:.2f}]"
    return f"{found.value:.2f}{limits}"


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, required=True, metavar="DIR", help="of data, checkpoints, rollouts")
    parser.add_argument("--tasks", default=",".join(TASKS), help=f"of {','.join(TASKS)}")
    parser.add_argument("--episodes", type=int, default=20, help="of each perturbation")
    parser.add_argument("--jobs", type=int, default=2, help="processes")
    parser.add_argument("--tune", nargs="+", metavar="AXIS:SEVERITY", help="only count failures at these")
    parser.add_argument("--splits", type=int, default=5, help="seeds of fit, calibration and test")
    parser.add_argument("--full", action="store_true", help="FIPER with the paper's networks: minutes a split")
    args = parser.parse_args()
    comparisons: list[Comparison] = []
    for task in args.tasks.split(","):
        make_policy(args.work, task)
        if args.tune:
            for perturbation in args.tune:
                tune(args.work, task, perturbation, args.episodes, args.jobs)
            continue
        folders = collect_all(args.work, task, args.episodes, args.jobs)
        comparisons.append(judge(args.work, task, folders, args.splits, args.full))
        tell(task, comparisons[-1])
    if comparisons:
        pool(args.tasks.split(","), comparisons)


if __name__ == "__main__":
    main()
