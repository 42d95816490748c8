"""The kinematics of an arm out of its MJCF, as the plain arrays that the safety layer computes with."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import mujoco
import numpy as np

from robopolicy.errors import ConfigError, UnknownName

CORNERS = 8  # of the polygon about the rim of a cylinder: it reaches 8 % of the radius beyond


def read_chain(mjcf: Path | str | mujoco.MjModel, joints: Sequence[str]) -> dict[str, Any]:
    """Return the arguments of `robopolicy_hardware.kinematics.Chain`.

    Positions are those of the MJCF's world, which so should stand where the arm's base does. The points are those of
    the shapes that collide (of all shapes of a link of which none does) on every link that a joint of ``joints`` moves:
    a ball at each end of a capsule, eight corners about each end of a cylinder, the corners of the bounding box of all
    else. Where joints that are not commanded move a shape, a gripper's fingers, its points are there at both ends of
    their ranges and at the model's reference.

    Args:
        mjcf: the file, or its model.
        joints: names of the commanded joints, in the order of the command.

    Raises:
        ConfigError: if the file cannot be read, or a joint neither turns nor slides.
        UnknownName: if the model has no such joint, with those it has.
    """
    model = mjcf if isinstance(mjcf, mujoco.MjModel) else _read(Path(mjcf))
    have = [model.joint(i).name for i in range(model.njnt)]
    for name in joints:
        if name not in have:
            raise UnknownName("joint of the MJCF", name, [one for one in have if one])
    order = sorted((have.index(name) for name in joints), key=int)  # MuJoCo numbers a carrier before what it carries
    kinds = model.jnt_type[order]
    if odd := [have[i] for i in order if model.jnt_type[i] not in _ONE_NUMBER]:
        raise ConfigError(f"joint {odd[0]!r} of the MJCF neither turns nor slides")
    moved_by = _moved_by(model, order)
    _require_carried(model, order)
    data = mujoco.MjData(model)
    mujoco.mj_kinematics(model, data)
    limited = model.jnt_limited[order].astype(bool)
    points, radii, movers, links = _points(model, data, order, moved_by)
    parents = [_carrier(model, moved_by, order, j) for j in range(len(order))]
    return {
        "joints": tuple(have[i] for i in order),
        "axes": data.xaxis[order].copy(),
        "anchors": data.xanchor[order].copy(),
        "slides": kinds == _ONE_NUMBER[1],
        "parents": np.array(parents, np.int64),
        "reference": data.qpos[model.jnt_qposadr[order]].copy(),
        "low": np.where(limited, model.jnt_range[order, 0], -np.inf),
        "high": np.where(limited, model.jnt_range[order, 1], np.inf),
        "points": points, "radii": radii, "movers": movers, "links": links,
    }  # fmt: skip


_ONE_NUMBER = (int(mujoco.mjtJoint.mjJNT_HINGE), int(mujoco.mjtJoint.mjJNT_SLIDE))


def _read(path: Path) -> mujoco.MjModel:
    if not path.is_file():
        raise ConfigError(f"mjcf: {path} is no file")
    try:
        return mujoco.MjModel.from_xml_path(str(path))
    except ValueError as error:
        raise ConfigError(f"mjcf: {path}: {' '.join(str(error).split())[:200]}") from error


def _moved_by(model: mujoco.MjModel, order: list[int]) -> list[int]:
    """For each body the position in ``order`` of the last commanded joint that moves it, -1 of none."""
    found = [-1] * model.nbody
    for body in range(1, model.nbody):
        own = [j for j, joint in enumerate(order) if model.jnt_bodyid[joint] == body]
        found[body] = own[-1] if own else found[model.body_parentid[body]]
    return found


def _carrier(model: mujoco.MjModel, moved_by: list[int], order: list[int], j: int) -> int:
    body = model.jnt_bodyid[order[j]]
    if j and model.jnt_bodyid[order[j - 1]] == body:
        return j - 1
    return moved_by[model.body_parentid[body]]


def _require_carried(model: mujoco.MjModel, order: list[int]) -> None:
    """Refuse an arm in which a joint that nobody commands moves one that is commanded."""
    bodies = {int(model.jnt_bodyid[i]) for i in order}
    for i in range(model.njnt):
        body = int(model.jnt_bodyid[i])
        if i not in order and any(_is_behind(model, one, body) for one in bodies):
            raise ConfigError(f"joint {model.joint(i).name!r} of the MJCF moves the arm and is not commanded")


def _is_behind(model: mujoco.MjModel, body: int, ahead: int) -> bool:
    while body > 0 and body != ahead:
        body = int(model.body_parentid[body])
    return body == ahead


def _points(
    model: mujoco.MjModel, data: mujoco.MjData, order: list[int], moved_by: list[int]
) -> tuple[np.ndarray, np.ndarray, np.ndarray, tuple[str, ...]]:
    placed: dict[tuple[Any, ...], tuple[np.ndarray, float, int, str]] = {}
    for _ in _ends_of_others(model, data, order):
        for body in (one for one in range(1, model.nbody) if moved_by[one] >= 0):
            for geom in _solid(model, body):
                turned = data.geom_xmat[geom].reshape(3, 3)
                for local, radius in _outline(model, geom):
                    at = data.geom_xpos[geom] + turned @ local
                    key = (body, *np.round(at, 9), round(radius, 9))
                    placed[key] = (at, radius, moved_by[body], model.body(body).name)
    rows = list(placed.values())
    return (
        np.array([row[0] for row in rows], np.float64).reshape(-1, 3), np.array([row[1] for row in rows], np.float64),
        np.array([row[2] for row in rows], np.int64), tuple(row[3] for row in rows),
    )  # fmt: skip


def _ends_of_others(model: mujoco.MjModel, data: mujoco.MjData, order: list[int]) -> Iterator[None]:
    """Put the joints that are not commanded to their reference, then to both ends of their ranges."""
    others = [
        i for i in range(model.njnt) if i not in order and model.jnt_limited[i] and model.jnt_type[i] in _ONE_NUMBER
    ]
    for end in (0, 1, None):
        data.qpos[:] = model.qpos0
        if end is not None:
            data.qpos[model.jnt_qposadr[others]] = model.jnt_range[others, end]
        mujoco.mj_kinematics(model, data)
        yield


def _solid(model: mujoco.MjModel, body: int) -> list[int]:
    every = [g for g in range(model.ngeom) if model.geom_bodyid[g] == body]
    return [g for g in every if model.geom_contype[g] or model.geom_conaffinity[g]] or every


def _outline(model: mujoco.MjModel, geom: int) -> Iterator[tuple[np.ndarray, float]]:
    """Balls (centre (3,) m in the shape's frame, radius m) whose hull holds the shape."""
    kind, size = mujoco.mjtGeom(model.geom_type[geom]), model.geom_size[geom]
    if kind == mujoco.mjtGeom.mjGEOM_SPHERE:
        yield np.zeros(3), float(size[0])
    elif kind == mujoco.mjtGeom.mjGEOM_CAPSULE:
        for end in (-1, 1):
            yield np.array([0, 0, end * size[1]]), float(size[0])
    elif kind == mujoco.mjtGeom.mjGEOM_CYLINDER:
        rim = size[0] / np.cos(np.pi / CORNERS)
        for corner in range(CORNERS):
            angle = 2 * np.pi * corner / CORNERS
            for end in (-1, 1):
                yield np.array([rim * np.cos(angle), rim * np.sin(angle), end * size[1]]), 0.0
    else:
        centre, half = model.geom_aabb[geom, :3], model.geom_aabb[geom, 3:]
        for signs in np.ndindex(2, 2, 2):
            yield centre + half * (2 * np.array(signs) - 1), 0.0
