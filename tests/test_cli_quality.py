"""`robopolicy data quality`, end to end on a dataset of mixed quality."""

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))
from reaching import detour, reach, write

from robopolicy.cli.main import main
from robopolicy_data.reader import Dataset


@pytest.fixture(scope="module")
def mixed(tmp_path_factory):
    """Twelve good reaches, three in another style, three with a detour."""
    rng = np.random.default_rng(0)
    episodes = [reach(rng) for _ in range(12)] + [reach(rng, bend=0.1) for _ in range(3)]
    episodes += [detour(reach(rng), 12, 18, rng) for _ in range(3)]
    return write(tmp_path_factory.mktemp("cli") / "mixed.zarr", episodes)


@pytest.fixture
def copy(mixed, tmp_path):
    return Path(shutil.copytree(mixed, tmp_path / "d.zarr"))


def run(capsys, *words):
    code = main(["data", "quality", *map(str, words)])
    out = capsys.readouterr()
    return code, out.out, out.err


def test_it_measures_and_writes_nothing_unless_asked(mixed, capsys):
    code, out, _ = run(capsys, mixed)
    assert code == 0
    assert "18 episodes; the path is that of hand[0] hand[1], m" in out
    assert "duration_s" in out
    assert Dataset(mixed)[0].derived_names() == []


def test_what_does_not_fit_is_named_dropped_and_brought_back(copy, capsys):
    _, out, _ = run(capsys, copy, "--base-first", 12, "--json")
    report = json.loads(out)["compatibility"]
    fits = {e["number"]: e["fits"] for e in report["episodes"]}
    assert set(fits) == set(range(12, 18))
    odd = [number for number in (12, 13, 14) if not fits[number]]
    assert len(odd) >= 2  # one of the three may begin where the base never was
    code, out, _ = run(capsys, copy, "--base-first", 12, "--drop")
    assert code == 0
    assert f"episode {odd[0]}: does not fit the base: compatibility 0." in out
    left = [episode.number for episode in Dataset(copy)]
    assert left == [n for n in range(18) if fits.get(n, True)]
    assert main(["data", "undo", str(copy)]) == 0
    assert len(Dataset(copy)) == 18


def test_extraneous_marks_reach_the_dataset_and_the_page(copy, capsys):
    page = copy.parent / "page.html"
    code, out, _ = run(capsys, copy, "--extraneous", "--write", "--html", page)
    assert code == 0
    for number in (15, 16, 17):
        assert f"episode {number}: steps " in out
        assert Dataset(copy)[number].derived("extraneous@1")["extraneous"][14:26].mean() > 0.5
    episode = Dataset(copy)[0]
    assert set(episode.derived_names()) == {"extraneous@1", "quality@1"}
    assert episode.derived("extraneous@1")["score"].shape == (episode.length,)
    assert 'class="span extraneous"' in page.read_text()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--drop"], "--drop deletes what does not fit a base; name it with --base or --base-first"),
        (["--base-first", 5], "5 base demonstrations; want at least 10"),
        (["--base-first", 18], "there is none after the first 18 to compare"),
        (["--base-first", 12, "--states", "hnd"], "no state 'hnd'; valid: goal, grip, hand"),
        (["--base", "nowhere.zarr"], "nowhere.zarr"),
    ],
)
def test_what_makes_no_sense_is_said_in_one_line(mixed, capsys, words, message):
    code, _, err = run(capsys, mixed, *words)
    assert code == 1
    assert message in err.splitlines()[-1]
