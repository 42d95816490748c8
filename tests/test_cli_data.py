"""The command line of `robopolicy data`: what it prints, what it refuses, and that a typo changes nothing."""

import json
import re
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from recordings import SPEC, record

from robopolicy.cli.main import main
from robopolicy_data.exporters.zipped import export_zip
from robopolicy_data.reader import Dataset
from robopolicy_data.writer import DatasetWriter


@pytest.fixture
def path(tmp_path):
    with DatasetWriter(tmp_path / "d.zarr", SPEC) as writer:
        for seed in range(8):
            record(writer, seed, count=10, success=seed % 2 == 0)
    return tmp_path / "d.zarr"


def numbers(path):
    return [episode.number for episode in Dataset(path)]


def run(capsys, *words):
    code = main(["data", *map(str, words)])
    out = capsys.readouterr()
    return code, out.out.strip(), out.err.strip()


def test_delete_undo_and_history(path, capsys):
    code, out, _ = run(capsys, "delete", path, "1", "4-6")
    assert (code, numbers(path)) == (0, [0, 2, 3, 7])
    assert out == f"{path}: deleted 1 4-6. Back with: robopolicy data undo {path}"
    assert run(capsys, "undelete", path, "5")[0] == 0
    assert "undid: brought episode 5 back" in run(capsys, "undo", path)[1]
    assert run(capsys, "undo", path)[1].count("undid: deleted episode") == 4
    assert numbers(path) == list(range(8))
    assert run(capsys, "history", path)[1].count("(undone)") == 5
    code, _, err = run(capsys, "undo", path)
    assert (code, err) == (1, f"robopolicy: {path}: there is nothing to undo")


def test_label_says_what_changed(path, capsys):
    words = ["--success", "unknown", "--notes", "hm", "--mark", "slip@2-5"]
    _, out, _ = run(capsys, "label", path, "0", "1", *words)
    assert out.splitlines() == [
        f'{path}: labelled episode {n}: success unknown, notes "hm", marks [slip]' for n in (0, 1)
    ]
    stamps = Dataset(path)[0].stamps_ns("step").tolist()
    assert Dataset(path)[0].attributes["marks"] == [{"name": "slip", "stamp_ns": stamps[2], "until_ns": stamps[5]}]
    assert run(capsys, "label", path, "0", *words)[1] == f"{path}: labelled so already"
    code, _, err = run(capsys, "label", path, "0")
    assert (code, err) == (1, "robopolicy: label: nothing to change; give success, task, notes, marks or a calibration")


@pytest.mark.parametrize(
    ("span", "length"), [(["--steps", "2:7"], 5), (["--steps", ":4"], 4), (["--seconds", "0.1:0.3"], 4)]
)
def test_trim(path, capsys, span, length):
    code, out, _ = run(capsys, "trim", path, 3, *span)
    assert code == 0
    assert "are episode 8" in out
    assert Dataset(path)[-1].length == length
    assert numbers(path) == [0, 1, 2, 4, 5, 6, 7, 8]


def test_trim_idle_after_quality(path, capsys):
    code, _, err = run(capsys, "trim", path, 3, "--idle")
    assert code == 1
    assert f"make them: robopolicy data quality {path} --write" in err


def test_split_and_merge(path, capsys, tmp_path):
    words = (f"{tmp_path}/train.zarr=0.75", f"{tmp_path}/val.zarr=0.25", "--by", "success")
    _, out, _ = run(capsys, "split", path, *words)
    assert out.splitlines() == [
        f"{tmp_path}/train.zarr: 6 episodes, linked",
        f"{tmp_path}/val.zarr: 2 episodes, linked",
    ]
    _, out, _ = run(capsys, "merge", tmp_path / "train.zarr", tmp_path / "val.zarr", "--out", tmp_path / "all.zarr")
    assert out == f"{tmp_path}/all.zarr: 8 episodes, linked"
    assert sorted(e.meta.seed for e in Dataset(tmp_path / "all.zarr")) == list(range(8))


def test_gc_wants_a_yes(path, capsys):
    assert run(capsys, "gc", path)[1] == f"{path}: the trash is empty"
    run(capsys, "delete", path, "2")
    code, _, err = run(capsys, "gc", path)
    assert code == 1
    assert "deleted episodes 2; " in err
    assert "wants --yes" in err
    assert (path / ".trash" / "episode-000002").is_dir()
    code, out, _ = run(capsys, "gc", path, "--yes")
    assert code == 0
    assert "deleted for good" in out
    assert not (path / ".trash").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["delete", "D", "1-"], "names no episodes; want numbers and ranges such as 3 5-8"),
        (["delete", "D", "3", "99"], "has no episode 99; it has 0-7"),
        (["undelete", "D", "3"], "has no episode 3; it has none"),
        (["trim", "D", "3", "--steps", "9"], "is no span; want START:STOP"),
        (["trim", "D", "3", "--steps", "0:99"], "has 10 steps"),
        (["trim", "D", "44", "--seconds", "0:1"], "has no episode 44"),
        (["split", "D", "a.zarr"], "is no part; want NEW.zarr=SHARE"),
        (["view", "D", "--episodes", "70", "--out", "P"], "has no episode 70; it has 0-7"),
        (["view", "nowhere.zarr", "--out", "P"], "nowhere.zarr"),
        (["trim", "D", "3", "--steps", "0:10"], "3 has 10 steps; 0:10 is all of them, nothing to trim"),
        (["history", "nowhere.zarr"], "nowhere.zarr is not a robopolicy dataset"),
        (["gc", "nowhere.zarr", "--yes"], "nowhere.zarr is not a robopolicy dataset"),
    ],
)
def test_mistakes_are_one_line_and_change_nothing(path, capsys, words, message):
    named = [str({"D": path, "P": path.with_name("p")}.get(word, word)) for word in words]
    code, _, err = run(capsys, *named)
    assert code == 1
    assert message in err
    assert len([line for line in err.splitlines() if line.startswith("robopolicy: ")]) == 1
    assert numbers(path) == list(range(8))


@pytest.mark.parametrize(
    "words",
    [
        *(["delete", "PLACE", "0"], ["undelete", "PLACE", "0"], ["undo", "PLACE"], ["recover", "PLACE"]),
        *(["label", "PLACE", "0", "--success", "true"], ["history", "PLACE"], ["gc", "PLACE", "--yes"]),
    ],
    ids=lambda words: words[0],
)
def test_what_is_only_read_is_not_edited(path, capsys, tmp_path, monkeypatch, words):
    monkeypatch.chdir(tmp_path)
    export_zip(path, tmp_path / "d.zip")
    before = (tmp_path / "d.zip").read_bytes()
    for place, message in (("d.zip", "d.zip is a file, which is only read"), ("s3://lab/d.zarr", "is only read")):
        code, _, err = run(capsys, *(place if word == "PLACE" else word for word in words))
        assert (code, message in err) == (1, True), err
    assert (tmp_path / "d.zip").read_bytes() == before
    assert not (tmp_path / "s3:").exists()


def test_info_and_stats_as_text_and_json(path, capsys):
    assert "episodes             8" in run(capsys, "info", path)[1]
    assert json.loads(run(capsys, "info", path, "--json")[1])["numbers"] == "0-7"
    text = run(capsys, "stats", path)[1]
    assert "task lift" in text
    assert "50.0%" in text
    assert json.loads(run(capsys, "stats", path, "--json")[1])["streams"]["q"]["count"] == 80


def test_view_writes_a_page(path, capsys, tmp_path):
    code, out, _ = run(capsys, "view", path, "--out", tmp_path / "page", "--episodes", "1-2")
    assert code == 0
    assert "2 episodes" in out
    assert (tmp_path / "page" / "index.html").is_file()


def test_recover_brings_an_interrupted_recording_back(path, capsys):
    with DatasetWriter(path, SPEC) as writer:
        episode = writer.begin(next(iter(Dataset(path))).meta)
        from recordings import make_steps

        for step in make_steps(3, 5):
            episode.add(step)
    code, out, _ = run(capsys, "recover", path)
    assert code == 0
    assert len(Dataset(path)) == 9, out
    assert run(capsys, "recover", path)[1] == f"{path}: no interrupted recording"


def test_view_serves_until_ctrl_c(path):
    command = [sys.executable, "-m", "robopolicy", "data", "view", str(path), "--no-open"]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        url = re.search(r"http://127\.0\.0\.1:\d+/", server.stdout.readline())[0]
        with urllib.request.urlopen(url + "robopolicy.js") as answer:
            assert answer.read().startswith(b"robopolicy.dataset({")
        server.send_signal(signal.SIGINT)
        assert server.wait(20) == 0
        assert server.stderr.read() == ""
    finally:
        server.kill()
        server.communicate()
