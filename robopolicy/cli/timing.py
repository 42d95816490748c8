"""Options of a policy that plans beside the control loop, and the agent that they make."""

import argparse
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from robopolicy.cli.arguments import positive
from robopolicy.clock import SimClock
from robopolicy.errors import UsageError
from robopolicy.interfaces import Clock
from robopolicy.spec import PolicySpec

SEAMS = ("fade", "ensemble", "rtc", "none")
PRIORITY = 10  # of SCHED_FIFO: before ordinary programs, after the system's own threads
SWITCH_S = 0.0005  # Python's threads take turns this often: the loop waits no longer for one that plans


def add_timing(parser: Any) -> None:
    """Add the options to a parser, or to a group of one."""
    parser.add_argument(
        "--control-rate", type=positive, metavar="HZ",
        help="plan beside the loop, at the policy's own rate, and command at this one: a smooth motion through the "
        "rows (default: plan in the loop, which waits for it)",
    )  # fmt: skip
    parser.add_argument(
        "--seams", choices=SEAMS,
        help="how one plan follows another, beside the loop: its offset faded out; averaged with older ones "
        "(ensemble); made to agree (rtc); none, which jumps (default fade)",
    )  # fmt: skip
    parser.add_argument(
        "--apart", action="store_true",
        help="plan in a process of its own: steadier on a busy machine; the policy is in memory twice while it loads",
    )  # fmt: skip
    parser.add_argument(
        "--latency-ms", type=_milliseconds, metavar="MS", help="in simulated time: what planning is taken to last"
    )


@dataclass(frozen=True)
class Timing:
    """What was asked for; nothing of it means that the loop plans, and waits for its plans."""

    control_rate_hz: float | None = None
    seams: str | None = None
    latency_s: float | None = None
    apart: bool = False

    @classmethod
    def of(cls, args: argparse.Namespace) -> "Timing":
        """Read it off the arguments of `add_timing`."""
        latency_s = None if args.latency_ms is None else args.latency_ms / 1e3
        return cls(args.control_rate, args.seams, latency_s, args.apart)

    @property
    def beside(self) -> bool:
        """Whether the policy plans beside the loop."""
        return self != Timing()

    @property
    def about(self) -> dict[str, Any]:
        """What is to be read of it in an episode."""
        told = {"control_rate_hz": self.control_rate_hz, "seams": self.seams, "latency_s": self.latency_s}
        return {name: value for name, value in told.items() if value is not None}

    def words(self, rate_hz: float) -> str:
        """Return how plans come to a robot that is commanded at ``rate_hz``: what a monitor is calibrated on."""
        from robopolicy.monitor.alike import IN_THE_LOOP

        if not self.beside:
            return IN_THE_LOOP
        latency = f", {1e3 * self.latency_s:g} ms late" if self.latency_s else ""
        return f"beside the loop at {rate_hz:g} Hz, seams {self.seams or SEAMS[0]}{latency}"

    @contextmanager
    def on_time(self, clock: Clock) -> Iterator[None]:
        """Let the loop, in the thread that calls, come first where time is real and plans are made beside it.

        It waits no longer than `SWITCH_S` for another thread of Python's, and goes before other programs where the
        system lets it (SCHED_FIFO: root, or a limit of rtprio); threads that begin meanwhile do not.
        """
        if not self.beside or isinstance(clock, SimClock):
            yield
            return
        before_s = sys.getswitchinterval()
        sys.setswitchinterval(SWITCH_S)
        try:
            with _before_others():
                yield
        finally:
            sys.setswitchinterval(before_s)

    def require(self, clock: Clock, spec: PolicySpec) -> None:
        """Refuse a simulated latency where time is real, a process of its own where it waits, and a loop too slow.

        Raises:
            UsageError: saying so.
        """
        if self.latency_s is not None and not isinstance(clock, SimClock):
            raise UsageError("--latency-ms is of simulated time; here planning takes what it takes: leave it out")
        if self.apart and isinstance(clock, SimClock):
            raise UsageError("--apart is for real time; simulated time waits for the policy: leave it out")
        if self.control_rate_hz is not None and self.control_rate_hz < spec.rate_hz - 1e-6:
            raise UsageError(
                f"--control-rate {self.control_rate_hz:g} is below the policy's own {spec.rate_hz:g} Hz: it would not "
                "see what it was trained on; want that or more"
            )

    def fits(self, spec: PolicySpec, robot: PolicySpec) -> PolicySpec:
        """Return the spec of a policy as the robot must offer it: at any rate if it plans beside the loop."""
        return replace(spec, rate_hz=robot.rate_hz) if self.beside else spec

    def agent(
        self, clock: Clock, watchdogs: Any = None, load: Callable[[], Any] | None = None
    ) -> Callable[..., Any] | None:
        """Return what makes a `RealTime` of (policy, n, generator), None if the loop plans.

        Args:
            clock: the loop's. In simulated time planning takes ``latency_s``, else a thread of its own.
            watchdogs: `robopolicy_hardware.supervisor.Watchdogs`, or None: nothing is watched.
            load: returns the same policy in another process, where it is to plan if that was asked for; picklable.
        """
        if not self.beside:
            return None

        def make(policy: Any, n: int, generator: Callable[[int], Any]) -> Any:
            from robopolicy.inference import Simulated, Threaded
            from robopolicy.realtime import RealTime

            seams = self.seams or SEAMS[0]
            if self.apart and load is not None:
                from robopolicy.policies.apart import Apart

                policy = Apart(partial(_prepared, load, seams), threads=_threads())
            else:
                policy = _prepared(lambda: policy, seams)
            return RealTime(
                policy, clock, Simulated(self.latency_s or 0.0) if isinstance(clock, SimClock) else Threaded(), n=n,
                generator=generator, seams=seams, max_delay=policy.config.max_delay or None,
                over_s=getattr(watchdogs, "plan_over_s", None), late_s=getattr(watchdogs, "plan_late_s", None),
            )  # fmt: skip

        return make


IN_THE_LOOP = Timing()


@contextmanager
def _before_others() -> Iterator[None]:
    """Let this thread, and none that it begins, go before other programs, if the system lets it.

    A thread that does so already (chrt) stays as it is.
    """
    before = os.sched_getscheduler(0) & ~os.SCHED_RESET_ON_FORK if hasattr(os, "sched_getscheduler") else None
    if before is None or before in (os.SCHED_FIFO, os.SCHED_RR):
        yield
        return
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO | os.SCHED_RESET_ON_FORK, os.sched_param(PRIORITY))
    except PermissionError:
        yield
        return
    try:
        yield
    finally:  # only CAP_SYS_NICE could take the mark away, so it stays
        os.sched_setscheduler(0, before | os.SCHED_RESET_ON_FORK, os.sched_param(0))


def may_last_s(spec: PolicySpec) -> float:
    """Return how long a plan may take beside the loop: until the next is asked for, and before the last one is over."""
    rows = min(spec.n_execute, spec.horizon - 1 - spec.n_execute)
    return max(rows, 0) * spec.period_ns / 1e9


def _prepared(load: Callable[[], Any], seams: str) -> Any:
    """Return a policy whose plans, for ``rtc``, agree with the running motion.

    They do by the prefixes it was trained with, else by guidance.
    """
    from robopolicy.policies.config import RealTimeConfig

    policy = load()
    if seams == "rtc" and getattr(policy.config, "kind", "") == "motion-track":
        raise UsageError("--seams rtc: motion tracks are drawn without a look at the running motion; want fade")
    if seams == "rtc" and not policy.config.max_delay and policy.config.real_time is None:
        policy.config = replace(policy.config, real_time=RealTimeConfig())
    return policy


def _threads() -> int:
    import torch

    return torch.get_num_threads()


def _milliseconds(text: str) -> float:
    value = 0.0 if text.strip() in ("0", "0.0") else positive(text)
    if value > 10_000:
        raise argparse.ArgumentTypeError(f"{text} ms is longer than ten seconds")
    return value
