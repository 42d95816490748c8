"""Where planning happens: in a thread beside the control loop, or in simulated time with a latency of its own."""

import math
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Protocol

from robopolicy.errors import ContractError


class Inference(Protocol):
    """Takes one piece of work at a time; never makes the caller wait for it."""

    @property
    def busy(self) -> bool:
        """Whether a piece of work was begun and not collected."""
        ...

    def begin(self, work: Callable[[], Any], now_ns: int) -> None:
        """Begin; ContractError if busy."""
        ...

    def collect(self, now_ns: int) -> tuple[Any] | None:
        """Return (what the work returned,) once it is done, else None; raises what the work raised."""
        ...

    def drop(self) -> None:
        """Forget the work in hand; waits for it if it cannot be stopped."""
        ...

    def close(self) -> None:
        """Release what it holds; idempotent."""
        ...


class Threaded:
    """A thread of its own: for real time. torch lets the control thread go on while it computes."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="inference")
        self._future: Future[Any] | None = None

    @property
    def busy(self) -> bool:
        """Whether a piece of work was begun and not collected."""
        return self._future is not None

    def begin(self, work: Callable[[], Any], now_ns: int) -> None:
        """Begin in the thread; ContractError if busy."""
        if self._future is not None:
            raise ContractError("inference: busy; collect what was begun first")
        self._future = self._pool.submit(work)

    def collect(self, now_ns: int) -> tuple[Any] | None:
        """Return (what the work returned,) once it is done, else None; raises what the work raised."""
        if self._future is None or not self._future.done():
            return None
        future, self._future = self._future, None
        return (future.result(),)

    def drop(self) -> None:
        """Wait for the work in hand and forget it, its error too: nobody asked for it any more."""
        if self._future is not None:
            future, self._future = self._future, None
            if not future.cancel():
                future.exception()

    def close(self) -> None:
        """End the thread, after the work in hand; idempotent."""
        self.drop()
        self._pool.shutdown()


class Simulated:
    """Computes at once and hands over ``latency_s`` later, on whatever clock the caller lives by: for simulated time.

    Args:
        latency_s: what planning is taken to last; 0 hands over in the same tick.
    """

    def __init__(self, latency_s: float = 0.0) -> None:
        if not (latency_s >= 0 and math.isfinite(latency_s)):
            raise ContractError(f"inference: a latency of {latency_s} s; want a finite time, 0 or more")
        self._latency_ns = round(latency_s * 1e9)
        self._ready: tuple[int, Any] | None = None

    @property
    def busy(self) -> bool:
        """Whether a piece of work was begun and not collected."""
        return self._ready is not None

    def begin(self, work: Callable[[], Any], now_ns: int) -> None:
        """Do it now; ContractError if busy."""
        if self._ready is not None:
            raise ContractError("inference: busy; collect what was begun first")
        self._ready = (now_ns + self._latency_ns, work())

    def collect(self, now_ns: int) -> tuple[Any] | None:
        """Return (what the work returned,) once its latency is over, else None."""
        if self._ready is None or now_ns < self._ready[0]:
            return None
        (_, result), self._ready = self._ready, None
        return (result,)

    def drop(self) -> None:
        """Forget the work in hand."""
        self._ready = None

    def close(self) -> None:
        """There is nothing to release."""
