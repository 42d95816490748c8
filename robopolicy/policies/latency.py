"""How long a policy takes to plan on this machine, whether that is fast enough, and what would make it so."""

import contextlib
import copy
import os
import platform
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from robopolicy.errors import ContractError, TracksLost
from robopolicy.policies.config import PRESETS, DiffusionConfig
from robopolicy.policies.consistency import ConsistencyConfig
from robopolicy.policies.diffusion import DiffusionPolicy
from robopolicy.policies.motion_track import MotionTrackPolicy
from robopolicy.policies.solvers import SolverConfig
from robopolicy.policies.track_net import TrackNet
from robopolicy.spec import PolicySpec
from robopolicy.types import Observation

WARM_UP = 2  # plans that are not counted: buffers, threads, kernels
SMALLER = ("unet-small", "mlp")  # presets whose networks are tried in place of a slow one

Measured = DiffusionPolicy | MotionTrackPolicy


@dataclass(frozen=True)
class Latency:
    """Time from observations to chunks, seconds."""

    p50_s: float
    p99_s: float
    plans: int  # measured
    n: int  # candidates drawn a plan
    device: str  # in words
    threads: int  # of the CPU
    delay_steps: int = 0  # rows that a plan was told it comes late, as beside the loop

    def __str__(self) -> str:
        drawn = "a plan" if self.n == 1 else f"a plan of {self.n} candidates"
        threads = f", {self.threads} thread{'s' if self.threads > 1 else ''}" if "cuda" not in self.device else ""
        return f"{drawn} takes {milliseconds(self.p50_s)} (p99 {milliseconds(self.p99_s)}) on {self.device}{threads}"


def measure_latency(
    policy: Measured,
    n: int = 1,
    repetitions: int = 100,
    *,
    enough_s: float = 1.0,
    threads: int | None = None,
    delay_steps: int = 0,
) -> Latency:
    """Plan again and again, as a robot would ask: new observations, a chunk that is running.

    Args:
        policy: ready to plan; what it remembers of an episode is forgotten.
        n: candidates a plan.
        repetitions: plans to measure.
        enough_s: of measuring: a slow policy is measured fewer times, but once at least.
        threads: of the CPU; None is what torch has now.
        delay_steps: rows of the running chunk that each plan is told will be executed meanwhile: a policy that is given
            them clean takes another way through its network, and longer.

    Raises:
        BehindCamera: of motion tracks, if there is no place that all cameras look at: no plan could be timed.
    """
    asker = _Asker(policy, n, delay_steps)
    before = torch.get_num_threads()
    took: list[float] = []
    try:
        torch.set_num_threads(threads or before)
        warm_s = asker.timed()
        for _ in range(WARM_UP - 1 if warm_s < enough_s else 0):
            asker.timed()
        while len(took) < repetitions and sum(took) < enough_s:
            took.append(asker.timed())
    finally:
        torch.set_num_threads(before)
        policy.reset()
    p50, p99 = (float(np.percentile(took, share)) for share in (50, 99))
    return Latency(p50, p99, len(took), n, device_name(policy.action.center.device), threads or before, delay_steps)


def keeps_up(latency: Latency, spec: PolicySpec) -> bool:
    """Whether half of the plans, or more, are there within the step that asks for them."""
    return latency.p50_s * 1e9 <= spec.period_ns


def judge(latency: Latency, spec: PolicySpec) -> str:
    """Return in one sentence how a plan's time compares with the control period and with the rows it is to last."""
    period_s = spec.period_ns / 1e9
    last_s = spec.n_execute * period_s
    step = f"a step at {spec.rate_hz:g} Hz lasts {milliseconds(period_s)}"
    rows = f"the {spec.n_execute} rows executed a plan last {milliseconds(last_s)}"
    if latency.p50_s > last_s:
        return f"{latency}; {step}, {rows}: the robot would wait for plans most of the time"
    if latency.p50_s > period_s:
        late = milliseconds(latency.p50_s - period_s)
        return f"{latency}; {step}: once every {spec.n_execute} steps the robot would wait {late} for a plan"
    fast = "fast enough" if latency.p99_s <= period_s else "fast enough, but for one plan in a hundred"
    return f"{latency}; {step}, {rows}: {fast}"


def remedies(policy: Measured, latency: Latency) -> list[str]:
    """Return what would make this policy faster, each with its time measured now; the first that fits ends the list.

    Threads, fewer candidates and fewer steps need no new training; a consistency flow and a smaller network do.
    """
    told = []
    for change in (*_without_training(policy, latency), *_with_training(policy)):
        made = measure_latency(
            change.make(), change.n or latency.n, repetitions=10, enough_s=0.3, threads=change.threads,
            delay_steps=latency.delay_steps,
        )  # fmt: skip
        if made.p50_s < 0.8 * latency.p50_s:
            told.append(f"{change.words}: {milliseconds(made.p50_s)}")
            if keeps_up(made, policy.spec):
                break
    return told


@dataclass(frozen=True)
class _Change:
    """Something that may be faster."""

    words: str
    make: Callable[[], Measured]
    n: int | None = None  # candidates; None as before
    threads: int | None = None


def _without_training(policy: Measured, latency: Latency) -> Iterator[_Change]:
    cores = len(os.sched_getaffinity(0))
    on_cpu = policy.action.center.device.type == "cpu"
    if on_cpu and torch.get_num_threads() < min(cores, 8):
        yield _Change(f"--threads {min(cores, 8)}", lambda: policy, threads=min(cores, 8))
    if on_cpu and torch.cuda.is_available():
        yield _Change("--device cuda", lambda: copy.deepcopy(policy).to("cuda"))
    draws = policy.config.selector.samples if isinstance(policy.config, DiffusionConfig) else 1
    if latency.n > draws:
        yield _Change(f"1 candidate in place of {latency.n}", lambda: policy, n=1)
    share = 0.8 * policy.spec.period_ns / 1e9 / latency.p50_s
    steps = max(int(policy.config.solver.steps * share), 1)  # as many as should fit
    if steps < policy.config.solver.steps:
        words = f"--solver.steps {steps} in place of {policy.config.solver.steps}"
        yield _Change(words, partial(_with_steps, policy, steps))


def _with_training(policy: Measured) -> Iterator[_Change]:
    config = policy.config
    if config.process.kind != "consistency" and config.solver.steps > 2:
        jumps = replace(config, process=ConsistencyConfig(), solver=SolverConfig("consistency", 2))
        words = "trained anew as a consistency flow (--process consistency --solver consistency --solver.steps 2)"
        yield _Change(words, partial(_untrained, policy, jumps))
    if isinstance(policy, MotionTrackPolicy):
        return  # whose network no preset names
    size = _size(policy)
    for name in SMALLER:
        config = replace(policy.config, net=PRESETS[name].net)
        try:
            smaller = _untrained(policy, config)
        except ContractError:
            continue  # such a network cannot have these rows
        if _size(smaller) < 0.7 * size:
            yield _Change(f"trained anew with the network of --preset {name}", partial(_untrained, policy, config))


def _with_steps(policy: Measured, steps: int) -> Measured:
    """Return the same policy, weights shared, with another number of solver steps."""
    if isinstance(policy, MotionTrackPolicy):
        apart = copy.deepcopy(policy)
        apart.tracks.config = replace(policy.config, solver=replace(policy.config.solver, steps=steps))
        return apart
    other = copy.copy(policy)
    other.config = replace(policy.config, solver=replace(policy.config.solver, steps=steps))
    return other


def _untrained(policy: Measured, config: Any) -> Measured:
    """Return a policy for the same robot that was never trained; it takes as long."""
    if isinstance(policy, MotionTrackPolicy):
        net = TrackNet(policy.tracks.spec, config)
        net.action.load_state_dict(policy.action.state_dict())
        other = MotionTrackPolicy(net, policy.spec, policy.told()["cameras"])
        return other.to(policy.action.center.device).eval()
    made = DiffusionPolicy(policy.spec, config).to(policy.action.center.device).eval()
    made.encoder.load_state_dict(policy.encoder.state_dict())
    made.action.load_state_dict(policy.action.state_dict())
    return made


def _size(policy: Measured) -> int:
    return sum(parameter.numel() for parameter in policy.net.parameters())


class _Asker:
    """Asks for plans as the loop does: ``n_execute`` new observations each time, and what is left of the last chunk."""

    def __init__(self, policy: Measured, n: int, delay_steps: int) -> None:
        self._policy, self._n, self._delay = policy, n, delay_steps
        self._rng = np.random.default_rng(0)
        self._window = deque((self._observe(k) for k in range(policy.spec.n_obs)), maxlen=policy.spec.n_obs)
        self._plans = 0
        self._chunk: np.ndarray | None = None

    def timed(self) -> float:
        """Plan from new observations; return how long that took, s."""
        self._plans += 1
        for k in range(self._policy.spec.n_execute):
            self._window.append(self._observe(self._plans * 10_000 + k))
        past = max(self._policy.spec.n_obs - 1, 1)
        executed = None if self._chunk is None else self._chunk[:past]
        begin_s = time.perf_counter()
        # it ends with the chunk on the host: nothing is left running on a GPU
        with contextlib.suppress(TracksLost):  # of pictures that are noise; it took its time all the same
            self._chunk = self._policy.plan(
                list(self._window), n=self._n, previous=self._chunk, executed=executed, generator=self._rng,
                delay_steps=0 if self._chunk is None else self._delay,
            ).chunks[0]  # fmt: skip
        return time.perf_counter() - begin_s

    def _observe(self, k: int) -> Observation:
        spec = self._policy.spec
        state = {name: self._rng.random(part.dim, np.float32) for name, part in spec.state.items()}
        state |= getattr(self._policy, "likely", {})
        images = {name: self._rng.integers(0, 256, c.shape, np.uint8) for name, c in spec.cameras.items()}
        return Observation(k * spec.period_ns, state, images=images)


def milliseconds(seconds: float) -> str:
    """Return a time in words, ``4.2 ms``."""
    return f"{seconds * 1e3:.3g} ms" if seconds < 1 else f"{seconds:.3g} s"


def device_name(device: torch.device) -> str:
    """Return what a device is, e.g. ``Intel(R) Xeon(R) ...``."""
    if device.type == "cuda":
        return f"{device} ({torch.cuda.get_device_name(device)})"
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
