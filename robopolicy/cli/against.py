"""`robopolicy eval --against RUN`: a verdict on the checkpoint at hand, and the end as soon as there is one."""

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from robopolicy.errors import UsageError

ALPHA = 0.05


def add_against(parser: Any) -> None:
    """Add the options to a parser."""
    parser.add_argument(
        "--against",
        type=Path,
        metavar="RUN",
        help="folder of another policy's evaluation in the same world: say which of the two is better on the seeds "
        "of both",
    )
    parser.add_argument(
        "--stop-early",
        action="store_true",
        help="with --against: end once that is decided, false with chance 0.05 at most all the same",
    )


@dataclass
class Against:
    """Another policy's evaluation, which the outcomes of the one at hand are held against as they come."""

    name: str
    mine: str  # what the policy at hand is called
    run: Any  # the other one's `Run`
    stop_early: bool
    order: Any  # `InSeedOrder`
    decided: bool = field(default=False, init=False)
    notes: list[str] = field(default_factory=list, init=False)  # what else is to be said of the two

    @classmethod
    def of(cls, args: argparse.Namespace, seeds: Sequence[int]) -> "Against | None":
        """Return what the arguments ask for; None if nothing.

        Raises:
            UsageError: if there is nothing to stop early for, or the other evaluation has none of the seeds.
            EvaluationError: if RUN is no evaluation.
        """
        from robopolicy.evaluation.comparison import InSeedOrder
        from robopolicy.evaluation.runs import read_run, short_names

        if args.against is None:
            if args.stop_early:
                raise UsageError("--stop-early ends once it is decided which policy is better: name --against RUN too")
            return None
        other = read_run(args.against)
        theirs = {outcome.seed: outcome.success for outcome in other.outcomes}
        shared = [seed for seed in seeds if seed in theirs]
        if not shared:
            raise UsageError(
                f"{args.against} has none of the seeds {args.seeds}; it has {min(theirs, default='none')} to "
                f"{max(theirs, default='none')}: compare policies on the same starts"
            )
        other_name, mine = short_names([args.against, args.out or args.checkpoint])
        order = InSeedOrder(sorted(shared), ALPHA)
        for seed in shared:
            order.tell("b", seed, theirs[seed])
        return cls(other_name, mine, other, args.stop_early, order)

    def require(self, about: Mapping[str, str], options: Any) -> None:
        """Make sure that the evaluation at hand is to differ from the other one in nothing but the policy.

        Raises:
            UsageError: with both sides.
        """
        from robopolicy.evaluation.runs import Run, require_alike

        said = options.words()
        mine = Run(self.mine, Path(self.mine), {**about, **({"options": said} if said else {})}, ())
        self.notes = require_alike([mine, self.run])

    def worth(self, seeds: Sequence[int]) -> list[int]:
        """Return the seeds to run: with an early end only those that the other evaluation has."""
        theirs = {outcome.seed for outcome in self.run.outcomes}
        return [seed for seed in seeds if seed in theirs or not self.stop_early]

    def enough(self, outcome: Any) -> bool:
        """Take one more outcome; return whether to end."""
        self.decided = self.order.tell("a", outcome.seed, None if outcome.error is not None else outcome.success)
        return self.decided and self.stop_early

    def counted(self, outcomes: Sequence[Any]) -> list[Any]:
        """Return the outcomes that count: after an early end only the pairs up to the verdict, in seed order.

        Others that were finished by then are those that happened to be quick.
        """
        if not (self.decided and self.stop_early):
            return list(outcomes)
        seen = {*self.order.counted, *self.order.missing}
        return [outcome for outcome in outcomes if outcome.seed in seen]

    def verdict(self, outcomes: Sequence[Any]) -> str:
        """Return which is better, in words."""
        from robopolicy.evaluation.comparison import compare

        told = compare(self.mine, outcomes, self.name, self.run.outcomes, alpha=ALPHA).verdict()
        if self.decided and self.stop_early:
            told += "; ended there, where rates flatter the winner: measure them on fresh seeds"
        return "; ".join([told, *self.notes])
