"""What an identification found, as plain numbers and words: for the parameter file and for a page."""

from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

import numpy as np

from sim_envs.parameters import Parameters
from sim_envs.sysid import Fit
from sim_envs.sysid_arm import Identified

MODEL_NOTE = (
    "Standard errors are of the measurements, as if the model could be right; they do not know of what it leaves out. "
    "A value kept nominal is not confirmed, and what it could not be told apart from is right only together with it. "
    "The delay is the sum of a command's way to force and a measurement's way to its stamp."
)


def reported(identified: Identified, facts: Mapping[str, Any]) -> tuple[Parameters, dict[str, Any]]:
    """Return the parameters with their origin in ``about``, and the whole report, ready for JSON."""
    before, after = (float(np.sqrt(np.mean(rms**2))) for rms in (identified.before, identified.after))
    summary = {
        **facts,
        "held_out": list(identified.held_out),
        "held_out_rms_rad": {"nominal": before, "identified": after},
        "ratio": identified.ratio,
        "identifiability": identifiability(identified.fit),
    }
    report = {
        **summary,
        "joints": list(identified.parameters.joints),
        "held_out_joint_rms_rad": {"nominal": identified.before.tolist(), "identified": identified.after.tolist()},
        "trace": {key: np.asarray(value).tolist() for key, value in identified.trace.items()},
        "note": MODEL_NOTE,
        "lines": lines(identified),
    }
    return replace(identified.parameters, about=summary), report


def identifiability(fit: Fit) -> dict[str, Any]:
    """Return every estimate, the condition numbers and the correlated pairs."""
    return {
        "estimates": [{**asdict(estimate), "moved": estimate.moved} for estimate in fit.estimates],
        "condition_of_all": fit.condition,
        "condition_of_identified": fit.condition_kept,
        "pairs": [list(pair) for pair in fit.pairs],
        "rms_before": fit.rms_before,
        "rms_after": fit.rms_after,
    }


def lines(identified: Identified) -> list[str]:
    """Return the report in a few lines for people."""
    fit = identified.fit
    before, after = (1e3 * float(np.sqrt(np.mean(rms**2))) for rms in (identified.before, identified.after))
    by_status = {s: [e.name for e in fit.estimates if e.status == s] for s in ("identified", "at a bound")}
    moved = sum(estimate.moved for estimate in fit.estimates)
    said = [
        f"held-out joint error {before:.3f} -> {after:.3f} mrad RMS, {identified.ratio:.1f} times less",
        f"{len(by_status['identified'])} of {len(fit.estimates)} numbers identified, {moved} differ from nominal",
        f"condition {fit.condition:.2g} with all of them, {fit.condition_kept:.2g} with those identified",
    ]
    if by_status["at a bound"]:
        said.append(f"at a bound, so not to be believed: {', '.join(by_status['at a bound'])}")
    said += [f"{e.name} kept nominal: {e.note}" for e in fit.estimates if e.status == "kept nominal"]
    if not identified.useful:
        said.append("identification explains nothing that it was not fitted to: do not use these parameters")
    return said
