"""How far each axis of perturbation bites: python tests/benchmarks/bench_perturbations.py [--task lift] [--seeds 50]

A row an axis, a column a severity: successes with Clopper and Pearson's interval, the same seeds in every cell, through
the loop and the safety layer of `robopolicy eval`. The expert of a task sees states, so that what only cameras see is
left out for it; with --checkpoint and --env a policy is asked instead, on every axis of its world.
"""

import argparse
import time
from functools import partial
from pathlib import Path

from robopolicy.cli.worlds import make_safety, make_world
from robopolicy.clock import SimClock
from robopolicy.evaluation.rollouts import Rollout
from robopolicy.evaluation.statistics import success_rate
from sim_envs.experts import make_expert
from sim_envs.perturbations import AXES, axes_of

SEEN_ONLY = ("camera", "lighting", "texture", "distractors")


def make_rollout(args: argparse.Namespace, perturbations: tuple[str, ...]) -> Rollout:
    """Build world and agent as an evaluation's worker does."""
    if args.checkpoint is not None:
        from robopolicy.cli.evaluate import Subject

        subject = Subject.of(args.checkpoint, args.env, perturbations=perturbations)
        return Rollout(subject.make_world, subject.make_agent, make_safety)
    world = partial(make_world, args.env, perturbations=perturbations)
    spec = make_world(args.env, SimClock()).spec
    return Rollout(world, partial(make_expert, args.task, spec), make_safety)


def cell(args: argparse.Namespace, perturbations: tuple[str, ...]) -> str:
    """Return the successes of one axis at one severity, as text."""
    rollout = make_rollout(args, perturbations)
    outcomes = [rollout.run(seed) for seed in range(1000, 1000 + args.seeds)]
    rollout.close()
    rate = success_rate(sum(outcome.success for outcome in outcomes), len(outcomes))
    return f"{rate.successes:3d}/{rate.n} [{rate.low:4.0%},{rate.high:5.0%}]"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", default="lift")
    parser.add_argument("--checkpoint", type=Path)
    parser.add_argument("--env", help="with --checkpoint: its world")
    parser.add_argument("--seeds", type=int, default=50)
    parser.add_argument("--severities", type=float, nargs="+", default=[0.25, 0.5, 1.0])
    parser.add_argument("--axes", nargs="+", choices=list(AXES))
    args = parser.parse_args()
    args.env = args.env or f"twin:{args.task}"
    start_s = time.process_time()
    axes = args.axes or [
        name
        for name in axes_of(make_world(args.env, SimClock()))
        if args.checkpoint is not None or name not in SEEN_ONLY
    ]
    who = args.checkpoint.name if args.checkpoint else "the expert"
    print(f"{who} in {args.env}, {args.seeds} seeds; unperturbed {cell(args, ())}")
    print(f"{'':13}" + "".join(f"{severity:>20g}" for severity in args.severities))
    for axis in axes:
        cells = [cell(args, (f"{axis}:{severity:g}",)) for severity in args.severities]
        print(f"{axis:13}" + "".join(f"{text:>20}" for text in cells) + f"  {AXES[axis].most}", flush=True)
    print(f"{time.process_time() - start_s:.0f} s of CPU")
