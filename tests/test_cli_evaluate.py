"""What `robopolicy eval` refuses before the first rollout, and what it records of worlds that hang or err."""

import json
import sys
from functools import partial
from pathlib import Path

import pytest

from robopolicy.cli.deploy import _require
from robopolicy.cli.main import main
from robopolicy.cli.worlds import make_world, require_disturbance
from robopolicy.clock import SimClock
from robopolicy.errors import ContractError, UsageError
from robopolicy.evaluation.outcomes import OUTCOMES
from robopolicy.evaluation.rollouts import evaluate

sys.path.insert(0, str(Path(__file__).parent))  # inherited by spawned processes, which import what they run
import tiny_worlds as tiny
from test_cli_calibrate import checkpoint


def test_an_episode_that_hangs_is_recorded_with_its_seed_and_the_evaluation_goes_on(tmp_path, capsys):
    mine, out = checkpoint(tmp_path / "mine"), tmp_path / "out"
    words = [
        "--env",
        "tiny_sweep:HangingWorld",
        "--jobs",
        "1",
        "--envs",
        "1",
        "--episode-timeout",
        "3",
        "--videos",
        "2",
    ]
    assert main(["eval", "--checkpoint", str(mine), *words, "--seeds", "4:7", "--out", str(out)]) == 0
    assert "1 episodes ended in an error" in capsys.readouterr().out
    rows = {row["seed"]: row for row in map(json.loads, (out / OUTCOMES).read_text().splitlines())}
    assert {seed: row.get("error") for seed, row in rows.items()} == {
        4: None, 5: "hung: ran for more than 3 s, and was ended", 6: None
    }  # fmt: skip
    assert rows[6]["steps"] > 0
    filmed = (out / "videos" / OUTCOMES).read_text()
    assert '"seed": 6' in filmed
    assert '"seed": 5' not in filmed, "it would hang once more"


def test_a_world_without_a_disturbance_is_refused_before_the_first_rollout(tmp_path, capsys):
    mine, out = checkpoint(tmp_path / "mine"), tmp_path / "out"
    words = ["--env", "tiny_worlds:CalmWorld", "--seeds", "0:2", "--out", str(out)]
    assert main(["eval", "--checkpoint", str(mine), *words, "--disturb-at", "3"]) == 1
    told = capsys.readouterr().err
    assert "tiny_worlds:CalmWorld cannot be disturbed (a calm world); what can: twin:TASK, planar:pusht" in told
    assert not out.exists()


def test_what_can_be_disturbed_is_and_what_cannot_is_named():
    pytest.importorskip("gymnasium")
    pendulum = "gymnasium:Pendulum-v1"
    for name in ("twin:drawer", "planar:pusht"):
        require_disturbance(make_world(name, SimClock()), name)
    with pytest.raises(UsageError, match=r"gymnasium:Pendulum-v1 cannot be .*what can: .*gymnasium:gym_pusht/PushT-v0"):
        require_disturbance(make_world(pendulum, SimClock()), pendulum)
    _require("twin:lift", object(), 100, 3, None)
    with pytest.raises(UsageError, match="Pendulum-v1 cannot be disturbed"):
        _require(pendulum, object(), 100, 3, None)


def test_a_reward_that_is_no_number_is_the_environments_error(tmp_path):
    pytest.importorskip("gymnasium")
    import nan_rewards

    name = f"gymnasium:{nan_rewards.NAME}"
    made = {"make_safety": tiny.AnythingGoes, "jobs": 1, "out": tmp_path, "identity": "a"}
    outcomes = evaluate(partial(make_world, name), tiny.make_agent, [1, 2, 3], **made)
    assert [outcome.error for outcome in outcomes] == [
        None, "nan_rewards/Nan-v0: the reward of step 3 is nan; want a finite number", None
    ]  # fmt: skip
    assert [(outcome.seed, outcome.success) for outcome in outcomes] == [(1, True), (2, False), (3, True)]

    clock = SimClock()
    world = make_world(name, clock)
    world.reset(2)
    world.command([0, 0], 0)
    clock.sleep_until(5 * world.spec.period_ns)
    with pytest.raises(ContractError, match="step 3 is nan"):
        world.read()
    world.stop()
    world.read()  # it stands still
    world.reset(1)
    world.command([0, 0], clock.now_ns())
    clock.sleep_until(clock.now_ns() + 7 * world.spec.period_ns)
    world.read()
    assert (world.success(), world.score()) == (True, 0.5)
