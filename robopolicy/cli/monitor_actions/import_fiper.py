"""`robopolicy monitor import-fiper`: rollouts as FIPER keeps them, made folders that `calibrate` and `eval` read."""

import argparse
from pathlib import Path
from typing import Any

from robopolicy.cli.arguments import at_least, positive
from robopolicy.errors import MonitorError

FIRST_SEEDS = {"calibration": 0, "test": 100_000}  # episodes have no seed there; these keep the two sets apart


def add_parser(actions: Any, debug: argparse.ArgumentParser) -> None:
    """Add the action's arguments."""
    parser = actions.add_parser(
        "import-fiper", parents=[debug], help="rollouts as FIPER keeps them (pickles, read without running them)"
    )
    parser.add_argument(
        "data", type=Path, metavar="DATA/TASK", help="folder with rollouts/calibration/*.pkl and rollouts/test/*.pkl"
    )
    parser.add_argument("out", type=Path, metavar="OUT", help="folder of the evaluations calibration and test")
    parser.add_argument(
        "--n-execute", type=at_least(1), metavar="N", help="rows of a chunk that were executed, if the files do not say"
    )
    parser.add_argument(
        "--dt", type=positive, metavar="S", help="seconds between two rows, if the files do not say (published: known)"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Run the action."""
    from robopolicy.cli.progress import say

    for line in import_fiper(args.data, args.out, n_execute=args.n_execute, dt_s=args.dt):
        say(line)


def import_fiper(data: Path, out: Path, *, n_execute: int | None = None, dt_s: float | None = None) -> list[str]:
    """Write the evaluations ``out/calibration`` and ``out/test``, with decisions; return a line on each.

    The same files give the same bytes. An episode that was made out of distribution is marked as perturbed
    (``ood:1``). Both folders are written, or neither; older ones of an import are replaced.

    Raises:
        MonitorError: if a file is no rollout or would do more than hold data, if two differ in shape or layout, or if
            something else is where the folders are to be.
    """
    from contextlib import ExitStack

    from robopolicy.monitor.fiper import fiper_files
    from robopolicy.monitor.whole import whole_folder

    options = {"n_execute": n_execute, "dt_s": dt_s}
    lines, shape = [], _Shape()
    with ExitStack() as both:
        for part, files in fiper_files(data).items():
            scratch = both.enter_context(whole_folder(out / part, _imported))
            lines.append(_write(part, files, scratch, shape, options))
    return lines


def _write(part: str, files: list[Path], folder: Path, shape: "_Shape", options: dict[str, Any]) -> str:
    import hashlib
    import json

    from robopolicy.evaluation.outcomes import Outcome, OutcomeLog
    from robopolicy.monitor.decisions import save_decisions
    from robopolicy.monitor.fiper import read_fiper_episode
    from robopolicy.monitor.runtime import file_sha

    named = [part, options, *((file.name, file_sha(file)) for file in files)]
    identity = hashlib.sha256(repr(named).encode()).hexdigest()[:16]
    outcomes, layout, task = [], None, ""
    for seed, file in enumerate(files, FIRST_SEEDS[part]):
        episode = read_fiper_episode(file, part=part, **options)
        shape.check(episode, file)
        path = save_decisions(folder / "decisions" / identity / f"{seed:06d}.npz", episode.decisions)
        layout, task = episode.layout, episode.task or task
        outcomes.append(
            Outcome(
                seed, episode.success, float(episode.success), steps=sum(d.n_execute for d in episode.decisions),
                decisions=str(path.relative_to(folder)), failure="" if episode.success else "unknown",
                perturbations=("ood:1",) if episode.ood else (), drawn=f"{episode.name} ({episode.subtype})",
            )
        )  # fmt: skip
    name = f"fiper:{task}"
    layout_said = json.dumps(layout.to_json()) if layout else ""
    log = OutcomeLog(folder, identity)
    about = {"policy_sha": name, "env": name, "source": "fiper", "action_layout": layout_said}
    log.begin(about, [outcome.seed for outcome in outcomes])
    for outcome in outcomes:
        log.append(outcome)
    good = sum(outcome.success for outcome in outcomes)
    aside = sum(bool(outcome.perturbations) for outcome in outcomes)
    return f"{part}: {len(outcomes)} episodes, {good} successful, {aside} out of distribution; {shape}"


class _Shape:
    """The shape and layout of the first episode, which all others must have."""

    def __init__(self) -> None:
        self._first: tuple[Any, ...] = ()
        self._file: Path | None = None

    def check(self, episode: Any, file: Path) -> None:
        from robopolicy.monitor.runtime import DecisionShape

        mine = (DecisionShape.of(episode.decisions[0]), episode.layout, sorted(episode.decisions[0].aux))
        if not self._first:
            self._first, self._file = mine, file
        for i, what in enumerate(("decisions", "action layout", "aux")):
            if mine[i] != self._first[i]:
                raise MonitorError(f"{file} has {what} {mine[i]}, {self._file} has {self._first[i]}; want one policy's")

    def __str__(self) -> str:
        return str(self._first[0])


def _imported(folder: Path) -> bool:
    from robopolicy.errors import EvaluationError
    from robopolicy.evaluation.outcomes import load_about

    try:
        return load_about(folder).get("source") == "fiper"
    except EvaluationError:
        return False
