"""`robopolicy twin excite` and `identify`: from a robot to a dataset to parameters and a page, and what they refuse."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))
from hidden_arm import hidden_parameters
from recordings import SPEC, record

from robopolicy.cli.main import main
from robopolicy.clock import SimClock
from robopolicy.evaluation.identification import write_page
from robopolicy.loop import run_episode
from robopolicy.types import EpisodeMeta
from robopolicy_data.reader import Dataset
from robopolicy_data.recorder import Recorder
from robopolicy_data.writer import DatasetWriter
from robopolicy_hardware.safety import SafetyLayer, limits_for
from sim_envs.excitation import Exciter
from sim_envs.imperfections import Imperfect, Imperfections
from sim_envs.parameters import apply, load
from sim_envs.tasks import make_task
from sim_envs.twin import Twin


def excite(path: Path, episodes: int, seconds: float, *, kind: str = "joint") -> None:
    """A twin with a hidden arm, recorded by the loop as any robot is."""
    clock = SimClock()
    twin = Twin(make_task("lift"), clock, cameras=(), rate_hz=50.0, action=kind)
    truth = hidden_parameters(np.random.default_rng(0))
    apply(truth, twin.model)
    latency = Imperfections(command_latency_s=truth.delay_s, joint_noise_rad=1e-4, speed_noise_rad_s=1e-3)
    robot = Imperfect(twin, latency, clock, np.random.default_rng(1))
    exciter = Exciter(robot.spec, robot.stop, duration_s=seconds, size=1.0)
    with Recorder(path, background=False) as recorder:
        for seed in range(episodes):
            twin.reset(seed)
            safety = SafetyLayer(limits_for(robot.spec), robot.spec)
            run_episode(
                robot, exciter, clock, safety, EpisodeMeta("excitation", "twin", seed=seed),
                max_steps=1000, watchers=[recorder], done=exciter.done,
            )  # fmt: skip


@pytest.mark.slow
def test_from_motions_to_parameters(tmp_path, capsys):
    excite(tmp_path / "d.zarr", 3, 6.0)
    assert main(["twin", "identify", str(tmp_path / "d.zarr"), "--out", str(tmp_path / "arm.json")]) == 0
    said = capsys.readouterr().out
    assert "2 episodes, 12 s of motion; 1 held out" in said
    assert "damping kept nominal: " in said, "a servo's damping and a joint's are one number"
    found = load(tmp_path / "arm.json")
    assert found.about["ratio"] > 20, found.about["held_out_rms_rad"]
    assert found.about["held_out"] == ["episode 2"]
    assert found.delay_s == pytest.approx(0.024, abs=0.012), "give or take the tick of the drive, 10 ms"
    page = (tmp_path / "arm.html").read_text()
    assert "Identifiability" in page
    assert "joint7 friction" in page


def test_a_robot_is_moved_and_recorded(tmp_path, capsys):
    words = ["--robot", "twin:lift", "--data", str(tmp_path / "d.zarr"), "--episodes", "2", "--seconds", "3"]
    assert main(["twin", "excite", *words, "--rate", "25"]) == 0
    assert "2 motions in" in capsys.readouterr().out
    dataset = Dataset(tmp_path / "d.zarr")
    assert [episode.length for episode in dataset] == [75, 75]
    moved = [np.ptp(episode.state("tool_pos"), axis=0).max() for episode in dataset]
    assert min(moved) > 0.015
    assert max(np.abs(e.state("tool_pos") - e.state("tool_pos")[0]).max() for e in dataset) < 0.05
    assert not np.array_equal(dataset[0].action(), dataset[1].action())


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--robot", "mock"], "--robot mock: there is nothing to identify in it; want twin:TASK or ros:FILE.yaml"),
        (["--robot", "twin:lift", "--size", "2"], "size is 2; want a factor above 0, 1 at most"),
        (["--robot", "twin:lift", "--seconds", "1"], "1 s at 20 Hz; want at least 3 s at 10 Hz"),
    ],
)
def test_what_excite_refuses(tmp_path, capsys, words, says):
    assert main(["twin", "excite", "--data", str(tmp_path / "d.zarr"), *words]) != 0
    assert says in capsys.readouterr().err


def test_what_identify_refuses(tmp_path, capsys):
    def refused(*words: str) -> str:
        assert main(["twin", "identify", *words]) != 0
        lines = capsys.readouterr().err.strip().splitlines()
        return lines[-1]

    out = ["--out", str(tmp_path / "arm.json")]
    assert "none.zarr" in refused(str(tmp_path / "none.zarr"), *out)
    with DatasetWriter(tmp_path / "other.zarr", SPEC) as writer:
        record(writer, 0)
    assert "no state q of 7 joints; it has" in refused(str(tmp_path / "other.zarr"), *out)
    excite(tmp_path / "one.zarr", 1, 3.0)
    one = str(tmp_path / "one.zarr")
    assert "holds 1 episodes; 1 held out leaves none to identify from" in refused(one, *out)
    assert "no task 'lfit'; valid: align, avoid, drawer, left_drawer, lift" in refused(one, "--task", "lfit", *out)
    assert "want a file FILE.json" in refused(one, "--out", str(tmp_path / "arm.html")), "the page would replace it"
    assert "there is no folder" in refused(one, "--out", str(tmp_path / "no" / "arm.json"))
    excite(tmp_path / "tool.zarr", 1, 3.0, kind="tool_pose")
    assert "its commands are tool_pose; want joint" in refused(str(tmp_path / "tool.zarr"), "--drive", "none", *out)


def once(function):
    """Return the same function, which works only the first time, and repeats what it found."""
    found = []

    def work(*args, **options):
        found or found.append(function(*args, **options))
        return found[0]

    return work


def test_parameters_that_explain_nothing_are_not_written(tmp_path, capsys, monkeypatch):
    from sim_envs import sysid_arm

    excite(tmp_path / "d.zarr", 2, 3.0)
    monkeypatch.setattr(sysid_arm, "USEFUL", 1e9)
    monkeypatch.setattr(sysid_arm, "identify", once(sysid_arm.identify))
    out, doubtful = tmp_path / "arm.json", tmp_path / "arm-doubtful.json"
    out.write_text("of yesterday")
    words = ["twin", "identify", str(tmp_path / "d.zarr"), "--out", str(out), "--max-iters", "1"]
    assert main(words) == 1
    told = capsys.readouterr()
    assert "do not use these parameters" in told.out
    assert "d.zarr: the parameters that fit it explain nothing else, they were not written; " in told.err
    assert "error " in told.err, "the bar tells how the fit goes"
    assert "parameters in" not in told.out
    assert out.read_text() == "of yesterday"
    assert not doubtful.exists()
    assert (tmp_path / "arm.html").exists()
    assert main([*words, "--anyway"]) == 1
    assert f"they are in {doubtful} all the same" in capsys.readouterr().err
    assert out.read_text() == "of yesterday"
    assert load(doubtful).about["ratio"] < 1e9


def test_the_page_shows_every_number(tmp_path):
    estimate = {
        "name": "joint1 kp", "unit": "N m/rad", "nominal": 3000.0, "value": 2468.0, "std_err": 3.5,
        "status": "identified", "note": "", "moved": True,
    }  # fmt: skip
    kept = {
        **estimate,
        "name": "joint1 <kv>",
        "std_err": None,
        "status": "kept nominal",
        "note": "it hides",
        "moved": False,
    }
    report = {
        "dataset": "d.zarr",
        "lines": ["held-out joint error 9.351 -> 0.101 mrad RMS"],
        "joints": ["joint1"],
        "held_out": ["episode 2"],
        "held_out_joint_rms_rad": {"nominal": [0.0093], "identified": [0.0001]},
        "trace": {
            "motion": "episode 2", "joint": "joint1", "times_s": [0.0, 0.5, 1.0], "nominal": [0.0, 0.01, -0.01],
            "identified": [0.0, 0.0, 0.0],
        },
        "note": "a note",
        "identifiability": {"estimates": [estimate, kept], "pairs": [["joint1 kp", "delay", 0.91]]},
    }  # fmt: skip
    page = write_page(tmp_path / "arm.html", json.loads(json.dumps(report))).read_text()
    for text in ("9.300", "0.100", "2468", "3.5", "joint1 &lt;kv&gt;", "kept nominal: it hides", "+0.910", "a note"):
        assert text in page, text
    assert "http" not in page.replace("http-equiv", ""), "the page asks nothing of any network"
