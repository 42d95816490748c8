"""The commands that users have, run for a benchmark."""

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from robopolicy.training.checkpoint import TRAIN, read_train

VIEWS = ("front", "side")  # of what motion tracks are learnt from
SHOWN = ("--cameras", *VIEWS, "--camera-size", "96x96")
TRACKS = (
    "--policy", "motion-track", "--cameras", *VIEWS, "--horizon", "16", "--n-execute", "8", "--batch-size", "64",
    "--threads", "1", "--precision", "bfloat16",
)  # fmt: skip


def robopolicy(log: Path, *command: str) -> None:
    """Run ``robopolicy`` in a process of its own; what it says goes to the end of ``log``.

    Raises:
        SystemExit: with its last words, if it fails.
    """
    with log.open("a") as file:
        done = subprocess.run([sys.executable, "-m", "robopolicy", *command], stdout=file, stderr=file, check=False)
    if done.returncode:
        raise SystemExit(f"robopolicy {command[0]} ended with {done.returncode}: {log.read_text()[-500:]}")


def trained(checkpoint: Path, data: Sequence[Path], *options: str) -> Path:
    """Train what is not trained to its end yet; return the checkpoint."""
    if not ((checkpoint / TRAIN).exists() and read_train(checkpoint)["finished"]):
        asked = [word for path in data for word in ("--data", str(path))]
        robopolicy(checkpoint.with_suffix(".log"), "train", *asked, *options, "--out", str(checkpoint))
    return checkpoint


def recorded(data: Path, world: str, episodes: int, *options: str) -> Path:
    """Record what is not recorded yet; return the dataset."""
    if not data.exists():
        asked = ("--robot", world, "--data", str(data), "--episodes", str(episodes))
        robopolicy(data.with_suffix(".log"), "record", *asked, *options)
    return data


def tried(out: Path, checkpoint: Path, world: str, seeds: range) -> Path:
    """Run the episodes that are missing, one after the other; return the folder."""
    asked = ("--checkpoint", str(checkpoint), "--env", world, "--seeds", f"{seeds.start}:{seeds.stop}")
    robopolicy(out.with_suffix(".log"), "eval", *asked, "--jobs", "1", "--videos", "2", "--out", str(out))
    return out
