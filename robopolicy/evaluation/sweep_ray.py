"""A sweep's executor on a Ray cluster: actors run episodes; one that dies with its machine costs a retry."""

import os
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from robopolicy.errors import EvaluationError, MissingExtra
from robopolicy.evaluation.workers import ONE_THREAD, ItemRunner, Lost, Patience, Raised, Result, describe_error

LOCAL = "local"


@dataclass(frozen=True)
class RayActors:
    """Executor: one actor a CPU of a Ray cluster, each on whatever machine has one free.

    Every machine needs the same robopolicy, and the checkpoints under the same path.

    Args:
        address: ``HOST:PORT`` of the cluster's head; ``"auto"``, the cluster that this machine belongs to; or
            ``"local"``, one that lives as long as the sweep.
        jobs: actors; None is as many as the cluster has CPUs.
        patience: see there. An actor whose machine was lost counts as one that died.
    """

    address: str
    jobs: int | None = None
    patience: Patience = field(default_factory=lambda: Patience(retries=1))

    def run(self, build: Callable[[], ItemRunner], items: Sequence[Any]) -> Iterator[Result]:
        """Yield one result an item, in the order they finish.

        Raises:
            MissingExtra: without Ray.
            EvaluationError: if the cluster cannot be reached, or ``build`` raises there.
        """
        ray, ours = _connect(self.address, self.jobs)
        jobs = self.jobs or max(int(ray.cluster_resources().get("CPU", 1)), 1)
        crew = _Crew(ray, build, deque((item, 1) for item in items), self.patience)
        try:
            yield from crew.run(min(jobs, len(items)))
        finally:
            crew.end()
            if ours:
                ray.shutdown()


@dataclass
class _Hand:
    """The driver's side of one actor."""

    actor: Any
    item: Any = None
    attempt: int = 0  # 0: it runs nothing
    phase: str = "build"  # build, prepare, run
    deadline_s: float | None = None


class _Crew:
    """The actors and what they are at; each has exactly one call under way."""

    def __init__(self, ray: Any, build: Callable[[], ItemRunner], waiting: deque, patience: Patience) -> None:
        self._ray, self._waiting, self._patience = ray, waiting, patience
        self._build = ray.put(build)
        self._kind = ray.remote(num_cpus=1, max_restarts=0)(_Actor)
        self._calls: dict[Any, _Hand] = {}  # by the reference of the call
        self._stillborn = 0

    def run(self, jobs: int) -> Iterator[Result]:
        for _ in range(jobs):
            self._hire()
        while self._waiting or any(hand.attempt for hand in self._calls.values()):
            for reference in self._stirring():
                hand = self._calls.pop(reference)
                result = self._heed(hand, self._outcome_of(reference))
                if result is not None:
                    yield result

    def end(self) -> None:
        for hand in self._calls.values():
            self._ray.kill(hand.actor)
        self._calls.clear()

    def _hire(self) -> None:
        """Ask for another actor; it joins when some machine has room for it."""
        actor = self._kind.remote()
        self._calls[actor.build.remote([self._build])] = _Hand(actor)

    def _stirring(self) -> list[Any]:
        """Wait for calls that ended or are over their time; return them."""
        deadlines = [hand.deadline_s for hand in self._calls.values() if hand.deadline_s is not None]
        timeout_s = max(min(deadlines) - time.monotonic(), 0.0) if deadlines else None
        done, _ = self._ray.wait(list(self._calls), timeout=timeout_s)
        now_s = time.monotonic()
        late = [ref for ref, hand in self._calls.items() if hand.deadline_s is not None and hand.deadline_s <= now_s]
        return list(dict.fromkeys([*done, *late]))

    def _outcome_of(self, reference: Any) -> Any:
        """What a call returned, or why it returned nothing."""
        errors = self._ray.exceptions
        try:
            return self._ray.get(reference, timeout=0)
        except errors.GetTimeoutError:
            return Lost("", hung=True)
        except errors.RayTaskError as error:  # not what the world raised: that is caught over there
            return Raised(describe_error(error.cause if isinstance(error.cause, Exception) else error))
        except errors.RayError as error:
            return Lost(_how(error))

    def _heed(self, hand: _Hand, value: Any) -> Result | None:
        """Go on after a call of an actor ended; return the item's result if it has one now."""
        if isinstance(value, Lost):
            return self._bury(hand, value)
        if hand.phase == "build":
            if isinstance(value, Raised):
                raise EvaluationError(value.what)
            self._stillborn = 0
            return self._next(hand)
        if hand.phase == "prepare" and not isinstance(value, Raised):
            hand.phase, hand.deadline_s = "run", _deadline(self._patience.episode_s)
            self._calls[hand.actor.run.remote(hand.item)] = hand
            return None
        result = Result(hand.item, value, hand.attempt)
        self._next(hand)
        return result

    def _next(self, hand: _Hand) -> None:
        """Give an actor the next item, or let it go."""
        hand.attempt, hand.item = 0, None
        if not self._waiting:
            self._ray.kill(hand.actor)
            return
        hand.item, hand.attempt = self._waiting.popleft()
        hand.phase, hand.deadline_s = "prepare", _deadline(self._patience.build_s)
        self._calls[hand.actor.prepare.remote(hand.item)] = hand

    def _bury(self, hand: _Hand, lost: Lost) -> Result | None:
        """Give up an actor; its item is run again, or that it was lost is its result."""
        self._ray.kill(hand.actor)
        result = None
        building = hand.phase != "run"
        if hand.attempt == 0:
            self._stillborn += 1
            if self._stillborn > self._patience.retries + 1:
                raise EvaluationError(f"Ray's actors die before they run anything ({lost.how})")
        elif lost.hung:
            limit, what = (self._patience.build_s, "was built") if building else (self._patience.episode_s, "ran")
            result = Result(hand.item, Lost(f"{what} for more than {limit:g} s", True, building), hand.attempt)
        elif hand.attempt <= self._patience.retries:
            self._waiting.appendleft((hand.item, hand.attempt + 1))
        else:
            result = Result(hand.item, Lost(lost.how, building=building), hand.attempt)
        if self._waiting:
            self._hire()
        return result


class _Actor:
    """The cluster's side: a runner in a process of its own."""

    def build(self, build: list[Any]) -> Any:
        import ray

        os.environ.update(dict.fromkeys(ONE_THREAD, "1"))
        try:
            self._runner = ray.get(build[0])()
        except Exception as error:  # told to the driver, which raises
            return Raised(describe_error(error))
        return None

    def prepare(self, item: Any) -> Any:
        try:
            return self._runner.prepare(item)
        except Exception as error:  # one episode's error is one episode's outcome
            return Raised(describe_error(error))

    def run(self, item: Any) -> Any:
        try:
            return self._runner.run(item)
        except Exception as error:
            return Raised(describe_error(error))


def _connect(address: str, jobs: int | None) -> tuple[Any, bool]:
    """Return Ray, connected, and whether it was us who connected it."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is told to anybody
    try:
        import ray
        import ray.exceptions
    except ImportError:
        raise MissingExtra("ray", "ray") from None
    if ray.is_initialized():
        return ray, False
    quiet = {"log_to_driver": False, "logging_level": "error"}
    try:
        if address == LOCAL:
            ray.init(num_cpus=jobs, include_dashboard=False, **quiet)
        else:
            ray.init(address=address, **quiet)
    except (ConnectionError, ValueError, RuntimeError, TimeoutError) as error:
        what = " ".join(str(error).split())[:200]
        raise EvaluationError(
            f"--ray {address}: no cluster there ({what}); start one with: ray start --head"
        ) from error
    return ray, True


def _deadline(seconds: float | None) -> float | None:
    return None if seconds is None else time.monotonic() + seconds


def _how(error: BaseException) -> str:
    text = str(error).lower()
    return "its machine was lost" if "node" in text and "died" in text and "worker" not in text else "its actor died"
