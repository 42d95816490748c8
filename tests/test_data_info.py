import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from recordings import META, SPEC, make_steps, record

from robopolicy_data.edit import delete
from robopolicy_data.exporters.zipped import export_zip
from robopolicy_data.info import info, trash_in_words
from robopolicy_data.labels import label
from robopolicy_data.merge import merge
from robopolicy_data.trim import trim
from robopolicy_data.writer import DatasetWriter


@pytest.fixture
def path(tmp_path):
    with DatasetWriter(tmp_path / "d", SPEC) as writer:
        for seed in range(4):
            record(writer, seed, success=True, operator="ana")
    return tmp_path / "d"


def test_counts_and_streams(path):
    found = info(path)
    assert (found["episodes"], found["numbers"], found["steps"]) == (4, "0-3", 4 + 5 + 6 + 7)
    assert found["success"] == {"true": 4, "false": 0, "unknown": 0}
    assert found["operators"] == {"ana": 4}
    assert found["cameras"] == {"front": (24, 32), "wrist": (16, 16)}
    assert found["seconds"] == pytest.approx(22 / 20)
    assert "edits" not in found
    assert "trash" not in found


def test_it_says_what_was_done_and_what_befell_it(path):
    delete(path, 1)
    trim(path, 2, 1, 4)
    label(path, 0, notes="seen")
    found = info(path)
    assert found["numbers"] == "0 3-4"
    assert found["cut_from_others"] == "episodes 4"
    assert found["edits"].startswith('3, the latest: labelled episode 0: notes "seen" (')
    assert found["trash"].startswith("deleted episodes 1-2; ")
    assert found["set_aside"] == 2


def test_interrupted_and_recovered_recordings_are_told(path):
    def interrupted():
        with DatasetWriter(path, SPEC) as writer:
            episode = writer.begin(META)
            for step in make_steps(3, 5):
                episode.add(step)

    interrupted()
    assert info(path)["unfinished"] == 1
    with DatasetWriter(path, SPEC):
        pass
    assert "1 interrupted recording(s)" in trash_in_words(path)
    interrupted()
    with DatasetWriter(path, SPEC, recover=True):
        pass
    assert info(path)["recovered"] == "episodes 4"


def test_a_merged_dataset_and_a_zip_tell_where_they_come_from(path, tmp_path):
    merge([path], tmp_path / "copy")
    assert info(tmp_path / "copy")["origin"] == f"merged from {path}"
    export_zip(path, tmp_path / "d.zip")
    found = info(tmp_path / "d.zip")
    assert (found["episodes"], found["steps"]) == (4, 22)
    assert "megabytes" not in found
