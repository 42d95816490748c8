"""What `robopolicy deploy --record` does with a dataset that has more cameras than the policy sees."""

import sys
from dataclasses import replace
from pathlib import Path

import pytest

from robopolicy.cli.deploy import deploy
from robopolicy.cli.train import train
from robopolicy.clock import SimClock
from robopolicy.errors import SpecMismatch
from robopolicy_data.reader import Dataset
from robopolicy_data.writer import DatasetWriter
from sim_envs.worlds import make_world

sys.path.insert(0, str(Path(__file__).parent))
import recordings


@pytest.fixture(scope="module")
def blind(tmp_path_factory):
    """A policy of the twin that sees states only, hardly trained."""
    folder = tmp_path_factory.mktemp("deploy")
    world = make_world("twin:lift", SimClock(), cameras=())
    with DatasetWriter(folder / "d.zarr", world.spec) as writer:
        episode = writer.begin(recordings.META)
        for step in recordings.make_steps(0, 6, spec=world.spec):
            episode.add(step)
        episode.commit()
    world.close()
    settings = {"steps": 1, "batch_size": 4, "device": "cpu", "num_threads": 1}
    train(folder / "d.zarr", folder / "policy", settings=settings)
    return folder / "policy"


def test_a_recording_without_the_datasets_cameras_is_refused_and_told_the_way(blind, tmp_path):
    world = make_world("twin:lift", SimClock(), cameras=("front",))
    path = tmp_path / "d.zarr"
    DatasetWriter(path, world.spec).close()
    world.close()
    with pytest.raises(
        SpecMismatch, match=r"has the camera\(s\) front, which this recording lacks.*add --cameras front"
    ):
        deploy("twin:lift", blind, record=path, max_steps=3)
    assert len(Dataset(path)) == 0
    deploy("twin:lift", blind, record=path, max_steps=3, cameras=("front",))
    (episode,) = Dataset(path)
    assert episode.length == 3
    assert episode.images("front").std() > 5


def test_what_else_differs_is_said_as_ever(blind, tmp_path):
    world = make_world("twin:lift", SimClock(), cameras=())
    DatasetWriter(tmp_path / "d.zarr", replace(world.spec, rate_hz=7.0)).close()
    world.close()
    with pytest.raises(SpecMismatch, match="7 Hz"):
        deploy("twin:lift", blind, record=tmp_path / "d.zarr", max_steps=3)
