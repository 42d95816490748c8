"""What the types of arguments refuse, the same in every command that has them."""

import pytest

from robopolicy.cli.main import build_parser, main


@pytest.mark.parametrize(
    "words",
    [
        "train --data none.zarr --out run",
        "train --data none.zarr --out run --policy motion-track",
        "train --data none.zarr --out run --resume",
        "record --robot twin:lift --data d.zarr",
        "calibrate-cameras --twin lift --out cams.yaml",
        "deploy --robot twin:lift --checkpoint none",
        "data multiply none.zarr d.zarr --task lift",
        "twin serve lift",
        "twin follow lift",
    ],
)
def test_a_camera_that_is_named_twice_is_refused_before_anything_is_read(words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as left:
        main([*words.split(), "--cameras", "front", "side", "front"])
    assert left.value.code == 2
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert said.endswith("error: argument --cameras: 'front' is named twice; want each once")
    assert not list(tmp_path.iterdir())


def test_states_too_and_names_keep_their_order(capsys):
    train = ["train", "--data", "d.zarr", "--out", "run"]
    with pytest.raises(SystemExit):
        main([*train, "--states", "a", "a"])
    assert "argument --states: 'a' is named twice" in capsys.readouterr().err
    args = build_parser().parse_args([*train, "--cameras", "side", "front", "--states"])
    assert (args.cameras, args.states) == (["side", "front"], [])
