"""What a sampler costs over its network calls, beside diffusers' scheduler loop, and 2 steps beside 16.

    python tests/benchmarks/bench_solvers.py [--presets mlp unet-small] [--device cpu]

Bars: on a CPU the sampler costs <= 3 % over its bare network calls; 2 steps are >= 6x faster than 16. Bare calls are
as many ``net(x, t, cond)``, on inputs of the same shapes made beforehand. The sampler may cost less than they do: what
of a call depends on noise level and condition alone it does once for all steps. Sampler, bare calls and diffusers' loop
take turns, and a CPU is timed by the CPU time of this process, on one thread. The middle of the ratios of each turn is
what counts; in brackets that of the quietest run of each, which on a busy machine need not be equally quiet. "Alone" is
what a step costs where the network is a stand-in that answers at once.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from bench_nets import made

from robopolicy.policies import solvers
from robopolicy.policies.config import PRESETS, DiffusionConfig
from robopolicy.policies.consistency import ConsistencyConfig
from robopolicy.policies.diffusion import DiffusionPolicy
from robopolicy.policies.processes import EDMConfig, FlowConfig, VPConfig
from robopolicy.policies.solvers import SolverConfig
from robopolicy.spec import ActionSpec, PolicySpec, StateSpec
from robopolicy.types import Observation

SPEC = PolicySpec(
    state={"state": StateSpec(5, ("px", "px", "px", "px", "rad_wrapped"))},
    action=ActionSpec("vector", ("x", "y"), ("px",)),
    n_obs=2, horizon=16, n_execute=8,
)  # fmt: skip
PAIRS = {
    "vp x0, ddim 16": (VPConfig(prediction="x0"), SolverConfig("ddim", 16)),
    "vp eps, ddim 16": (VPConfig(), SolverConfig("ddim", 16)),
    "edm, dpm++2m 16": (EDMConfig(), SolverConfig("dpm++2m", 16)),
    "flow, euler 16": (FlowConfig(), SolverConfig("euler", 16)),
    "consistency, 2 jumps": (ConsistencyConfig(), SolverConfig("consistency", 2)),
}


def diffusers_loop(config: DiffusionConfig, policy: DiffusionPolicy) -> Callable[[torch.Tensor, torch.Tensor], None]:
    """The loop that policies built on diffusers have: set_timesteps, then a step after each network call."""
    from diffusers import DDIMScheduler, EDMDPMSolverMultistepScheduler, FlowMatchEulerDiscreteScheduler

    kind, steps = config.process.kind, config.solver.steps
    if kind == "vp":
        name = {"x0": "sample", "eps": "epsilon"}[config.process.prediction]
        scheduler = DDIMScheduler(
            100, beta_schedule="squaredcos_cap_v2", prediction_type=name, timestep_spacing="trailing", clip_sample=True
        )
    elif kind == "edm":
        scheduler = EDMDPMSolverMultistepScheduler(0.005, 1.0, 0.5, "exponential")
    else:
        scheduler = FlowMatchEulerDiscreteScheduler()

    def loop(cond: torch.Tensor, noise: torch.Tensor) -> None:
        x = noise if noise.ndim == 3 else noise[0]
        scheduler.set_timesteps(steps)
        for t in scheduler.timesteps:
            fed = scheduler.scale_model_input(x, t) if kind == "edm" else x
            x = scheduler.step(policy.net(fed, t.expand(len(x)), cond), t, x).prev_sample

    return loop


def spent(run: Callable[[], object], device: str) -> float:
    if device == "cpu":
        begin = time.process_time()
        run()
        return time.process_time() - begin
    torch.cuda.synchronize()
    begin = time.perf_counter()
    run()
    torch.cuda.synchronize()
    return time.perf_counter() - begin


def turns(runs: dict[str, Callable[[], object]], device: str, seconds: float) -> dict[str, list[float]]:
    """Time each run in turn, again and again, the order turned round each time; the first round does not count."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    for run in runs.values():
        run()
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(times[next(iter(runs))]) < 5:
        for name in list(runs) if len(times[next(iter(runs))]) % 2 else reversed(runs):
            times[name].append(spent(runs[name], device))
    return times


def ratio(times: dict[str, list[float]], above: str, below: str) -> float:
    return min(times[above]) / min(times[below])


def middle(times: dict[str, list[float]], above: str, below: str) -> float:
    return statistics.median(a / b for a, b in zip(times[above], times[below], strict=True))


@torch.inference_mode()
def overhead(preset: str, label: str, device: str, seconds: float) -> float:
    process, solver = PAIRS[label]
    config = replace(PRESETS[preset], process=process, solver=solver)
    policy = made(config, SPEC, device)
    cond = torch.randn(1, SPEC.n_obs, policy.encoder.token_dim, device=device)
    noise = solvers.noise_like(solver, (1, SPEC.horizon, 2), torch.randn).to(device)
    x, t = torch.randn(1, SPEC.horizon, 2, device=device), torch.full((1,), 50.0, device=device)
    loop = diffusers_loop(config, policy)

    def bare() -> None:
        for _ in range(solver.steps):
            policy.net(x, t, cond)

    runs = {"bare": bare, "ours": lambda: policy.sample(cond, noise), "diffusers": lambda: loop(cond, noise)}
    times = turns(runs, device, seconds)
    ours, theirs = (middle(times, name, "bare") - 1 for name in ("ours", "diffusers"))
    quietest = [ratio(times, name, "bare") - 1 for name in ("ours", "diffusers")]
    alone_us = 1e6 * alone(policy, cond, noise, solver.steps, x, t, device)
    call_us = 1e6 * min(times["bare"]) / solver.steps
    print(
        f"{preset:11} {label:22} a call {call_us:7.0f} us   sampler {ours:+6.1%} ({quietest[0]:+6.1%})"
        f"   diffusers {theirs:+6.1%} ({quietest[1]:+6.1%})"
        f"   alone {alone_us:5.1f} us a step, {alone_us / call_us:+6.1%}"
        f"   {'holds' if ours <= 0.03 else 'MISSED'}",
        flush=True,
    )
    return ours


def alone(
    policy: DiffusionPolicy, cond: torch.Tensor, noise: torch.Tensor, steps: int, x: torch.Tensor, t: torch.Tensor,
    device: str,
) -> float:  # fmt: skip
    """Return s that a step takes without its network."""
    answer = x.clone()

    class StandIn(torch.nn.Module):
        def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
            return answer

    policy.net = StandIn()
    runs = min(spent(lambda: policy.sample(cond, noise), device) for _ in range(500))
    calls = min(spent(lambda: [policy.net(x, t, cond) for _ in range(steps)], device) for _ in range(500))
    return (runs - calls) / steps


@torch.inference_mode()
def few_steps(preset: str, device: str, seconds: float) -> None:
    base = PRESETS[preset]
    sixteen = made(replace(base, solver=SolverConfig("ddim", 16)), SPEC, device)
    two = made(replace(base, process=ConsistencyConfig(), solver=SolverConfig("consistency", 2)), SPEC, device)
    cond = torch.randn(1, SPEC.n_obs, sixteen.encoder.token_dim, device=device)
    noise = torch.randn(2, 1, SPEC.horizon, 2, device=device)
    window = [Observation(0, {"state": np.zeros(5, np.float32)})] * SPEC.n_obs
    generator = torch.Generator().manual_seed(0)
    runs = {
        "16": lambda: sixteen.sample(cond, noise[0]),
        "2": lambda: two.sample(cond, noise),
        "plan 16": lambda: sixteen.plan(window, generator=generator),
        "plan 2": lambda: two.plan(window, generator=generator),
    }
    times = turns(runs, device, seconds)
    ms = {name: 1e3 * min(values) for name, values in times.items()}
    faster, plans = ratio(times, "16", "2"), ratio(times, "plan 16", "plan 2")
    print(
        f"{preset:11} 16 steps {ms['16']:6.2f} ms, 2 steps {ms['2']:6.2f} ms: {faster:4.1f}x"
        f"   {'holds' if faster >= 6 else 'MISSED'}   whole plans {ms['plan 16']:6.2f} and {ms['plan 2']:6.2f}"
        f" ms: {plans:4.1f}x",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--presets", nargs="*", default=["mlp", "unet-small"], choices=list(PRESETS))
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--seconds", type=float, default=6.0, help="of each line")
    args = parser.parse_args()
    torch.set_num_threads(1)
    for preset in args.presets:
        for label in PAIRS:
            overhead(preset, label, args.device, args.seconds)
        few_steps(preset, args.device, args.seconds)


if __name__ == "__main__":
    main()
