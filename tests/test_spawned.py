"""Processes are spawned: a forked child of a process that has a GL context, or threads, hangs."""

import ast
import multiprocessing
import sys
from functools import partial
from pathlib import Path

import pytest

from robopolicy.errors import NoGLBackend
from robopolicy.evaluation.workers import run_items

sys.path.insert(0, str(Path(__file__).parent))  # inherited by spawned processes, which import what they run
import drawing_runner

ROOT = Path(__file__).parents[1]
PACKAGES = ("robopolicy", "sim_envs", "hardware", "data", "launch")
FORKS = ("fork", "forkpty", "set_start_method", "Process", "Pool")  # as multiprocessing and os have them
POOLS = ("ProcessPoolExecutor", "AsyncVectorEnv", "DataLoader")  # fork on Linux unless told


def called(tree):
    """Yield every call with the last word of what is called, and what it is called on."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            function = node.func
            if isinstance(function, ast.Attribute):
                yield node, function.attr, ast.unparse(function.value)
            elif isinstance(function, ast.Name):
                yield node, function.id, ""


def forks(source):
    """Return what of a file's text might fork."""
    return [ast.unparse(node) for node, name, owner in called(ast.parse(source)) if may_fork(node, name, owner)]


def may_fork(node, name, owner):
    words = ast.unparse(node)
    if name == "get_context":
        return not words.endswith(("('spawn')", "(method='spawn')"))
    if name in POOLS:
        return "spawn" not in words
    if any(keyword.arg == "preexec_fn" for keyword in node.keywords):
        return True
    return name in FORKS and owner in ("", "os", "multiprocessing", "mp", "torch.multiprocessing")


def test_no_process_is_forked():
    files = [file for package in PACKAGES for file in (ROOT / package).rglob("*.py")]
    assert len(files) > 150
    assert {file.relative_to(ROOT): found for file in files if (found := forks(file.read_text()))} == {}


@pytest.mark.parametrize(
    "text",
    ["import os\nos.fork()", "multiprocessing.Process(target=f)", "get_context('fork')", "get_context()",
     "ProcessPoolExecutor(2)", "multiprocessing.get_context('forkserver')", "AsyncVectorEnv(makes)",
     "from multiprocessing import Pool\nPool(2)", "subprocess.run(words, preexec_fn=f)"],
)  # fmt: skip
def test_what_forks_is_seen(text):
    assert forks(text)


def test_what_is_spawned_is_not():
    assert not forks("context = multiprocessing.get_context('spawn')\ncontext.Process(target=f)\nsubprocess.run(words)")


def test_a_worker_draws_while_its_parent_holds_a_gl_context():
    try:
        painter, here = drawing_runner.draw()
    except NoGLBackend as error:
        pytest.skip(str(error))
    try:
        (result,) = run_items(partial(drawing_runner.Drawing), ["a frame"], jobs=1)
        assert result.value == here, "the same picture, from a process of its own"
    finally:
        painter.close()
    assert not multiprocessing.active_children()
