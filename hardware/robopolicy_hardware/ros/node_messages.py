"""What a node tells of itself, as messages: its state, the monitor's score, diagnostics."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from robopolicy.types import Verdict
from robopolicy_hardware.ros.codec import message
from robopolicy_hardware.ros.set_points import ARRAY, header

STRING, DIAGNOSTICS = "std_msgs/msg/String", "diagnostic_msgs/msg/DiagnosticArray"
OK, WARN, ERROR = 0, 1, 2  # levels of diagnostic_msgs/DiagnosticStatus
SCORES = ("statistic", "threshold", "p_value")


@dataclass(frozen=True)
class Finding:
    """One part of a node and how it is: a ``diagnostic_msgs/DiagnosticStatus``."""

    name: str  # of the part, as in "robopolicy: loop"
    level: int
    says: str
    values: Mapping[str, str] = field(default_factory=dict)


def status_message(values: Mapping[str, Any]) -> Any:
    """Return a ``std_msgs/String`` that holds ``values`` as one line of JSON."""
    return message(STRING)(json.dumps(values))


def score_message(verdict: Verdict) -> Any:
    """Return a ``std_msgs/Float64MultiArray`` of statistic, threshold and p-value, labelled so in its layout."""
    dimension = message("std_msgs/msg/MultiArrayDimension")
    layout = message("std_msgs/msg/MultiArrayLayout")([dimension(name, 1, 1) for name in SCORES], 0)
    return message(ARRAY)(layout, np.array([getattr(verdict, name) for name in SCORES], np.float64))


def diagnostics_message(findings: Sequence[Finding], hardware: str, stamp_ns: int) -> Any:
    """Return a ``diagnostic_msgs/DiagnosticArray``.

    Args:
        findings: one a part.
        hardware: the robot's name.
        stamp_ns: of the header, wall clock.
    """
    status, pair = message("diagnostic_msgs/msg/DiagnosticStatus"), message("diagnostic_msgs/msg/KeyValue")
    made = [
        status(one.level, one.name, one.says, hardware, [pair(*value) for value in one.values.items()])
        for one in findings
    ]
    return message(DIAGNOSTICS)(header(stamp_ns), made)
