"""`robopolicy monitor export-fiper`: rollouts with decisions, as FIPER keeps them."""

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from robopolicy.errors import UsageError


def add_parser(actions: Any, debug: argparse.ArgumentParser) -> None:
    """Add the action's arguments."""
    parser = actions.add_parser("export-fiper", parents=[debug], help="rollouts with decisions, as FIPER keeps them")
    parser.add_argument("out", type=Path, metavar="OUT", help="folder; files go to OUT/TASK/rollouts")
    parser.add_argument("--task", required=True, metavar="NAME", help="what FIPER is to call the task")
    parser.add_argument("--calibration", type=Path, metavar="FOLDER", help="rollouts for rollouts/calibration")
    parser.add_argument("--test", type=Path, metavar="FOLDER", help="rollouts for rollouts/test")
    parser.add_argument(
        "--checkpoint", type=Path, metavar="C", help="of the policy: what its actions mean (imported rollouts know)"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Run the action."""
    from robopolicy.cli.progress import say

    parts = {"calibration": args.calibration, "test": args.test}
    folders = {part: folder for part, folder in parts.items() if folder is not None}
    for line in export_fiper(folders, args.out, args.task, checkpoint=args.checkpoint):
        say(line)


def export_fiper(folders: dict[str, Path], out: Path, task: str, *, checkpoint: Path | None = None) -> list[str]:
    """Write ``out/task/rollouts/{calibration,test}/episode_{s,f}_SEED.pkl``; return a line on each set.

    An episode that was perturbed or disturbed is one out of distribution. Episodes without decisions are left out.

    Args:
        folders: of rollouts, by ``calibration`` or ``test``.
        out: folder of tasks.
        task: what to call it.
        checkpoint: of the policy, for the meaning of its actions; not needed for rollouts that were imported.

    Raises:
        UsageError: if there is no folder, the name is none of a folder, or nothing says what the actions mean.
        MonitorError: if no episode has decisions, or something else is where the files are to be.
        EvaluationError: if a folder holds no rollouts.
    """
    from robopolicy.evaluation.outcomes import load_outcomes
    from robopolicy.monitor.fiper import write_fiper

    if not folders:
        raise UsageError("nothing to export; name --calibration, --test or both")
    if not task or Path(task).name != task:
        raise UsageError(f"--task {task!r} is no name of a folder")
    lines = []
    for part, folder in folders.items():
        layout = _layout(folder, checkpoint)
        outcomes = [outcome for outcome in load_outcomes(folder) if outcome.decisions]
        if not outcomes:
            raise UsageError(f"{folder} has no decisions; calibrate --env keeps them, eval with --decisions")
        target = out / task / "rollouts" / part
        files = write_fiper(_episodes(folder, outcomes, layout, task), target, part=part)
        good = sum(outcome.success for outcome in outcomes)
        lines.append(f"{target}: {len(files)} episodes, {good} successful")
    return lines


def _episodes(folder: Path, outcomes: list[Any], layout: Any, task: str) -> Iterator[Any]:
    from robopolicy.monitor.decisions import load_decisions
    from robopolicy.monitor.fiper import FiperEpisode

    for outcome in outcomes:
        name = f"episode_{'s' if outcome.success else 'f'}_{outcome.seed:06d}"
        ood = bool(outcome.perturbations) or outcome.disturb_step is not None
        yield FiperEpisode(load_decisions(folder / outcome.decisions), outcome.success, ood, name, layout, task)


def _layout(folder: Path, checkpoint: Path | None) -> Any:
    from robopolicy.evaluation.outcomes import load_about
    from robopolicy.monitor.layout import ActionLayout
    from robopolicy.training.checkpoint import read_spec

    if checkpoint is not None:
        return ActionLayout.of(read_spec(checkpoint))
    if said := load_about(folder).get("action_layout"):
        return ActionLayout.from_json(json.loads(said))
    raise UsageError(f"nothing says what the actions of {folder} mean; name --checkpoint, the policy they are of")
