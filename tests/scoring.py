"""What scores checkpoints in the tests of evaluation during training; no torch, so that a process starts quickly."""

import json
import time
from pathlib import Path


def rising(checkpoint: Path) -> dict[str, float]:
    files = {path.name for path in checkpoint.iterdir()}
    whole = {"weights.safetensors", "spec.json", "stats.json", "train.json"} <= files
    return {"score": float(json.loads((checkpoint / "train.json").read_text())["steps"]), "whole": float(whole)}


def falling(checkpoint: Path) -> dict[str, float]:
    return {"score": -float(json.loads((checkpoint / "train.json").read_text())["steps"])}


def failing(checkpoint: Path) -> dict[str, float]:
    raise ValueError("no such\nworld")


def dying(checkpoint: Path) -> dict[str, float]:
    raise SystemExit(3)


def endless(checkpoint: Path) -> dict[str, float]:
    time.sleep(600)
    return {}
