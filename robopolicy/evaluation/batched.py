"""Several episodes at once in one process, whose policies plan together: one pass of the network for all that wait."""

import threading
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any, Protocol

import numpy as np

from robopolicy.errors import ContractError
from robopolicy.evaluation.results import Raised
from robopolicy.evaluation.workers import ENOUGH, ItemRunner, describe_error
from robopolicy.interfaces import Policy
from robopolicy.policies.steady import is_same_in, is_steady
from robopolicy.spec import PolicySpec
from robopolicy.types import Observation, Plan, PlanRequest

STATE_ROWS, PICTURE_ROWS = 16, 4  # of a batch: more of pictures gain nothing on a CPU
STATE_ENVS, PICTURE_ENVS = 32, 4  # two batches may be one, which takes three quarters of the time
CLOSING_S = 10.0  # for a world to close


def rows_of(spec: PolicySpec) -> int:
    """Return how many plans of a policy with this spec are made in one batch: always the same, for it rounds them."""
    return PICTURE_ROWS if spec.cameras else STATE_ROWS


def envs_of(spec: PolicySpec) -> int:
    """Return how many environments of a process best share a policy with this spec."""
    return PICTURE_ENVS if spec.cameras else STATE_ENVS


class Share(Protocol):
    """Gives an agent its policy, loaded once for all environments of a process."""

    def __call__(self, key: Hashable, load: Callable[[], Policy], n: int = 1) -> Policy:
        """Return what plans as the policy of that ``key`` does, ``load``-ed if it was not yet, ``n`` chunks a plan."""
        ...


class Batched:
    """Runs up to ``envs`` items at once, each in a thread with a world and an agent of its own.

    An environment runs until its agent wants a plan, then the next one does. When all wait, their plans are made
    together and all go on. Only one thread runs at any time: episodes come out the same every time, and nothing has to
    be locked. A renderer stays on the thread that made it.

    A policy that has ``plan_many`` is loaded once and plans in batches of always ``rows``, filled up where fewer ask:
    its numbers then do not depend on who else does, so neither on ``envs`` nor on how many processes there are. Where
    they do all the same (`robopolicy.policies.steady.is_steady` is asked first), or ``rows`` is None, every environment
    plans by itself, to the bit as it does where it is alone. Where more than ``rows`` wait, two batches are made as one
    if that is found to change no bit (`robopolicy.policies.steady.is_same_in`): the weights are read once for both.

    An episode's wall time holds that of those beside it.

    Args:
        build: makes an environment's runner, called with ``share=``; its agent takes its policy from there.
        envs: at once.
        rows: of a batch; None: plan alone.
    """

    def __init__(self, build: Callable[..., ItemRunner], envs: int, rows: int | None) -> None:
        self._policies = _Policies(rows)
        self._seats = [_Seat(build, self._policies) for _ in range(envs)]
        self._seats[0].settle()

    def settle(self) -> None:
        """Build every environment now, and not when it first has something to do; raises what that raises."""
        for seat in self._seats:
            seat.settle()

    def serve(self, take: Callable[[bool], Any], tell: Callable[[Any, str, Any], None]) -> None:
        """Run items until there are no more.

        Args:
            take: returns (ticket, item), `ENOUGH` after the last one, or None where there is none yet; it waits for one
                if told to.
            tell: takes a ticket and ``"began"``, or ``"result"`` and what came of it.
        """
        free, waiting, more = self._seats[::-1], list[_Seat](), True
        while more or waiting:
            while more and free and (order := take(not waiting)) is not None:
                more = order is not ENOUGH
                if more:
                    seat = free.pop()
                    (waiting if seat.begin(*order, tell) else free).append(seat)
            asking, waiting = waiting, []
            for seat, plan in zip(asking, self._policies.answer([seat.asked for seat in asking]), strict=True):
                (waiting if seat.go_on(plan) else free).append(seat)

    def close(self) -> None:
        """Close every world."""
        for seat in self._seats:
            seat.close()


class _Policies:
    """The policies of a process, and the plans of all who wait for one."""

    def __init__(self, rows: int | None) -> None:
        self._rows = rows
        self._loaded: dict[Hashable, Any] = {}
        self._steady: dict[tuple[Hashable, int], bool] = {}
        self._widens: dict[tuple[int, int], bool] = {}  # by the policy's id, and candidates

    def get(self, key: Hashable, load: Callable[[], Policy], n: int) -> tuple[Any, bool]:
        """Return a policy, and whether it is to be asked through `answer`; if not it is the caller's own."""
        policy = self._loaded.get(key)
        if policy is None:
            policy = load()
            if hasattr(policy, "plan_many"):
                self._loaded[key] = policy
        if not hasattr(policy, "plan_many"):
            return policy, False
        if self._rows is not None and (key, n) not in self._steady:
            self._steady[key, n] = is_steady(policy, self._rows, n)
        together = self._rows is not None and self._steady[key, n]
        return (policy, True) if together else (getattr(policy, "beside", load)(), False)

    def answer(self, asked: Sequence["_Asked"]) -> list[Plan | Exception]:
        """Return a plan for each, or what planning it raised."""
        plans: dict[int, Plan | Exception] = {}
        for policy in {id(one.policy): one.policy for one in asked}.values():
            mine = [i for i, one in enumerate(asked) if one.policy is policy]
            plans.update(zip(mine, self._plan(policy, [asked[i].request for i in mine]), strict=True))
        return [plans[i] for i in range(len(asked))]

    def _plan(self, policy: Any, requests: Sequence[PlanRequest]) -> Sequence[Plan | Exception]:
        before = [_state(request.generator) for request in requests]
        try:
            plans: list[Plan] = policy.plan_many(requests, rows=self._rows_for(policy, requests))
        except Exception as error:
            if len(requests) == 1:
                return [error]
            for request, state in zip(requests, before, strict=True):
                _restore(request.generator, state)
            return [self._plan(policy, [request])[0] for request in requests]  # who cannot be answered is alone in that
        return plans

    def _rows_for(self, policy: Any, requests: Sequence[PlanRequest]) -> int:
        """Return ``rows``, or twice as many if more ask and it makes no difference to the bit."""
        assert self._rows is not None
        candidates = {request.n for request in requests}
        halves = policy.spec.cameras or getattr(policy, "looks_back", False)  # no gain; batches of two kinds in one
        if len(requests) <= self._rows or len(candidates) > 1 or halves:
            return self._rows
        case = id(policy), candidates.pop()
        if case not in self._widens:
            self._widens[case] = is_same_in(policy, self._rows, 2 * self._rows, case[1])
        return 2 * self._rows if self._widens[case] else self._rows


@dataclass(frozen=True)
class _Asked:
    """What an environment waits for."""

    policy: Any
    request: PlanRequest


class _Seat:
    """A thread that runs one item at a time, and stands still whenever it is not told to go on."""

    asked: _Asked  # while it waits for a plan

    def __init__(self, build: Callable[..., ItemRunner], policies: _Policies) -> None:
        self._build, self._policies = build, policies
        self._in: SimpleQueue[Any] = SimpleQueue()  # "settle", an item with where to tell of it, a plan, None: the end
        self._out: SimpleQueue[Any] = SimpleQueue()  # what it asks, or a `_Done`
        self._thread = threading.Thread(target=self._live, daemon=True)
        self._tell: Callable[[Any], None] = lambda value: None
        self._runner: ItemRunner | None = None

    def settle(self) -> None:
        """Build the runner now, if it is not yet; raises what building it raised."""
        if not self._thread.is_alive():
            self._thread.start()
        self._in.put("settle")
        error = self._out.get()
        if error is not None:
            raise error

    def begin(self, ticket: Any, item: Any, tell: Callable[[Any, str, Any], None]) -> bool:
        """Begin an item; return whether it now waits for a plan, otherwise it is done and was told of."""
        if not self._thread.is_alive():
            self._thread.start()
        self._tell = lambda value: tell(ticket, "result", value)
        return self.go_on((item, lambda: tell(ticket, "began", None)))

    def go_on(self, word: Any) -> bool:
        """Let it run on with a plan, or what planning raised; return whether it waits for another one."""
        self._in.put(word)
        said = self._out.get()
        if isinstance(said, _Asked):
            self.asked = said
            return True
        self._tell(said.value)
        return False

    def close(self) -> None:
        """Close the world and end the thread."""
        if self._thread.is_alive():
            self._in.put(None)
            self._thread.join(CLOSING_S)

    def _live(self) -> None:
        while (word := self._in.get()) is not None:
            if isinstance(word, str):  # "settle"
                self._out.put(_caught(self._made))
            else:
                self._out.put(_Done(self._run(*word)))
        if self._runner is not None:
            _caught(self._runner.close)

    def _made(self) -> None:
        if self._runner is None:
            self._runner = self._build(share=self._share)

    def _run(self, item: Any, began: Callable[[], None]) -> Any:
        try:
            self._made()
            assert self._runner is not None
            self._runner.prepare(item)
            began()
            return self._runner.run(item)
        except BaseException as error:  # a thread that ends without a word would be waited for, for ever
            return Raised(describe_error(error))

    def _share(self, key: Hashable, load: Callable[[], Policy], n: int = 1) -> Policy:
        policy, together = self._policies.get(key, load, n)
        return _Asking(policy, self._ask) if together else policy

    def _ask(self, policy: Any, request: PlanRequest) -> Plan:
        if threading.current_thread() is not self._thread:
            raise ContractError("batched: a plan was asked for in another thread than the environment's own")
        self._out.put(_Asked(policy, request))
        plan = self._in.get()
        if isinstance(plan, Exception):
            raise plan
        return plan


@dataclass(frozen=True)
class _Done:
    value: Any


class _Asking:
    """Satisfies `Policy`: asks the one that all environments share, and waits."""

    def __init__(self, policy: Any, ask: Callable[[Any, PlanRequest], Plan]) -> None:
        self.spec: PolicySpec = policy.spec
        self._policy, self._ask = policy, ask

    def plan(
        self,
        window: Sequence[Observation],
        *,
        n: int = 1,
        previous: np.ndarray | None = None,
        delay_steps: int = 0,
        executed: np.ndarray | None = None,
        generator: Any = None,
    ) -> Plan:
        """Plan when all others wait too, as `Policy.plan` says."""
        return self._ask(self._policy, PlanRequest(list(window), n, previous, delay_steps, executed, generator))

    def reset(self) -> None:
        """Nothing: what the shared policy remembers is not of one episode."""


def _state(generator: Any) -> Any:
    if isinstance(generator, np.random.Generator):
        return generator.bit_generator.state
    return None if generator is None else generator.get_state()  # torch's


def _restore(generator: Any, state: Any) -> None:
    if isinstance(generator, np.random.Generator):
        generator.bit_generator.state = state
    elif generator is not None:
        generator.set_state(state)


def _caught(do: Callable[[], None]) -> BaseException | None:
    try:
        do()
    except BaseException as error:
        return error
    return None
