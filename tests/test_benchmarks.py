"""The benchmark that waits for a GPU runs where there is none, and says for each bar whether it was met."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

BENCH = Path(__file__).parent / "benchmarks" / "bench_gpu.py"


@pytest.mark.slow
def test_the_bars_of_a_gpu_are_one_command():
    words = ["--device", "cpu", "--tiny", "--only", "low-dim", "16 steps", "2 steps"]
    done = subprocess.run([sys.executable, BENCH, *words], capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr
    rows = [line for line in done.stdout.splitlines() if re.search(r"  (>=|<) +[\d,.]+( ms)? +(yes|NO)  ", line)]
    assert len(rows) == 3, done.stdout
    assert re.search(r"[\d,]+ samples/s, [\d.]+% of the roofline", rows[0])
    assert all(re.search(r"p50 [\d.]+ ms", row) for row in rows[1:])
    assert re.search(r"[0-3] of 3 bars met$", done.stdout.strip())


def test_without_a_gpu_it_says_so_in_one_line():
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    done = subprocess.run([sys.executable, BENCH], capture_output=True, text=True, timeout=300)
    assert done.returncode == 2
    assert "torch sees no GPU here; --device cpu --tiny" in done.stderr.splitlines()[-1]
