"""Training speed: python tests/benchmarks/bench_training.py [--device cuda] [--presets mlp unet-small] [--seconds 30]

Whole training (gather, loss, backward, clipping, AdamW, averaging, reports, saves) on made-up data of the size of
Push-T, beside a bare loop of loss, backward and AdamW on tensors already there: the sides take turns of half a second
in one process, and on a CPU its CPU time counts, so that a busy machine matters little. The roofline is what this
device was just measured to multiply and to copy, for the arithmetic of a step and the traffic of its optimiser.
"""

import argparse
import tempfile
import time
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from robopolicy.policies.config import PRESETS
from robopolicy.policies.diffusion import DiffusionPolicy
from robopolicy.spec import ActionSpec, CameraSpec, PolicySpec, StateSpec
from robopolicy.training.config import Progress, TrainConfig, wants_bfloat16
from robopolicy.training.trainer import train
from robopolicy.training.windows import DeviceWindows

STEPS = 25_650  # of the Push-T demonstrations
STATE = PolicySpec(
    state={"state": StateSpec(5, ("px", "px", "px", "px", "rad_wrapped"))},
    action=ActionSpec("vector", ("x", "y"), ("px",)),
    n_obs=2,
    horizon=16,
    n_execute=8,
)
PICTURES = replace(STATE, cameras={"front": CameraSpec(96, 96), "wrist": CameraSpec(96, 96)})
TRAFFIC = 12 * 4  # bytes a weight and step: gradient written, read twice; weight, two moments, average read and written


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


class Bare:
    """Loss, backward, AdamW on a few resident batches."""

    def __init__(self, spec: PolicySpec, preset: str, data: Any, batch_size: int, device: torch.device) -> None:
        self.policy = DiffusionPolicy(spec, PRESETS[preset])
        self.policy.fit_normaliser(data.arrays)
        self.policy.to(device).train()
        windows = DeviceWindows(data, spec, device)
        self.batches = [windows.batch(0, k, batch_size) for k in range(2)]
        self.optimizer = torch.optim.AdamW(self.policy.parameters(), 1e-4, (0.95, 0.999), fused=True)
        self.generator = torch.Generator(device)
        self.half = wants_bfloat16("auto", device)
        self.device = device

    def loss(self, k: int = 0) -> torch.Tensor:
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.half):
            return self.policy.loss(self.batches[k % 2], self.generator)

    def step(self, k: int) -> None:
        self.optimizer.zero_grad(set_to_none=True)
        self.loss(k).backward()
        self.optimizer.step()

    def flops(self) -> float:
        """Of forward and backward, multiplications and additions."""
        from torch.utils.flop_counter import FlopCounterMode

        with FlopCounterMode(display=False) as counter:
            self.loss().backward()
        return float(counter.get_total_flops())


@dataclass
class Turns:
    """Takes half-second turns with the trainer that reports to it; keeps the seconds a step of both, a turn each."""

    bare: Bare
    device: torch.device
    ours: list[float] = field(default_factory=list)
    theirs: list[float] = field(default_factory=list)
    last: Progress | None = None
    before: float = 0.0

    def now(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize()
            return time.perf_counter()
        return time.process_time()

    def __call__(self, progress: Progress) -> None:
        began = self.now()
        count = progress.step - (self.last.step if self.last else 0)
        if self.last is not None and count:
            self.ours.append((began - self.before) / count)
        for k in range(max(count, 1)):
            self.bare.step(k)
        self.theirs.append((self.now() - began) / max(count, 1))
        self.last, self.before = progress, self.now()

    def fraction(self) -> tuple[float, float, float]:
        """Return seconds a step of ours and of the bare loop, and the speed of ours over it, medians of the turns."""
        skip = 1 + len(self.ours) // 5  # warming up, compiling
        ours, theirs = np.array(self.ours[skip:]), np.array(self.theirs[1 + skip : 1 + len(self.ours)])
        both = min(len(ours), len(theirs))
        return float(np.median(ours)), float(np.median(theirs)), float(np.median(theirs[:both] / ours[:both]))


@dataclass(frozen=True)
class Speed:
    """One row."""

    preset: str
    cameras: int
    batch_size: int
    weights: int
    ours: float  # samples/s
    bare: float
    fraction: float  # ours over bare, turn by turn
    turns: int
    data_share: float  # of our time
    roofline: float  # share of it that we reach

    def __str__(self) -> str:
        return (
            f"{self.preset:11}{self.cameras} cameras, batch {self.batch_size:5} {self.weights / 1e6:6.1f} M weights: "
            f"{self.ours:10,.0f} samples/s, bare loop {self.bare:10,.0f}, ours over bare {self.fraction:6.1%} "
            f"({self.turns} turns), data wait {self.data_share:5.2%}, {self.roofline:5.1%} of the roofline"
        )


def measure(
    preset: str, spec: PolicySpec, batch_size: int, args: argparse.Namespace, roof: tuple[float, float]
) -> Speed:
    device = torch.device(args.device)
    data = sampler(spec, STEPS if not spec.cameras else 4_000)
    bare = Bare(spec, preset, data, batch_size, device)
    flops, weights = bare.flops(), sum(p.numel() for p in bare.policy.parameters())
    turns = Turns(bare, device)
    bare.step(0)
    began = turns.now()
    bare.step(1)
    steps = max(round(args.seconds / 2 / (turns.now() - began)), 12)
    config = TrainConfig(
        steps=steps, batch_size=batch_size, device=args.device, num_threads=args.threads,
        compile=args.compile,
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as out:
        train(DiffusionPolicy(spec, PRESETS[preset]), data, out, config, on_progress=turns)
    ours, theirs, fraction = turns.fraction()
    bound = flops / roof[0] + weights * TRAFFIC / roof[1]
    assert turns.last is not None
    return Speed(
        preset, len(spec.cameras), batch_size, weights, batch_size / ours, batch_size / theirs, fraction,
        len(turns.ours), turns.last.data_share, bound / ours,
    )  # fmt: skip


def roofline(device: torch.device) -> tuple[float, float]:
    """Return operations and bytes a second that this device reaches on a large product and a large copy."""
    size = 8192 if device.type == "cuda" else 1024
    kind = torch.bfloat16 if wants_bfloat16("auto", device) else torch.float32
    a = torch.randn(size, size, device=device).to(kind)
    long = torch.empty(2**28 if device.type == "cuda" else 2**25, device=device)

    def best(work: Any) -> float:
        times = []
        for _ in range(8):
            if device.type == "cuda":
                torch.cuda.synchronize()
            began = time.perf_counter() if device.type == "cuda" else time.process_time()
            work()
            if device.type == "cuda":
                torch.cuda.synchronize()
            times.append((time.perf_counter() if device.type == "cuda" else time.process_time()) - began)
        return min(times)

    other = torch.empty_like(long)
    return 2 * size**3 / best(lambda: a @ a), 2 * long.nbytes / best(lambda: other.copy_(long))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--presets", nargs="*", choices=list(PRESETS), help="default: mlp unet-small; on a GPU unet")
    parser.add_argument("--seconds", type=float, default=30.0, help="of each row, both sides together, about")
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--pictures", action="store_true", help="two cameras of 96 px too; always on a GPU")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--compile", default="auto", choices=("auto", "off", "on"))
    parser.add_argument("--threads", type=int, default=1, help="of torch on the CPU")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    device = torch.device(args.device)
    on_gpu = device.type == "cuda"
    where = torch.cuda.get_device_name() if on_gpu else f"cpu, {args.threads} thread(s)"
    roof = roofline(device)
    print(f"torch {torch.__version__} on {where}: {roof[0] / 1e12:.2f} TFLOP/s, {roof[1] / 1e9:.0f} GB/s measured")
    for preset in args.presets or (["unet"] if on_gpu else ["mlp", "unet-small"]):
        for spec in (STATE, PICTURES) if on_gpu or args.pictures else (STATE,):
            print(measure(preset, spec, args.batch_size, args, roof), flush=True)


if __name__ == "__main__":
    main()
