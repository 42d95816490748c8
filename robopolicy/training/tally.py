"""How far a run is and how fast it goes, and what it tells of itself: to a progress bar, to logs, in train.json."""

import math
import platform
import time
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from robopolicy.training.config import Progress, TrainConfig
from robopolicy.training.trainable import Trainable

LOSSES = 300  # at most so many go into train.json


class Tally:
    """Steps, losses and seconds of a run, counted on when it is resumed.

    Args:
        config: holds the budgets.
        batch_size: windows a step, of all processes.

    Attributes:
        step: how many steps are done.
        first_step: how many of them before this call.
        losses: (step, mean loss since the one before).
        data_s: spent on gathering batches since `begin`.
        update_s: spent on updating the weights.
    """

    def __init__(self, config: TrainConfig, batch_size: int) -> None:
        self._config, self._batch_size = config, batch_size
        self.step = self.first_step = 0
        self.losses: list[tuple[int, float]] = []
        self.data_s = self.update_s = 0.0
        self._before_s = 0.0  # in earlier calls of a resumed run
        self._start_s = time.monotonic()

    def begin(self) -> None:
        """Start the clock."""
        self._start_s = time.monotonic()

    def count(self, data_s: float, update_s: float) -> None:
        """Add one step."""
        self.step += 1
        self.data_s += data_s
        self.update_s += update_s

    def cursor(self) -> dict[str, Any]:
        """Return what `restore` goes on from, JSON-able."""
        return {"step": self.step, "elapsed_s": self.elapsed_s, "losses": self.losses}

    def restore(self, cursor: Mapping[str, Any]) -> None:
        """Go on from what `cursor` gave."""
        self.step = self.first_step = cursor["step"]
        self._before_s = cursor["elapsed_s"]
        self.losses = [(step, loss) for step, loss in cursor["losses"]]

    @property
    def elapsed_s(self) -> float:
        """Seconds of training in all."""
        return self._before_s + time.monotonic() - self._start_s

    @property
    def minutes(self) -> float:
        """Minutes of training in all."""
        return self.elapsed_s / 60

    @property
    def used(self) -> float:
        """Fraction of the budget that is used up."""
        steps = self.step / self._config.steps if self._config.steps else 0.0
        minutes = self.minutes / self._config.max_minutes if self._config.max_minutes else 0.0
        return max(steps, minutes)

    @property
    def speed(self) -> float:
        """Samples per second since `begin`."""
        return (self.step - self.first_step) * self._batch_size / (time.monotonic() - self._start_s)

    def progress(self, loss: float, lr: float, norm: float, scores: Mapping[str, Any]) -> Progress:
        """Return where the run stands."""
        used = self.used
        eta_s = self.elapsed_s * (1 / used - 1) if used < 1 else 0.0
        steps = max(self.step, round(self.step / used))
        return Progress(self.step, steps, loss, self.speed, eta_s, self.data_s, self.update_s, lr, norm, scores)

    def told(self) -> dict[str, Any]:
        """Return what train.json tells of steps and seconds."""
        return {
            "steps": self.step,
            "finished": self.used >= 1,
            "minutes": round(self.minutes, 3),
            "samples_per_s": round(self.speed, 1),
            "data_s": round(self.data_s, 3),
            "update_s": round(self.update_s, 3),
        }

    def some_losses(self) -> list[tuple[int, float]]:
        """Return losses evenly taken, the last one among them."""
        apart = max(math.ceil(len(self.losses) / LOSSES), 1)
        return self.losses[::-apart][::-1]


def train_json(
    tally: Tally,
    policy: Trainable,
    config: TrainConfig,
    lr: float,
    *,
    processes: int,
    data: Mapping[str, Any],
    results: list[dict[str, Any]],
) -> dict[str, Any]:
    """Return what train.json holds.

    Args:
        tally: of the run.
        policy: that is trained.
        config: how.
        lr: the peak, of the policy or of ``config``.
        processes: that share each batch.
        data: what is worth knowing of it.
        results: of the evaluations so far.
    """
    import torch

    import robopolicy

    return {
        **tally.told(),
        "parameters": sum(p.numel() for p in policy.parameters()),
        "processes": processes,
        "train": {**asdict(config), "lr": lr},
        "data": dict(data),
        "versions": {
            "robopolicy": robopolicy.__version__,
            "torch": torch.__version__,
            "python": platform.python_version(),
        },
        "eval": results,
        "losses": tally.some_losses(),
    }
