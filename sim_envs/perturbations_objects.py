"""Perturbations of what is on the table: where it starts, how big, heavy and slippery it is, where the goal is."""

from typing import Any

import mujoco
import numpy as np

from sim_envs.perturbation_axis import Axis, Effect, Start, free_bodies, is_twin, moving_bodies
from sim_envs.planar_push import FULL, PlanarPushT, covered

POSE_M, POSE_RAD, POSE_PX = 0.08, np.radians(30), 80.0
SIZE = 0.3  # of the object's size
HEAVY, LIGHT, FRICTION = 5.0, 0.5, 4.0  # factors; much lighter, and MuJoCo's soft contacts let a cube slip away
PLANE_PX = (75.0, 437.0)  # of the T's origin, from wall to wall: as far as gym-pusht's own disturbance puts it
REACH_M = (0.28, 0.76)  # from the arm's foot: an object is not put out of this
TRIES = 16  # directions drawn, of which the first is taken in which nothing is hit and the task not done at once
DEEP_M = 0.001  # geoms that lie so deep in each other have hit


def shift_objects(start: Start) -> Effect:
    """Put every loose object, and what stands fixed but where an episode puts it, elsewhere."""
    if isinstance(start.world, PlanarPushT):
        return Effect(_shift_flat(start.world, start.severity, *_ways(start)))
    told = [_shift(start, body, *_ways(start)) for body in _placeable(start.model)]
    mujoco.mj_forward(start.model, start.data)
    return Effect("; ".join(told))


def scale_objects(start: Start) -> Effect:
    """Make the task's objects larger or smaller; their mass stays, their inertia follows, they stand as they did."""
    factor = 1 + start.sign() * SIZE * start.severity
    names = start.world.task.resizable
    for name in names:
        _scale(start, start.model.body(name).id, factor)
    assert start.altered is not None
    start.altered.derive()
    mujoco.mj_forward(start.model, start.data)
    return Effect(f"{', '.join(names)} x {factor:.2f} in size")


def weigh_objects(start: Start) -> Effect:
    """Make what moves on the table heavier or lighter; inertia follows."""
    factor = (HEAVY if start.sign() > 0 else LIGHT) ** start.severity
    bodies = moving_bodies(start.model)
    start.take("body_mass")[bodies] *= factor
    start.take("body_inertia")[bodies] *= factor
    assert start.altered is not None
    start.altered.derive()
    mujoco.mj_forward(start.model, start.data)
    return Effect(f"objects x {factor:.2f} in mass")


def grease(start: Start) -> Effect:
    """Change every sliding friction; of two geoms that touch MuJoCo takes the larger, so all are changed alike."""
    factor = FRICTION ** (start.sign() * start.severity)
    start.take("geom_friction")[:, 0] *= factor
    start.take("pair_friction")[:, :2] *= factor
    mujoco.mj_forward(start.model, start.data)
    return Effect(f"friction x {factor:.2f}")


def shift_goal(start: Start) -> Effect:
    """Put the task's goal elsewhere."""
    ways, turns = _ways(start)
    size, move = POSE_M * start.severity, start.world.task.move_goal
    for name in ("body_pos", "body_quat"):
        start.take(name)  # a goal may be a fixed body
    told, depth = "goal has no room to move and stays", _depth(start)
    for way, turn in zip(ways, turns, strict=True):
        gap = np.array([size * np.cos(way), size * np.sin(way), turn])
        move(gap)
        if _depth(start) < max(depth, DEEP_M) and not start.world.success():
            told = f"goal {_told(size, way, turn)}"
            break
        move(-gap)
    mujoco.mj_forward(start.model, start.data)
    return Effect(told)


def _ways(start: Start) -> tuple[np.ndarray, np.ndarray]:
    """Draw directions (TRIES,) and turns (TRIES,), both rad, to try one after the other."""
    ways = start.rng.uniform(-np.pi, np.pi, TRIES)
    return ways, start.rng.choice([-1.0, 1.0], TRIES) * POSE_RAD * start.severity


def _placeable(model: mujoco.MjModel) -> list[int]:
    """Return loose objects, and fixed ones that are put somewhere at each start and can be bumped into: a chest."""
    solid = {int(model.body_rootid[body]) for body in model.geom_bodyid[model.geom_contype > 0]}
    return sorted({*free_bodies(model), *(solid & set(np.flatnonzero(model.body_mocapid >= 0).tolist()))})


def _shift(start: Start, body: int, ways: np.ndarray, turns: np.ndarray) -> str:
    model, data, name = start.model, start.data, start.model.body(body).name
    place, quat = _pose(model, data, body)
    before = place.copy(), quat.copy()
    obstacles = _touching(model, data, body)
    if any(model.body_rootid[one] == model.body("base").id for one in obstacles):
        return f"{name} is held and stays"
    size = POSE_M * start.severity
    for way, turn in zip(ways, turns, strict=True):
        place[:2] = before[0][:2] + size * np.array([np.cos(way), np.sin(way)])
        mujoco.mju_mulQuat(quat, np.array([np.cos(turn / 2), 0, 0, np.sin(turn / 2)]), before[1])
        reached = REACH_M[0] < np.hypot(*place[:2]) < REACH_M[1]
        if reached and _touching(model, data, body) <= obstacles and not start.world.success():
            return f"{name} {_told(size, way, turn)}"
    place[:], quat[:] = before
    return f"{name} has no room to move and stays"


def _shift_flat(world: PlanarPushT, severity: float, ways: np.ndarray, turns: np.ndarray) -> str:
    before, size = world.state(), POSE_PX * severity
    for way, turn in zip(ways, turns, strict=True):
        gap = np.array([0, 0, size * np.cos(way), size * np.sin(way), turn])
        state = before + gap
        inside = PLANE_PX[0] < state[2:4].min() and state[2:4].max() < PLANE_PX[1]
        if inside and covered(state) < FULL:
            world.put(state)
            return f"T moved {size:.0f} px towards {np.degrees(way):.0f} deg, turned {np.degrees(turn):.0f} deg"
    return "T has no room to move and stays"


def _told(size: float, way: float, turn: float) -> str:
    return f"moved {100 * size:.1f} cm towards {np.degrees(way):.0f} deg, turned {np.degrees(turn):.0f} deg"


def _pose(model: mujoco.MjModel, data: mujoco.MjData, body: int) -> tuple[np.ndarray, np.ndarray]:
    """Return live views of a body's position (3,) and quaternion (4,)."""
    mocap = int(model.body_mocapid[body])
    if mocap >= 0:
        return data.mocap_pos[mocap], data.mocap_quat[mocap]
    qpos = int(model.jnt_qposadr[model.body_jntadr[body]])
    return data.qpos[qpos : qpos + 3], data.qpos[qpos + 3 : qpos + 7]


def _touching(model: mujoco.MjModel, data: mujoco.MjData, body: int) -> set[int]:
    """Return the bodies that ``body``, or what hangs on it, touches as it stands now; the table is none of them."""
    mujoco.mj_fwdPosition(model, data)
    own = model.body_rootid == body
    pairs = model.geom_bodyid[data.contact.geom]  # (ncon, 2)
    mine = own[pairs]
    ours = mine[:, 0] != mine[:, 1]
    others = np.where(mine[ours, 0], pairs[ours, 1], pairs[ours, 0])
    return {int(other) for other in others if other != 0}


def _depth(start: Start) -> float:
    """Return how deep (m) any two geoms lie in each other as all stands now."""
    mujoco.mj_fwdPosition(start.model, start.data)
    return float(max(-start.data.contact.dist.min(initial=0.0), 0.0))


def _scale(start: Start, body: int, factor: float) -> None:
    """Scale a loose object about its own frame and raise or lower it so that what it stands on still carries it."""
    model, data = start.model, start.data
    lowest = _lowest(model, data, body)
    first, count = int(model.body_geomadr[body]), int(model.body_geomnum[body])
    for name in ("geom_size", "geom_pos", "geom_rbound", "geom_aabb"):
        start.take(name)[first : first + count] *= factor
    boxes, many = int(model.body_bvhadr[body]), int(model.body_bvhnum[body])
    start.take("bvh_aabb")[boxes : boxes + many] *= factor
    sites = model.site_bodyid == body
    start.take("site_pos")[sites] *= factor
    start.take("body_ipos")[body] *= factor
    start.take("body_inertia")[body] *= factor**2
    place, _ = _pose(model, data, body)
    place[2] += lowest - _lowest(model, data, body)


def _lowest(model: mujoco.MjModel, data: mujoco.MjData, body: int) -> float:
    """Return the height (m) of the lowest corner of the boxes about a body's geoms."""
    mujoco.mj_kinematics(model, data)
    geoms = np.flatnonzero(model.geom_bodyid == body)
    up = data.geom_xmat[geoms, 6:]  # (G, 3), the z of each geom's axes
    centre, half = model.geom_aabb[geoms, :3], model.geom_aabb[geoms, 3:]
    heights = data.geom_xpos[geoms, 2] + (up * centre).sum(axis=1) - (np.abs(up) * half).sum(axis=1)
    return float(heights.min())


def _lacks_placeable(world: Any) -> str:
    placed = isinstance(world, PlanarPushT) or (is_twin(world) and _placeable(world.model))
    return "" if placed else "nothing on the table that an episode places"


def _lacks_resizable(world: Any) -> str:
    resizable = is_twin(world) and getattr(world.task, "resizable", ())
    return "" if resizable else "no object whose size may change without changing what success means"


def _lacks_moving(world: Any) -> str:
    return "" if is_twin(world) and moving_bodies(world.model) else "no object that moves"


def _lacks_goal(world: Any) -> str:
    return "" if is_twin(world) and hasattr(world.task, "move_goal") else "no goal that can be moved"


AXES = {
    "pose": Axis(
        "objects start 8 cm (80 px) away from their drawn place, turned by 30 deg", _lacks_placeable, shift_objects
    ),
    "size": Axis("objects are 30 % larger or smaller, of the same mass", _lacks_resizable, scale_objects),
    "mass": Axis("objects have 5 times the mass or half of it", _lacks_moving, weigh_objects),
    "friction": Axis("4 times every sliding friction or a quarter of it", _lacks_moving, grease),
    "goal": Axis("the goal lies 8 cm away from its place, turned by 30 deg", _lacks_goal, shift_goal),
}
