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
from dataclasses import dataclass, field
from functools import partial
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, Protocol

from robopolicy.errors import EvaluationError, RobopolicyError
from robopolicy.evaluation.cores import core_shares, stay_on
from robopolicy.evaluation.outcomes import Outcome
from robopolicy.evaluation.results import WAITING, Lost, Patience, Raised, Result

# Read once, when numpy, torch or llvmpipe is loaded: two threads each in two workers on two cores spin, not work.
ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "LP_NUM_THREADS")
ENOUGH = "enough"  # in place of an item: there are no more


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


@dataclass
class _Held:
    """An item that a worker has."""

    item: Any
    attempt: int
    alone: bool  # to be run beside no other: the worker that had it died or hung, and had others too
    deadline_s: float | None
    building: bool = True


@dataclass
class _Worker:
    """The parent's side of one process."""

    process: Any
    pipe: Connection
    cores: frozenset[int] = frozenset()  # to which it keeps; none: to none
    held: dict[int, _Held] = field(default_factory=dict)  # by ticket
    tickets: int = 0
    ended: bool = False  # by itself

    @property
    def deadline_s(self) -> float | None:
        return min((held.deadline_s for held in self.held.values() if held.deadline_s is not None), default=None)

    def has_room(self, alone: bool, envs: int) -> bool:
        """Whether it may take one more item."""
        return not self.held if alone or any(held.alone for held in self.held.values()) else len(self.held) < envs


def run_in_workers(
    build: Callable[[], Any], seeds: Sequence[int], *, jobs: int, envs: int | None = None, patience: Patience = WAITING
) -> Iterator[Outcome]:
    """Yield one outcome a seed, in the order they finish.

    Args:
        build: picklable; called once in each worker: makes a `Runner`, or where ``envs`` are given a `Batched` of
            `Seeds`.
        seeds: one episode each.
        jobs: processes at a time.
        envs: episodes at a time in each.
        patience: see there.

    Raises:
        EvaluationError: if ``build`` raises or its process dies.
    """
    make = build if envs else partial(Seeds, build)
    for result in run_items(make, seeds, jobs=jobs, envs=envs or 1, patience=patience):
        if isinstance(result.value, Lost):
            yield Outcome(result.item, error=result.value.words(result.attempts))
        elif isinstance(result.value, Raised):
            yield Outcome(result.item, error=result.value.what)
        else:
            yield result.value


class Seeds:
    """A `Runner` as an `ItemRunner`; ``shared`` is passed on to what builds it."""

    def __init__(self, build: Callable[..., Runner], **shared: Any) -> None:
        self._runner = build(**shared)
        self.run, self.close = self._runner.run, self._runner.close

    def prepare(self, item: Any) -> None:
        """Nothing: all was built beforehand."""


def run_items(
    build: Callable[[], Any],
    items: Sequence[Any],
    *,
    jobs: int,
    patience: Patience = WAITING,
    envs: int = 1,
) -> Iterator[Result]:
    """Yield one result an item, in the order they finish; they are begun in the order given.

    An item whose worker dies is run again, first of all that wait, at most ``patience.retries`` times. One that hangs
    is not: its time was given it. What it raises is its result. Where the worker had several items, nobody knows which
    of them it was: each is run again by itself, and only then judged.

    Where a worker has several items, each keeps to cores of its own, if there are enough: what one of them leaves in
    the caches, the next one finds. One that takes over from another has that one's.

    Args:
        build: picklable; called once in each worker: makes an `ItemRunner`, or a `Batched` of several.
        items: picklable.
        jobs: processes at a time.
        patience: see there.
        envs: items at a time in each.

    Raises:
        EvaluationError: if ``build`` raises, or its process dies more often in a row than is had patience for.
    """
    waiting = deque((item, 1, False) for item in items)
    jobs = min(max(jobs, 1), len(waiting))
    envs = min(envs, -(-len(waiting) // max(jobs, 1)))  # so that every worker gets its share
    shares = core_shares(jobs) if envs > 1 else []
    workers = [_start(build, frozenset(shares[k] if shares else ())) for k in range(jobs)]
    stillborn = 0
    try:
        while workers:
            for worker in _stirring(workers):
                told = _hear(worker)
                if told is not None and told[0] == "began":
                    held = worker.held[told[1]]
                    held.building, held.deadline_s = False, _deadline(patience.episode_s, held, envs)
                    continue
                if told is not None and told[0] == "unbuildable":
                    raise EvaluationError(told[1])
                if told is None:
                    workers.remove(worker)
                    lost = _bury(worker, patience)
                    if not worker.held:
                        stillborn += 1
                        if stillborn > patience.retries:
                            raise EvaluationError(
                                f"a worker process died while it built the world and the agent ({lost.how})"
                            )
                    several = len(worker.held) > 1
                    for held in reversed(worker.held.values()):
                        if several:
                            waiting.appendleft((held.item, held.attempt, True))
                        elif held.attempt <= patience.retries and not lost.hung:
                            waiting.appendleft((held.item, held.attempt + 1, held.alone))
                        else:
                            yield Result(held.item, lost, held.attempt)
                    if waiting:
                        workers.append(_start(build, worker.cores))
                    continue
                stillborn = 0
                if told[0] == "result":
                    held = worker.held.pop(told[1])
                    yield Result(held.item, told[2], held.attempt)
                while (place := _place(worker, waiting, envs)) is not None:
                    item = waiting[place]
                    del waiting[place]
                    _give(worker, *item, patience, envs)
                if not worker.held:
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


def _start(build: Callable[[], ItemRunner], cores: frozenset[int]) -> _Worker:
    context = multiprocessing.get_context("spawn")
    pipe, child = context.Pipe()
    process = context.Process(target=_work, args=(build, child, cores), daemon=True)
    with one_thread():
        process.start()
    child.close()  # so that the pipe ends when the process does
    return _Worker(process, pipe, cores)


def _give(worker: _Worker, item: Any, attempt: int, alone: bool, patience: Patience, envs: int) -> None:
    worker.tickets += 1
    held = worker.held[worker.tickets] = _Held(item, attempt, alone, None)
    held.deadline_s = _deadline(patience.build_s, held, envs)
    with suppress(OSError):  # it has just died: the next wait sees its end of file
        worker.pipe.send((worker.tickets, item))


def _place(worker: _Worker, waiting: Sequence[tuple[Any, int, bool]], envs: int) -> int | None:
    """Return which of those that wait a worker may take next: those to be run alone stand first, and hold up nobody."""
    rooms = {alone for alone in (True, False) if worker.has_room(alone, envs)}
    return next((i for i, (_, _, alone) in enumerate(waiting) if alone in rooms), None) if rooms else None


def _dismiss(worker: _Worker) -> None:
    with suppress(OSError):
        worker.pipe.send(None)
    worker.process.join(timeout=10)
    worker.process.terminate()  # a world that does not close must not keep its process


def _deadline(seconds: float | None, held: _Held, envs: int) -> float | None:
    """Return until when; one that shares its process with others goes on only when it is its turn."""
    return None if seconds is None else time.monotonic() + seconds * (1 if held.alone else envs)


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


def _hear(worker: _Worker) -> tuple[Any, ...] | None:
    """Return what a worker says; None if it is dead, or over its time without a word."""
    try:
        return worker.pipe.recv() if worker.pipe.poll() else None
    except (EOFError, OSError):
        worker.ended = True
        return None


def _bury(worker: _Worker, patience: Patience) -> Lost:
    """End what is left of a worker and say how it went."""
    worker.pipe.close()
    building = all(held.building for held in worker.held.values())
    if not worker.ended:
        worker.process.kill()
        worker.process.join()
        limit, what = (patience.build_s, "was built") if building else (patience.episode_s, "ran")
        return Lost(f"{what} for more than {limit:g} s", hung=True, building=building)
    worker.process.join()
    code = worker.process.exitcode
    how = signal.Signals(-code).name if code is not None and code < 0 else f"exit code {code}"
    return Lost(how, building=building)


@contextmanager
def one_thread() -> Iterator[None]:
    """Processes that are started in the block compute in one thread, whose number decides how sums are rounded."""
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


def _work(build: Callable[[], Any], pipe: Connection, cores: frozenset[int]) -> None:
    """The child's side: build once, then a result for each item until there is none."""
    stay_on(cores)  # before anything here begins a thread
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    threading.Thread(target=_end_with_parent, daemon=True).start()
    with suppress(OSError):  # the parent was killed: nobody to tell
        try:
            runner = build()
        except Exception as error:  # told to the parent, which raises
            pipe.send(("unbuildable", describe_error(error)))
            return
        pipe.send(("ready",))
        take, tell = partial(_take, pipe), partial(_tell, pipe)
        if hasattr(runner, "serve"):
            runner.serve(take, tell)
        else:
            while (order := take(True)) is not ENOUGH:
                ticket, item = order
                tell(ticket, "result", _run(runner, item, partial(tell, ticket, "began", None)))
        runner.close()


def _run(runner: ItemRunner, item: Any, began: Callable[[], None]) -> Any:
    try:
        runner.prepare(item)
        began()
        return runner.run(item)
    except Exception as error:  # one episode's error is one episode's outcome
        return Raised(describe_error(error))


def _end_with_parent() -> None:
    """Do not outlive the parent, whatever this process is doing: a hung world would for ever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _take(pipe: Any, wait: bool) -> Any:
    """Return (ticket, item); `ENOUGH` when there are no more, or nobody to ask; None if not one to ``wait`` for."""
    if not wait and not pipe.poll():
        return None
    try:
        return pipe.recv() or ENOUGH
    except EOFError:  # the parent was killed
        return ENOUGH


def _tell(pipe: Any, ticket: int, what: str, content: Any) -> None:
    pipe.send((what, ticket, content))
