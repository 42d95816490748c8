"""Rollouts and a monitor belong together only if they are of one policy, which drove alone."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from robopolicy.errors import SpecMismatch


def require_same_policy(rollouts: Path, folder: Path, monitor: Any) -> None:
    """Refuse rollouts of another policy than the one that ``monitor``, in ``folder``, guards.

    Raises:
        SpecMismatch: naming both.
        EvaluationError: if ``rollouts`` is not the folder of an evaluation.
    """
    from robopolicy.evaluation.outcomes import load_about

    theirs, ours = load_about(rollouts).get("policy_sha", ""), monitor.provenance.policy_sha
    if theirs != ours:
        raise SpecMismatch(
            f"rollouts {rollouts} are of policy {theirs[:12] or '(unnamed)'}, monitor {folder} is of "
            f"{ours[:12] or '(unnamed)'}; a monitor goes with the policy it guards, with the same solver and goal"
        )


def require_unanswered(rollouts: Path, about: Mapping[str, str]) -> None:
    """Refuse rollouts in which a monitor's alarms were answered by more than a line in the log.

    An episode that was held after an alarm fails: the successes that are left are those without one, of which a
    threshold would come too low; and its failure is the monitor's own, which must not count as one foreseen.

    Raises:
        SpecMismatch: naming the reactions.
    """
    said = dict(part.split(": ") for part in about.get("reactions", "").split(", ") if part)
    if any(said.get(state, "log") != "log" for state in ("alarm", "overrun")):
        raise SpecMismatch(
            f"rollouts {rollouts} were made with reactions to a monitor ({about['reactions']}): its alarms chose which "
            "episodes succeeded; make them without --on-alarm"
        )
