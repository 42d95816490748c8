"""Several environments of a process whose policies plan together, and what then still holds of each of them alone."""

import ast
import os
import sys
import threading
from functools import partial
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest

from robopolicy.errors import ContractError, EvaluationError
from robopolicy.evaluation.batched import Batched, envs_of, rows_of
from robopolicy.evaluation.cores import core_shares
from robopolicy.evaluation.results import Lost, Patience, Raised
from robopolicy.evaluation.rollouts import Options, Rollout, evaluate
from robopolicy.evaluation.workers import Seeds, run_items
from robopolicy.monitor.decisions import load_decisions
from robopolicy.spec import CameraSpec, PolicySpec
from robopolicy.types import Observation

sys.path.insert(0, str(Path(__file__).parent))  # inherited by spawned processes, which import what they run
import tiny_batched as many
import tiny_worlds as tiny

SEEDS, PLAIN = range(100, 112), Options()


def building(agent=many.make_agent, world=tiny.PointWorld, out=None, options=PLAIN):
    return partial(Seeds, partial(Rollout, world, agent, tiny.AnythingGoes, options, out, "name"))


def timeless(outcome):
    return {**outcome.to_json(), "wall_s": 0}


def episodes(envs, rows, tmp_path, **built):
    """Outcomes and decisions of each seed."""
    out = tmp_path / f"{envs}-{rows}"
    found = many.serve(building(out=out, options=Options(decisions=True), **built), SEEDS, envs, rows)
    return {
        seed: (timeless(outcome), [d.chunks.tobytes() for d in load_decisions(out / outcome.decisions)])
        for seed, outcome in found.items()
    }


def test_how_many_share_a_process_changes_no_bit_of_an_episode(tmp_path):
    reference = episodes(1, 4, tmp_path)
    assert len(reference) == len(SEEDS)
    for envs in (3, 8):
        assert episodes(envs, 4, tmp_path) == reference, envs
    assert episodes(8, 5, tmp_path) != reference, "another shape of batch rounds otherwise: the test sees a bit"


@pytest.mark.parametrize("agent", [many.make_agent, many.make_unsteady])
def test_alone_every_plan_is_that_of_a_process_of_its_own(agent, tmp_path):
    rows = None if agent is many.make_agent else 4  # one that is found unsteady plans alone too
    found = episodes(5, rows, tmp_path, agent=agent)
    runner = Rollout(tiny.PointWorld, agent, tiny.AnythingGoes, Options(decisions=True), tmp_path / "one", "name")
    for seed in SEEDS:
        outcome = runner.run(seed)
        decisions = load_decisions(tmp_path / "one" / outcome.decisions)
        assert found[seed] == (timeless(outcome), [d.chunks.tobytes() for d in decisions])


def test_all_who_wait_are_planned_for_at_once_in_one_thread():
    made = []

    class Watched(many.Together):
        def __init__(self):
            super().__init__()
            made.append(self)

    found = many.serve(building(partial(many.make_agent, Watched)), range(100, 124), 8, 8)
    assert list(found) != sorted(found), "they do not end in the order in which they began"
    assert len(made) == 1, "one policy for all"
    asked = made[0].batches[3:]  # without those that tried whether it is steady
    assert set(made[0].threads[3:]) == {threading.get_ident()}
    assert set(asked[: len(asked) // 2]) == {8}, "those that are done are followed by others at once"


class Even(many.Together):
    """Rounds alike in batches of 4 and 8, and otherwise in those of 16, as libraries do from some size on."""

    made: ClassVar[list["Even"]] = []
    looks_back = False

    def __init__(self):
        super().__init__()
        self.made.append(self)
        self.asked = []

    def plan_many(self, requests, *, rows=None):
        self.asked.append((len(requests), rows))
        return super().plan_many(requests, rows=4 if rows == 8 else rows)


class Reminded(Even):
    """It also looks at the chunk that is running."""

    looks_back = True


@pytest.mark.parametrize(
    ("kind", "envs", "rows", "wide"),
    [(Even, 8, 4, True), (Even, 7, 4, True), (Even, 4, 4, False), (Even, 12, 8, False), (Reminded, 8, 4, False)],
)
def test_two_batches_are_made_as_one_where_that_changes_no_bit(kind, envs, rows, wide, tmp_path):
    agent = partial(many.make_agent, kind)
    Even.made.clear()
    found = episodes(envs, rows, tmp_path, agent=agent)
    (policy,) = Even.made
    assert found == episodes(1, rows, tmp_path, agent=agent)
    tried = 3 + 2 * (wide or (envs > rows and not kind.looks_back))
    shapes = {shape for count, shape in policy.asked[tried:] if count > rows}
    assert shapes == ({2 * rows} if wide else {rows} if envs > rows else set())
    assert {shape for count, shape in policy.asked[tried:] if count <= rows} == {rows}


def test_every_environment_lives_on_one_thread():
    threads = {}

    class OnOneThread(tiny.PointWorld):
        def __init__(self, clock):
            threads[self] = {threading.get_ident()}
            super().__init__(clock)

        def read(self):
            threads[self].add(threading.get_ident())
            return super().read()

        def close(self):
            threads[self].add(threading.get_ident())

    many.serve(building(world=OnOneThread), range(9), 4, 4)
    assert len(threads) == 4
    assert all(len(some) == 1 for some in threads.values())
    assert len(set.union(*threads.values())) == 4


def test_a_policy_that_cannot_plan_for_many_is_each_environments_own(tmp_path):
    made = []

    class Own(tiny.HomingPolicy):
        def __init__(self):
            made.append(self)

    found = many.serve(building(partial(many.make_agent, Own)), SEEDS, 3, 4)
    assert 1 <= len(made) <= 3
    alone = Rollout(tiny.PointWorld, tiny.make_agent, tiny.AnythingGoes)
    assert {seed: timeless(alone.run(seed)) for seed in SEEDS} == {seed: timeless(one) for seed, one in found.items()}


def test_what_goes_wrong_in_one_environment_is_its_own():
    quiet = many.serve(building(), [4, 5, 6, 7], 4, 4)
    found = many.serve(building(world=many.NowhereWorld), [4, 5, 6, 17, 7], 4, 4)
    assert isinstance(found[17], Raised)
    assert found[17].what.startswith("RuntimeError: the world broke (tiny_worlds.py:")
    assert found[5].what.startswith("ValueError: the point is nowhere")
    for seed in (4, 6, 7):
        assert timeless(found[seed]) == timeless(quiet[seed]), "what was drawn for all is drawn once more"


def test_a_plan_asked_for_in_another_thread_is_refused():
    refused = []

    class Elsewhere:
        def __init__(self, share):
            self.policy = share("policy", many.Together)

        def prepare(self, item):
            pass

        def run(self, item):
            thread = threading.Thread(target=self._ask)
            thread.start()
            thread.join()
            return item

        def _ask(self):
            try:
                self.policy.plan([Observation(0, {"point": np.ones(2, np.float32)})])
            except ContractError as error:
                refused.append(str(error))

        def close(self):
            pass

    assert many.serve(Elsewhere, [1], 2, 2) == {1: 1}
    assert "another thread" in refused[0]


def run(seeds, **options):
    return evaluate(tiny.PointWorld, many.make_agent, seeds, make_safety=tiny.AnythingGoes, **options)


def test_processes_and_environments_change_no_bit_and_a_death_costs_one_episode(tmp_path):
    reference = {seed: timeless(one) for seed, one in zip(SEEDS, run(SEEDS, jobs=1, envs=1, rows=4), strict=True)}
    seeds = [*SEEDS[:5], 13, *SEEDS[5:]]  # 13 kills its process, and all that is in it
    found = {one.seed: one for one in run(seeds, jobs=2, envs=4, rows=4, out=tmp_path, identity="a")}
    assert "exit code 3" in found[13].error
    for seed in SEEDS:
        assert timeless(found[seed]) == reference[seed]
    again = run(seeds[:5], jobs=2, envs=1, rows=4, out=tmp_path, identity="a")
    assert again == [found[seed] for seed in seeds[:5]], "found again: envs are no part of what an episode is"
    other = run(seeds[:2], jobs=1, envs=2, rows=None, out=tmp_path, identity="a")
    assert other != again[:2], "rows are"


def test_one_that_hangs_or_dies_among_others_is_found_out():
    build = partial(Batched, many.Echo, 4, 4)
    results = list(run_items(build, range(8), jobs=1, envs=4, patience=Patience(episode_s=4.0, build_s=60.0)))
    found = {result.item: result for result in results}
    assert sorted(found) == list(range(8))
    assert isinstance(found[3].value, Lost)
    assert found[3].value.hung
    assert found[3].value.how == "ran for more than 4 s"
    assert found[4].value == Lost("exit code 7")
    assert all(found[item].value[0] == item for item in (0, 1, 2, 5, 6, 7))
    assert all(found[item].attempts == 1 for item in found), "who was only beside it is not blamed"


def test_a_world_that_cannot_be_made_is_one_clear_error():
    with pytest.raises(EvaluationError, match="ValueError: there is no such world"):
        evaluate(tiny.make_nothing, many.make_agent, [1, 2], make_safety=tiny.AnythingGoes, envs=2, rows=2)


def test_the_wall_clock_waits_for_nobody():
    with pytest.raises(ContractError, match="every policy plans alone"):
        run([1], options=Options(realtime=True), envs=2)


def test_rows_depend_on_the_policy_alone():
    pictures = PolicySpec(cameras={"front": CameraSpec(96, 96)})
    assert (rows_of(tiny.SPEC), rows_of(pictures)) == (16, 4)
    assert (envs_of(tiny.SPEC), envs_of(pictures)) == (32, 4)


def test_those_to_be_run_alone_hold_up_nobody():
    from robopolicy.evaluation.workers import _Held, _place, _Worker

    waiting = [("a", 1, True), ("b", 1, True), ("c", 1, False), ("d", 1, False)]

    def place(held):
        return _place(_Worker(None, None, held=dict(enumerate(held))), waiting, 2)

    quiet, suspect = _Held("x", 1, False, None), _Held("x", 1, True, None)
    assert place([]) == 0, "an empty worker takes the first of all"
    assert place([quiet]) == 2
    assert place([quiet, quiet]) is None
    assert place([suspect]) is None
    assert _place(_Worker(None, None, held={0: quiet}), waiting[:2], 2) is None


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="this system pins no processes")
def test_processes_of_several_environments_keep_to_cores_of_their_own_and_pass_them_on(tmp_path):
    mine = os.sched_getaffinity(0)
    build = partial(Batched, partial(many.Placed, tmp_path), 4, 4)
    results = list(run_items(build, range(8), jobs=2, envs=4, patience=Patience(retries=1)))
    assert sorted(result.value for result in results) == list(range(8))
    assert os.sched_getaffinity(0) == mine, "the parent stays where it was"
    shares = [{tuple(sorted(share))} for share in core_shares(2) or [mine, mine]]
    seen = {path.name: ast.literal_eval(path.read_text()) for path in tmp_path.glob("cores-*")}
    assert len(seen) == 3, "two, and the one that took over"
    died = seen.pop(f"cores-{(tmp_path / 'died').read_text()}")
    assert died in shares
    assert sorted(map(sorted, seen.values())) == sorted(map(sorted, shares)), "it took over the cores too"


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="this system pins no processes")
def test_a_process_of_one_environment_runs_where_it_may(tmp_path):
    (tmp_path / "died").touch()
    assert len(list(run_items(partial(many.Placed, tmp_path), range(4), jobs=2))) == 4
    everywhere = {tuple(sorted(os.sched_getaffinity(0)))}
    assert [ast.literal_eval(path.read_text()) for path in tmp_path.glob("cores-*")] == [everywhere] * 2


def test_shares_of_cores_are_alike_and_there_are_none_where_there_are_too_few(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {8, 3, 5, 11, 12}, raising=False)
    assert core_shares(1) == [{3, 5, 8, 11, 12}]
    assert core_shares(2) == [{3, 5}, {8, 11, 12}]
    assert core_shares(5) == [{3}, {5}, {8}, {11}, {12}]
    assert core_shares(6) == []
    monkeypatch.delattr(os, "sched_getaffinity")
    assert core_shares(2) == []
