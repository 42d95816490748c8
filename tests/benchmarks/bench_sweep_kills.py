"""Kill a sweep's driver, workers and raylets at random moments, and compare its table with an undisturbed one.

python tests/benchmarks/bench_sweep_kills.py [--kills 30] [--raylets 3] [--seed 0]

The bar: the final table is identical, but for wall times, hosts and attempts. A driver is started again after each
kill, until its sweep is complete; a worker or a raylet is killed under a driver that goes on. Raylets need Ray.
"""

import argparse
import importlib.util
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
import tiny_sweep

from robopolicy.evaluation.sweep import sweep
from robopolicy.evaluation.sweep_table import JOURNALS, PARTS, read_rows

SEEDS, PAUSE_S, RETRIES = 12, 0.02, 50
NODES = Path(__file__).parents[1] / "ray_nodes.py"
QUIET = os.environ | {"RAY_USAGE_STATS_ENABLED": "0", "PYTHONWARNINGS": "ignore", "PYTHONPATH": os.pathsep.join(
    [str(NODES.parent), os.environ.get("PYTHONPATH", "")])}  # fmt: skip


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=30, help="of a driver, and of a worker")
    parser.add_argument("--raylets", type=int, default=3, help="killed, each of a cluster of two")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    rng = random.Random(args.seed)
    with tempfile.TemporaryDirectory() as folder:
        whole = undisturbed(Path(folder) / "undisturbed")
        print(f"{len(whole)} episodes a sweep; killed at random moments, seed {args.seed}")
        rows = [(f"driver, {args.kills} kills", kill_drivers(Path(folder), args.kills, rng)),
                (f"worker, {args.kills} kills", kill_workers(Path(folder), args.kills, rng))]  # fmt: skip
        if args.raylets and importlib.util.find_spec("ray"):
            rows.append((f"raylet, {args.raylets} kills", kill_raylets(Path(folder), args.raylets, rng)))
        met = True
        print(f"{'killed':<20} {'sweeps':>6} {'lost':>5} {'twice':>6} {'other':>6}   target: identical")
        for name, folders in rows:
            lost, twice, other = (sum(column) for column in zip(*(judge(one, whole) for one in folders), strict=True))
            met &= not (lost or twice or other)
            print(f"{name:<20} {len(folders):>6} {lost:>5} {twice:>6} {other:>6}   "
                  f"{'yes' if not (lost or twice or other) else 'NO'}")  # fmt: skip
    return 0 if met else 1


def undisturbed(folder):
    items, recipes = tiny_sweep.parts(tiny_sweep.suite(SEEDS))
    sweep(items, recipes, folder, facts=tiny_sweep.FACTS)
    return tiny_sweep.steady(read_rows(folder))


def judge(folder, whole):
    """Episodes that are missing, that are recorded more than once, that came out otherwise."""
    rows = {row["identity"]: row for row in tiny_sweep.steady(read_rows(folder))}
    lost = sum(row["identity"] not in rows for row in whole)
    other = sum(rows.get(row["identity"], row) != row for row in whole)
    return lost, sum(n - 1 for n in recorded(folder).values()), other


def recorded(folder):
    """How often each episode is on the disk."""
    import pyarrow.parquet as parquet

    names = Counter()
    for path in (folder / PARTS).glob("*.parquet"):
        names.update(parquet.ParquetFile(path).read(["identity"]).column("identity").to_pylist())
    for path in (folder / JOURNALS).glob("*.jsonl"):
        names.update(json.loads(line)["identity"] for line in path.read_text().splitlines() if line.endswith("}"))
    return names


def start(folder, *options):
    words = ["--seeds", SEEDS, "--pause", PAUSE_S, "--retries", RETRIES, *options]
    command = [sys.executable, tiny_sweep.__file__, str(folder), *map(str, words)]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, env=QUIET)


def kill_drivers(folder, kills, rng):
    folders = []
    while kills > 0:
        folders.append(folder / f"driver{len(folders)}")
        process = start(folders[-1])
        while process.poll() is None and kills > 0:
            time.sleep(rng.uniform(0, 3))
            if process.poll() is None:
                process.kill()
                process.wait()
                kills -= 1
                process = start(folders[-1])
        assert process.wait() == 0
    return folders


def kill_workers(folder, kills, rng):
    folders = []
    while kills > 0:
        folders.append(folder / f"worker{len(folders)}")
        process = start(folders[-1])
        while process.poll() is None:
            time.sleep(rng.uniform(0, 1))
            if kills > 0 and (workers := children(process.pid, b"spawn_main")):
                os.kill(rng.choice(workers), signal.SIGKILL)
                kills -= 1
        assert process.returncode == 0
    return folders


def kill_raylets(folder, kills, rng):
    folders = []
    for i in range(kills):
        folders.append(folder / f"raylet{i}")
        nodes, told = nodes_of_two()
        process = start(folders[-1], "--ray", told["address"], "--pause", 0.2)
        while process.poll() is None and not children(told["raylets"][1], b"_Actor"):
            time.sleep(0.05)
        time.sleep(rng.uniform(0, 3))
        for pid in (
            told["raylets"][1],
            *children(told["raylets"][1], b"_Actor"),
        ):  # its actors would work on for a while
            os.kill(pid, signal.SIGKILL)
        assert process.wait() == 0
        nodes.communicate()
    return folders


def nodes_of_two(tries=4):
    """A cluster; Ray gives each raylet 30 s to start, which on busy cores may take several tries."""
    for _ in range(tries):
        nodes = subprocess.Popen([sys.executable, NODES, "2"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                                 stderr=subprocess.DEVNULL, env=QUIET)  # fmt: skip
        if line := nodes.stdout.readline():
            return nodes, json.loads(line)
        nodes.communicate()
    raise SystemExit("Ray does not start on this machine")


def children(pid, name):
    """Processes that ``pid`` started and whose command line holds ``name``."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(path.read_text().rsplit(")", 1)[1].split()[1])
            if parent == pid and name in path.with_name("cmdline").read_bytes():
                found.append(int(path.parent.name))
        except (OSError, ValueError):  # ended meanwhile
            continue
    return found


if __name__ == "__main__":
    sys.exit(main())
