import json
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from robopolicy.agents import Chunked
from robopolicy.errors import ContractError, EvaluationError
from robopolicy.evaluation.outcomes import Outcome
from robopolicy.evaluation.rollouts import Options, Rollout, evaluate, load_about, load_outcomes
from robopolicy.evaluation.statistics import pace_words, summarise
from robopolicy.monitor.decisions import load_decisions
from robopolicy.monitor.monitor import MonitorConfig, fit_monitor

sys.path.insert(0, str(Path(__file__).parent))  # inherited by spawned processes, which import what they run
import tiny_worlds as tiny


def run(seeds, **options):
    return evaluate(tiny.PointWorld, tiny.make_agent, seeds, make_safety=tiny.AnythingGoes, **options)


def timeless(outcomes):
    return [{**outcome.to_json(), "wall_s": 0} for outcome in outcomes]


def test_outcomes_come_in_the_order_of_the_seeds_and_repeat():
    first = run([5, 3, 4], jobs=2)
    assert [outcome.seed for outcome in first] == [5, 3, 4]
    assert all(outcome.success and outcome.score > 0.9 and outcome.error is None for outcome in first)
    assert len({outcome.score for outcome in first}) == 3, "each seed is its own start"
    assert timeless(run([4, 5, 3], jobs=1)) == timeless([first[2], first[0], first[1]]), "order does not matter"


def test_one_crash_and_one_error_cost_one_episode_each(tmp_path):
    outcomes = {o.seed: o for o in run([12, 13, 14, 17, 18], jobs=2, out=tmp_path, identity="a")}
    assert "exit code 3" in outcomes[13].error
    assert outcomes[17].error.startswith("RuntimeError: the world broke")
    assert "(tiny_worlds.py:" in outcomes[17].error, "the file without its folder: results are passed on"
    assert "/" not in outcomes[17].error
    assert "\n" not in outcomes[17].error
    assert all(outcomes[seed].success for seed in (12, 14, 18))
    assert [outcome.seed for outcome in load_outcomes(tmp_path)] == [12, 14, 18]


def test_a_dead_world_is_one_clear_error():
    with pytest.raises(EvaluationError, match="ValueError: there is no such world"):
        evaluate(tiny.make_nothing, tiny.make_agent, [1, 2], make_safety=tiny.AnythingGoes)
    with pytest.raises(EvaluationError, match=r"died while it built .* \(exit code 4\)"):
        evaluate(tiny.PointWorld, tiny.make_death, [1], make_safety=tiny.AnythingGoes)


def test_resume_runs_only_what_is_missing(tmp_path):
    run([1, 2], out=tmp_path, identity="a", jobs=1)
    path = tmp_path / "outcomes.jsonl"
    before = path.read_text()
    path.write_text(before + '{"identity": "half a li')  # killed while writing
    seen = []
    outcomes = run([1, 2, 3], out=tmp_path, identity="a", jobs=1, on_progress=seen.append)
    assert path.read_text().startswith(before)
    assert [json.loads(line)["seed"] for line in path.read_text().splitlines() if "half" not in line] == [1, 2, 3]
    assert seen == outcomes
    assert load_outcomes(tmp_path) == outcomes
    assert run([1, 2, 3], out=tmp_path, identity="a", jobs=1) == outcomes, "nothing is run again, wall time included"


def test_another_identity_is_another_evaluation(tmp_path):
    run([1], out=tmp_path, identity="a", jobs=1)
    run([1], out=tmp_path, identity="b", jobs=1, options=Options(max_steps=3))
    assert len((tmp_path / "outcomes.jsonl").read_text().splitlines()) == 2
    assert [outcome.steps for outcome in load_outcomes(tmp_path)] == [3], "the newest counts"
    with pytest.raises(ContractError, match="identity"):
        run([1], out=tmp_path)
    with pytest.raises(ContractError, match="twice"):
        run([1, 1])


def test_options_are_part_of_the_identity(tmp_path):
    whole, short = (
        run([1], out=tmp_path, identity="a", jobs=1, options=options)[0]
        for options in (Options(), Options(max_steps=3))
    )
    assert (whole.steps > 3, short.steps) == (True, 3)
    kept = run([1], out=tmp_path, identity="a", jobs=1, options=Options(decisions=True))[0]
    assert kept.decisions is not None
    assert whole.decisions is None


def test_one_folder_used_for_two_policies_and_the_first_again(tmp_path):
    def judge(n):
        agent, options = partial(tiny.make_agent, n), Options(decisions=True)
        evaluate(
            tiny.PointWorld, agent, [1, 2], make_safety=tiny.AnythingGoes, jobs=1, out=tmp_path, identity=f"{n} chunks",
            options=options, about={"n": str(n)},
        )  # fmt: skip
        return load_outcomes(tmp_path)

    first = judge(2)
    for n in (5, 2):
        outcomes = judge(n)
        assert load_about(tmp_path) == {"n": str(n)}
        for outcome in outcomes:
            assert {decision.chunks.shape[0] for decision in load_decisions(tmp_path / outcome.decisions)} == {n}
    assert outcomes == first, "found again, not run again, wall time included"


def test_not_an_evaluation(tmp_path):
    with pytest.raises(EvaluationError, match=r"outcomes\.jsonl"):
        load_outcomes(tmp_path)
    with pytest.raises(EvaluationError, match=r"current\.json"):
        load_about(tmp_path)


def slowly(safety=tiny.AnythingGoes, **options):
    rollout = Rollout(tiny.PointWorld, tiny.make_slow, safety, Options(max_steps=6, **options))
    return rollout.run(3)


def test_at_the_pace_of_the_wall_clock_slow_plans_cost_steps():
    waited, lost = slowly(), slowly(realtime=True)
    assert (waited.skipped_ticks, waited.steps) == (0, 6)
    assert lost.skipped_ticks >= 3, "three plans of two and a half steps"
    assert lost.error is None
    told = pace_words([lost, replace(lost, seed=4, skipped_ticks=0)])
    assert told.startswith(f"wall clock: {lost.skipped_ticks} of {12 + lost.skipped_ticks} control steps passed")
    assert told.endswith("in 1 of 2 episodes")


def test_a_command_that_comes_too_late_is_a_failure_and_not_an_error():
    assert slowly(tiny.NothingLate).stopped == ""
    stopped = slowly(tiny.NothingLate, realtime=True)
    assert (stopped.success, stopped.error, stopped.stopped) == (False, None, "observation is too old")
    assert "1 episode was stopped" in pace_words([stopped])
    assert summarise([stopped]).success.n == 1


class Nowhere(tiny.HomingPolicy):
    """Knows no way for some starts."""

    def plan(self, window, **options):
        plan = super().plan(window, **options)
        return replace(plan, chunks=plan.chunks * (np.nan if self.lost(window[-1].state["point"]) else 1))


class BrokenWorld(tiny.PointWorld):
    def read(self):
        return replace(super().read(), state={"point": np.float32([np.nan, 0])})


def test_a_policy_that_gives_no_number_failed_and_a_world_that_shows_none_broke():
    policy = Nowhere()
    policy.lost = lambda at: at[0] > 0.6
    rollout = Rollout(tiny.PointWorld, lambda: Chunked(policy), tiny.Strict)
    outcomes = [rollout.run(seed) for seed in range(12)]
    lost = [outcome for outcome in outcomes if not outcome.success]
    assert 0 < len(lost) < 12
    assert {(outcome.error, outcome.failure, outcome.stopped) for outcome in lost} == {
        (None, "stopped", "command is not finite")
    }
    assert summarise(outcomes).success.n == 12, "an episode without a number is not left out of the rate"
    policy.lost = lambda at: bool(np.isnan(at).any())
    with pytest.raises(EvaluationError, match="the world shows what is no number"):
        Rollout(BrokenWorld, lambda: Chunked(policy), tiny.Strict).run(0)


class ScorelessWorld(tiny.PointWorld):
    def score(self):
        return float("nan") if self._seed == 3 else super().score()


def test_a_score_that_is_no_number_is_that_episodes_error_and_the_others_count(tmp_path):
    outcomes = evaluate(
        ScorelessWorld, tiny.make_agent, [2, 3], make_safety=tiny.AnythingGoes, jobs=1, out=tmp_path, identity="a"
    )
    assert outcomes[1].error == "the world's score is nan; want a number from 0 to 1"
    summary = summarise(outcomes)
    assert (summary.success.n, summary.errors) == (1, 1)
    assert load_outcomes(tmp_path) == outcomes[:1]


def test_decisions_are_kept_and_make_a_monitor_that_sees_the_disturbance(tmp_path):
    good = run(range(100, 130), out=tmp_path / "calm", identity="a", options=Options(decisions=True))
    episodes = [load_decisions(tmp_path / "calm" / outcome.decisions) for outcome in good]
    assert episodes[0][0].chunks.shape == (2, 4, 2)
    assert [decision.index for decision in episodes[0]] == list(range(len(episodes[0])))
    folder = fit_monitor(episodes, MonitorConfig(alpha=0.1)).save(tmp_path / "monitor")

    agent = partial(tiny.make_guarded, folder, on_alarm="hold")
    options = Options(disturb_at=3)
    thrown = evaluate(tiny.PointWorld, agent, [200, 201], make_safety=tiny.AnythingGoes, jobs=1, options=options)
    for outcome in thrown:
        assert outcome.disturb_step == 3
        assert outcome.disturbance == "the point was thrown far away"
        assert outcome.alarm_step == 4, "the next decision after the disturbance"
        assert "mahalanobis" in outcome.alarm_reason
        assert not outcome.success
        assert outcome.marks[0].state == "nominal"
        assert outcome.marks[-1].state == "alarm"
        assert Outcome.from_json(json.loads(json.dumps(outcome.to_json()))) == outcome


def test_workers_use_one_thread_and_leave_the_environment_alone(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    monkeypatch.delenv("LP_NUM_THREADS", raising=False)
    import os

    run([1], jobs=1)
    assert os.environ["OMP_NUM_THREADS"] == "7"
    assert "LP_NUM_THREADS" not in os.environ
