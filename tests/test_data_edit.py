import json
import os
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from recordings import SPEC, record, require_intact

from robopolicy.errors import ContractError, DatasetBusy, DatasetError, UsageError
from robopolicy_data.edit import delete, empty_trash, undelete, undo
from robopolicy_data.history import edits
from robopolicy_data.labels import label
from robopolicy_data.numbers import numbers_in_words, parse_numbers
from robopolicy_data.reader import Dataset
from robopolicy_data.writer import DatasetWriter


@pytest.fixture
def path(tmp_path):
    with DatasetWriter(tmp_path / "d", SPEC, lossless=True) as writer:
        for seed in range(5):
            record(writer, seed, success=seed % 2 == 0)
    return tmp_path / "d"


def numbers(path):
    return [episode.number for episode in Dataset(path)]


def intact(path):
    for episode in Dataset(path):
        require_intact(episode)


def test_delete_and_undo_are_renames(path):
    inodes = {p.name: p.stat().st_ino for p in (path / "episodes" / "000002").rglob("c.*")}
    delete(path, 2)
    assert numbers(path) == [0, 1, 3, 4]
    assert (path / ".trash" / "episode-000002").is_dir()
    (undone,) = undo(path)
    assert undone.words == "deleted episode 2"
    assert numbers(path) == [0, 1, 2, 3, 4]
    assert {p.name: p.stat().st_ino for p in (path / "episodes" / "000002").rglob("c.*")} == inodes
    intact(path)


def test_numbers_of_deleted_episodes_are_not_used_again(path):
    delete(path, 4)
    (path / ".lock").unlink()
    label(path, 0, notes="x")  # any edit makes up for the lost file
    with DatasetWriter(path, SPEC, lossless=True) as writer:
        assert record(writer, 9) == 5
    undo(path), undo(path)
    assert numbers(path) == [0, 1, 2, 3, 4, 5]


def test_undo_goes_back_step_by_step_and_a_command_at_a_time(path):
    delete(path, [0, 3])
    label(path, [1, 2], success="unknown", task="push")
    delete(path, 4)
    undelete(path, 3)
    assert [e.kind for e in undo(path)] == ["undelete"]
    assert [e.kind for e in undo(path)] == ["delete"]
    assert [e.number for e in undo(path)] == [2, 1]
    assert sorted(e.removes[0].number for e in undo(path)) == [0, 3]
    with pytest.raises(DatasetError, match="nothing to undo"):
        undo(path)
    assert numbers(path) == [0, 1, 2, 3, 4]
    assert [e.meta.success for e in Dataset(path)] == [True, False, True, False, True]
    intact(path)
    assert [e.kind for e in edits(path)].count("undo") == 6


def test_what_is_not_there_is_named_with_what_is_and_nothing_is_done(path):
    delete(path, 3)
    with pytest.raises(DatasetError, match=r"has no episode 3 7-8; it has 0-2 4"):
        delete(path, [1, 3, 7, 8])
    with pytest.raises(DatasetError, match=r"the trash of .* has no episode 1; it has 3"):
        undelete(path, [3, 1])
    with pytest.raises(ContractError, match="nothing to change"):
        label(path, 1)
    assert numbers(path) == [0, 1, 2, 4]
    with pytest.raises(DatasetError, match="not a robopolicy dataset"):
        delete(path.parent, 1)


def test_a_dataset_that_is_being_written_is_busy(path):
    with DatasetWriter(path, SPEC, lossless=True):
        for edit in (lambda: delete(path, 1), lambda: undo(path), lambda: label(path, 1, notes="n")):
            with pytest.raises(DatasetBusy, match=f"being written by process {os.getpid()}"):
                edit()
    assert not (path / "edits.jsonl").exists()


def test_label_is_seen_by_stock_zarr_and_by_the_reader(path):
    zarr = pytest.importorskip("zarr")
    before = (path / "episodes" / "000001" / "zarr.json").read_bytes()
    label(path, 1, success=True, task="größer", notes="a note", marks=[{"text": "slip", "start": 1, "stop": 3}])
    own = dict(zarr.open_group(path / "episodes" / "000001", mode="r").attrs)["robopolicy"]
    assert (own["success"], own["task"], own["notes"]) == (True, "größer", "a note")
    assert own["marks"][-1] == {"text": "slip", "start": 1, "stop": 3}
    meta = Dataset(path)[1].meta
    assert (meta.success, meta.task, meta.seed) == (True, "größer", 1)
    assert label(path, 1, success=True) == []
    assert len(edits(path)) == 1, "what is labelled so already is no edit"
    label(path, 1, unmark=["slip"])
    assert dict(zarr.open_group(path / "episodes" / "000001", mode="r").attrs)["robopolicy"]["marks"] == []
    undo(path), undo(path)
    assert json.loads((path / "episodes" / "000001" / "zarr.json").read_bytes()) == json.loads(before)


def test_gc_deletes_for_good_and_undo_passes_it_over(path):
    label(path, 0, notes="kept")
    delete(path, [1, 2])
    folders, size = empty_trash(path)
    assert folders == 2
    assert size > 1000
    assert not (path / ".trash").exists()
    assert [e.kind for e in undo(path)] == ["label"]
    with pytest.raises(DatasetError, match="nothing to undo"):
        undo(path)
    assert numbers(path) == [0, 3, 4]
    assert empty_trash(path) == (0, 0)


def test_ranges():
    assert parse_numbers(["3", "5-8", "6,1"]) == [1, 3, 5, 6, 7, 8]
    assert numbers_in_words([8, 3, 5, 6, 7]) == "3 5-8"
    assert numbers_in_words([]) == "none"
    for wrong in ("x", "-3", "8-5", "3-", "1.5"):
        with pytest.raises(UsageError, match="3 5-8"):
            parse_numbers(["1", wrong])
