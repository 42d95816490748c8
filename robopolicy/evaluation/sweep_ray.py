"""A sweep's executor on a Ray cluster: actors run episodes; one that dies with its machine costs a retry."""

import os
import socket
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from robopolicy.errors import EvaluationError, MissingExtra
from robopolicy.evaluation.report import versions
from robopolicy.evaluation.results import Lost, Patience, Raised, Result
from robopolicy.evaluation.workers import ENOUGH, ONE_THREAD, describe_error

LOCAL = "local"
REACH_S = 10.0  # for a cluster's head to answer
ALIKE = ("robopolicy", "torch", "mujoco", "numpy")  # packages whose versions must be the same on every machine


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

    def run(self, build: Callable[[], Any], items: Sequence[Any], envs: int = 1) -> Iterator[Result]:
        """Yield one result an item, in the order they finish.

        Args:
            build: makes an `ItemRunner`, or what has `Batched`'s ``serve``.
            items: to run.
            envs: of them at a time in each actor, where ``build`` makes what can.

        Raises:
            MissingExtra: without Ray.
            EvaluationError: if the cluster cannot be reached, a machine of it has other versions, or ``build`` raises
            there.
        """
        ray, ours = _connect(self.address, self.jobs)
        jobs = min(self.jobs or max(int(ray.cluster_resources().get("CPU", 1)), 1), len(items))
        crew = _Crew(ray, build, items, self.patience, min(envs, -(-len(items) // jobs)))
        try:
            yield from crew.run(jobs)
        finally:
            crew.end()
            if ours:
                ray.shutdown()


@dataclass(frozen=True)
class _Order:
    """An item to run."""

    item: Any
    attempt: int = 1
    alone: bool = False  # beside no other: the actor that had it died or hung, and had others too


@dataclass
class _Hand:
    """The driver's side of one actor."""

    actor: Any
    phase: str = "build"  # then prepare and run for one item at a time, or serve for several
    serves: bool = False
    orders: list[_Order] = field(default_factory=list)
    deadline_s: float | None = None


class _Crew:
    """The actors and what they are at; each has exactly one call under way."""

    def __init__(self, ray: Any, build: Any, items: Sequence[Any], patience: Patience, envs: int) -> None:
        self._ray, self._patience, self._envs = ray, patience, envs
        self._waiting = deque(_Order(item) for item in items)
        self._build = build
        self._kind = ray.remote(num_cpus=1, max_restarts=0)(_Actor)
        self._calls: dict[Any, _Hand] = {}  # by the reference of the call
        self._stillborn = 0

    def run(self, jobs: int) -> Iterator[Result]:
        for _ in range(jobs):
            self._hire()
        while self._waiting or any(hand.orders for hand in self._calls.values()):
            for reference in self._stirring():
                yield from self._heed(self._calls.pop(reference), self._value_of(reference))

    def end(self) -> None:
        for hand in self._calls.values():
            self._ray.kill(hand.actor)
        self._calls.clear()

    def _hire(self) -> None:
        """Ask for another actor; it joins when some machine has room for it."""
        actor = self._kind.remote()
        self._calls[actor.build.remote(self._build, versions(ALIKE))] = _Hand(actor)

    def _stirring(self) -> list[Any]:
        """Wait for calls that ended or are over their time; return them."""
        deadlines = [hand.deadline_s for hand in self._calls.values() if hand.deadline_s is not None]
        timeout_s = max(min(deadlines) - time.monotonic(), 0.0) if deadlines else None
        done, _ = self._ray.wait(list(self._calls), timeout=timeout_s)
        now_s = time.monotonic()
        late = [ref for ref, hand in self._calls.items() if hand.deadline_s is not None and hand.deadline_s <= now_s]
        return list(dict.fromkeys([*done, *late]))

    def _value_of(self, reference: Any) -> Any:
        """What a call returned, or why it returned nothing."""
        errors = self._ray.exceptions
        try:
            return self._ray.get(reference, timeout=0)
        except errors.GetTimeoutError:
            return Lost("", hung=True)
        except errors.RayTaskError as error:  # not what a world raised: that is caught over there
            return Raised(describe_error(error.cause if isinstance(error.cause, Exception) else error))
        except errors.RayError as error:
            return Lost(_how(error))

    def _heed(self, hand: _Hand, value: Any) -> Iterator[Result]:
        """Go on after a call of an actor ended; yield the results that there are now."""
        if isinstance(value, Lost):
            yield from self._bury(hand, value)
            return
        if hand.phase == "build":
            if isinstance(value, Raised):
                raise EvaluationError(value.what)
            hand.serves, self._stillborn = value, 0
        elif hand.phase == "prepare" and not isinstance(value, Raised):
            self._call(hand, "run", self._patience.episode_s, hand.orders[0].item)
            return
        else:
            values = value if isinstance(value, list) else [value] * len(hand.orders)
            for order, one in zip(hand.orders, values, strict=True):
                yield Result(order.item, one, order.attempt)
        self._next(hand)

    def _next(self, hand: _Hand) -> None:
        """Give an actor its next item, or several, or let it go."""
        hand.orders = []
        room = self._envs if hand.serves else 1
        while self._waiting and len(hand.orders) < room and not (hand.orders and self._waiting[0].alone):
            hand.orders.append(self._waiting.popleft())
            room = 1 if hand.orders[-1].alone else room
        if not hand.orders:
            self._ray.kill(hand.actor)
        elif hand.serves:
            limits = (self._patience.build_s, self._patience.episode_s)
            known = None not in limits
            limit_s = limits[0] + limits[1] * len(hand.orders) if known else None  # type: ignore[operator]
            self._call(hand, "serve", limit_s, [order.item for order in hand.orders])
        else:
            self._call(hand, "prepare", self._patience.build_s, hand.orders[0].item)

    def _call(self, hand: _Hand, phase: str, limit_s: float | None, content: Any) -> None:
        hand.phase, hand.deadline_s = phase, None if limit_s is None else time.monotonic() + limit_s
        self._calls[getattr(hand.actor, phase).remote(content)] = hand

    def _bury(self, hand: _Hand, lost: Lost) -> Iterator[Result]:
        """Give up an actor; its items are run again, or that one was lost is its result."""
        self._ray.kill(hand.actor)
        building = hand.phase == "prepare"
        if not hand.orders:
            self._stillborn += 1
            if self._stillborn > self._patience.retries + 1:
                raise EvaluationError(f"Ray's actors die before they run anything ({lost.how})")
        several = len(hand.orders) > 1
        for order in reversed(hand.orders):
            if several:
                self._waiting.appendleft(replace(order, alone=True))
            elif order.attempt <= self._patience.retries and not lost.hung:
                self._waiting.appendleft(replace(order, attempt=order.attempt + 1))
            else:
                limit, what = (self._patience.build_s, "was built") if building else (self._patience.episode_s, "ran")
                how = f"{what} for more than {limit:g} s" if lost.hung else lost.how
                yield Result(order.item, Lost(how, lost.hung, building), order.attempt)
        if self._waiting:
            self._hire()


class _Actor:
    """The cluster's side: a runner in a process of its own."""

    def build(self, build: Callable[[], Any], software: str) -> Any:
        if (here := versions(ALIKE)) != software:  # rows go by the driver's
            return Raised(f"{socket.gethostname()} has {here}, the driver has {software}; want the same everywhere")
        os.environ.update(dict.fromkeys(ONE_THREAD, "1"))
        try:
            self._runner = build()
        except Exception as error:  # told to the driver, which raises
            return Raised(describe_error(error))
        return hasattr(self._runner, "serve")

    def prepare(self, item: Any) -> Any:
        return self._caught(self._runner.prepare, item)

    def run(self, item: Any) -> Any:
        return self._caught(self._runner.run, item)

    def serve(self, items: list[Any]) -> list[Any]:
        """Run several at once; what each gives or raises."""
        orders, values = iter(enumerate(items)), dict[int, Any]()

        def tell(ticket: int, what: str, content: Any) -> None:
            if what == "result":
                values[ticket] = content

        self._runner.serve(lambda wait: next(orders, ENOUGH), tell)
        return [values[i] for i in range(len(items))]

    def _caught(self, do: Callable[[Any], Any], item: Any) -> Any:
        try:
            return do(item)
        except Exception as error:  # one episode's error is one episode's outcome
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
        if ":" in address and "://" not in address:  # Ray itself would knock there for minutes
            host, _, port = address.rpartition(":")
            socket.create_connection((host, int(port)), REACH_S).close()
        if address == LOCAL:
            ray.init(num_cpus=jobs, include_dashboard=False, **quiet)
        else:
            ray.init(address=address, **quiet)
    except Exception as error:  # Ray raises that, too, where a machine is too busy to start it in time
        what = " ".join(str(error).split())[:200]
        raise EvaluationError(
            f"--ray {address}: no cluster there ({what}); start one with: ray start --head"
        ) from error
    return ray, True


def _how(error: BaseException) -> str:
    text = str(error).lower()
    return "its machine was lost" if "node" in text and "died" in text and "worker" not in text else "its actor died"
