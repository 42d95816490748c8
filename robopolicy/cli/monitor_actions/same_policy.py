"""Rollouts and a monitor belong together only if they are of one policy."""

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
