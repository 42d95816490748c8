"""One tree of errors; each leaf is also the matching builtin and says what would have been right."""

from collections.abc import Iterable

# What a bare Debian or Ubuntu lacks: GL for drawing, glib for OpenCV. One command for all of it.
SYSTEM_LIBRARIES = "apt-get install -y libegl1 libgl1 libglib2.0-0"


class RobopolicyError(Exception):
    """Root of every error robopolicy raises on purpose; the command line prints its one line."""


class UnknownName(RobopolicyError, LookupError):
    """A name that is not among the valid ones.

    Args:
        kind: what was being named, e.g. ``"task"``.
        name: the name that was given.
        valid: the names that exist.
    """

    def __init__(self, kind: str, name: str, valid: Iterable[str]) -> None:
        super().__init__(f"no {kind} {name!r}; valid: {', '.join(sorted(valid)) or '(none)'}")


class UnknownTask(UnknownName):
    """A simulated task that does not exist."""


class UnknownCamera(UnknownName):
    """A camera that neither the spec nor the robot has."""


class ContractError(RobopolicyError, ValueError):
    """A value that breaks the contract of its type: wrong shape, dtype, order or a non-finite number."""


class SpecMismatch(RobopolicyError, ValueError):
    """Dataset, checkpoint and robot disagree; the message prints both sides."""


class StaleFrame(RobopolicyError, TimeoutError):
    """A camera frame or state is older than the loop allows."""


class UnsafeCommand(RobopolicyError, ValueError):
    """A command the safety layer refuses outright (non-finite, wrong length, no fresh observation)."""


class LateCommand(UnsafeCommand):
    """A command whose observation, or one of its pictures, is older than safety allows."""


class ConfigError(RobopolicyError, ValueError):
    """A file of settings is not there, not readable, or asks for what makes no sense."""


class DatasetError(RobopolicyError, ValueError):
    """Something on disk is not a readable robopolicy dataset."""


class NewerFormat(DatasetError):
    """The dataset was written by a newer major version of the format."""


class DatasetBusy(RobopolicyError, BlockingIOError):
    """Another process is writing this dataset."""


class DiskFull(RobopolicyError, OSError):
    """No space is left on the device for what was to be written."""


class CheckpointError(RobopolicyError, ValueError):
    """A folder is not a checkpoint, or one of its files does not fit the others."""


class BehindCamera(RobopolicyError, ValueError):
    """A point is behind the camera that should show it; the message counts such points."""


class TracksLost(RobopolicyError, ValueError):
    """Tracks by which no motion can be told, outside the pictures or not the same in all; the message says which."""


# What a policy raises that has no plan for what it sees: whoever runs it ends the episode with the reason.
NO_PLAN = (BehindCamera, TracksLost)


class CalibrationError(RobopolicyError, ValueError):
    """Pictures do not determine a camera, or it is known less well than the limit asks for."""


class CameraMoved(RobopolicyError, ValueError):
    """A camera is not where its calibration says; the message holds its residual and the limit."""


class TooSlow(RobopolicyError, TimeoutError):
    """A policy plans more slowly than the robot that waits for it takes its commands."""


class MonitorError(RobopolicyError, ValueError):
    """A folder is not a monitor, or what one is made from does not fit together."""


class NotEnoughCalibration(RobopolicyError, ValueError):
    """Too few successful episodes for the asked false-alarm rate."""


class EvaluationError(RobopolicyError, RuntimeError):
    """An evaluation could not run: its world or agent cannot be built in a worker process."""


class NoGLBackend(RobopolicyError, RuntimeError):
    """Headless rendering is not possible on this machine; the message holds the remedy."""


class MissingExtra(RobopolicyError, ImportError):
    """An optional dependency is absent; the message names the extra that installs it."""

    def __init__(self, package: str, extra: str) -> None:
        super().__init__(f"{package} is not installed; install it with: pip install 'robopolicy[{extra}]'")


class UsageError(RobopolicyError, ValueError):
    """A command-line argument that makes no sense; the message says what would."""
