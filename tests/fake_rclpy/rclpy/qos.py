"""A FAKE, see rclpy/__init__.py."""

from enum import Enum


class QoSReliabilityPolicy(Enum):
    RELIABLE = 1
    BEST_EFFORT = 2


class QoSProfile:
    def __init__(self, *, depth, reliability):
        assert isinstance(reliability, QoSReliabilityPolicy)
        self.depth, self.reliability = depth, reliability
