"""A sweep on a real Ray cluster of this machine, whose raylets and actors are killed."""

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryFile

import pytest

from robopolicy.errors import EvaluationError, MissingExtra
from robopolicy.evaluation import sweep_ray
from robopolicy.evaluation.report import versions
from robopolicy.evaluation.suite import Suite
from robopolicy.evaluation.sweep import sweep
from robopolicy.evaluation.sweep_table import read_rows
from robopolicy.evaluation.workers import ONE_THREAD

sys.path.insert(0, str(Path(__file__).parent))  # inherited by spawned processes, which import what they run
import tiny_sweep

RAY = importlib.util.find_spec("ray") is not None
needs_ray = pytest.mark.skipif(not RAY, reason="no Ray here: pip install 'robopolicy[ray]'")
N = 5
QUIET = {
    **os.environ,
    "RAY_USAGE_STATS_ENABLED": "0",
    "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]),
    "PYTHONWARNINGS": "ignore",
}


@contextmanager
def cluster(nodes=2, tries=4):
    """Raylets on this machine; yields their cluster's address and their pids. Ray gives a raylet 30 s to start."""
    command = [sys.executable, str(Path(__file__).with_name("ray_nodes.py")), str(nodes)]
    with TemporaryFile("w+") as errors:
        for _ in range(tries):
            process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True,
                                       env=QUIET)  # fmt: skip
            if line := process.stdout.readline():
                break
            process.communicate()
        else:
            errors.seek(0)
            raise AssertionError(errors.read()[-2000:])
    told = json.loads(line)
    try:
        yield told["address"], told["raylets"]
    finally:
        process.communicate()  # which closes its stdin


def program(folder, *options):
    command = [sys.executable, tiny_sweep.__file__, str(folder), *map(str, options)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=QUIET)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed")
    items, recipes = tiny_sweep.parts(tiny_sweep.suite(N))
    sweep(items, recipes, folder, facts=tiny_sweep.FACTS)
    return read_rows(folder)


def parent(pid):
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[1])
    except (OSError, ValueError):
        return 0


def next_on(raylet, begun, process):
    """The pid of an actor of this raylet, just after it began an episode."""
    seen = len(begun.read_text().splitlines()) if begun.exists() else 0
    while process.poll() is None:
        lines = begun.read_text().splitlines()[seen:] if begun.exists() else []
        for line in lines:
            if line.endswith(tuple("0123456789")) and parent(pid := int(line.split()[-1])) == raylet:
                return pid
        time.sleep(0.01)
    raise AssertionError("the sweep was over before this node took part")


@needs_ray
@pytest.mark.slow
@pytest.mark.timeout(900)  # Ray starts slowly where all cores are busy
@pytest.mark.parametrize("envs", [1, 4])
def test_a_killed_actor_and_a_killed_raylet_cost_retries_and_no_result(tmp_path, undisturbed, envs):
    begun = tmp_path / "begun"
    with cluster() as (address, raylets):
        process = program(
            tmp_path / "out", "--ray", address, "--seeds", N, "--pause", 0.5, "--retries", 3, "--begun", begun,
            "--envs", envs,
        )  # fmt: skip
        os.kill(next_on(raylets[1], begun, process), signal.SIGKILL)
        actor = next_on(raylets[1], begun, process)
        for pid in (raylets[1], actor):  # the machine is lost: an actor alone would work on for as long as it can
            os.kill(pid, signal.SIGKILL)
        process.communicate()
        assert process.returncode == 0
    rows = read_rows(tmp_path / "out")
    assert tiny_sweep.steady(rows) == tiny_sweep.steady(undisturbed)
    assert len(begun.read_text().splitlines()) >= len(undisturbed) + 2, "what was under way was run again"
    if envs == 1:
        assert sum(row["attempts"] - 1 for row in rows) == 2


@needs_ray
@pytest.mark.slow
@pytest.mark.timeout(900)  # Ray starts slowly where all cores are busy
def test_the_driver_of_a_cluster_is_killed_and_goes_on(tmp_path, undisturbed):
    with cluster() as (address, _):
        process = program(tmp_path, "--ray", address, "--seeds", N, "--pause", 0.05)
        for _ in range(7):
            process.stdout.readline()
        process.kill()
        process.communicate()
        assert 7 <= len(read_rows(tmp_path)) < len(undisturbed)
        process = program(tmp_path, "--ray", address, "--seeds", N)
        told = [json.loads(line)["fresh"] for line in process.communicate()[0].splitlines()]
        assert process.returncode == 0
        assert Counter(told)[False] >= 7
    assert tiny_sweep.steady(read_rows(tmp_path)) == tiny_sweep.steady(undisturbed)


@needs_ray
@pytest.mark.slow
@pytest.mark.timeout(900)  # Ray starts slowly where all cores are busy
def test_worlds_that_hang_crash_and_raise_on_a_cluster(tmp_path):
    with cluster(1) as (address, _):
        code = (
            "import sys, json, tiny_sweep as t, tiny_wild; from robopolicy.evaluation.sweep import sweep;"
            "from robopolicy.evaluation.sweep_ray import RayActors; from robopolicy.evaluation.suite import Suite;"
            "from robopolicy.evaluation.results import Patience\n"
            f"s = Suite({{'a': None}}, ('wild',), (4, 5, 6, 17, 18)); i, r = t.parts(s, {{'wild': tiny_wild.World}})\n"
            f"rows = sweep(i, r, {str(tmp_path)!r}, facts=t.FACTS,"
            f" executor=RayActors({address!r}, 1, Patience(episode_s=2.0, build_s=60.0, retries=1)))\n"
            "print(json.dumps([row['error'] for row in rows]))"
        )
        told = subprocess.run([sys.executable, "-c", code], env=QUIET, capture_output=True, text=True, check=False)
    assert told.returncode == 0, told.stderr
    errors = json.loads(told.stdout.splitlines()[-1])
    assert (errors[0], errors[4]) == (None, None)
    assert errors[1] == "hung: ran for more than 2 s, and was ended"
    assert errors[2] == "crashed: the process died during this episode (its actor died), 2 times"
    assert errors[3].startswith("RuntimeError: the world broke")


@needs_ray
def test_no_cluster_there_is_one_line():
    with pytest.raises(EvaluationError, match=r"--ray 127.0.0.1:1: no cluster there .*refused.*ray start --head"):
        list(sweep_ray.RayActors("127.0.0.1:1").run(dict, [1]))


def test_without_ray_the_extra_is_named(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "ray", None)
    items, recipes = tiny_sweep.parts(Suite({"a": None}, ("easy",), (1,)))
    with pytest.raises(MissingExtra, match=r"robopolicy\[ray\]"):
        sweep(items, recipes, tmp_path, facts=tiny_sweep.FACTS, executor=sweep_ray.RayActors("local"))


def test_a_machine_with_other_versions_runs_nothing(monkeypatch):
    for name in ONE_THREAD:
        monkeypatch.setenv(name, "1")  # as an actor sets them; put back afterwards
    actor, built = sweep_ray._Actor(), []
    told = actor.build(lambda: built.append(1), "robopolicy 9").what
    assert told.endswith("the driver has robopolicy 9; want the same everywhere")
    assert "numpy " in told
    assert built == []
    assert actor.build(lambda: built.append(1), versions(sweep_ray.ALIKE)) is False
    assert built == [1]
