"""Episodes of `deploy` kept as rollouts: a monitor is calibrated on those of a robot that no evaluation runs on."""

import argparse
import hashlib
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from robopolicy.errors import UsageError

ASK, YES, NO = "ask", "yes", "no"


@dataclass(frozen=True)
class Keeping:
    """Where an episode's decisions, verdicts and outcome are kept, and who says whether it succeeded."""

    folder: Path
    succeeded: str = ASK

    @classmethod
    def of(cls, args: argparse.Namespace) -> "Keeping | None":
        """Read it off the arguments of `add_keeping`.

        Raises:
            UsageError: if success is told and nothing is kept.
        """
        if args.rollouts is None:
            if args.succeeded is not None:
                raise UsageError("--succeeded is of an episode that is kept: add --rollouts FOLDER")
            return None
        return cls(args.rollouts, args.succeeded or ASK)

    def require(self, world: Any, robot_name: str, monitor: Path | None, on_alarm: Any) -> None:
        """Refuse what would give no label, or a wrong one, before anything moves.

        Raises:
            UsageError: if a robot's success can neither be told nor asked for, a world's is told, or a monitor may end
                an episode that might have succeeded.
        """
        from robopolicy.reactions import Reactions

        if world is not None and self.succeeded != ASK:
            raise UsageError(f"--succeeded {self.succeeded}: {robot_name} knows itself whether an episode succeeded")
        if world is None and self.succeeded == ASK and not sys.stdin.isatty():
            raise UsageError("--rollouts asks whether the episode succeeded, and there is no terminal: add --succeeded")
        acting = on_alarm if isinstance(on_alarm, Reactions) else Reactions(on_alarm)
        if monitor is not None and {acting.to("alarm"), acting.to("overrun")} != {"log"}:
            raise UsageError(
                "--rollouts keeps episodes to calibrate on, and a monitor that acts ends some that might have "
                "succeeded: add --on-alarm log, or leave --monitor out"
            )

    def seed(self, asked: int, world: Any) -> int:
        """Return the episode's number: the one asked for in a world, which starts from it; a robot's next free one."""
        from robopolicy.evaluation.outcomes import OUTCOMES, load_outcomes

        if world is not None or not (self.folder / OUTCOMES).exists():
            return asked
        taken = {outcome.seed for outcome in load_outcomes(self.folder)}
        return asked if asked not in taken else max(taken) + 1

    def keep(self, witness: Any, outcome: Any, world: Any, about: dict[str, str]) -> Any:
        """Write the episode and return its outcome, with the success that was asked for.

        Args:
            witness: of the episode, that kept its decisions.
            outcome: of the episode.
            world: that knows of success, or None.
            about: the policy and the robot; rollouts of others lie in other folders, see `same`.
        """
        from robopolicy.evaluation.outcomes import OutcomeLog
        from robopolicy.monitor.decisions import save_decisions, save_verdicts, verdicts_path

        success = outcome.success if world is not None else self._success()
        outcome = replace(outcome, success=success)
        identity = _identity(about)
        if witness.decisions:
            path = save_decisions(self.folder / "decisions" / identity / f"{outcome.seed:06d}.npz", witness.decisions)
            if witness.verdicts:
                save_verdicts(verdicts_path(path), witness.verdicts)
            outcome = replace(outcome, decisions=str(path.relative_to(self.folder)))
        log = OutcomeLog(self.folder, identity)
        log.begin(about, [outcome.seed])
        log.append(outcome)
        return outcome

    def same(self, about: dict[str, str]) -> None:
        """Refuse a folder of other rollouts, before anything moves.

        Raises:
            SpecMismatch: naming what differs, both sides.
        """
        from robopolicy.errors import SpecMismatch
        from robopolicy.evaluation.outcomes import CURRENT, load_about

        if not (self.folder / CURRENT).exists():
            return
        theirs = load_about(self.folder)
        both = [(k, theirs.get(k, "(none)"), about.get(k, "(none)")) for k in {**about, **theirs}]
        wrong = [f"{k} {there}, here {here}" for k, there, here in both if there != here]
        if wrong:
            told = "; ".join(wrong)
            raise SpecMismatch(f"--rollouts {self.folder} holds other rollouts: {told}; name another folder")

    def _success(self) -> bool:
        if self.succeeded != ASK:
            return self.succeeded == YES
        while True:
            answer = input("did the episode succeed? [y/n] ").strip().lower()
            if answer in ("y", "yes", "n", "no"):
                return answer.startswith("y")


def add_keeping(parser: argparse.ArgumentParser) -> None:
    """Add the options to a parser."""
    group = parser.add_argument_group("episodes to calibrate a monitor on", "where no evaluation can make them")
    group.add_argument(
        "--rollouts", type=Path, metavar="FOLDER",
        help="keep the episode's decisions and outcome there, for calibrate --rollouts; a robot's are numbered on from "
        "--seed, and afterwards you are asked whether it succeeded",
    )  # fmt: skip
    group.add_argument("--succeeded", choices=[ASK, YES, NO], help="a robot's episode, without being asked")


def _identity(about: dict[str, str]) -> str:
    return hashlib.sha256(repr(("deploy", sorted(about.items()))).encode()).hexdigest()[:16]
