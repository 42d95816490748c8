"""The drift journal hears of every robot's episode under a monitor: of deploy, of the node, of a session."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from hands import Hand
from test_cli_calibrate import WORLD, checkpoint

from robopolicy.cli import demonstrate as demonstrating
from robopolicy.cli.calibrate import calibrate, collect
from robopolicy.cli.deploy import deploy
from robopolicy.cli.drifting import Judged, SessionDrift
from robopolicy.cli.keeping import Keeping
from robopolicy.cli.main import build_parser
from robopolicy.cli.node_rig import NodeRig
from robopolicy.errors import MonitorError
from robopolicy.monitor.drift_journal import JOURNAL, DriftJournal
from robopolicy.monitor.monitor import load_monitor
from robopolicy.testing import WatcherContract
from robopolicy.types import EpisodeMeta, Observation, Step, Verdict
from robopolicy_hardware.ros.local import LocalTopics, Wire
from robopolicy_hardware.ros.node_parameters import Parameters


class TestJudged(WatcherContract):
    def make(self, spec):
        return Judged(None)


class Presses(Hand):
    """Starts an episode, lets the policy drive, and says that it succeeded; the next one failed."""

    def __init__(self, spec):
        super().__init__(spec, {2: ["start"], 14: ["success"], 16: ["start"], 28: ["failure"]})


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A policy of the mock and the folder of its monitor."""
    folder = tmp_path_factory.mktemp("drift")
    mine = checkpoint(folder / "policy")
    collect(mine, WORLD, "20:60", folder / "rollouts", jobs=1)
    calibrate(mine, folder / "rollouts", folder / "M", alpha=0.2)
    return mine, folder / "M"


@pytest.fixture
def journal(made):
    """Of the monitor, empty."""
    (made[1] / JOURNAL).unlink(missing_ok=True)
    return DriftJournal(made[1], load_monitor(made[1]).calibration.z)


def test_a_node_tells_it_of_each_episode(made, journal):
    pytest.importorskip("rosbags", reason="rosbags is not installed: pip install 'robopolicy[ros]'")
    told = Parameters(
        robot="mock", checkpoint=str(made[0]), monitor=str(made[1]), on_alarm="log", max_steps=6, allow_slow=True,
        monitor_late="log",
    )  # fmt: skip
    rig = NodeRig(told, LocalTopics(Wire()), "/robopolicy")
    try:
        for _ in range(2):
            rig.run(lambda agent: agent, lambda _: False)
        assert [(one.label, one.episode) for one in journal.entries()] == [("unlabelled", "mock")] * 2
        rig.robot.trips.append("a watchdog")  # of an episode that is over
        rig.run(lambda agent: agent, lambda _: bool(rig.robot.trips.append("another")))
        assert len(journal.entries()) == 2, "what a watchdog touched is left out"
        (made[1] / JOURNAL).write_text("{}\n[]\n")
        with pytest.raises(MonitorError, match="line 2 is no object"):
            rig.run(lambda agent: agent, lambda _: False)
    finally:
        rig.close()


def test_a_session_tells_it_what_the_person_says_of_success(made, journal, tmp_path):
    words = ["record", "--robot", "mock", "--teleop", "test_cli_drifting:Presses", "--data", tmp_path / "d.zarr",
             "--episodes", "2", "--checkpoint", made[0], "--monitor", made[1], "--on-alarm", "log",
             "--monitor-late", "log", "--limits", tmp_path / "l.yaml"]  # fmt: skip
    (tmp_path / "l.yaml").write_text("{}\n")
    result = demonstrating.demonstrate(build_parser().parse_args([str(word) for word in words]))
    assert [one.ended for one in result.outcomes] == ["success", "failure"]
    assert [one.label for one in journal.entries()] == ["success", "failure"]
    assert [one.drift is None for one in journal.entries()] == [False, True], "a failure is counted and not bet on"


def test_deploy_that_was_told_of_success_tells_it_too(made, journal, tmp_path):
    drive = {"monitor": made[1], "on_alarm": "log", "max_steps": 6, "allow_slow": True}
    for told in ("yes", "no"):
        deploy("mock", made[0], keeping=Keeping(tmp_path, told), **drive)
    assert [one.label for one in journal.entries()] == ["success", "failure"]


def step(source="policy", statistic=None, state="nominal"):
    verdict = None if statistic is None else Verdict(0, {"a": statistic}, statistic, 1.0, 0.5, state)
    return Step(Observation(0, {}), None, 0, source, verdict)


@pytest.mark.parametrize(
    ("ended", "steps", "label"),
    [
        ("success", [step(statistic=0.5)], "success"),
        ("time limit", [step(statistic=0.5)], "failure"),
        ("monitor", [step(statistic=2.0, state="alarm")], "unlabelled"),  # nobody knows what would have come
        ("success", [step(statistic=2.0, state="alarm"), step("human")], "success"),  # handed over
        ("success", [step("human"), step(statistic=0.5)], None),  # only a part of it was the policy's
        ("success", [step("human", statistic=2.0, state="alarm")], "success"),  # in the step that hands over
        ("success", [step()], None),
        ("discard", [step(statistic=0.5)], None),
        ("redo", [step(statistic=0.5)], None),
        ("quit", [step(statistic=0.5)], None),
        (None, [step(statistic=0.5)], None),  # an error ended it
    ],
)
def test_what_of_a_session_it_takes(made, journal, ended, steps, label):
    watcher, said = SessionDrift(None, made[1], "arm", print), EpisodeMeta("", "arm", 0)
    watcher.on_start(said, None)
    watcher.on_step(step("human"))
    watcher.on_start(said, None)  # nothing is left of the episode before
    for one in steps:
        watcher.on_step(one)
    extra = {} if ended is None else {"ended": ended}
    watcher.on_end(replace(said, success=ended == "success", extra=extra))
    assert [one.label for one in journal.entries()] == ([] if label is None else [label])
    if label is not None:
        largest = max(one.verdict.statistic for one in steps if one.verdict)
        assert json.loads((made[1] / JOURNAL).read_text().splitlines()[1])["statistic"] == largest


def test_a_session_says_its_warning_where_the_person_looks(made, journal):
    lines = []
    watcher = SessionDrift(None, made[1], "arm", lines.append)
    for _ in range(30):
        watcher.on_start(EpisodeMeta("", "arm", 0), None)
        watcher.on_step(step(statistic=1e4))
        watcher.on_end(EpisodeMeta("", "arm", 0, success=True, extra={"ended": "success"}))
    assert "statistics are higher than in calibration" in lines[-1]
