"""Reactions by name from the command line: what is refused, what is recorded, what an evaluation that acts measures."""

import sys
from dataclasses import asdict
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from robopolicy.agents import Chunked, Guarded
from robopolicy.cli.deploy import deploy, tell
from robopolicy.cli.evaluate import Subject, _folder
from robopolicy.cli.main import build_parser, main
from robopolicy.cli.reacting import LATE, NAMES, reactions_of
from robopolicy.cli.running import Running
from robopolicy.cli.watched import following
from robopolicy.cli.worlds import make_agent
from robopolicy.clock import SimClock, WallClock
from robopolicy.errors import UsageError
from robopolicy.evaluation.rollouts import Rollout
from robopolicy.evaluation.witness import Options
from robopolicy.reactions import LATE as ALL_LATE
from robopolicy.reactions import REACTIONS, Reactions
from robopolicy.types import Verdict
from robopolicy_data.layout import MONITOR_STATES
from robopolicy_data.reader import Dataset

sys.path.insert(0, str(Path(__file__).parent))
import tiny_worlds as tiny
from test_cli_calibrate import checkpoint as save_checkpoint


class Script:
    """A monitor in the place of one that was calibrated: an overrun at its third decision, for good."""

    candidates, seen = 1, 0

    def reset(self):
        self.seen = 0

    def describe(self):
        return {}

    def step(self, decision):
        self.seen += 1
        state = "overrun" if self.seen > 2 else "nominal"
        scores = {"rnd": 0.5 * self.seen, "ace": 2.0}
        return Verdict(decision.stamp_ns, scores, 1.0 * self.seen, 2.5, 0.3, state, 0.004, f"it is {state}")


@pytest.fixture
def scripted(monkeypatch):
    monkeypatch.setattr(Running, "load_monitor", lambda self, folder, timing=None: Script())


@pytest.fixture
def policy(tmp_path):
    return save_checkpoint(tmp_path / "policy")


def parsed(command, *words):
    return build_parser().parse_args([command, "--checkpoint", "c", *words])


def test_the_names_on_the_command_line_are_the_reactions():
    assert NAMES == REACTIONS
    assert LATE == ALL_LATE


def test_every_command_reads_its_reactions():
    args = parsed("deploy", "--robot", "mock", "--monitor", "m", "--on-alarm", "retreat", "--on-overrun", "stop",
                  "--monitor-late", "log", "--monitor-deadline-ms", "20")  # fmt: skip
    assert reactions_of(args) == Reactions("retreat", "stop", on_late="log", deadline_s=0.02)
    assert reactions_of(parsed("deploy", "--robot", "mock", "--monitor", "m")) == Reactions("hold")
    assert reactions_of(parsed("deploy", "--robot", "mock")) == Reactions("hold")
    plain = parsed("eval", "--env", "twin:lift", "--monitor", "m")
    assert reactions_of(plain, otherwise="log") == Reactions.never()
    said = parsed("eval", "--env", "twin:lift", "--monitor", "m", "--on-alarm", "log")
    assert reactions_of(said, otherwise="log") == Reactions.never()
    acts = parsed("eval", "--env", "twin:lift", "--monitor", "m", "--on-overrun", "stop")
    assert reactions_of(acts, otherwise="log") == Reactions("log", "stop")
    assert _folder(acts) == "eval-twin-lift-on-overrun-stop"


def test_what_makes_no_sense_is_refused_in_one_line(capsys, tmp_path):
    assert main(["deploy", "--robot", "mock", "--checkpoint", "c", "--on-alarm", "stop"]) != 0
    assert "--on-alarm says what a monitor's word does: add its --monitor" in capsys.readouterr().err
    for command, more in (("deploy", ["--robot", "mock"]), ("eval", ["--env", "twin:lift"])):
        assert main([command, *more, "--checkpoint", "c", "--monitor", "m", "--on-overrun", "handover"]) != 0
        assert "--on-overrun handover gives the robot to an operator, and here there is none" in capsys.readouterr().err
    words = ["record", "--robot", "twin:lift", "--data", str(tmp_path / "d"), "--teleop", "keyboard"]
    assert main([*words, "--checkpoint", "c", "--on-alarm", "handover"]) != 0
    assert "add its --monitor" in capsys.readouterr().err
    args = build_parser().parse_args([*words, "--checkpoint", "c", "--monitor", "m", "--on-alarm", "handover"])
    assert reactions_of(args, operator=True).on_alarm == "handover"


def test_a_controller_of_whole_motions_is_not_given_single_commands():
    class Arm:
        follows = True

    for name in ("slow", "retreat"):
        agent = Guarded(Chunked(tiny.HomingPolicy()), Script(), on_alarm=name, spec=tiny.SPEC)
        with pytest.raises(UsageError, match=f"{name} would give single commands: --on-alarm hold or stop"):
            following(Arm(), Arm(), agent, None)


def test_where_time_is_real_a_verdict_may_take_one_control_period(scripted, policy):
    made = partial(make_agent, policy, monitor="m", robot=tiny.SPEC)
    assert made(clock=WallClock()).reactions.deadline_s == 0.1
    assert made(clock=WallClock(), on_alarm=Reactions(deadline_s=0.02)).reactions.deadline_s == 0.02
    assert made(clock=SimClock()).reactions.deadline_s is None
    assert made().reactions.deadline_s is None


def test_deploy_records_every_score_state_and_latency_and_marks_the_reaction(scripted, policy, tmp_path, monkeypatch):
    monkeypatch.setattr("robopolicy.cli.worlds.make_clock", lambda name, *, realtime: SimClock())  # a busy machine
    outcome = deploy("tiny_worlds:PointWorld", policy, monitor=Path("m"), on_alarm="log", max_steps=7)
    assert (outcome.steps, outcome.alarm_step) == (7, 4)
    path = tmp_path / "d.zarr"
    reactions = Reactions("log", on_overrun="stop")
    outcome = deploy("tiny_worlds:PointWorld", policy, monitor=Path("m"), on_alarm=reactions, max_steps=9, record=path)
    assert (outcome.steps, outcome.alarm_step, outcome.alarm_reason) == (5, 4, "it is overrun")
    assert tell(outcome, "tiny_worlds:PointWorld").endswith("; alarm at step 4 (it is overrun)")
    (episode,) = Dataset(path)
    verdicts, nan = episode.verdicts(), np.nan
    assert [MONITOR_STATES[k] for k in verdicts["state"]] == ["nominal", "none", "nominal", "none", "overrun"]
    np.testing.assert_array_equal(episode.scores()["rnd"], [0.5, nan, 1.0, nan, 1.5])
    np.testing.assert_array_equal(episode.scores()["ace"], [2.0, nan, 2.0, nan, 2.0])
    np.testing.assert_array_equal(verdicts["latency_s"], [0.004, nan, 0.004, nan, 0.004])
    np.testing.assert_array_equal(verdicts["p_value"], [0.3, nan, 0.3, nan, 0.3])
    assert [mark["name"] for mark in episode.attributes["marks"]] == ["monitor: stop"]
    assert episode.attributes["marks"][0]["stamp_ns"] == episode.stamps_ns("step")[4]
    assert episode.meta.notes == "it is overrun"


def test_an_evaluation_that_acts_is_another_one_and_measures_what_the_reaction_does(scripted, policy, tmp_path):
    (tmp_path / "m").mkdir()
    (tmp_path / "m/monitor.json").write_text("{}")
    made = partial(Subject.of, policy, "tiny_worlds:PointWorld", tmp_path / "m")
    counts, same, holds, stops = (
        made(reactions=one) for one in (None, Reactions.never(), Reactions("hold"), Reactions("log", "stop"))
    )
    assert counts.identity == same.identity
    assert len({counts.identity, holds.identity, stops.identity}) == 3
    assert "reactions" not in counts.about
    assert holds.about["reactions"] == holds.changes["reactions"] == "alarm: hold, overrun: hold, fault: hold"
    assert stops.about["reactions"] == "alarm: log, overrun: stop, fault: hold"
    outcomes = []
    for subject in (counts, holds, stops):
        roll = Rollout(subject.make_world, subject.make_agent, tiny.AnythingGoes, Options(), None, "x")
        outcomes.append(roll.run(0))
        roll.close()
    free, held, stopped = outcomes
    assert {one.alarm_step for one in outcomes} == {4}
    assert (free.failure != "held", held.failure, held.onset_step) == (True, "held", 4)
    assert (stopped.steps, stopped.failure) == (5, "held")
    assert held.steps == 40
    assert [asdict(mark) for mark in held.marks] == [asdict(mark) for mark in free.marks[:3]]
