"""Which episode is for what, fixed in a file before anything is scored."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from robopolicy.errors import MonitorError, NotEnoughCalibration
from robopolicy.monitor.conformal import min_calibration
from robopolicy.training.files import replace_file

MIN_FIT = 2  # episodes a score learns from, beside those that calibrate it


@dataclass(frozen=True)
class Roles:
    """Numbers (seeds) of the successful episodes a monitor learns from, is calibrated on, and is tested on.

    Raises:
        MonitorError: if an episode has two roles, or one twice: the threshold would promise nothing.
    """

    fit: tuple[int, ...]
    calibrate: tuple[int, ...]
    test: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        every = [*self.fit, *self.calibrate, *self.test]
        if len(set(every)) < len(every):
            twice = sorted({e for e in every if every.count(e) > 1})
            raise MonitorError(f"episode {', '.join(map(str, twice[:5]))} has two roles; want each in one of them")

    @classmethod
    def split(cls, episodes: Sequence[int], *, alpha: float, seed: int = 0, test: int = 0) -> "Roles":
        """Draw roles at random, whole episodes: ``test`` of them to test, half of the others, at least
        ``min_calibration(alpha)``, to calibrate.

        Raises:
            NotEnoughCalibration: naming how many there are and how many it takes.
        """
        needed = min_calibration(alpha) + MIN_FIT
        if len(episodes) - test < needed:
            raise NotEnoughCalibration(
                f"{len(episodes)} successful episodes{f', {test} of them to test on' if test else ''}; a false-alarm "
                f"rate of {alpha:g} needs at least {needed}: {min_calibration(alpha)} to calibrate and {MIN_FIT} to "
                "fit the score"
            )
        order = [int(episodes[i]) for i in np.random.default_rng(seed).permutation(len(episodes))]
        tested, rest = order[:test], order[test:]
        n = max(min_calibration(alpha), len(rest) // 2)
        return cls(tuple(sorted(rest[n:])), tuple(sorted(rest[:n])), tuple(sorted(tested)))

    def save(self, path: str | Path) -> Path:
        """Write them as JSON; a file that is there must say the same.

        Raises:
            MonitorError: if it says something else: roles are frozen before anything is scored.
        """
        path = Path(path)
        if path.exists():
            if Roles.load(path) != self:
                raise MonitorError(f"{path} holds other roles; they are frozen: name another file, or remove this one")
            return path
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(path, (json.dumps(asdict(self)) + "\n").encode())
        return path

    @classmethod
    def load(cls, path: str | Path) -> "Roles":
        """Read what ``save`` wrote.

        Raises:
            MonitorError: if the file holds no roles.
        """
        try:
            data = json.loads(Path(path).read_bytes())
            return cls(*(tuple(int(e) for e in data[name]) for name in ("fit", "calibrate", "test")))
        except (OSError, ValueError, KeyError, TypeError) as error:
            if isinstance(error, MonitorError):
                raise
            raise MonitorError(
                f"{path} holds no roles (fit, calibrate and test, lists of episodes): {error}"
            ) from error
