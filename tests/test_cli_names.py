"""Folders with spaces, brackets, markup and letters beyond ASCII: printed as they are, in commands to be pasted."""

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from recordings import SPEC, record

from robopolicy.cli.progress import bar, say
from robopolicy_data.writer import DatasetWriter

NAMES = ("a [b] ü.zarr", "x[/b].zarr", "[red]:warning:.zarr")


def robopolicy(*words: object) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "robopolicy.cli.main", *map(str, words)],
        capture_output=True, text=True, env={**os.environ, "PYTHONUTF8": "1"}, timeout=120, check=False,
    )  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_every_command_says_the_name_it_was_given(tmp_path, name):
    path = tmp_path / name
    done = robopolicy("record", "--robot", "twin:lift", "--cameras", "--data", path, "--episodes", 1)
    assert done.returncode == 0, done.stderr
    assert f"{path} holds 1 episode." in done.stdout
    command = done.stdout.partition("Next: ")[2]
    assert shlex.split(command)[:4] == ["robopolicy", "train", "--data", str(path)]
    done = robopolicy("data", "info", path)
    assert done.returncode == 0, done.stderr
    assert str(path) in done.stdout
    good = tmp_path / "good" / name
    with DatasetWriter(good, SPEC) as writer:
        for seed in (1, 2):
            record(writer, seed, 20)
    done = robopolicy("data", "check", good)
    assert done.returncode == 0, done.stderr
    assert f"{good}: nothing wrong" in done.stdout


@pytest.mark.parametrize("name", NAMES)
def test_an_error_says_the_name_it_was_given(tmp_path, name):
    path: Path = tmp_path / name
    path.mkdir(parents=True)  # a slash makes two folders
    done = robopolicy("train", "--data", path, "--out", tmp_path / "o")
    assert done.returncode == 1
    assert done.stderr.startswith(f"robopolicy: {path} is not a robopolicy dataset")
    assert "Traceback" not in done.stderr


def test_texts_are_texts_and_styles_are_explicit(capsys):
    say("[/b] [bold]x[/bold] :smile: ", ("a [b]", "bold"))
    assert capsys.readouterr().out == "[/b] [bold]x[/bold] :smile: a [b]\n"


def test_label_and_note_of_a_bar_are_texts_too(capsys):
    with bar("[/b] lab", 2) as progress:
        progress.at(2, note="seed [/b] {7}")
    said = capsys.readouterr().err
    assert "[/b] lab" in said
    assert "seed [/b] {7}" in said
