"""A FAKE, see rclpy/__init__.py."""

from enum import Enum


class QoSReliabilityPolicy(Enum):
    RELIABLE = 1
    BEST_EFFORT = 2


class QoSDurabilityPolicy(Enum):
    TRANSIENT_LOCAL = 1
    VOLATILE = 2


class QoSProfile:
    def __init__(self, *, depth, reliability, durability=QoSDurabilityPolicy.VOLATILE):
        assert isinstance(reliability, QoSReliabilityPolicy)
        assert isinstance(durability, QoSDurabilityPolicy)
        self.depth, self.reliability, self.durability = depth, reliability, durability
