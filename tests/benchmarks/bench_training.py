"""Training speed in samples/s of each preset on whatever device is there: python tests/benchmarks/bench_training.py.

Times whole steps (gather, loss, backward, AdamW, averaging) on made-up data of the size of Push-T, states and pictures.
"""

import argparse
import tempfile
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import torch

from robopolicy.policies.config import PRESETS
from robopolicy.policies.diffusion import DiffusionPolicy
from robopolicy.spec import ActionSpec, CameraSpec, PolicySpec, StateSpec
from robopolicy.training.trainer import Progress, TrainConfig, train

STEPS = 25_650  # of the Push-T demonstrations
STATE = PolicySpec(
    state={"state": StateSpec(5, ("px", "px", "px", "px", "rad_wrapped"))},
    action=ActionSpec("vector", ("x", "y"), ("px",)),
    n_obs=2,
    horizon=16,
    n_execute=8,
)
IMAGE = replace(STATE, cameras={"top": CameraSpec(96, 96)}, state={})


def sampler(spec: PolicySpec, steps: int) -> SimpleNamespace:
    rng = np.random.default_rng(0)
    t = np.arange(steps)[:, None]
    images = {name: rng.integers(0, 256, (steps, c.height, c.width, 3), np.uint8) for name, c in spec.cameras.items()}
    state = {name: rng.random((steps, part.dim), np.float32) for name, part in spec.state.items()}
    return SimpleNamespace(
        arrays=SimpleNamespace(state=state, images=images, action=rng.random((steps, spec.action.dim), np.float32)),
        obs_rows=np.clip(t + np.arange(1 - spec.n_obs, 1), 0, None),
        action_rows=np.clip(t + np.arange(spec.horizon), None, steps - 1),
    )


def measure(name: str, spec: PolicySpec, batch_size: int, seconds: float, device: str, threads: int) -> str:
    policy = DiffusionPolicy(spec, PRESETS[name])
    last: list[Progress] = []
    config = TrainConfig(
        max_minutes=seconds / 60, batch_size=batch_size, device=device, num_threads=threads, save_every_s=1e9
    )
    with tempfile.TemporaryDirectory() as out:
        train(policy, sampler(spec, STEPS if spec.state else 4_000), out, config, on_progress=last.append)
    warm, end = last[len(last) // 4], last[-1]  # the first quarter pays for compilation and caches
    took_s = (end.data_s + end.update_s) - (warm.data_s + warm.update_s)
    speed = (end.step - warm.step) * batch_size / max(took_s, 1e-9)
    size = sum(p.numel() for p in policy.parameters()) / 1e6
    share = end.data_s / (end.data_s + end.update_s)
    kind = "state" if spec.state else "image"
    return f"{name:11} {kind} batch {batch_size:5} {size:6.1f} M {speed:10,.0f} samples/s  data {share:.1%}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--presets", nargs="*", default=list(PRESETS), choices=list(PRESETS))
    parser.add_argument("--seconds", type=float, default=10.0, help="of each measurement")
    parser.add_argument("--batch-size", type=int, default=256, help="of states; pictures take a quarter of it")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, default=1, help="of torch on the CPU")
    args = parser.parse_args()
    where = torch.cuda.get_device_name() if args.device == "cuda" else f"cpu, {args.threads} thread(s)"
    print(f"torch {torch.__version__} on {where}")
    for name in args.presets:
        for spec, batch_size in ((STATE, args.batch_size), (IMAGE, args.batch_size // 4)):
            print(measure(name, spec, batch_size, args.seconds, args.device, args.threads), flush=True)


if __name__ == "__main__":
    main()
