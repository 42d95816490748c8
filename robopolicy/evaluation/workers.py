"""Spawned processes that run episodes; one that dies costs its episode and is replaced."""

import multiprocessing
import os
import signal
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, Protocol

from robopolicy.errors import EvaluationError, RobopolicyError
from robopolicy.evaluation.outcomes import Outcome

# Read once, when numpy, torch or llvmpipe is loaded: two threads each in two workers on two cores spin, not work.
ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "LP_NUM_THREADS")


class Runner(Protocol):
    """What a worker builds once and runs for each seed."""

    def run(self, seed: int) -> Outcome:
        """Run one episode."""
        ...

    def close(self) -> None:
        """Release what it holds."""
        ...


@dataclass
class _Worker:
    """The parent's side of one process."""

    process: Any
    pipe: Connection
    seed: int | None = None  # the episode it is running


def run_in_workers(build: Callable[[], Runner], seeds: Sequence[int], *, jobs: int) -> Iterator[Outcome]:
    """Yield one outcome a seed, in the order they finish.

    Args:
        build: picklable; called once in each worker.
        seeds: one episode each.
        jobs: processes at a time.

    Raises:
        EvaluationError: if ``build`` raises or its process dies.
    """
    waiting = deque(seeds)
    workers = [_start(build) for _ in range(min(max(jobs, 1), len(waiting)))]
    try:
        while workers:
            for pipe in wait([worker.pipe for worker in workers]):
                worker = next(worker for worker in workers if worker.pipe is pipe)
                try:
                    kind, content = worker.pipe.recv()
                except (EOFError, OSError):
                    workers.remove(worker)
                    yield _lost(worker)
                    if waiting:
                        workers.append(_start(build))
                    continue
                if kind == "unbuildable":
                    raise EvaluationError(content)
                if kind == "outcome":
                    yield content
                if waiting:
                    _give(worker, waiting.popleft())
                else:
                    workers.remove(worker)
                    _dismiss(worker)
    finally:
        for worker in workers:
            worker.process.terminate()
            worker.process.join()


def describe_error(error: BaseException) -> str:
    """Return one line: the message of our own errors, and for others also their type and the line that raised."""
    message = " ".join(str(error).split()) or "no message"
    if isinstance(error, RobopolicyError):
        return message
    frame = traceback.extract_tb(error.__traceback__)[-1]  # its file without the folder: results are passed on
    return f"{type(error).__name__}: {message} ({Path(frame.filename).name}:{frame.lineno})"


def _start(build: Callable[[], Runner]) -> _Worker:
    context = multiprocessing.get_context("spawn")
    pipe, child = context.Pipe()
    process = context.Process(target=_work, args=(build, child), daemon=True)
    with _one_thread():
        process.start()
    child.close()  # so that the pipe ends when the process does
    return _Worker(process, pipe)


def _give(worker: _Worker, seed: int) -> None:
    worker.seed = seed
    with suppress(OSError):  # it has just died: the next wait sees its end of file
        worker.pipe.send(seed)


def _dismiss(worker: _Worker) -> None:
    with suppress(OSError):
        worker.pipe.send(None)
    worker.process.join(timeout=10)
    worker.process.terminate()  # a world that does not close must not keep its process


def _lost(worker: _Worker) -> Outcome:
    worker.process.join()
    code = worker.process.exitcode
    how = signal.Signals(-code).name if code is not None and code < 0 else f"exit code {code}"
    if worker.seed is None:
        raise EvaluationError(f"a worker process died while it built the world and the agent ({how})")
    return Outcome(worker.seed, error=f"the worker process died during this episode ({how})")


@contextmanager
def _one_thread() -> Iterator[None]:
    before = {name: os.environ.get(name) for name in ONE_THREAD}
    os.environ.update(dict.fromkeys(ONE_THREAD, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _work(build: Callable[[], Runner], pipe: Connection) -> None:
    """The child's side: build once, then an outcome for each seed until there is none."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    try:
        runner = build()
    except Exception as error:  # told to the parent, which raises
        pipe.send(("unbuildable", describe_error(error)))
        return
    pipe.send(("ready", None))
    while (seed := _next(pipe)) is not None:
        try:
            outcome = runner.run(seed)
        except Exception as error:  # one episode's error is one episode's outcome
            outcome = Outcome(seed, error=describe_error(error))
        pipe.send(("outcome", outcome))
    runner.close()


def _next(pipe: Any) -> int | None:
    """The next seed; None when there is no more, or nobody to ask."""
    try:
        return pipe.recv()
    except EOFError:  # the parent was killed
        return None
