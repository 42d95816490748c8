"""How long plans take, what is said of it, and what would help."""

import re
import time
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from robopolicy.cli.deploy import check_pace
from robopolicy.errors import BehindCamera, TooSlow, TracksLost
from robopolicy.policies.config import DiffusionConfig
from robopolicy.policies.diffusion import DiffusionPolicy
from robopolicy.policies.latency import Latency, device_name, judge, keeps_up, measure_latency, milliseconds, remedies
from robopolicy.policies.mlp import MlpConfig
from robopolicy.policies.solvers import SolverConfig
from robopolicy.policies.vision import VisionConfig
from robopolicy.spec import ActionSpec, CameraSpec, PolicySpec, StateSpec

SPEC = PolicySpec(
    cameras={"front": CameraSpec(40, 40)}, state={"angle": StateSpec(2, ("m", "rad"))},
    action=ActionSpec("vector", ("x",), ("m",)), rate_hz=20.0, n_obs=2, horizon=8, n_execute=4,
)  # fmt: skip
CONFIG = DiffusionConfig(MlpConfig(width=16, depth=1), VisionConfig(width=16), solver=SolverConfig(steps=8))


def make(spec=SPEC, config=CONFIG) -> DiffusionPolicy:
    made = DiffusionPolicy(spec, config)
    rng = np.random.default_rng(0)
    angle = rng.random((20, 2), dtype=np.float32)
    made.fit_normaliser(SimpleNamespace(state={"angle": angle}, action=angle[:, :1] * 6))
    return made.eval()


class Sleepy(torch.nn.Module):
    """A network whose every call lasts so long."""

    def __init__(self, net: torch.nn.Module, seconds: float) -> None:
        super().__init__()
        self.net, self.seconds, self.calls = net, seconds, 0

    def forward(self, *args: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        time.sleep(self.seconds)
        return self.net(*args)


def took(p50_s: float, p99_s: float | None = None, n: int = 1) -> Latency:
    return Latency(p50_s, p50_s if p99_s is None else p99_s, 10, n, "CPU", 1)


def test_every_plan_is_of_new_pictures_and_calls_the_network_for_each_step():
    policy = make()
    policy.net = Sleepy(policy.net, 0.002)
    seen = []
    policy.encoder.cameras[0].register_forward_hook(lambda _, args, __: seen.append(args[0].shape[1]))
    latency = measure_latency(policy, n=3, repetitions=5)
    assert policy.net.calls == (5 + 2) * 8
    assert seen == [2] * 7, "n_execute 4 steps on, both observations are new"
    assert 0.016 <= latency.p50_s <= latency.p99_s
    assert (latency.plans, latency.n, latency.threads) == (5, 3, torch.get_num_threads())


def test_measuring_leaves_no_trace():
    policy = make()
    state, threads = torch.get_rng_state(), torch.get_num_threads()
    before = {name: value.clone() for name, value in policy.state_dict().items()}
    measure_latency(policy, repetitions=2, threads=2)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.get_num_threads() == threads
    assert all(torch.equal(value, before[name]) for name, value in policy.state_dict().items())


def test_a_slow_policy_is_measured_few_times():
    policy = make()
    policy.net = Sleepy(policy.net, 0.15)
    assert measure_latency(policy, repetitions=100).plans == 1


@pytest.mark.parametrize(
    ("p50_s", "p99_s", "words", "fits"),
    [
        (0.004, 0.006, "a plan takes 4 ms (p99 6 ms) on CPU, 1 thread; a step at 20 Hz lasts 50 ms", True),
        (0.004, 0.06, "fast enough, but for one plan in a hundred", True),
        (0.07, 0.08, "once every 4 steps the robot would wait 20 ms for a plan", False),
        (0.3, 0.3, "the 4 rows executed a plan last 200 ms: the robot would wait for plans most of the time", False),
    ],
)
def test_it_is_compared_with_the_period_and_the_rows(p50_s, p99_s, words, fits):
    assert words in judge(took(p50_s, p99_s), SPEC)
    assert keeps_up(took(p50_s, p99_s), SPEC) == fits


def test_what_helps_is_measured_and_what_does_not_is_left_out():
    policy = make(spec=replace(SPEC, rate_hz=2.0))
    policy.net = Sleepy(policy.net, 0.1)  # 8 steps take 0.8 s, a step lasts 0.5
    told = remedies(policy, measure_latency(policy, repetitions=2))
    steps = next(line for line in told if "--solver.steps" in line)
    assert re.fullmatch(r"--solver.steps [1-4] in place of 8: \d+ ms", steps), told
    assert steps == told[-1], "what fits ends the list"
    assert policy.config == CONFIG, "the policy itself stays as it was"
    assert not any("thread" in line for line in told), "sleeping is no faster on two threads"


def test_a_policy_of_one_step_is_told_of_smaller_networks_and_fewer_candidates():
    policy = make(config=replace(CONFIG, net=MlpConfig(width=2048), solver=SolverConfig(steps=1)))
    told = remedies(policy, took(10.0, n=16))
    assert told[0].startswith(("1 candidate in place of 16", "--threads")), told
    assert not any(line.startswith("--solver.steps") for line in told)


def test_beside_the_loop_it_is_measured_as_it_will_be_asked(monkeypatch):
    policy = make(config=replace(CONFIG, max_delay=3))
    told: list[int] = []
    plan = policy.plan

    def spied(window, **options):
        told.append(options["delay_steps"])
        return plan(window, **options)

    monkeypatch.setattr(policy, "plan", spied)
    check_pace(policy, 1, waits=False, allow_slow=True, beside=True)
    assert told[0] == 0, "no chunk is running yet"
    assert set(told[1:]) == {3}
    told.clear()
    check_pace(policy, 1, waits=False, allow_slow=True)
    assert set(told) == {0}


def test_simulated_time_waits_and_a_robot_does_not(capsys):
    policy = make(spec=replace(SPEC, rate_hz=100.0))
    policy.net = Sleepy(policy.net, 0.005)  # 40 ms against 10
    check_pace(policy, 1, waits=True, allow_slow=False)
    said = capsys.readouterr().out
    assert "Simulated time waits for it" in said
    with pytest.raises(TooSlow, match=r"a plan takes .* What would help: .*--allow-slow drives all the same") as caught:
        check_pace(policy, 1, waits=False, allow_slow=False)
    assert "\n" not in str(caught.value)
    check_pace(policy, 1, waits=False, allow_slow=True)
    assert "What would help" in capsys.readouterr().out


def test_a_fast_one_says_so_to_a_robot_and_nothing_to_a_simulation(capsys):
    policy = make(spec=replace(SPEC, rate_hz=0.5))
    check_pace(policy, 1, waits=True, allow_slow=False)
    assert capsys.readouterr().out == ""
    check_pace(policy, 1, waits=False, allow_slow=False)
    assert "fast enough" in capsys.readouterr().out


def test_times_and_devices_in_words():
    assert milliseconds(0.00421) == "4.21 ms"
    assert milliseconds(2.5) == "2.5 s"
    assert device_name(torch.device("cpu"))


def test_a_plan_of_noise_takes_its_time_and_one_that_was_never_begun_takes_none(monkeypatch):
    policy = make()

    def refuse(error):
        def plan(*_, **__):
            raise error

        monkeypatch.setattr(policy, "plan", plan)
        return policy

    assert measure_latency(refuse(TracksLost("tracks are lost")), repetitions=3).plans == 3
    with pytest.raises(BehindCamera):  # before the network is asked: it would be said to be fast
        measure_latency(refuse(BehindCamera("camera 'front': 5 points are behind")), repetitions=3)
