"""Another project's own reader or writer, run by its own Python, which an environment variable names."""

import os
import subprocess
from pathlib import Path

import numpy as np
import pytest

PEERS = Path(__file__).parent / "peers"


def named(*variables: str) -> list[str]:
    """Return what the variables hold, or skip, saying which is unset."""
    for name in variables:
        if not os.environ.get(name):
            pytest.skip(f"{name} is unset; data/README.md says how to make this peer's environment")
    return [os.environ[name] for name in variables]


def run(python: str, script: str, *words: object) -> None:
    done = subprocess.run(
        [python, "-W", "ignore", PEERS / script, *map(str, words)],
        capture_output=True, text=True, timeout=240, check=False, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]


def arrays(path: Path) -> dict[str, np.ndarray]:
    with np.load(path) as file:
        return dict(file)
