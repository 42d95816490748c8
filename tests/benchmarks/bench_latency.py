"""Time of a plan by preset: at its own steps, at 16 and at 2, of 32 candidates, and exported to ONNX.

    python tests/benchmarks/bench_latency.py                    # CPU, one thread
    python tests/benchmarks/bench_latency.py --device cuda      # bars of an H200: p50 < 5 ms at 16 steps, < 1.5 at 2

Presets take turns, so that a busy machine slows all alike.
"""

import argparse
import tempfile
import time
from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch

from robopolicy.policies.batch import plan_generator
from robopolicy.policies.config import PRESETS
from robopolicy.policies.diffusion import DiffusionPolicy
from robopolicy.policies.export import export, inputs_of
from robopolicy.policies.latency import measure_latency
from robopolicy.spec import ActionSpec, PolicySpec, StateSpec
from robopolicy.types import Observation

SPEC = PolicySpec(
    state={"state": StateSpec(5, ("px",))}, action=ActionSpec("vector", ("x", "y"), ("px",)), rate_hz=10.0, n_obs=2,
    horizon=16, n_execute=8,
)  # fmt: skip


def make(name: str, device: str, steps: int | None = None) -> DiffusionPolicy:
    config = PRESETS[name]
    if steps is not None:
        config = replace(config, solver=replace(config.solver, steps=steps))
    torch.manual_seed(0)
    policy = DiffusionPolicy(SPEC, config)
    rng = np.random.default_rng(0)
    policy.fit_normaliser(
        SimpleNamespace(state={"state": rng.random((50, 5), np.float32)}, action=512 * rng.random((50, 2), np.float32))
    )
    return policy.to(device).eval()


def onnx_ms(name: str, turns: int) -> list[float]:
    import onnxruntime

    policy = make(name, "cpu")
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "p.onnx"
        export(policy, file, "onnx")
        options = onnxruntime.SessionOptions()
        options.log_severity_level, options.intra_op_num_threads = 3, torch.get_num_threads()
        session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    window = [Observation(k, {"state": np.zeros(5, np.float32)}) for k in range(2)]
    inputs = inputs_of(policy, window, policy.draw_noise(1, plan_generator(None)))
    took = []
    for _ in range(turns):
        begin_s = time.perf_counter()
        session.run(None, inputs)
        took.append(1e3 * (time.perf_counter() - begin_s))
    return took


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--presets", nargs="+", default=["mlp", "mlp-consistency", "unet-small", "transformer-small"])
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--plans", type=int, default=10, help="a turn")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    columns = {"own": (None, 1), "16 steps": (16, 1), "2 steps": (2, 1), "own, n=32": (None, 32)}
    policies = {
        (name, column): make(name, args.device, steps)
        for name in args.presets
        for column, (steps, _) in columns.items()
    }
    took = defaultdict(list)
    for _ in range(args.turns):
        for (name, column), policy in policies.items():
            latency = measure_latency(policy, columns[column][1], repetitions=args.plans)
            took[name, column].append((1e3 * latency.p50_s, 1e3 * latency.p99_s))
    print(f"{measure_latency(next(iter(policies.values())), repetitions=1).device}, {args.threads} thread(s)")
    print(
        f"{'p50 (p99), ms':<18}"
        + "".join(f"{column:>18}" for column in columns)
        + f"{'16 / 2':>9}{'n 32 / 1':>9}{'onnx':>9}"
    )
    for name in args.presets:
        best = {column: np.median(took[name, column], axis=0) for column in columns}
        row = "".join(f"{p50:>10.2f} ({p99:>5.1f})" for p50, p99 in best.values())
        ratios = f"{best['16 steps'][0] / best['2 steps'][0]:>9.1f}{best['own, n=32'][0] / best['own'][0]:>9.2f}"
        onnx = f"{np.median(onnx_ms(name, args.turns * args.plans)):>9.2f}" if args.device == "cpu" else ""
        print(f"{name:<18}{row}{ratios}{onnx}", flush=True)


if __name__ == "__main__":
    main()
