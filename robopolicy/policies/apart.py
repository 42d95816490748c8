"""A policy in a process of its own: what it computes can hold up nobody who holds Python's lock."""

import contextlib
import multiprocessing
import signal
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from robopolicy.errors import RobopolicyError
from robopolicy.spec import PolicySpec
from robopolicy.types import Observation, Plan

READY_S = 120.0  # to load a policy


class Apart:
    """Satisfies ``robopolicy.interfaces.Policy`` by asking one that lives in a child process.

    Same generator, same plans: its state goes there and comes back. To be asked from one thread at a time, which waits
    without Python's lock. The child ends with the pipe, so it outlives nobody.

    Args:
        make: returns the policy; called in the child, so it can be pickled.
        threads: of torch there.

    Raises:
        RobopolicyError: if the policy cannot be made, saying why.
    """

    def __init__(self, make: Callable[[], Any], *, threads: int = 1) -> None:
        context = multiprocessing.get_context("spawn")  # a forked child of a process with threads may hang
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, make, threads), name="policy", daemon=True)
        self._process.start()
        theirs.close()
        try:
            if not self._pipe.poll(READY_S):
                raise RobopolicyError(f"the policy's process has loaded no policy within {READY_S:g} s")
            self.spec: PolicySpec
            self.spec, self.config = self._answer()
        except BaseException:
            self.close()
            raise

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
        """Plan there, as `Policy.plan` says; raises what it raises there."""
        seen = [Observation(one.stamp_ns, one.state, one.images, one.image_stamps_ns) for one in window]
        options = {"n": n, "previous": previous, "delay_steps": delay_steps, "executed": executed}
        state = generator.get_state().numpy() if isinstance(generator, torch.Generator) else generator
        plan, after = self._ask("plan", seen, options, state)
        if isinstance(generator, torch.Generator):
            generator.set_state(torch.from_numpy(after))
        elif isinstance(generator, np.random.Generator):
            generator.bit_generator.state = after.bit_generator.state
        return plan

    def reset(self) -> None:
        """Forget the episode."""
        self._ask("reset")

    def close(self) -> None:
        """End the process; idempotent."""
        with contextlib.suppress(OSError):
            self._pipe.close()
        self._process.join(1.0)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()

    def _ask(self, *words: Any) -> Any:
        try:
            self._pipe.send(words)
        except OSError as error:
            raise RobopolicyError(f"the policy's process is gone: {error}") from error
        return self._answer()

    def _answer(self) -> Any:
        try:
            answer, error = self._pipe.recv()
        except (EOFError, OSError) as gone:
            self._process.join(1.0)
            raise RobopolicyError(f"the policy's process is gone; its exit code is {self._process.exitcode}") from gone
        if error is not None:
            raise error
        return answer


def _serve(pipe: Any, make: Callable[[], Any], threads: int) -> None:
    """Answer until the pipe ends. Ctrl-C is for whoever asks, who then closes the pipe."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(threads)
    try:
        policy = make()
    except Exception as error:
        pipe.send((None, _plain(error)))
        return
    pipe.send(((policy.spec, policy.config), None))
    while True:
        try:
            what, *rest = pipe.recv()
        except (EOFError, OSError):
            return
        try:
            answer = policy.reset() if what == "reset" else _plan(policy, *rest)
        except Exception as error:
            pipe.send((None, _plain(error)))
        else:
            pipe.send((answer, None))


def _plan(policy: Any, window: list[Observation], options: dict[str, Any], state: Any) -> tuple[Plan, Any]:
    generator = state
    if isinstance(state, np.ndarray):
        generator = torch.Generator()
        generator.set_state(torch.from_numpy(state))
    plan = policy.plan(window, generator=generator, **options)
    return plan, generator.get_state().numpy() if isinstance(generator, torch.Generator) else generator


def _plain(error: Exception) -> Exception:
    """An error that survives the pipe: our own as it is, if it can be pickled, else its words."""
    import pickle

    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RobopolicyError(f"{type(error).__name__}: {error}")
    return error
