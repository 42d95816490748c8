"""What checkpoints score in a simulated world while their training goes on."""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from robopolicy.errors import UsageError
from robopolicy.spec import PolicySpec

SCORES = ("score", "success")


def trial(env: str, seeds: str, spec: PolicySpec) -> Callable[[Path], Mapping[str, float]]:
    """Return what scores a checkpoint, once it is sure that ``env`` offers what ``spec`` needs.

    Args:
        env: name of the simulated world.
        seeds: its starts, as on the command line.
        spec: of the policy.

    Raises:
        SpecMismatch: both sides printed.
        UsageError: if the seeds make no sense.
    """
    from robopolicy.cli.worlds import world_factory
    from robopolicy.clock import SimClock
    from robopolicy.evaluation.statistics import parse_seeds
    from robopolicy.interfaces import Environment

    numbers = parse_seeds(seeds)
    world = world_factory(env, spec)(SimClock())
    try:
        if not isinstance(world, Environment):
            raise UsageError(f"--eval-env {env} is no simulated world; it cannot be put back to a start")
        spec.require_from(world.spec, needs="the policy", offers=f"robot {env}")
    finally:
        world.close()
    return partial(score_checkpoint, env=env, seeds=tuple(numbers))


def score_checkpoint(checkpoint: Path, env: str, seeds: tuple[int, ...]) -> dict[str, float]:
    """Return the mean best score and the share of successes over ``seeds``, in one process."""
    from robopolicy.cli.evaluate import Subject
    from robopolicy.cli.together import Together
    from robopolicy.cli.worlds import make_safety
    from robopolicy.evaluation.rollouts import evaluate
    from robopolicy.evaluation.statistics import summarise

    subject, together = Subject.of(checkpoint, env), Together.of(checkpoint, None)
    outcomes = evaluate(
        subject.make_world, subject.make_agent, seeds, make_safety=make_safety, jobs=1, envs=together.envs,
        rows=together.rows,
    )  # fmt: skip
    summary = summarise(outcomes)
    return dict(zip(SCORES, (summary.score.value, summary.success.value), strict=True))
