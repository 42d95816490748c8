"""Spawned processes that run episodes; one that dies or hangs costs its episode, or a retry, and is replaced."""

import multiprocessing
import os
import signal
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
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


class ItemRunner(Protocol):
    """What a worker builds once and runs for each item of a sweep."""

    def prepare(self, item: Any) -> None:
        """Build what this item needs and the one before did not."""
        ...

    def run(self, item: Any) -> Any:
        """Run one episode; return what came of it."""
        ...

    def close(self) -> None:
        """Release what it holds."""
        ...


@dataclass(frozen=True)
class Patience:
    """How long workers may take, and how often they may die."""

    episode_s: float | None = None  # longest an episode may last by the wall clock; None is for ever
    build_s: float | None = None  # the same of what is built before it
    retries: int = 0  # runs of one item after the one in which its worker died


@dataclass(frozen=True)
class Lost:
    """Why there is no result of an item: its worker died or hung."""

    how: str  # "SIGKILL", "exit code 3", "ran for more than 60 s"
    hung: bool = False
    building: bool = False  # before the episode began


@dataclass(frozen=True)
class Result:
    """What came of one item."""

    item: Any
    value: Any  # what the runner returned; a `Lost`; or a `Raised`
    attempts: int = 1


@dataclass(frozen=True)
class Raised:
    """What a runner raised, in one line."""

    what: str


@dataclass
class _Worker:
    """The parent's side of one process."""

    process: Any
    pipe: Connection
    item: Any = None  # what it is running
    attempt: int = 0  # of that; 0: it runs nothing
    building: bool = True
    deadline_s: float | None = None


def run_in_workers(build: Callable[[], Runner], seeds: Sequence[int], *, jobs: int) -> Iterator[Outcome]:
    """Yield one outcome a seed, in the order they finish.

    Args:
        build: picklable; called once in each worker.
        seeds: one episode each.
        jobs: processes at a time.

    Raises:
        EvaluationError: if ``build`` raises or its process dies.
    """
    for result in run_items(partial(_Seeds, build), seeds, jobs=jobs):
        if isinstance(result.value, Lost):
            yield Outcome(result.item, error=f"the worker process died during this episode ({result.value.how})")
        elif isinstance(result.value, Raised):
            yield Outcome(result.item, error=result.value.what)
        else:
            yield result.value


class _Seeds:
    """A `Runner` as an `ItemRunner`."""

    def __init__(self, build: Callable[[], Runner]) -> None:
        self._runner = build()
        self.run, self.close = self._runner.run, self._runner.close

    def prepare(self, item: Any) -> None:
        """Nothing: all was built beforehand."""


def run_items(
    build: Callable[[], ItemRunner], items: Sequence[Any], *, jobs: int, patience: Patience = Patience()
) -> Iterator[Result]:
    """Yield one result an item, in the order they finish; they are begun in the order given.

    An item whose worker dies is run again, first of all that wait, at most ``patience.retries`` times. One that hangs
    is not: its time was given it. What it raises is its result.

    Args:
        build: picklable; called once in each worker.
        items: picklable.
        jobs: processes at a time.
        patience: see there.

    Raises:
        EvaluationError: if ``build`` raises, or its process dies more often in a row than is had patience for.
    """
    waiting = deque((item, 1) for item in items)
    workers = [_start(build) for _ in range(min(max(jobs, 1), len(waiting)))]
    stillborn = 0
    try:
        while workers:
            for worker in _stirring(workers):
                told = _hear(worker)
                if told is not None and told[0] == "began":
                    worker.building, worker.deadline_s = False, _deadline(patience.episode_s)
                    continue
                if told is not None and told[0] == "unbuildable":
                    raise EvaluationError(told[1])
                if told is None:
                    workers.remove(worker)
                    lost = _bury(worker, patience)
                    if worker.attempt == 0:
                        stillborn += 1
                        if stillborn > patience.retries:
                            raise EvaluationError(
                                f"a worker process died while it built the world and the agent ({lost.how})"
                            )
                    elif worker.attempt <= patience.retries and not lost.hung:
                        waiting.appendleft((worker.item, worker.attempt + 1))
                    else:
                        yield Result(worker.item, lost, worker.attempt)
                    if waiting:
                        workers.append(_start(build))
                    continue
                stillborn = 0
                if told[0] == "result":
                    yield Result(worker.item, told[1], worker.attempt)
                if waiting:
                    _give(worker, *waiting.popleft(), patience)
                else:
                    workers.remove(worker)
                    _dismiss(worker)
    finally:
        for worker in workers:
            worker.process.terminate()
        for worker in workers:
            worker.process.join(timeout=10)
            worker.process.kill()  # a world that hangs hears of no SIGTERM
            worker.process.join()


def describe_error(error: BaseException) -> str:
    """Return one line: the message of our own errors, and for others also their type and the line that raised."""
    message = " ".join(str(error).split()) or "no message"
    if isinstance(error, RobopolicyError):
        return message
    frame = traceback.extract_tb(error.__traceback__)[-1]  # its file without the folder: results are passed on
    return f"{type(error).__name__}: {message} ({Path(frame.filename).name}:{frame.lineno})"


def _start(build: Callable[[], ItemRunner]) -> _Worker:
    context = multiprocessing.get_context("spawn")
    pipe, child = context.Pipe()
    process = context.Process(target=_work, args=(build, child), daemon=True)
    with _one_thread():
        process.start()
    child.close()  # so that the pipe ends when the process does
    return _Worker(process, pipe)


def _give(worker: _Worker, item: Any, attempt: int, patience: Patience) -> None:
    worker.item, worker.attempt, worker.building = item, attempt, True
    worker.deadline_s = _deadline(patience.build_s)
    with suppress(OSError):  # it has just died: the next wait sees its end of file
        worker.pipe.send(item)


def _dismiss(worker: _Worker) -> None:
    with suppress(OSError):
        worker.pipe.send(_Enough())
    worker.process.join(timeout=10)
    worker.process.terminate()  # a world that does not close must not keep its process


def _deadline(seconds: float | None) -> float | None:
    return None if seconds is None else time.monotonic() + seconds


def _stirring(workers: Sequence[_Worker]) -> list[_Worker]:
    """Wait until a worker says something, dies or is over its time; return those that do."""
    deadlines = [worker.deadline_s for worker in workers if worker.deadline_s is not None]
    timeout_s = max(min(deadlines) - time.monotonic(), 0.0) if deadlines else None
    pipes = wait([worker.pipe for worker in workers], timeout_s)
    now_s = time.monotonic()
    return [
        worker
        for worker in workers
        if worker.pipe in pipes or (worker.deadline_s is not None and worker.deadline_s <= now_s)
    ]


def _hear(worker: _Worker) -> tuple[str, Any] | None:
    """Return what a worker says; None if it is dead, or over its time without a word."""
    try:
        return worker.pipe.recv() if worker.pipe.poll() else None
    except (EOFError, OSError):
        worker.deadline_s = None  # it did not hang
        return None


def _bury(worker: _Worker, patience: Patience) -> Lost:
    """End what is left of a worker and say how it went."""
    worker.pipe.close()
    if worker.deadline_s is not None:
        worker.process.kill()
        worker.process.join()
        limit, what = (patience.build_s, "was built") if worker.building else (patience.episode_s, "ran")
        return Lost(f"{what} for more than {limit:g} s", hung=True, building=worker.building)
    worker.process.join()
    code = worker.process.exitcode
    how = signal.Signals(-code).name if code is not None and code < 0 else f"exit code {code}"
    return Lost(how, building=worker.building)


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


@dataclass(frozen=True)
class _Enough:
    """Told to a worker in place of an item: there are no more."""


def _work(build: Callable[[], ItemRunner], pipe: Connection) -> None:
    """The child's side: build once, then a result for each item until there is none."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    threading.Thread(target=_end_with_parent, daemon=True).start()
    with suppress(OSError):  # the parent was killed: nobody to tell
        try:
            runner = build()
        except Exception as error:  # told to the parent, which raises
            pipe.send(("unbuildable", describe_error(error)))
            return
        pipe.send(("ready", None))
        while not isinstance(item := _next(pipe), _Enough):
            pipe.send(("result", _run(runner, item, pipe)))
        runner.close()


def _run(runner: ItemRunner, item: Any, pipe: Connection) -> Any:
    try:
        runner.prepare(item)
        pipe.send(("began", None))
        return runner.run(item)
    except Exception as error:  # one episode's error is one episode's outcome
        return Raised(describe_error(error))


def _end_with_parent() -> None:
    """Do not outlive the parent, whatever this process is doing: a hung world would for ever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _next(pipe: Any) -> Any:
    """The next item; `_Enough` when there is no more, or nobody to ask."""
    try:
        return pipe.recv()
    except EOFError:  # the parent was killed
        return _Enough()
