"""`robopolicy monitor eval`: what a monitor of this policy is worth, against time, chance and what was published."""

import argparse
import json
import shlex
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from robopolicy.cli.arguments import at_least
from robopolicy.cli.calibrate import add_monitoring, config_of
from robopolicy.cli.monitor_actions.same_policy import require_one_world, require_unanswered
from robopolicy.cli.running import AS_SAVED, Choice, add_running
from robopolicy.errors import UsageError

SPLITS = 5
HOLD_OUT = 0.25
SIZES = ("small", "paper", "none")  # of the published method's networks


def add_parser(commands: Any, debug: argparse.ArgumentParser) -> None:
    """Add the action's arguments."""
    parser = commands.add_parser(
        "eval", parents=[debug], help="measure a monitor on stored decisions: intervals, clock, chance, a report"
    )
    parser.add_argument(
        "--checkpoint", type=Path, metavar="FOLDER",
        help="of the policy to guard; without, rollouts are taken as they are, such as those of import-fiper",
    )  # fmt: skip
    parser.add_argument(
        "--calibration", required=True, type=Path, metavar="FOLDER",
        help="rollouts of the nominal world with decisions: calibrate makes them, or eval --decisions",
    )  # fmt: skip
    parser.add_argument(
        "--test", nargs="+", type=Path, default=[], metavar="FOLDER",
        help="other rollouts of the same policy and world, from eval --decisions: other starts, perturbed worlds",
    )  # fmt: skip
    parser.add_argument("--out", required=True, type=Path, metavar="FOLDER", help="of protocol, results and report")
    parser.add_argument(
        "--alpha", type=float, default=0.05, metavar="X",
        help="false alarms allowed, a fraction of good episodes (default 0.05)",
    )  # fmt: skip
    add_monitoring(parser, split=False)
    parser.add_argument(
        "--also",
        nargs="+",
        default=[],
        metavar="NAME",
        help="other scores to set beside it, each alone, smoothed alike; all: every one",
    )
    parser.add_argument(
        "--published", choices=SIZES, default="small",
        help="FIPER beside it, with narrow networks, with the paper's (many minutes a split on a CPU), or not "
        "(default small)",
    )  # fmt: skip
    parser.add_argument(
        "--seeds-of-split", type=at_least(1), default=SPLITS, metavar="N",
        help=f"how often fit, calibration and test are drawn anew (default {SPLITS})",
    )  # fmt: skip
    parser.add_argument(
        "--hold-out", type=float, default=HOLD_OUT, metavar="X",
        help=f"share of the nominal successes that are tested on (default {HOLD_OUT})",
    )  # fmt: skip
    add_running(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Run the action."""
    from robopolicy.cli.progress import say
    from robopolicy.monitor.comparison_verdicts import verdicts

    for name in ("alpha", "hold_out"):
        if not 0 < getattr(args, name) < 1:
            option = name.replace("_", "-")
            raise UsageError(f"--{option} is {getattr(args, name):g}; it is a fraction between 0 and 1, e.g. 0.05")
    found = evaluate_monitor(
        args.checkpoint, args.calibration, args.test, args.out, config_of(args), also=args.also,
        published=args.published, splits=args.seeds_of_split, hold_out=args.hold_out, choice=Choice.of(args),
    )  # fmt: skip
    wide = max(len(row.name) for row in found.rows)
    for row in found.rows:
        say((f"{row.name:{wide}}", "bold"), "   " + _told(row))
    for sentence in verdicts(found):
        say(sentence)
    for note in found.notes:
        say(("note: ", "yellow"), note)
    say("report: ", (str(args.out / "report.html"), "bold"))


def evaluate_monitor(
    checkpoint: Path | None,
    calibration: Path,
    test: Sequence[Path],
    out: Path,
    config: Any = None,
    *,
    also: Sequence[str] = (),
    published: str = "small",
    splits: int = SPLITS,
    hold_out: float = HOLD_OUT,
    choice: Choice = AS_SAVED,
) -> Any:
    """Freeze the roles, judge, measure, write ``out/results.json`` and ``out/report.html``; return the `Comparison`.

    Args:
        checkpoint: of the policy; None takes rollouts as they are: all of one policy, of which nothing else is known.
        calibration: an evaluation's folder, nominal, with decisions.
        test: the same of other starts, or of perturbed worlds.
        out: folder.
        config: `MonitorConfig` of the monitor in question; None is the default one.
        also: other scores to set beside it, each alone; ``all`` is every one that learns from successes.
        published: FIPER beside it, with ``small`` networks, those of the ``paper``, or ``none``.
        splits: how often the roles are drawn.
        hold_out: share of the nominal successes to test on.
        choice: solver and goal.

    Raises:
        SpecMismatch: if rollouts are of another policy or world; both are named.
        NotEnoughCalibration: naming how many successes there are and how many it takes.
        MonitorError: if ``out`` holds another protocol, an episode has two roles, or a score cannot be made.
        EvaluationError: if rollouts have no decisions.
        UsageError: if there is no score of that name.
    """
    from robopolicy.cli.progress import bar
    from robopolicy.monitor.comparison import compare, fitted
    from robopolicy.monitor.comparison import published as fipers
    from robopolicy.monitor.comparison_page import write_results
    from robopolicy.monitor.judged import read_labelled
    from robopolicy.monitor.monitor import MonitorConfig
    from robopolicy.monitor.protocol import freeze, split

    config, folders = config or MonitorConfig(), [calibration, *test]
    running = None if checkpoint is None else choice.resolve(checkpoint)
    about = _require_alike(folders, running)
    env, layout = about.get("env", ""), _layout(about, checkpoint)
    names = _names(folders)
    rollouts, *tested = (read_labelled(folder, name=name) for folder, name in zip(folders, names, strict=True))
    singles = _singles(config.scores, also)
    learns = config.how.combine == "logistic" or "supervised" in config.scores
    drawn = [
        split(rollouts, [e for one in tested for e in one], alpha=config.alpha, seed=seed, hold_out=hold_out,
              learn_failures=learns)
        for seed in range(splits)
    ]  # fmt: skip
    theirs, notes = [], ["FIPER is not in the table: --published none"]
    if published != "none":
        theirs, notes = fipers(alpha=config.alpha, layout=layout, small=published == "small"), []
    if shared := {e.seed for e in rollouts} & {e.seed for one in tested for e in one}:
        notes.append(f"{len(shared)} starts of the calibration rollouts come again in perturbed test episodes")
    protocol = {
        "policy_sha": about["policy_sha"], "env": env, "calibration": names[0], "test": names[1:], "hold_out": hold_out,
        "monitor": asdict(config), "beside": singles, "published": published,
    }  # fmt: skip
    sha = freeze(out, drawn, protocol)
    ours = fitted("monitor", config, words=_words(config), layout=layout)
    how = replace(config.how, combine="sum")  # there is but one: averaged, patient, shaped as the monitor
    others = [fitted(name, replace(config, scores=(name,), how=how), "score", layout=layout) for name in singles]
    with bar("judge", len(others) + len(theirs) + 3, "monitors") as progress:
        found = compare(
            drawn, ours, [*others, *theirs], alpha=config.alpha, notes=notes,
            on_progress=lambda name: progress.advance(note=name),
        )  # fmt: skip
    of = {} if running is None else {"checkpoint": str(checkpoint), **running.about}
    name = f" of {checkpoint.name}" if checkpoint is not None else ""
    write_results(
        out, found, title=f"A monitor{name} in {env}", protocol=sha,
        facts={**of, "sha": about["policy_sha"], "env": env, "scores": _words(config),
               "calibration": str(calibration), "test": ", ".join(map(str, test)), "alpha": f"{config.alpha:g}",
               "splits": str(splits), "command": shlex.join(["robopolicy", *sys.argv[1:]])},
    )  # fmt: skip
    return found


def _require_alike(folders: Sequence[Path], running: Any) -> dict[str, str]:
    """Return what the first rollouts say of themselves once it is sure that all are of this policy and world."""
    from robopolicy.evaluation.outcomes import load_about
    from robopolicy.monitor.alike import require_same

    abouts = {folder: load_about(folder) for folder in folders}
    first = abouts[folders[0]]
    sha = first.get("policy_sha", "") if running is None else running.sha
    mine = f"those of {folders[0]} of" if running is None else f"checkpoint {running.checkpoint} is"
    for folder, about in abouts.items():
        require_unanswered(folder, about)
        require_same(
            "policy", f"rollouts {folder} are of", about.get("policy_sha", ""), mine, sha,
            "a monitor is tested on the policy it guards, with the same solver and goal", known=True,
        )  # fmt: skip
    require_one_world(abouts, "a monitor is tested in the world it was calibrated in, perturbed or not, as plans came")
    return first


def _layout(about: Mapping[str, str], checkpoint: Path | None) -> Any:
    """What the elements of an action are: by the policy's spec, or as the rollouts say; None if nobody does."""
    from robopolicy.monitor.layout import ActionLayout
    from robopolicy.training.checkpoint import read_spec

    if checkpoint is not None:
        return ActionLayout.of(read_spec(checkpoint))
    said = about.get("action_layout")
    return ActionLayout.from_json(json.loads(said)) if said else None


def _names(folders: Sequence[Path]) -> list[str]:
    """A short name of each folder, no two alike."""
    often = Counter(folder.name for folder in folders)
    names = [folder.name if often[folder.name] == 1 else str(folder) for folder in folders]
    if twice := [name for name, n in Counter(names).items() if n > 1]:
        raise UsageError(f"rollouts {twice[0]} are given twice; their episodes would count twice")
    return names


def _singles(scores: Sequence[str], also: Sequence[str]) -> list[str]:
    """The scores to set beside the monitor: its own, where there are several, and those asked for."""
    from robopolicy.monitor.scores import SCORES

    every = [name for name in SCORES if name not in ("clock", "supervised")]
    asked = every if "all" in also else list(also)
    if unknown := [name for name in asked if name not in SCORES]:
        raise UsageError(f"--also {unknown[0]}: no such score; valid: all, {', '.join(sorted(SCORES))}")
    own = list(scores) if len(scores) > 1 else []
    return [name for name in dict.fromkeys([*own, *asked]) if name not in ("clock", *(scores if not own else ()))]


def _words(config: Any) -> str:
    how = config.how
    parts = [" + ".join(config.scores), how.combine if len(config.scores) > 1 else ""]
    parts += [f"window {how.window}" if how.window > 1 else "", f"patience {how.patience}" if how.patience else ""]
    parts.append(how.shape if how.shape != "const" else "")
    return ", ".join(part for part in parts if part)


def _told(row: Any) -> str:
    """The row of a table in words."""
    from robopolicy.monitor.comparison_page import limits, number

    shown = {"balanced_accuracy": "balanced accuracy", "twa": "TWA", "tpr": "TPR", "tnr": "TNR",
             "auroc_50": "AUROC at half time", "median_lead_s": "lead s"}  # fmt: skip
    found = ((what, row.measures[name]) for name, what in shown.items() if row.measures[name].value is not None)
    parts = (f"{what} {number(one)}" + (f" [{limits(one)}]" if limits(one) else "") for what, one in found)
    return "   ".join(parts)
