"""What a monitor costs on one core: a step of it, sampling excluded, and fitting it; the bars of the default one.

python tests/benchmarks/bench_monitor_cost.py [--only NAME ...] [--steps 3000]

Decisions are as large as they come: 32 chunks of 16 rows of 14 numbers, an embedding of 1024. A fit is all of
`fit_monitor` with 3000 decisions that fit the scores (100 episodes of 30) and 600 that calibrate. Judged is the time of
the core that it takes; beside it stands the wall's, which is the same where nothing else runs.
"""

import argparse
import os
import sys
import time
from dataclasses import dataclass

os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = "1"

import numpy as np

from robopolicy.errors import RobopolicyError
from robopolicy.monitor.layout import ActionLayout
from robopolicy.monitor.monitor import DEFAULT, MonitorConfig, fit_monitor
from robopolicy.monitor.roles import Roles
from robopolicy.monitor.scores import SCORES
from robopolicy.types import Decision

B, H, A, E, EXECUTED = 32, 16, 14, 1024, 8
FIT, CALIBRATE, FAILED, LENGTH = 100, 20, 40, 30  # episodes, and the decisions of each
STEP_MS, FIT_S = 2.0, 5.0  # bars
LAYOUT = ActionLayout(A, (0, 1, 2), tuple(range(3, 13)), (13,), "absolute", 0.05)


def episode(rng: np.random.Generator, *, drift: float = 0.0) -> list[Decision]:
    """Return one that wanders as an embedding of a task does, and re-plans what it planned, nearly."""
    basis = np.random.default_rng(0).normal(size=(12, E)) / np.sqrt(12)  # the same in every episode
    phase = np.linspace(0, 1, LENGTH)[:, None] * np.arange(1, 13)
    latent = np.sin(3 * phase + 0.3 * rng.normal(size=12)) + 0.1 * rng.normal(size=(LENGTH, 12)) + drift * phase / 12
    embeddings = (latent @ basis + 0.02 * rng.normal(size=(LENGTH, E))).astype(np.float32)
    path = np.cumsum(0.02 * rng.normal(size=(LENGTH * EXECUTED + H, A)), axis=0)
    decisions = []
    for t in range(LENGTH):
        rows = path[t * EXECUTED : t * EXECUTED + H]
        chunks = (rows + 0.01 * rng.normal(size=(B, 1, A)) + 0.003 * rng.normal(size=(B, H, A))).astype(np.float32)
        aux = {name: rng.gamma(2.0, 0.1, size=H) for name in ("denoise_variance", "ensemble_disagreement")}
        decisions.append(Decision(t, t * 50_000_000 * EXECUTED, embeddings[t], chunks, EXECUTED, aux))
    return decisions


@dataclass(frozen=True)
class Cost:
    """Times of the core, and of the wall."""

    step_ms: np.ndarray  # (2, 2): p50 and p99 of each
    fit_s: tuple[float, float]


def now() -> tuple[float, float]:
    """Seconds of this thread's core, and of the wall."""
    return time.thread_time(), time.perf_counter()


def measure(names: tuple[str, ...], steps: int) -> Cost:
    """Fit a monitor and step it."""
    rng = np.random.default_rng(1)
    episodes = [episode(rng) for _ in range(FIT + CALIBRATE)]
    failures = [episode(rng, drift=1.0) for _ in range(FAILED)] if "supervised" in names else []
    roles = Roles(tuple(range(FIT)), tuple(range(FIT, FIT + CALIBRATE)))
    start = now()
    monitor = fit_monitor(episodes, MonitorConfig(names), layout=LAYOUT, roles=roles, failures=failures)
    core_s, wall_s = np.subtract(now(), start)
    took: list[np.ndarray] = []
    while len(took) < steps + LENGTH:
        monitor.reset()
        for decision in episodes[len(took) // LENGTH % len(episodes)]:
            start = now()
            monitor.step(decision)
            took.append(np.subtract(now(), start))
    each = np.percentile(1e3 * np.array(took[LENGTH:]), [50, 99], axis=0)  # the first episode warms up
    return Cost(each.T, (float(core_s), float(wall_s)))


def main() -> int:
    """Print a row a monitor; 1 if the default one misses a bar."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=["default", *SCORES], metavar="NAME")
    parser.add_argument("--steps", type=int, default=3000)
    args = parser.parse_args()
    if any(name in SCORES for name in args.only or SCORES):
        import torch  # some scores are nets; the others never load it

        torch.set_num_threads(1)
    monitors = {f"default: {' + '.join(DEFAULT.scores)}": DEFAULT.scores, **{name: (name,) for name in SCORES}}
    met = True
    print(f"B {B}, H {H}, A {A}, E {E}; one thread, load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    print(f"{'':<44}{'step p50':>10}{'p99':>8} ms <= {STEP_MS:g}  (wall p50, p99){'fit':>10} s <= {FIT_S:g}  (wall)")
    for title, names in monitors.items():
        if args.only and title.partition(":")[0] not in args.only:
            continue
        try:
            cost = measure(names, args.steps)
        except RobopolicyError as error:
            print(f"{title:<44}  not measured: {error}", flush=True)
            continue
        (p50, p99), (wall50, wall99) = cost.step_ms
        fit_s, wall_s = cost.fit_s
        kept = (p99 <= STEP_MS, fit_s <= FIT_S)
        met &= all(kept) or not title.startswith("default")
        words = ["yes" if one else "NO" for one in kept]
        print(
            f"{title:<44}{p50:>10.2f}{p99:>8.2f} {words[0]:>7}  {f'({wall50:.2f}, {wall99:.2f})':<15}{fit_s:>11.2f} "
            f"{words[1]:>6}  ({wall_s:.2f})",
            flush=True,
        )
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
