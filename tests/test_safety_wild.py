"""Commands that nobody would give: no limit is exceeded, and what checks that would notice."""

import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parent / "benchmarks"))
from bench_safety import JOINT, layers, of_links
from wild_commands import MANNERS, Wild, excesses

from robopolicy_hardware.safety import SafetyLayer

BENCHMARKS = Path(__file__).parent / "benchmarks"
LAYERS = layers()


def exceeded(name, commands, seed):
    wild, limits, spec, chain = LAYERS[name](seed)
    log = wild.run(commands)
    found = excesses(log, limits, spec)
    if chain:
        found.append(of_links(np.array(log.sent), np.array(log.start), chain))
    assert log.wrongly == 0, "refused what should pass, or the other way round"
    assert all(one.used > 0.5 for one in found), "the limits are reached"
    return [one for one in found if one.beyond > 0], log


@pytest.mark.parametrize("name", LAYERS)
def test_no_limit_is_exceeded(name):
    assert exceeded(name, 2500, 1)[0] == []


@pytest.mark.slow
@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.timeout(1500)
def test_no_limit_is_exceeded_in_many(name):
    found, log = exceeded(name, 40_000, 2)
    assert found == []
    assert set(log.refused) == {"broken"}
    assert log.refused["broken"] > 500


@pytest.mark.parametrize(("field", "limit"), [("max_rate", "speed"), ("max_accel", "acceleration"), ("high", "box")])
def test_what_checks_would_notice(field, limit):
    """The same commands judged by limits that are 1 % narrower."""
    wild, limits, spec, _ = LAYERS["joints"](3)
    log = wild.run(2000)
    narrower = replace(limits, **{field: tuple(0.99 * np.array(getattr(limits, field)))})
    assert limit in [one.limit for one in excesses(log, narrower, spec) if one.beyond > 0]


def test_links_would_be_noticed():
    """The same commands without walls leave the cell."""
    _, limits, _, chain = LAYERS["joints, walls and table"](4)
    low, high = np.array(limits.low), np.array(limits.high)
    bare = replace(limits, workspace_low=None, workspace_high=None, table_m=None)
    log = Wild(SafetyLayer(bare, JOINT, chain), bare, JOINT, low, high, np.r_[np.clip(0, low, high)], 4).run(2000)
    assert of_links(np.array(log.sent), np.array(log.start), chain).beyond > 0


def test_every_manner_is_tried():
    wild, *_ = LAYERS["joints"](0)
    tried = set()
    real = wild._goals
    wild._goals = lambda manner: tried.add(manner) or real(manner)[:2]
    wild.run(1000)
    assert tried == set(MANNERS)


@pytest.mark.slow
def test_the_benchmark_says_that_none_was_exceeded():
    words = [sys.executable, BENCHMARKS / "bench_safety.py", "--commands", "6000"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr
    assert re.search(r"limits never exceeded in 10\^6 commands: \d{4,} commands, 0 limits exceeded", done.stdout)


@pytest.mark.slow
def test_the_wire_is_one_command():
    pytest.importorskip("cyclonedds", reason="cyclonedds is not installed: pip install 'robopolicy[ros]'")
    done = subprocess.run(
        [sys.executable, BENCHMARKS / "bench_wire.py", "--seconds", "1"], capture_output=True, text=True, timeout=280
    )
    assert done.returncode == 0, done.stderr
    assert len(re.findall(r"< [\d.]+ +(?:yes|NO)$", done.stdout, re.MULTILINE)) == 3
    assert re.search(r"CycloneDDS's own codec: \d+x as late for a picture", done.stdout)
