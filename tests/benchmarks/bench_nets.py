"""What a plan costs with each preset's network: 32 candidates beside one, and 16 steps beside 2.

    python tests/benchmarks/bench_nets.py [--presets mlp unet-small] [--device cuda] [--threads 2]

Bars: plan(n=32) <= 3x the time of plan(n=1) on a CPU for the MLP and small nets; on an H200 the base U-Net plans in
< 5 ms (p50) with 16 steps and in < 1.5 ms with 2. The small U-Net is beyond 3x since one candidate became faster: few
chunks pass its convolutions as matrix products (`unet1d.FEW`), many as before. Candidates of 1 and 32, and steps of 16
and 2, take turns within each round, and middles are printed, so that another process on the machine hits all alike. One
thread of a CPU is timed by the CPU time of this process, several and GPUs by the clock. On a GPU each line is printed
twice: as plans run, in one CUDA graph, and launch by launch.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch

from robopolicy.policies.config import PRESETS, DiffusionConfig
from robopolicy.policies.diffusion import DiffusionPolicy
from robopolicy.policies.solvers import SolverConfig
from robopolicy.spec import ActionSpec, CameraSpec, PolicySpec, StateSpec
from robopolicy.types import Observation

STATE = PolicySpec(
    state={"state": StateSpec(5, ("px", "px", "px", "px", "rad_wrapped"))},
    action=ActionSpec("vector", ("x", "y"), ("px",)),
    n_obs=2, horizon=16, n_execute=8,
)  # fmt: skip
IMAGE = replace(STATE, cameras={"front": CameraSpec(96, 96), "wrist": CameraSpec(96, 96)})
CPU_PRESETS = ["mlp", "unet-small", "transformer-small"]


class Launched:
    """Stands in for `Graphs`: every kernel is launched by itself."""

    def run(self, solve: Callable, cond: torch.Tensor, noise: torch.Tensor, key: object = ()) -> torch.Tensor:
        return solve(cond, noise)


def made(config: DiffusionConfig, spec: PolicySpec, device: str) -> DiffusionPolicy:
    policy = DiffusionPolicy(spec, config).eval()
    rng = np.random.default_rng(0)
    arrays = argparse.Namespace(
        state={"state": rng.random((50, 5), np.float32)}, action=rng.random((50, 2), np.float32)
    )
    policy.fit_normaliser(arrays)
    return policy.to(device)


def windows(spec: PolicySpec) -> Callable[[], list[Observation]]:
    rng, now = np.random.default_rng(1), iter(range(10**9))

    def fresh() -> list[Observation]:
        images = {c: rng.integers(0, 256, camera.shape, np.uint8) for c, camera in spec.cameras.items()}
        return [Observation(next(now), {"state": rng.random(5, np.float32)}, images) for _ in range(spec.n_obs)]

    return fresh


def turns(calls: dict[str, Callable[[], object]], rounds: int, timer: Callable[[], float]) -> dict[str, list[float]]:
    """Return seconds of each call, {name: (rounds,)}, after two rounds that do not count."""
    took: dict[str, list[float]] = {name: [] for name in calls}
    for i in range(rounds + 2):
        for name, call in calls.items():
            begin = timer()
            call()
            if i >= 2:
                took[name].append(timer() - begin)
    return took


def with_steps(config: DiffusionConfig, steps: int) -> DiffusionConfig:
    name = config.solver.name if config.solver.name != "consistency" or steps <= 4 else "euler"
    return replace(config, solver=SolverConfig(name, steps))


def measure(name: str, spec: PolicySpec, device: str, rounds: int, timer: Callable[[], float], graphs: bool) -> None:
    config, fresh = PRESETS[name], windows(spec)
    policy = made(config, spec, device)
    swift, slow = (made(with_steps(config, steps), spec, device) for steps in (2, 16))
    if not graphs:
        for each in (policy, swift, slow):
            each._graphs = Launched()
    window = fresh()
    took = turns(
        {
            "1": lambda: policy.plan(window, n=1),
            "32": lambda: policy.plan(window, n=32),
            "2 steps": lambda: swift.plan(fresh()),
            "16 steps": lambda: slow.plan(fresh()),
        },
        rounds,
        timer,
    )
    ratio = statistics.median(b / a for a, b in zip(took["1"], took["32"], strict=True))
    ms = {key: 1e3 * statistics.median(values) for key, values in took.items()}
    size = sum(p.numel() for p in policy.net.parameters()) / 1e6
    print(
        f"{name:18}{size:7.2f} M {config.solver.steps:3} steps: n=1 {ms['1']:8.2f} ms  n=32 {ms['32']:8.2f} ms = "
        f"{ratio:5.2f}x (bar 3)   p50 of 16 steps {ms['16 steps']:8.2f} ms, of 2 {ms['2 steps']:7.2f} ms"
        + ("" if device == "cpu" else "  one graph" if graphs else "  launch by launch"),
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--presets", nargs="*", choices=list(PRESETS), help="default: small ones; on a GPU all")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1, help="of the CPU")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--images", action="store_true", help="also with two new 96 px pictures a plan")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    gpu = args.device.startswith("cuda")
    timer = time.perf_counter if gpu or args.threads > 1 else time.process_time
    where = torch.cuda.get_device_name() if gpu else f"CPU, {args.threads} thread{'s' * (args.threads > 1)}"
    print(f"{where}, torch {torch.__version__}")
    for spec in (STATE, IMAGE) if args.images else (STATE,):
        print("states and pictures" if spec.cameras else "states")
        for name in args.presets or (list(PRESETS) if gpu else CPU_PRESETS):
            for graphs in (True, False) if gpu else (True,):
                measure(name, spec, args.device, args.rounds, timer, graphs)


if __name__ == "__main__":
    main()
