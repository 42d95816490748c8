"""A hidden real world, a bad camera and a twin that shall stay aligned: what tests and the benchmark share."""

from dataclasses import dataclass

import numpy as np

from robopolicy.clock import SimClock
from robopolicy.types import Observation
from sim_envs.aligned import AlignedTwin
from sim_envs.experts import make_expert
from sim_envs.observer_history import multiply, quat_of, turn_between
from sim_envs.tasks import make_task
from sim_envs.tracked import PoseMeasurement, tracked_of
from sim_envs.twin import Twin

TICK_NS = 10_000_000
FRAME_TICKS = 3  # 33 Hz
STEP_TICKS = 5  # 20 Hz
ENCODER_RAD = 1e-4
SETTLED_S = 0.5  # errors count from here on


@dataclass(frozen=True)
class Camera:
    """How an object is seen."""

    latency_s: float = 0.064
    noise_m: float = 0.0015  # each axis
    noise_deg: float = 1.5
    drops: float = 0.10
    dark_s: tuple[float, float] = (np.inf, np.inf)  # nothing comes between


@dataclass
class Followed:
    """What came of it; rows of (m, rad)."""

    twin: np.ndarray
    raw: np.ndarray
    health: object
    success: bool
    finite: bool
    largest_step_m: float  # of the twin's object between two ticks


def hidden(task_name, clock, wrong=1.2):
    """A world whose object is heavier, sticks more to the table and less to what pushes it than the twin has it."""
    world = Twin(make_task(task_name), clock, cameras=())
    model, name = world.model, tracked_of(make_task(task_name))[0].name
    body = model.joint(name).bodyid[0]
    model.body_mass[body] *= wrong
    model.body_inertia[body] *= wrong
    for geom in range(model.ngeom):
        if model.geom_bodyid[geom] == body:
            model.geom_friction[geom] *= wrong
    model.geom_friction[model.geom("table").id] *= wrong
    if make_task(task_name).stick:
        stick = model.geom("stick").id
        model.geom_friction[stick, 0] *= 2 - wrong
        model.geom_priority[stick] = 2  # its own friction, or only the ratio to the table's would not change
    return world


def off(one, truth, estimate):
    """How far a pose (7,) is off: (m, rad)."""
    turn = turn_between(truth[3:], estimate[3:])
    axes = 2 if one.planar else 3
    return float(np.linalg.norm((estimate - truth)[:axes])), float(abs(turn[2]) if one.planar else np.linalg.norm(turn))


def follow(task_name, seed, camera, *, mode="observer", wrong=1.2, max_s=20.0, sees="real"):
    """Let the expert work in the hidden world until it succeeds, and a twin follow.

    ``sees``: whose objects the expert looks at.
    """
    rng, clock = np.random.default_rng([seed, 7]), SimClock()
    real = hidden(task_name, clock, wrong)
    real.reset(seed)
    one = tracked_of(make_task(task_name))[0]
    aligned = AlignedTwin(make_task(task_name), mode=mode)
    expert = make_expert(task_name, real.spec)
    expert.reset(seed)
    on_its_way, rows, raw, newest = [], [], [], None
    before, largest, finite, success = None, 0.0, True, False
    for tick in range(round(max_s * 1e9 / TICK_NS)):
        now_ns = tick * TICK_NS
        clock.sleep_until(now_ns)
        seen = real.read()
        truth = real.data.joint(one.name).qpos.copy()
        aligned.advance(now_ns)
        aligned.observe(Observation(now_ns, _arm(seen.state, one, rng)))
        if tick % FRAME_TICKS == 0 and rng.random() >= camera.drops and not _dark(camera, tick):
            on_its_way.append((now_ns + round(camera.latency_s * 1e9), _seen(one, truth, now_ns, camera, rng)))
        while on_its_way and on_its_way[0][0] <= now_ns:
            newest = on_its_way.pop(0)[1]
            aligned.see(newest)
        if tick % STEP_TICKS == 0:
            state = dict(seen.state)
            if sees == "twin":
                state |= {name: aligned.read().state[name] for name in one.states}
            command = expert.act(Observation(now_ns, state))
            if command.values is not None:
                aligned.command(real.command(command.values, now_ns), now_ns)
        believed = aligned.twin.data.joint(one.name).qpos.copy()
        finite = finite and bool(np.isfinite(aligned.twin.data.qpos).all())
        if newest is not None and now_ns > SETTLED_S * 1e9:
            rows.append(off(one, truth, believed))
            raw.append(off(one, truth, np.concatenate([newest.position, newest.quat])))
            largest = max(largest, float(np.linalg.norm((believed - before)[:3])))
        before = believed
        if real.success():
            success = True
            break
    return Followed(np.array(rows), np.array(raw), aligned.health(), success, finite, largest)


def rms(runs, what="twin"):
    """Root mean squares over all runs: (mm, deg)."""
    rows = np.concatenate([getattr(run, what) for run in runs])
    metres, radians = np.sqrt(np.mean(rows**2, axis=0))
    return float(metres * 1e3), float(np.degrees(radians))


def _arm(state, one, rng):
    arm = {name: value for name, value in state.items() if name not in one.states}
    return {**arm, "q": arm["q"] + rng.normal(0, ENCODER_RAD, len(arm["q"]))}


def _dark(camera, tick):
    return camera.dark_s[0] <= tick * TICK_NS / 1e9 < camera.dark_s[1]


def _seen(one, truth, now_ns, camera, rng):
    position, turn = truth[:3].copy(), np.zeros(3)
    if one.planar:
        position[:2] += rng.normal(0, camera.noise_m, 2)
        turn[2] = np.radians(rng.normal(0, camera.noise_deg))
    else:
        position += rng.normal(0, camera.noise_m, 3)
        turn = np.radians(rng.normal(0, camera.noise_deg, 3))
    return PoseMeasurement(one.name, now_ns, position, multiply(quat_of(turn), truth[3:]), one.planar)
