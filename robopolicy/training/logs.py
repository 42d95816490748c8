"""Where the numbers of a run go while it goes on: to TensorBoard, or nowhere."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from robopolicy.errors import MissingExtra
from robopolicy.training.config import Progress
from robopolicy.training.evaluations import score_of

FOLDER = "tensorboard"


class Log(Protocol):
    """Told where a run stands."""

    def progress(self, now: Progress) -> None:
        """Take a report."""
        ...

    def scores(self, result: Mapping[str, Any]) -> None:
        """Take the result of an evaluation."""
        ...

    def close(self) -> None:
        """Write what is left."""
        ...


class Silent:
    """A log that keeps nothing."""

    def progress(self, now: Progress) -> None:
        """Nothing."""

    def scores(self, result: Mapping[str, Any]) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing."""


class TensorBoard:
    """Event files for ``tensorboard --logdir``.

    Args:
        folder: of the training; the files are in tensorboard/ below it.
        step: where a resumed run goes on: what was logged beyond it is hidden.

    Raises:
        MissingExtra: if tensorboard is not installed.
    """

    def __init__(self, folder: Path, step: int = 0) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise MissingExtra("tensorboard", "tensorboard") from error
        self._writer = SummaryWriter(str(folder / FOLDER), purge_step=step or None)  # type: ignore[no-untyped-call]

    def progress(self, now: Progress) -> None:
        """Write loss, learning rate, gradient norm, samples a second and the share of time spent waiting for data."""
        values = {
            "train/loss": now.loss, "train/lr": now.lr, "train/grad_norm": now.grad_norm,
            "speed/samples_per_s": now.samples_per_s, "speed/data_share": now.data_share,
        }  # fmt: skip
        for name, value in values.items():
            self._writer.add_scalar(name, value, now.step)  # type: ignore[no-untyped-call]

    def scores(self, result: Mapping[str, Any]) -> None:
        """Write each score at the step of its checkpoint."""
        if score_of(result) is None:
            return
        for name, value in result.items():
            if name not in ("step", "minutes"):
                self._writer.add_scalar(f"eval/{name}", value, result["step"])  # type: ignore[no-untyped-call]

    def close(self) -> None:
        """Flush and close the file."""
        self._writer.close()  # type: ignore[no-untyped-call]
