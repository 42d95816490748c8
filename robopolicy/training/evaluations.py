"""Evaluating checkpoints in another process while training goes on."""

import multiprocessing
import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from robopolicy.errors import EvaluationError

Evaluate = Callable[[Path], Mapping[str, float]]  # a checkpoint's folder -> what it scored; the first decides the best
FOLDER, BEST = "checkpoints", "best"
NICE = 10  # the evaluation takes what the training leaves of the CPU


class Evaluations:
    """One checkpoint at a time, in a process of its own; training never waits for it but at its very end.

    A checkpoint that falls due while another is still being evaluated is skipped. In ``out`` it leaves ``best/``, the
    checkpoint with the highest first score, and the newest ``keep`` in ``checkpoints/``.

    Args:
        evaluate: picklable; called in a spawned process with the folder of a checkpoint. None evaluates nothing.
        out: folder of the training.
        every_steps: between the checkpoints that fall due.
        every_minutes: the same by the clock.
        keep: how many of the newest stay.

    Attributes:
        results: one a checkpoint, those of earlier calls of a resumed run included: ``step``, ``minutes`` of training,
            and its scores or an ``error``.
    """

    def __init__(
        self,
        evaluate: Evaluate | None,
        out: Path,
        *,
        every_steps: int | None = None,
        every_minutes: float | None = None,
        keep: int = 0,
    ) -> None:
        self._evaluate, self._out, self._keep = evaluate, out, keep
        self._every_steps, self._every_minutes = every_steps, every_minutes
        self.results: list[dict[str, Any]] = []
        self._child: tuple[Any, Connection, dict[str, Any], Path] | None = None
        self._newest = 0
        self._step, self._minutes = 0, 0.0  # of the newest checkpoint handed in, or skipped

    def since(self, step: int, minutes: float) -> None:
        """Count from here: where a run begins, or goes on."""
        self._step, self._minutes = step, minutes

    def due(self, step: int, minutes: float) -> bool:
        """Whether a checkpoint should be handed in now."""
        if self._evaluate is None:
            return False
        steps, pause = self._every_steps, self._every_minutes
        due = (steps is not None and step // steps > self._step // steps) or (
            pause is not None and minutes - self._minutes >= pause
        )
        if due and self.busy:
            self.since(step, minutes)
        return due and not self.busy

    @property
    def wanted(self) -> bool:
        """Whether there is anything to evaluate with."""
        return self._evaluate is not None

    @property
    def newest(self) -> int:
        """The step of the checkpoint that was handed in last, 0 if there was none."""
        return self._newest

    @property
    def busy(self) -> bool:
        """Whether an evaluation is going on."""
        return self._child is not None

    def begin(self, step: int, minutes: float, save: Callable[[Path], None]) -> None:
        """Have ``save`` write a checkpoint to a folder, and evaluate that."""
        self.since(step, minutes)
        self._newest = step
        folder = self._out / FOLDER / f"step-{step:08}"
        save(folder)
        context = multiprocessing.get_context("spawn")
        pipe, theirs = context.Pipe(duplex=False)
        process = context.Process(target=_child, args=(self._evaluate, folder, theirs))  # may have workers: no daemon
        process.start()
        theirs.close()  # so that the pipe ends when the process does
        self._child = (process, pipe, {"step": step, "minutes": round(minutes, 3)}, folder)

    def collect(self, *, wait: bool = False) -> dict[str, Any] | None:
        """Return the result of an evaluation that has ended, None while there is none."""
        if self._child is None or not (wait or self._child[1].poll()):
            return None
        process, pipe, result, folder = self._child
        try:
            result |= pipe.recv()
        except EOFError:
            process.join()
            result["error"] = f"its process died with exit code {process.exitcode}"
        process.join()
        pipe.close()
        self._child = None
        self.results.append(result)
        self._tidy(folder, result)
        return result

    def close(self) -> None:
        """End an evaluation that is going on."""
        if self._child is None:
            return
        process, pipe, _, folder = self._child
        process.terminate()
        process.join()
        pipe.close()
        self._child = None
        shutil.rmtree(folder, ignore_errors=True)

    def _tidy(self, folder: Path, result: Mapping[str, Any]) -> None:
        scores = [score_of(one) for one in self.results]
        best = [score for score in scores if score is not None]
        if best and score_of(result) == max(best):
            _replace_folder(folder, self._out / BEST)
        kept = sorted((self._out / FOLDER).glob("step-*"))
        for old in kept[: len(kept) - self._keep]:
            shutil.rmtree(old, ignore_errors=True)
        with suppress(OSError):  # not empty
            (self._out / FOLDER).rmdir()


def score_of(result: Mapping[str, Any]) -> float | None:
    """Return the first score of a result, None if it has none."""
    return next((value for name, value in result.items() if name not in ("step", "minutes", "error")), None)


class Command:
    """Evaluates by a command line: the last line it prints is a JSON object of scores.

    Args:
        words: ``{checkpoint}`` in any of them stands for the folder.
    """

    def __init__(self, words: Sequence[str]) -> None:
        self.words = tuple(words)

    def __call__(self, checkpoint: Path) -> dict[str, float]:
        """Run it; raises EvaluationError if it fails or prints something else."""
        import json

        words = [word.replace("{checkpoint}", str(checkpoint)) for word in self.words]
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        if done.returncode:
            said = (done.stderr or done.stdout).strip().splitlines()[-1:] or ["nothing"]
            raise EvaluationError(f"{words[0]} ended with {done.returncode}: {said[0]}")
        try:
            scores = json.loads(done.stdout.strip().splitlines()[-1])
            return {str(name): float(value) for name, value in scores.items()}
        except (ValueError, TypeError, IndexError, AttributeError) as error:
            raise EvaluationError(f"{words[0]}: its last line is no JSON object of numbers") from error


def _child(evaluate: Evaluate, folder: Path, pipe: Connection) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the trainer's to handle
    os.nice(NICE)
    try:
        pipe.send({name: float(value) for name, value in evaluate(folder).items()})
    except Exception as error:  # told to the trainer, which goes on
        pipe.send({"error": f"{type(error).__name__}: {' '.join(str(error).split())}"})


def _replace_folder(source: Path, target: Path) -> None:
    """Put a copy of ``source`` where ``target`` is; a kill in between leaves the old one or none, never half a one."""
    fresh, old = target.with_name(f".{target.name}.wip"), target.with_name(f".{target.name}.old")
    for folder in (fresh, old):
        shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(source, fresh)
    if target.exists():
        target.rename(old)
    fresh.rename(target)
    shutil.rmtree(old, ignore_errors=True)
