import errno
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as parquet
import pytest

from robopolicy.errors import EvaluationError
from robopolicy.evaluation import sweep_table
from robopolicy.evaluation.results import Patience, Raised
from robopolicy.evaluation.rollouts import Rollout
from robopolicy.evaluation.suite import Cell, Suite, shard_of
from robopolicy.evaluation.sweep import Bench, Processes, Recipe, git_sha, look, sweep
from robopolicy.evaluation.sweep_cells import cells_of
from robopolicy.evaluation.sweep_table import (
    JOURNALS,
    PARTS,
    Journal,
    outcome_of,
    read,
    read_rows,
    schema,
    seal_abandoned,
)

sys.path.insert(0, str(Path(__file__).parent))  # inherited by spawned processes, which import what they run
import tiny_sweep
import tiny_worlds as tiny

N = 6


def run(folder, n=N, **options):
    items, recipes = tiny_sweep.parts(tiny_sweep.suite(n))
    return sweep(items, recipes, folder, facts=tiny_sweep.FACTS, **options)


def program(folder, *options, **kwargs):
    command = [sys.executable, tiny_sweep.__file__, str(folder), *map(str, options)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, **kwargs)


def recorded(folder):
    """Every row on the disk, also those that `read` would drop."""
    rows = [row for path in (folder / PARTS).glob("*.parquet") for row in parquet.ParquetFile(path).read().to_pylist()]
    for path in (folder / JOURNALS).glob("*.jsonl"):
        rows += [json.loads(line) for line in path.read_text().splitlines() if line.endswith("}")]
    return rows


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed")
    run(folder)
    return read_rows(folder)


def test_every_cell_holds_what_single_rollouts_give(undisturbed):
    cells = cells_of(undisturbed)
    assert len(cells) == 2 * 2 * 2
    assert all(len(outcomes) == N for outcomes in cells.values())
    for name, chunks in (("a", 1), ("b", 3)):
        rollout = Rollout(tiny.PointWorld, lambda n=chunks: tiny.make_agent(n), tiny.AnythingGoes)
        for outcome in cells[Cell(name, "point")]:
            assert replace(outcome, wall_s=0) == replace(rollout.run(outcome.seed), wall_s=0)
    row = next(row for row in undisturbed if row["perturbations"])
    assert (row["axis"], row["severity"], row["checkpoint_path"], row["software"]) == (
        "camera", 0.5, f"runs/{row['checkpoint']}", "tiny 1",
    )  # fmt: skip
    assert {row["axis"] for row in undisturbed} == {"", "camera"}
    assert list(undisturbed[0]) == schema().names


def test_a_second_call_runs_nothing_and_a_wider_suite_only_what_is_new(tmp_path):
    run(tmp_path, 2)
    fresh = []
    rows = run(tmp_path, 3, on_progress=lambda item, row, new: fresh.append((item.seed, new)))
    assert {seed for seed, new in fresh if new} == {22}
    assert {seed for seed, new in fresh if not new} == {20, 21}
    assert len(rows) == len(recorded(tmp_path)) == 2 * 2 * 2 * 3
    before = sorted((tmp_path / PARTS).iterdir())
    run(tmp_path, 3)
    assert sorted((tmp_path / PARTS).iterdir()) == before


def test_the_driver_killed_at_random_moments_loses_nothing_and_runs_nothing_twice(tmp_path, undisturbed):
    rng = random.Random(time.time_ns())
    moments = sorted(rng.sample(range(1, len(undisturbed) - 2), 3))
    print("killed after", moments)  # shown if it fails
    rows = 0
    for moment in moments:
        process = program(tmp_path, "--seeds", N)
        while rows < moment:
            rows += json.loads(process.stdout.readline())["fresh"]
        process.kill()
        process.wait()
        rows = len(read_rows(tmp_path))  # what came between the line and the kill too
        assert rows >= moment, "what was told is on the disk"
        process.stdout.close()
    run(tmp_path)
    assert tiny_sweep.steady(read_rows(tmp_path)) == tiny_sweep.steady(undisturbed)
    assert max(Counter(row["identity"] for row in recorded(tmp_path)).values()) == 1, "nothing was run twice"
    assert not list((tmp_path / JOURNALS).iterdir()), "what the dead left is sealed"


def children(pid):
    """The worker processes of a driver."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            if int(path.read_text().rsplit(")", 1)[1].split()[1]) == pid and b"spawn_main" in (
                path.with_name("cmdline").read_bytes()
            ):
                found.append(int(path.parent.name))
        except (OSError, ValueError):
            continue
    return found


def test_a_killed_worker_costs_a_retry_and_no_result(tmp_path, undisturbed):
    process = program(tmp_path, "--seeds", N, "--pause", 0.05, "--retries", 3)
    for _ in range(2):
        process.stdout.readline()
        os.kill(random.choice(children(process.pid)), signal.SIGKILL)
    process.communicate()
    assert process.returncode == 0
    rows = read_rows(tmp_path)
    assert tiny_sweep.steady(rows) == tiny_sweep.steady(undisturbed)
    assert max(Counter(row["identity"] for row in recorded(tmp_path)).values()) == 1


@pytest.mark.parametrize("envs", [2, 4])
def test_many_at_once_in_a_process_are_the_same_and_so_after_a_kill(tmp_path, undisturbed, envs):
    process = program(tmp_path, "--seeds", N, "--pause", 0.02, "--retries", 3, "--envs", envs)
    process.stdout.readline()
    os.kill(children(process.pid)[0], signal.SIGKILL)
    process.communicate()
    assert process.returncode == 0
    assert tiny_sweep.steady(read_rows(tmp_path)) == tiny_sweep.steady(undisturbed)
    assert max(Counter(row["identity"] for row in recorded(tmp_path)).values()) == 1


def test_workers_end_with_their_driver(tmp_path):
    begun = tmp_path / "begun"
    process = program(tmp_path / "out", "--pause", 3000, "--begun", begun)
    while not begun.exists() or len(begun.read_text().splitlines()) < 2:
        time.sleep(0.01)
    workers = children(process.pid)
    assert len(workers) == 2
    process.kill()
    process.wait()
    process.stdout.close()
    while any(Path(f"/proc/{pid}").exists() for pid in workers):  # the test's timeout is the limit
        time.sleep(0.01)


def wild(world, seeds):
    suite = Suite({"a": None}, ("wild",), tuple(seeds))
    return tiny_sweep.parts(suite, {"wild": world})


def test_a_world_that_hangs_is_recorded_with_its_seed_and_the_sweep_goes_on(tmp_path):
    items, recipes = wild(tiny_sweep.HangingWorld, [4, 5, 6, 7])
    executor = Processes(1, Patience(episode_s=1.0, retries=1))
    rows = sweep(items, recipes, tmp_path, facts=tiny_sweep.FACTS, executor=executor)
    assert [row["error"] for row in rows] == [None, "hung: ran for more than 1 s, and was ended", None, None]
    assert [row["success"] for row in rows] == [True, False, True, True]
    assert rows[1]["seed"] == 5
    assert rows[1]["attempts"] == 1, "its time was given it"


def test_a_world_that_crashes_is_tried_again_and_then_recorded(tmp_path, monkeypatch):
    monkeypatch.setenv("ABORTED", str(tmp_path / "aborted"))
    items, recipes = wild(tiny_sweep.AbortingWorld, [5, 6, 7, 17])
    rows = sweep(items, recipes, tmp_path, facts=tiny_sweep.FACTS, executor=Processes(2, Patience(retries=1)))
    assert rows[1]["error"] == "crashed: the process died during this episode (SIGABRT), 2 times"
    assert (rows[2]["error"], rows[2]["attempts"], rows[2]["success"]) == (None, 2, True), "its retry came to an end"
    assert rows[3]["error"].startswith("RuntimeError: the world broke (tiny_worlds.py:")
    assert (rows[0]["error"], rows[0]["success"]) == (None, True)

    fresh = []
    options = {
        "facts": tiny_sweep.FACTS,
        "on_progress": lambda item, row, new: fresh.append(item.seed) if new else None,
    }
    sweep(items, recipes, tmp_path, **options)
    assert fresh == [], "an error is a result"
    items, recipes = wild(tiny.EasyWorld, [5, 6, 7, 17])  # the world was mended
    rows = sweep(items, recipes, tmp_path, retry_errors=True, **options)
    assert sorted(fresh) == [6, 17]
    assert [bool(row["error"]) for row in rows] == [False, False, False, True], "17 raises in every world"
    errors = {row["seed"]: row["error"] for row in read_rows(tmp_path)}
    assert errors == {5: None, 6: None, 7: None, 17: rows[3]["error"]}, "what came to an end counts"


def test_a_world_that_cannot_be_made_costs_its_cells_only(tmp_path):
    suite = Suite({"a": None}, ("easy", "no"), (1, 2))
    items, recipes = tiny_sweep.parts(suite, {"easy": tiny.EasyWorld, "no": tiny.make_nothing})
    rows = sweep(items, recipes, tmp_path, facts=tiny_sweep.FACTS)
    assert [bool(row["error"]) for row in rows] == [False, False, True, True]
    assert "there is no such world" in rows[2]["error"]
    items, recipes = tiny_sweep.parts(suite, {"easy": tiny.EasyWorld, "no": tiny.make_death})
    rows = sweep(items, recipes, tmp_path, facts=tiny_sweep.FACTS, retry_errors=True, executor=Processes(1))
    assert "while its world and agent were made (exit code 4)" in rows[2]["error"]


def test_workers_that_die_before_anything_end_the_sweep(tmp_path):
    with pytest.raises(EvaluationError, match="exit code 4"):
        list(Processes(1).run(tiny.make_death, [1, 2]))


def test_three_shards_into_one_folder_are_one_table(tmp_path, undisturbed):
    shards = [program(tmp_path, "--seeds", N, "--jobs", 1, "--shard", i, 3) for i in range(3)]
    told = [len(process.communicate()[0].splitlines()) for process in shards]
    assert [process.returncode for process in shards] == [0, 0, 0]
    assert sum(told) == len(undisturbed) == len(recorded(tmp_path))
    assert tiny_sweep.steady(read_rows(tmp_path)) == tiny_sweep.steady(undisturbed)
    assert len(list((tmp_path / PARTS).iterdir())) == 3
    fresh = []
    run(tmp_path, on_progress=lambda item, row, new: fresh.append(new))
    assert not any(fresh)


def test_shards_are_a_partition_that_keeps_pairs_together():
    items, _ = tiny_sweep.parts(tiny_sweep.suite(5))
    shards = [shard_of(items, (i, 3)) for i in range(3)]
    assert sorted(item.identity for shard in shards for item in shard) == sorted(item.identity for item in items)
    for shard in shards:
        starts = Counter((item.cell.world, item.cell.perturbations, item.seed) for item in shard)
        assert set(starts.values()) == {2}
    assert max(map(len, shards)) - min(map(len, shards)) <= 2


def test_half_a_line_and_a_journal_of_another_machine(tmp_path, undisturbed):
    (tmp_path / JOURNALS).mkdir()
    (tmp_path / PARTS).mkdir()
    lines = [json.dumps(row) for row in undisturbed[:5]]
    other = tmp_path / JOURNALS / "elsewhere-1-ab.jsonl"
    other.write_text("\n".join(lines) + "\n" + lines[0][:40])
    assert tiny_sweep.steady(read_rows(tmp_path)) == tiny_sweep.steady(undisturbed[:5])
    assert seal_abandoned(tmp_path) == 0
    run(tmp_path)
    assert other.exists(), "whoever writes it may be alive"
    assert tiny_sweep.steady(read_rows(tmp_path)) == tiny_sweep.steady(undisturbed)
    assert max(Counter(row["identity"] for row in recorded(tmp_path)).values()) == 1


def test_a_journal_in_use_is_left_alone_and_one_sealed_twice_counts_once(tmp_path, undisturbed):
    journal = Journal(tmp_path)
    journal.append(undisturbed[0])
    assert seal_abandoned(tmp_path) == 0
    assert len(read_rows(tmp_path)) == 1
    [path] = (tmp_path / JOURNALS).iterdir()
    content = path.read_bytes()
    journal.close()
    journal.close()
    path.write_bytes(content)  # killed after the part was there, before the journal was gone
    assert len(read_rows(tmp_path)) == 1
    assert seal_abandoned(tmp_path) == 1
    assert read(tmp_path).num_rows == len(recorded(tmp_path)) == 1


def test_a_journal_that_was_taken_for_abandoned_before_it_was_locked_is_given_up(tmp_path, undisturbed, monkeypatch):
    lock, sealed = sweep_table.fcntl.flock, []

    def late(file, how):
        if not sealed:
            sealed.append(how)
            assert seal_abandoned(tmp_path) == 1
        lock(file, how)

    monkeypatch.setattr(sweep_table.fcntl, "flock", late)
    journal = Journal(tmp_path)
    journal.append(undisturbed[0])
    assert len(read_rows(tmp_path)) == 1, "it is not in a file that has no name any more"
    journal.close()
    assert len(read_rows(tmp_path)) == len(recorded(tmp_path)) == 1


def test_a_row_that_the_disk_takes_in_parts_is_whole_and_a_full_disk_is_told(tmp_path, undisturbed, monkeypatch):
    journal, write = Journal(tmp_path), os.write
    monkeypatch.setattr(sweep_table.os, "write", lambda file, data: write(file, data[:100]))
    for row in undisturbed[:3]:
        journal.append(row)
    assert len(read_rows(tmp_path)) == 3

    def full(file, data):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(sweep_table.os, "write", full)
    with pytest.raises(OSError, match="No space"):
        journal.append(undisturbed[3])
    journal.close()
    assert len(read_rows(tmp_path)) == 3


def test_long_journals_are_sealed_in_between(tmp_path, undisturbed, monkeypatch):
    monkeypatch.setattr(sweep_table, "SEAL_ROWS", 3)
    journal = Journal(tmp_path)
    for row in undisturbed[:7]:
        journal.append(row)
    assert len(list((tmp_path / PARTS).iterdir())) == 2
    assert len(read_rows(tmp_path)) == len(recorded(tmp_path)) == 7
    journal.close()
    assert read(tmp_path).num_rows == 7


def test_the_table_is_typed_and_gives_back_what_was_put_in(tmp_path, undisturbed):
    journal = Journal(tmp_path)
    for row in undisturbed:
        journal.append(row)
    before = read(tmp_path)
    journal.close()
    table = read(tmp_path)
    assert table.equals(before)
    assert table.schema.equals(schema())
    assert table.to_pylist() == undisturbed
    stock = parquet.read_table(tmp_path / PARTS)
    assert stock.num_rows == len(undisturbed), "any reader of parquet opens the folder"
    for row, kept in zip(table.to_pylist(), undisturbed, strict=True):
        assert outcome_of(row) == outcome_of(kept)


def test_a_damaged_part_and_a_folder_without_a_sweep_are_one_line(tmp_path, undisturbed):
    with pytest.raises(EvaluationError, match="holds no sweep"):
        read(tmp_path)
    Journal(tmp_path).close()
    assert read(tmp_path).num_rows == 0
    (tmp_path / PARTS / "x.parquet").write_bytes(b"PAR1 not really PAR1")
    with pytest.raises(EvaluationError, match=r"x\.parquet is damaged"):
        read_rows(tmp_path)


def test_strangers_are_counted_and_not_taken(tmp_path):
    run(tmp_path, 2)
    items, _ = tiny_sweep.parts(tiny_sweep.suite(1))
    tally = look(tmp_path, items)
    assert (len(tally.rows), tally.missing, tally.strangers) == (8, [], 8)


def test_a_bench_keeps_what_comes_again_and_closes_what_does_not():
    made, closed = [], []

    class World(tiny.EasyWorld):
        def __init__(self, clock):
            super().__init__(clock)
            made.append(self)

        def close(self):
            closed.append(self)

    cells = [Cell("a", str(i)) for i in range(3)]
    recipe = Recipe(World, tiny.make_agent, tiny.AnythingGoes)
    items, _ = tiny_sweep.parts(Suite({"a": None}, ("easy",), (1,)))
    bench = Bench(dict.fromkeys(cells, recipe), keep=2)
    for i in (0, 1, 0, 1, 2, 1):
        item = replace(items[0], cell=cells[i])
        bench.prepare(item)
        assert bench.run(item).outcome.success
    assert (len(made), closed) == (3, made[:1])
    bench.close()
    assert len(closed) == 3


def test_what_a_runner_raises_is_one_line():
    [result] = Processes(1).run(tiny_sweep.RaisingBench, [3])
    assert result.value == Raised("ValueError: no (tiny_sweep.py:{})".format(result.value.what.split(":")[-1][:-1]))


def test_the_commit_is_that_of_this_code_and_of_nobody_else(tmp_path):
    assert git_sha(tmp_path) == ""
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    (tmp_path / "venv").mkdir()
    (tmp_path / "venv" / "sweep.py").touch()
    assert git_sha(tmp_path / "venv") == ""
