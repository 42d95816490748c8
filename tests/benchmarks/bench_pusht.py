"""Push-T from its human demonstrations: the mean score of the last ten checkpoints of one training.

    python tests/benchmarks/bench_pusht.py --data pusht.zarr --device cuda --minutes 6 --jobs 8    # wants an H200
    python tests/benchmarks/bench_pusht.py --data pusht.zarr --rows state --preset mlp --steps 20000

The dataset is what `robopolicy data import diffusion-policy` makes of pusht_cchi_v7_replay.zarr. Rows: ``state``, a
U-Net evaluated at its own 16 steps; ``ddpm``, the same checkpoints at 100 steps of DDPM; ``jumps``, a consistency
flow of two steps; ``images``, a U-Net that sees pictures only. Ten checkpoints are taken over the last half of each
training, and each plays 50 starts in gym-pusht; no checkpoint is chosen by its score. Diffusion Policy publishes .91
for states and .84 for pictures, the mean of its last ten. Run again with the same --work, it goes on where it was.
"""

import argparse
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from robopolicy.cli.evaluate import Subject
from robopolicy.cli.running import AS_SAVED, Choice
from robopolicy.cli.worlds import make_safety
from robopolicy.evaluation.rollouts import evaluate
from robopolicy.evaluation.statistics import parse_seeds, summarise
from robopolicy.policies.config import PRESETS
from robopolicy.policies.diffusion import DiffusionPolicy
from robopolicy.training.checkpoint import read_train
from robopolicy.training.config import TrainConfig
from robopolicy.training.resume import RESUME
from robopolicy.training.trainer import train
from robopolicy_data.reader import Dataset
from robopolicy_data.windows import WindowSampler, load_arrays

WORLD = "gymnasium:gym_pusht/PushT-v0"
CHECKPOINTS = 10  # the last ones, of twice as many


@dataclass(frozen=True)
class Row:
    """One line: which training, and how its checkpoints plan."""

    folder: str  # rows of the same one share their training
    preset: str
    cameras: tuple[str, ...] = ()
    states: tuple[str, ...] = ()
    choice: Choice = AS_SAVED


ROWS = {
    "state": Row("state", "unet", states=("state",)),
    "ddpm": Row("state", "unet", states=("state",), choice=Choice("ddpm", 100)),
    "jumps": Row("jumps", "consistency", states=("state",)),
    "images": Row("images", "unet", cameras=("image",)),
}


@dataclass(frozen=True)
class Found:
    """What the checkpoints of a row score: mean best coverage / .95, each over all starts."""

    scores: tuple[float, ...]  # oldest first
    train_minutes: float
    eval_minutes: float

    @property
    def mean(self) -> float:
        """Over the checkpoints."""
        return float(np.mean(self.scores))

    def __str__(self) -> str:
        each = " ".join(f"{score:.3f}" for score in self.scores)
        return (
            f"{self.mean:.3f}, of {len(self.scores)} checkpoints ({each}); "
            f"{self.train_minutes:.1f} min of training, {self.eval_minutes:.1f} of evaluation"
        )


def keep(checkpoint: Path) -> dict[str, float]:
    """Let a checkpoint stay: it is scored once the training is over, which has the machine to itself until then."""
    return {"kept": float(checkpoint.is_dir())}


def fit(row: Row, folder: Path, args: argparse.Namespace) -> None:
    """Train, or go on where it was interrupted, or do nothing if that was done before."""
    begun = (folder / RESUME).exists()
    if begun and read_train(folder)["finished"]:
        return
    dataset = Dataset(args.data)
    spec = replace(dataset.spec.select(row.cameras, row.states), n_obs=2, horizon=16, n_execute=8)
    arrays = load_arrays(dataset, cameras=row.cameras, states=row.states)
    torch.manual_seed(args.seed)
    policy = DiffusionPolicy(spec, PRESETS[args.preset or row.preset])
    every = {"eval_every_steps": -(-args.steps // (2 * CHECKPOINTS))} if args.steps else {}
    config = TrainConfig(
        steps=args.steps, max_minutes=None if args.steps else args.minutes, batch_size=args.batch_size, seed=args.seed,
        device=args.device, num_threads=args.threads, keep=CHECKPOINTS, save_every_s=1e9,
        eval_every_minutes=None if args.steps else args.minutes / (2 * CHECKPOINTS), **every,
    )  # fmt: skip
    train(policy, WindowSampler(arrays, 2, 16, n_execute=8), folder, config, resume=begun, evaluate=keep)


def measure(row: Row, work: Path, args: argparse.Namespace) -> Found:
    """Train and score the checkpoints that are left."""
    began, folder = time.monotonic(), work / row.folder
    fit(row, folder, args)
    trained, scores, seeds = time.monotonic(), [], parse_seeds(args.seeds)
    for checkpoint in sorted((folder / "checkpoints").iterdir())[-CHECKPOINTS:]:
        subject = Subject.of(checkpoint, WORLD, device=args.device, choice=row.choice)
        outcomes = evaluate(
            subject.make_world, subject.make_agent, seeds, make_safety=make_safety, jobs=args.jobs,
            out=work / "outcomes" / subject.sha[:16], identity=subject.identity,
        )  # fmt: skip
        scores.append(summarise(outcomes).score.value)
    return Found(tuple(scores), (trained - began) / 60, (time.monotonic() - trained) / 60)


def measure_all(args: argparse.Namespace) -> Iterator[tuple[str, Found]]:
    """Yield each row as it is done."""
    with tempfile.TemporaryDirectory() as folder:
        for name in args.rows:
            yield name, measure(ROWS[name], args.work or Path(folder), args)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what a row needs to be told."""
    parser.add_argument("--rows", nargs="+", default=list(ROWS), choices=list(ROWS))
    parser.add_argument("--minutes", type=float, default=6.0, help="of each training")
    parser.add_argument("--steps", type=int, help="of each training, in place of minutes")
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--preset", choices=list(PRESETS), help="in place of each row's own")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seeds", default="100000:100050", help="starts")
    parser.add_argument("--jobs", type=int, default=2, help="episodes at once")
    parser.add_argument("--work", type=Path, help="folder that keeps checkpoints and outcomes")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, default=1, help="of torch on the CPU")
    add_arguments(parser)
    for name, found in measure_all(parser.parse_args()):
        print(f"{name:8}{found}", flush=True)


if __name__ == "__main__":
    main()
