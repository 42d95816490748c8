"""A session: what a person presses decides what is in the dataset."""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))
from hands import Hand
from tiny_worlds import SPEC, AnythingGoes, PointWorld, make_agent

from robopolicy.agents import Guarded
from robopolicy.cli.demonstrate import undo
from robopolicy.clock import SimClock, WallClock
from robopolicy.errors import BehindCamera, ContractError, LateCommand, TracksLost, UnsafeCommand
from robopolicy.pace import Pace
from robopolicy.session import Wishes, keep_unless_discarded, run_session
from robopolicy.shared_control import Shared
from robopolicy.spec import CameraSpec
from robopolicy.testing import WatcherContract
from robopolicy.types import EpisodeMeta, Observation, Step, Verdict
from robopolicy_data.layout import MONITOR_STATES, SOURCES
from robopolicy_data.reader import Dataset
from robopolicy_data.recorder import Recorder

HOMEWARDS = (-0.02, -0.02, 0.0)


class TestPace(WatcherContract):
    def make(self, spec):
        return Pace()


def session(
    path, script, *, episodes=9, policy=None, world=PointWorld, safety=None, away=range(0), told=None, **wishes
):
    clock = SimClock()
    robot = world(clock)
    hand = Hand(SPEC, script, HOMEWARDS, away)
    told = [] if told is None else told
    with Recorder(path, keep=keep_unless_discarded, background=False) as recorder:
        result = run_session(
            robot, Shared(policy, hand, SPEC), hand, clock, safety or AnythingGoes(SPEC), recorder,
            Wishes(
                lambda seed: EpisodeMeta("go home", "point", seed=seed, operator="ann"), episodes,
                undo=lambda: undo(path, recorder), tell=told.append, **wishes,
            ),
        )  # fmt: skip
    return result, hand, told


def held(path):
    return [(e.meta.seed, e.meta.success, e.length) for e in Dataset(path)]


def test_success_and_failure_are_kept_discard_and_redo_are_not(tmp_path):
    script = {
        3: ["start"], 6: ["success"], 8: ["start"], 10: ["discard"], 12: ["start"], 14: ["redo"],
        16: ["start"], 20: ["failure"], 22: ["quit"],
    }  # fmt: skip
    result, _, told = session(tmp_path / "d", script)
    assert held(tmp_path / "d") == [(0, True, 2), (2, False, 3)]
    assert [o.ended for o in result.outcomes] == ["success", "discard", "redo", "failure"]
    assert (result.episodes, result.quit) == (2, True)
    assert [line.split(":")[0] for line in told if not line.startswith(" ")] == [
        "episode 1 of 9", "not kept", "not kept", "episode 2 of 9",
    ]  # fmt: skip
    assert "10.0 of 10 Hz, 0 ticks skipped, 0 steps dropped; human 100%" in told[0]


def test_each_episode_starts_where_its_seed_says_whatever_was_done_while_waiting(tmp_path):
    session(tmp_path / "d", {9: ["start"], 11: ["success"], 30: ["start"], 32: ["success"], 33: ["quit"]})
    for episode in Dataset(tmp_path / "d"):
        fresh = PointWorld(SimClock())
        fresh.reset(episode.meta.seed)
        np.testing.assert_array_equal(episode.state("point")[0], fresh.read().state["point"])


def test_redo_offers_the_same_start_again(tmp_path):
    session(tmp_path / "d", {2: ["start"], 4: ["redo"], 6: ["start"], 8: ["success"], 9: ["quit"]})
    assert held(tmp_path / "d") == [(0, True, 1)]


def test_a_pause_is_recorded_as_a_hold_and_goes_on_without_a_jump(tmp_path):
    script = {2: ["start"], 6: ["pause"], 11: ["start"], 15: ["success"], 16: ["quit"]}
    _, hand, _ = session(tmp_path / "d", script)
    (episode,) = Dataset(tmp_path / "d")
    names = [SOURCES[i] for i in episode.sources()]
    assert names == ["human"] * 3 + ["hold"] * 5 + ["human"] * 4
    steps = np.linalg.norm(np.diff(episode.action(), axis=0), axis=1)
    assert steps[7] <= steps[0] * 1.001 + 1e-6, "the first step after the pause is no larger than one while driving"
    assert {s.phase for s in hand.shown} == {"waiting", "recording", "paused", "saving"}
    assert [m["name"] for m in episode.attributes["marks"]] == ["pause", "go on"]


def test_undo_takes_the_newest_episode_away_and_offers_its_start_again(tmp_path):
    script = {
        2: ["undo"], 3: ["start"], 5: ["success"], 7: ["start"], 9: ["success"], 11: ["undo"],
        13: ["start"], 16: ["failure"], 17: ["quit"],
    }  # fmt: skip
    result, hand, _ = session(tmp_path / "d", script)
    assert held(tmp_path / "d") == [(0, True, 1), (1, False, 2)]
    assert result.episodes == 2
    assert any(s.message == "nothing to undo" for s in hand.shown)


def test_quitting_in_mid_episode_wants_to_be_asked_twice(tmp_path):
    script = {2: ["start"], 5: ["quit"], 8: ["success"], 10: ["start"], 12: ["quit"], 13: ["quit"]}
    result, hand, _ = session(tmp_path / "d", script)
    assert held(tmp_path / "d") == [(0, True, 5)]
    assert [o.ended for o in result.outcomes] == ["success", "quit"]
    assert any("quit again" in s.message for s in hand.shown)


def test_a_question_is_forgotten_after_a_while_and_hides_no_later_remark(tmp_path):
    script = {2: ["start"], 5: ["quit"], 60: ["quit"], 62: ["success"], 64: ["quit"]}
    result, hand, _ = session(tmp_path / "d", script)
    assert [o.ended for o in result.outcomes] == ["success"]
    asked = [s.time_s for s in hand.shown if "quit again" in s.message]
    assert min(asked) < 0.5
    assert not [t for t in asked if 3.5 < t < 5], "it leaves the line to others"


def test_there_is_an_end_when_there_are_enough_and_a_resumed_session_counts_on(tmp_path):
    script = {2: ["start"], 4: ["success"]}
    result, *_ = session(tmp_path / "d", script, episodes=1)
    assert (result.episodes, result.quit) == (1, False)
    script = {2: ["start"], 4: ["success"]}
    result, hand, _ = session(tmp_path / "d", script, episodes=2, held=1, seed=1)
    assert (result.episodes, result.quit) == (2, False)
    assert [seed for seed, *_ in held(tmp_path / "d")] == [0, 1]
    assert hand.shown[0].episode == 1


def test_auto_success_and_the_time_limit_end_an_episode(tmp_path):
    result, *_ = session(
        tmp_path / "d", {2: ["start"]}, episodes=1, policy=make_agent(), auto_success=True, time_limit_s=100.0
    )
    (episode,) = Dataset(tmp_path / "d")
    assert (result.outcomes[0].ended, episode.meta.success) == ("success", True)
    assert episode.meta.extra["world_success"] is True
    session(tmp_path / "e", {2: ["start"]}, episodes=1, time_limit_s=1.0)
    (episode,) = Dataset(tmp_path / "e")
    assert (episode.meta.success, episode.length) == (False, 10)
    assert "time limit of 1 s" in episode.meta.notes


class Refuses(AnythingGoes):
    """Refuses one command."""

    def __init__(self, at):
        self.at, self.count = at, 0

    def limit(self, action, observation, now_ns):
        self.count += 1
        if self.count in self.at:
            raise UnsafeCommand("observation is 0.3 s old")
        return super().limit(action, observation, now_ns)


def test_a_refused_command_ends_the_episode_not_the_session_and_loses_no_step(tmp_path):
    script = {2: ["start"], 20: ["start"], 23: ["success"], 24: ["quit"]}
    result, hand, _ = session(tmp_path / "d", script, safety=Refuses({6}))
    assert held(tmp_path / "d") == [(0, False, 4), (1, True, 2)]
    assert "0.3 s old" in next(iter(Dataset(tmp_path / "d"))).meta.notes
    assert result.outcomes[0].ended == "UnsafeCommand: observation is 0.3 s old"
    assert any("0.3 s old" in s.message for s in hand.shown if s.phase == "waiting")


@pytest.mark.parametrize("error", [TracksLost("tracks are lost"), BehindCamera("camera 'front': 5 points are behind")])
def test_a_policy_without_a_plan_ends_the_episode_not_the_session(error, tmp_path):
    class Lost:
        """Has no plan at its fifth step."""

        decision = None

        def __init__(self):
            self._agent, self._count = make_agent(), 0

        def act(self, observation):
            self._count += 1
            if self._count == 5:
                raise error
            return self._agent.act(observation)

        def __getattr__(self, name):
            return getattr(self._agent, name)

    script = {2: ["start"], 20: ["start"], 23: ["success"], 24: ["quit"]}
    result, hand, _ = session(tmp_path / "d", script, policy=Lost())
    assert held(tmp_path / "d") == [(0, False, 4), (1, True, 2)]
    assert str(error) in next(iter(Dataset(tmp_path / "d"))).meta.notes
    assert result.outcomes[0].ended == f"{type(error).__name__}: {error}"
    assert any(str(error) in shown.message for shown in hand.shown if shown.phase == "waiting")


class Late(Refuses):
    """Finds the observation too old now and then."""

    def limit(self, action, observation, now_ns):
        try:
            return super().limit(action, observation, now_ns)
        except UnsafeCommand as error:
            raise LateCommand(str(error)) from error


class Backwards(PointWorld):
    """Its tenth reading after a start is of a second ago."""

    def read(self):
        observation = super().read()
        self._read = getattr(self, "_read", 0) + 1
        return replace(observation, stamp_ns=observation.stamp_ns - 10**9 * (self._read == 10))


def test_what_is_told_of_an_episode_cut_short_is_what_is_in_the_dataset(tmp_path):
    told = []
    with pytest.raises(ContractError, match="goes back in time"):
        session(tmp_path / "d.zarr", {2: ["start"]}, world=Backwards, told=told)
    ((_, success, steps),) = held(tmp_path / "d.zarr")
    assert success is False
    (line,) = [line for line in told if "is kept" in line]
    assert f"is kept, without success: {steps} of its {steps + 1} steps, ended by ContractError" in line


def test_a_late_step_or_two_send_the_set_point_in_force_again_and_are_marked(tmp_path):
    script = {2: ["start"], 9: ["success"], 10: ["quit"]}
    _, hand, _ = session(tmp_path / "d", script, safety=Late({4, 5, 7}))
    assert any("0.3 s old" in s.message for s in hand.shown if s.phase == "recording")
    (episode,) = Dataset(tmp_path / "d")
    assert (episode.length, episode.meta.success) == (6, True)
    assert [mark["name"] for mark in episode.attributes["marks"]] == ["stall"] * 3
    sent = episode.action()
    np.testing.assert_array_equal(sent[2:4], sent[[1, 1]])
    assert not np.array_equal(sent[4], sent[3])


def test_three_late_steps_in_a_row_end_the_episode(tmp_path):
    session(tmp_path / "d", {2: ["start"], 12: ["quit"]}, safety=Late({4, 5, 6}))
    (episode,) = Dataset(tmp_path / "d")
    assert (episode.length, episode.meta.success) == (4, False)
    assert "LateCommand: observation is 0.3 s old" in episode.meta.notes


def test_refusals_between_episodes_are_shown_and_only_a_row_of_them_is_an_end(tmp_path):
    script = {6: ["start"], 9: ["success"], 10: ["quit"]}
    session(tmp_path / "d", script, safety=Refuses({2, 4}))
    assert len(held(tmp_path / "d")) == 1
    with pytest.raises(UnsafeCommand):
        session(tmp_path / "e", {}, safety=Refuses(range(1, 1000)))


def test_a_person_takes_over_from_the_policy_and_every_step_says_who_drove(tmp_path):
    script = {
        2: ["start"],
        6: ["takeover"],
        10: ["release"],
        14: ["takeover"],
        16: ["takeover"],
        20: ["failure"],
        21: ["quit"],
    }
    session(tmp_path / "d", script, policy=make_agent())
    (episode,) = Dataset(tmp_path / "d")
    names = [SOURCES[i] for i in episode.sources()]
    assert names == ["policy"] * 3 + ["human"] * 4 + ["policy"] * 4 + ["human"] * 2 + ["policy"] * 4
    assert [m["name"] for m in episode.attributes["marks"]] == ["takeover", "release", "takeover", "release"]


class Noisy(PointWorld):
    """A camera of noise, a thousand times a second: more than any encoder takes."""

    NOISE = np.random.default_rng(0).integers(0, 255, (480, 640, 3), np.uint8)

    def __init__(self, clock):
        super().__init__(clock)
        self.spec = replace(SPEC, rate_hz=1000.0, cameras={"a": CameraSpec(480, 640)})

    def read(self):
        seen = super().read()
        return replace(seen, images={"a": self.NOISE}, image_stamps_ns={"a": seen.stamp_ns})


def test_steps_that_the_recorder_could_not_take_are_shown_told_and_recorded(tmp_path):
    clock = WallClock()
    robot = Noisy(clock)
    hand, told = Hand(SPEC, {2: ["start"], 200: ["success"]}), []
    with Recorder(tmp_path / "d", keep=keep_unless_discarded, background=True, capacity_steps=1) as recorder:
        run_session(
            robot, Shared(None, hand, robot.spec), hand, clock, AnythingGoes(SPEC), recorder,
            Wishes(lambda seed: EpisodeMeta("t", "r", seed=seed), 1, tell=told.append),
        )  # fmt: skip
    (episode,) = Dataset(tmp_path / "d")
    dropped = next(s.dropped for s in hand.shown if s.phase == "saving")
    assert dropped > 0
    assert f"{dropped} steps dropped" in told[0], told
    assert episode.length + dropped == 197
    assert episode.attributes["drops"]["steps"] == dropped


def test_what_keeps_a_device_from_working_is_told_once_and_a_hold_is_explained_before_the_start(tmp_path):
    class Mute(Hand):
        trouble = "/t carries another type"

    told, hand = [], Mute(SPEC, {4: ["start"], 6: ["failure"], 8: ["quit"]}, away=range(20))
    clock = SimClock()
    with Recorder(tmp_path / "d", keep=keep_unless_discarded, background=False) as recorder:
        run_session(
            PointWorld(clock), Shared(None, hand, SPEC), hand, clock, AnythingGoes(SPEC), recorder,
            Wishes(lambda seed: EpisodeMeta("t", "r", seed=seed), 1, tell=told.append),
        )  # fmt: skip
    assert told.count("/t carries another type") == 1
    assert [s.message for s in hand.shown if s.phase == "waiting"][1] == "nobody is there"


def test_the_status_shows_time_rate_and_driver(tmp_path):
    _, hand, _ = session(tmp_path / "d", {2: ["start"], 12: ["success"], 13: ["quit"]})
    last = [s for s in hand.shown if s.phase == "recording"][-1]
    assert last.time_s == pytest.approx(0.9, abs=0.11)
    assert last.rate_hz == pytest.approx(10.0)
    assert (last.source, last.episode, last.episodes) == ("human", 0, 9)


def test_pace_tells_a_camera_that_shows_the_same_frame_again():
    pace, spec = Pace(), replace(SPEC, cameras={"a": CameraSpec(2, 2)})
    for k in range(40):
        stamp_ns = k * 50_000_000
        frame_ns = (k // 2) * 100_000_000
        seen = Observation(stamp_ns, {}, {"a": np.zeros((2, 2, 3), np.uint8)}, {"a": frame_ns})
        pace.see(seen)
        pace.on_step(Step(seen, np.zeros(2, np.float32), stamp_ns, "human" if k < 30 else "hold"))
    assert spec.cameras
    assert pace.rate_hz == pytest.approx(20.0)
    assert pace.camera_hz == pytest.approx(10.0)
    assert pace.shares() == {"human": 0.75, "hold": 0.25}
    assert pace.mean_hz == pytest.approx(20.0)


class Judges:
    """A monitor that alarms at its third decision until it is reset."""

    seen = 0

    def reset(self):
        self.seen = 0

    def step(self, decision):
        self.seen += 1
        state = "alarm" if self.seen == 3 else "nominal"
        return Verdict(decision.stamp_ns, {"a": 1.0}, 1.0, 0.5, 0.1, state, reason="it is lost")


def test_a_monitor_hands_over_to_the_person_marked_and_told_until_they_give_back(tmp_path):
    script = {2: ["start"], 10: ["release"], 16: ["success"], 17: ["quit"]}
    policy = Guarded(make_agent(), Judges(), on_alarm="handover")
    _, hand, _ = session(tmp_path / "d", script, policy=policy)
    (episode,) = Dataset(tmp_path / "d")
    names = [SOURCES[i] for i in episode.sources()]
    assert names == ["policy"] * 4 + ["human"] * 3 + ["policy"] * 4 + ["human"] * 2, "giving back arms it again"
    assert [m["name"] for m in episode.attributes["marks"]] == ["handover", "release", "handover"]
    assert any(s.message == "yours: it is lost" for s in hand.shown)
    assert MONITOR_STATES[episode.verdicts()["state"][4]] == "alarm", "in the step that the person commands already"


def test_a_monitor_that_stops_ends_the_episode_which_is_kept_without_success(tmp_path):
    policy = Guarded(make_agent(), Judges(), on_alarm="stop")
    result, _, told = session(tmp_path / "d", {2: ["start"], 14: ["quit"]}, policy=policy)
    assert [o.ended for o in result.outcomes] == ["monitor"]
    (episode,) = Dataset(tmp_path / "d")
    assert (episode.meta.success, episode.length, episode.meta.notes) == (False, 5, "it is lost")
    assert episode.meta.extra["ended"] == "monitor"
    assert told[0].startswith("episode 1 of 9: monitor, 5 steps")
