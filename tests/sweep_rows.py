"""A sweep's table as it might come out, without running one."""

import zlib

import numpy as np

from robopolicy.evaluation.outcomes import Outcome
from robopolicy.evaluation.results import Lost, Result
from robopolicy.evaluation.suite import Entrant, Item, Suite, identity_of
from robopolicy.evaluation.sweep import Episode, Facts, Machine, row_of

SUITE = Suite(
    {"ours": Entrant("runs/ours"), "baseline": Entrant("runs/baseline"), "few demos": Entrant("runs/few")},
    ("twin:lift", "twin:stack"),
    tuple(range(100000, 100040)),
    ((), ("camera:0.25",), ("camera:0.5",), ("camera:1",), ("friction:0.5",), ("friction:1",),
     ("camera:0.5", "friction:0.5")),
)  # fmt: skip
FACTS = Facts({name: (e.folder, f"{zlib.crc32(name.encode()):08x}" * 8) for name, e in SUITE.checkpoints.items()},
              "robopolicy 0.1, torch 2.13", "4f2c" * 10)  # fmt: skip
MODES = {"twin:lift": (), "twin:stack": ("red on green", "green on red")}
SKILL = {"ours": 0.9, "baseline": 0.7, "few demos": 0.35}
HARM = {"camera": 0.7, "friction": 0.25}


def rows(suite=SUITE, seed=0):
    """One row an episode; every success depends on the start, the checkpoint and how disturbed the world is."""
    rng = np.random.default_rng(seed)
    ease = {(world, seed): rng.uniform() for world in suite.worlds for seed in suite.seeds}
    return [row_of(_result(cell, seed, ease[cell.world, seed], rng), FACTS) for cell in suite.cells()
            for seed in suite.seeds]  # fmt: skip


def _result(cell, seed, ease, rng):
    item = Item(cell, seed, identity_of(cell.checkpoint, cell.world, cell.perturbations, seed, ""))
    if rng.uniform() < 0.004:
        return Result(item, Lost("SIGSEGV"), 2)
    harm = sum(HARM[p.split(":")[0]] * float(p.split(":")[1]) for p in cell.perturbations)
    good = 0.3 * rng.uniform() + 0.7 * ease < SKILL[cell.checkpoint] - harm
    failure, onset = ("", None) if good else [("dropped", 61), ("stalled", 40), ("off_table", 30)][rng.integers(3)]
    modes = MODES[cell.world]
    mode = modes[int(rng.uniform() < (0.5 if cell.checkpoint == "ours" else 0.02))] if modes and good else None
    outcome = Outcome(
        seed, bool(good), 1.0 if good else float(rng.uniform(0, 0.6)), 70 if good else 120, mode=mode, failure=failure,
        onset_step=onset, success_s=float(rng.uniform(2, 4)) if good else None, smoothness=float(rng.normal(-2, 0.2)),
        perturbations=cell.perturbations,
    )  # fmt: skip
    return Result(item, Episode(outcome, Machine("node7", "llvmpipe (LLVM 15.0.6, 256 bits)")))
