"""The benchmark of drawing motion tracks runs, and says for one view and both what it says it does."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

BENCH = Path(__file__).parent / "benchmarks" / "bench_track_speed.py"


@pytest.mark.slow
def test_views_and_plans_are_timed_by_one_command():
    words = ["--cases", "default, 96x96", "--threads", "1", "--turns", "3", "--plans", "3"]
    done = subprocess.run([sys.executable, BENCH, *words], capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr
    rows = [line for line in done.stdout.splitlines() if line.startswith("default, 96x96")]
    assert len(rows) == 3, "drawing; plans of 1 and of 32 candidates"
    assert len(re.findall(r"[\d.]+ \( *[\d.]+\+ *[\d.]+\)", rows[0])) == 3
    assert len(re.findall(r"[\d.]+x\b", rows[0].replace("96x96", ""))) == 4
    assert [row.split()[3] for row in rows[1:]] == ["1", "32"]
