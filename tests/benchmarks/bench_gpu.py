"""Every bar of one H200 in one table: training speed, latency, and Push-T where its demonstrations are at hand.

    python tests/benchmarks/bench_gpu.py                        # speed and latency, some 3 min
    python tests/benchmarks/bench_gpu.py --data pusht.zarr --jobs 8 --work runs/gpu     # and Push-T, some 30 min
    python tests/benchmarks/bench_gpu.py --device cpu --tiny --data pusht.zarr          # does it run at all?

A job of ten minutes takes part of it: --only state ddpm, and again with the same --work. See bench_training.py,
bench_latency.py and bench_pusht.py for what a row measures; the machine should have nothing else to do.
"""

import argparse
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import bench_latency
import bench_pusht
import bench_training
import torch

from robopolicy.policies.latency import device_name, measure_latency

SPEED = {"low-dim": (bench_training.STATE, 60_000), "pictures": (bench_training.PICTURES, 5_000)}  # samples/s asked
LATENCY = {"16 steps": ("unet", 16, 5.0), "2 steps": ("consistency", 2, 1.5)}  # preset, steps, ms asked
SCORES = {"state": 0.93, "images": 0.86}
NEAR = 0.01  # of 100 steps of DDPM, for two steps of a consistency flow
NAMES = (*SPEED, *LATENCY, *bench_pusht.ROWS)


@dataclass(frozen=True)
class Line:
    """A bar, and what was measured."""

    name: str
    asked: str
    found: str
    met: bool | None = None  # None asks for nothing

    def __str__(self) -> str:
        met = {True: "yes", False: "NO", None: ""}[self.met]
        return f"{self.name:44}{self.asked:>14}{met:>5}  {self.found}"


def speeds(args: argparse.Namespace) -> Iterator[Line]:
    if not SPEED.keys() & set(args.only):
        return
    roof = bench_training.roofline(torch.device(args.device))
    yield Line("measured here: products, copies", "", f"{roof[0] / 1e12:.3g} TFLOP/s, {roof[1] / 1e9:.3g} GB/s")
    for name, (spec, asked) in SPEED.items():
        if name in args.only:
            preset = "mlp-consistency" if args.tiny else "unet"
            found = bench_training.measure(preset, spec, args.batch_size, args, roof)
            share = f"{found.roofline:.1%} of the roofline, {found.fraction:.2f} x a bare loop"
            title = f"training, {name}, {preset}, batch {args.batch_size}"
            yield Line(title, f">= {asked:,}", f"{found.ours:,.0f} samples/s, {share}", found.ours >= asked)


def latencies(args: argparse.Namespace) -> Iterator[Line]:
    for name, (preset, steps, asked) in LATENCY.items():
        if name in args.only:
            preset = "mlp-consistency" if args.tiny else preset
            policy = bench_latency.make(preset, args.device, steps)
            found = measure_latency(policy, repetitions=10 if args.tiny else 300, enough_s=30.0)
            words = f"p50 {found.p50_s * 1e3:.2f} ms, p99 {found.p99_s * 1e3:.2f} ms of {found.plans} plans"
            yield Line(f"a plan, {name}, {preset}", f"< {asked} ms", words, found.p50_s * 1e3 < asked)


def scores(args: argparse.Namespace) -> Iterator[Line]:
    args.rows = [name for name in bench_pusht.ROWS if name in args.only]
    means: dict[str, float] = {}
    for name, found in bench_pusht.measure_all(args) if args.data else ():
        means[name] = found.mean
        asked = SCORES.get(name)
        met = None if asked is None else found.mean >= asked
        yield Line(
            f"Push-T, {name}, last {len(found.scores)} checkpoints", f">= {asked}" if asked else "", f"{found}", met
        )
    if {"ddpm", "jumps"} <= means.keys():
        less = means["ddpm"] - means["jumps"]
        yield Line("Push-T, 2 steps below 100 of DDPM", f"<= {NEAR}", f"{less:+.3f}", less <= NEAR)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--only", nargs="+", default=list(NAMES), choices=NAMES)
    parser.add_argument("--data", type=Path, help="Push-T's demonstrations, imported; without, its rows are left out")
    parser.add_argument("--seconds", type=float, default=60.0, help="of each row of speed, about")
    parser.add_argument("--compile", default="on", choices=("auto", "off", "on"), help="in the rows of speed")
    parser.add_argument("--threads", type=int, default=1, help="of torch on the CPU")
    parser.add_argument("--tiny", action="store_true", help="small networks for seconds: shows that all of it runs")
    bench_pusht.add_arguments(parser)
    args = parser.parse_args()
    if args.device == "cuda" and not torch.cuda.is_available():
        parser.error("torch sees no GPU here; --device cpu --tiny shows that all of it runs")
    if args.tiny:
        args.preset, args.steps, args.seconds, args.batch_size, args.seeds = "mlp", 40, 2.0, 16, "100000:100002"
        args.compile = "off"
    torch.set_num_threads(args.threads)
    print(f"torch {torch.__version__} on {device_name(torch.device(args.device))}", flush=True)
    parts: tuple[Callable[[argparse.Namespace], Iterator[Line]], ...] = (speeds, latencies, scores)
    lines = []
    for part in parts:
        for line in part(args):
            print(line, flush=True)
            lines.append(line)
    print(f"{sum(line.met is True for line in lines)} of {sum(line.met is not None for line in lines)} bars met")


if __name__ == "__main__":
    main()
