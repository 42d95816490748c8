"""A checkpoint of another rate than a world's own: what can run at its rate does, for as many seconds."""

import sys
from pathlib import Path

import numpy as np
import pytest

from robopolicy.cli.calibrate import collect
from robopolicy.cli.deploy import deploy
from robopolicy.cli.evaluate import check_fit
from robopolicy.cli.timing import Timing
from robopolicy.cli.train import train
from robopolicy.cli.train_eval import trial
from robopolicy.cli.worlds import make_world, rate_for, world_factory
from robopolicy.clock import SimClock
from robopolicy.errors import SpecMismatch, UsageError
from robopolicy.evaluation.outcomes import load_about, load_outcomes
from robopolicy.evaluation.runs import Run, require_alike
from robopolicy.monitor.decisions import load_decisions
from robopolicy.training.checkpoint import read_spec
from robopolicy_data.writer import DatasetWriter

sys.path.insert(0, str(Path(__file__).parent))
from recordings import META, make_steps


@pytest.fixture(scope="module")
def slow(tmp_path_factory):
    """A policy of 10 Hz, hardly trained: it lifts nothing."""
    folder = tmp_path_factory.mktemp("slow")
    world = make_world("twin:lift", SimClock(), cameras=(), rate_hz=10.0)
    with DatasetWriter(folder / "d.zarr", world.spec) as writer:
        episode = writer.begin(META)
        for step in make_steps(0, 12, spec=world.spec):
            episode.add(step)
        episode.commit()
    world.close()
    settings = {"steps": 1, "batch_size": 4, "device": "cpu", "num_threads": 1}
    train(folder / "d.zarr", folder / "policy", settings=settings)
    return folder / "policy"


def test_an_evaluation_runs_the_twin_at_the_policys_rate_for_as_long(slow, tmp_path):
    collect(slow, "twin:lift", "0:2", tmp_path, jobs=1)  # as calibrate does: an evaluation that keeps decisions
    about, outcomes = load_about(tmp_path), load_outcomes(tmp_path)
    assert about["rate"] == "10 Hz"
    assert [(outcome.seed, outcome.success, outcome.steps) for outcome in outcomes] == [(0, False, 60), (1, False, 60)]
    every_ns = read_spec(slow).period_ns * read_spec(slow).n_execute
    for outcome in outcomes:
        stamps_ns = [decision.stamp_ns for decision in load_decisions(tmp_path / outcome.decisions)]
        assert set(np.diff(stamps_ns)) == {every_ns}


def test_steps_of_another_length_are_not_compared_where_options_count_them():
    def run(name, **about):
        return Run(name, Path(name), {"env": "twin:lift", **about}, ())

    disturbed = {"options": "disturbed at step 20"}
    assert not require_alike([run("a", rate="10 Hz"), run("b", rate="20 Hz")]), "both have six seconds"
    assert not require_alike([run("a", rate="10 Hz", **disturbed), run("b", **disturbed)]), "an old one does not say"
    with pytest.raises(UsageError, match="rate is '10 Hz' in the first, '20 Hz' in the second"):
        require_alike([run("a", rate="10 Hz", **disturbed), run("b", rate="20 Hz", **disturbed)])


def test_deploy_gives_the_twin_the_policys_rate_and_a_faster_loop_as_many_seconds(slow):
    assert deploy("twin:lift", slow).steps == 60
    assert deploy("twin:lift", slow, perturbations=("mass:0.5",)).steps == 60
    assert deploy("twin:lift", slow, timing=Timing(control_rate_hz=50.0)).steps == 300


def test_worlds_whose_steps_have_a_length_of_their_own_keep_it(slow):
    spec = read_spec(slow)
    assert rate_for("robosuite:Lift", spec) == rate_for("twin:stack", spec) == 10
    assert (
        rate_for("gymnasium:Pendulum-v1", spec) is rate_for("planar:pusht", spec) is rate_for("mine:Arm", spec) is None
    )
    with pytest.raises(SpecMismatch, match=r"rate: checkpoint .* has 10 Hz, robot gymnasium:Pendulum-v1 has 30 Hz"):
        check_fit(slow, "gymnasium:Pendulum-v1")
    trial("twin:lift", "0:2", spec)  # refuses what does not fit
    world = world_factory("twin:peg", spec, ("friction:0.3",))(SimClock())
    assert (world.spec.rate_hz, world.max_steps) == (10, 180)
