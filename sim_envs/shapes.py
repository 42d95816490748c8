"""A compiled MuJoCo model as low-poly coloured meshes, for 3-D views that are not MuJoCo's own."""

from collections import defaultdict

import mujoco
import numpy as np

from robopolicy.types import Shape

SEGMENTS = 24  # around a cylinder; the arm has some 4,000 faces then
RINGS = 6  # from the equator of a cap to its pole
VISIBLE_GROUPS = 3  # MuJoCo's own viewer shows the geom groups 0, 1 and 2
PLAIN = (0.5, 0.5, 0.5, 1.0)  # a geom's own colour when none was given
Mesh = tuple[np.ndarray, np.ndarray]  # vertices (V, 3) float64 m, faces (F, 3) int64, counter-clockwise from outside
Colour = tuple[float, float, float, float]


def make_shapes(model: mujoco.MjModel) -> tuple[list[Shape], np.ndarray]:
    """Return every visible part and the body of each, (P,) int32.

    A part is all that one body has of one colour, in the body's frame: few poses to send, and yet coloured. Planes
    without an end, height fields and signed distance fields have no mesh and are left out. Sharp edges have their
    vertices twice, so that a viewer which smooths normals over shared vertices draws them sharp.
    """
    pieces: dict[tuple[int, Colour], list[Mesh]] = defaultdict(list)
    for geom in range(model.ngeom):
        colour = _colour(model, geom)
        mesh = _mesh(model, geom) if model.geom_group[geom] < VISIBLE_GROUPS and colour[3] > 0 else None
        if mesh is not None:
            pieces[int(model.geom_bodyid[geom]), colour].append(_placed(model, geom, mesh))
    counts: dict[int, int] = defaultdict(int)
    shapes = []
    for (body, colour), meshes in pieces.items():
        vertices, faces = joined(meshes)
        name = f"{model.body(body).name or f'body{body}'}.{counts[body]}"
        counts[body] += 1
        shapes.append(Shape(name, vertices.astype(np.float32), faces.astype(np.int32), colour))
    return shapes, np.array([body for body, _ in pieces], np.int32)


def poses_of(data: mujoco.MjData, shapes: list[Shape], bodies: np.ndarray) -> dict[str, np.ndarray]:
    """Return each part's pose in the world, ``{name: (7,) float32 x y z qw qx qy qz}``, from ``make_shapes``' parts."""
    poses = np.concatenate([data.xpos[bodies], data.xquat[bodies]], axis=1).astype(np.float32)
    return {shape.name: pose for shape, pose in zip(shapes, poses, strict=True)}


def box(half: np.ndarray) -> Mesh:
    """Return a box of half sizes ``half`` (3,) m: 24 vertices, 12 faces."""
    vertices: list[np.ndarray] = []
    faces = []
    for axis in range(3):
        for sign in (1.0, -1.0):
            u, v = np.eye(3)[(axis + 1) % 3], np.eye(3)[(axis + 2) % 3]
            corners = [sign * np.eye(3)[axis] + a * u + sign * b * v for a, b in ((-1, -1), (1, -1), (1, 1), (-1, 1))]
            first = len(vertices)
            vertices += [corner * half for corner in corners]
            faces += [(first, first + 1, first + 2), (first, first + 2, first + 3)]
    return np.array(vertices), np.array(faces)


def cylinder(radius: float, half_length: float) -> Mesh:
    """Return a cylinder along z with flat ends."""
    side = _turned(np.array([[radius, -half_length], [radius, half_length]]))
    top = _turned(np.array([[radius, half_length], [0, half_length]]))
    bottom = _turned(np.array([[0, -half_length], [radius, -half_length]]))
    return joined([side, top, bottom])


def capsule(radius: float, half_length: float) -> Mesh:
    """Return a cylinder along z with half spheres beyond its ends."""
    angle = np.linspace(0, np.pi / 2, RINGS + 1)
    upper = np.stack([radius * np.cos(angle).round(12), half_length + radius * np.sin(angle)], axis=1)
    lower = upper[::-1] * (1, -1)
    return _turned(np.concatenate([lower, upper]))


def ellipsoid(half: np.ndarray) -> Mesh:
    """Return an ellipsoid of half axes ``half`` (3,) m."""
    angle = np.linspace(-np.pi / 2, np.pi / 2, 2 * RINGS + 1)
    radius = np.cos(angle).round(12)  # exactly 0 at the poles
    vertices, faces = _turned(np.stack([radius, np.sin(angle)], axis=1))
    return vertices * half, faces


def joined(meshes: list[Mesh]) -> Mesh:
    """Return several meshes as one."""
    starts = np.cumsum([0, *(len(vertices) for vertices, _ in meshes)])
    faces = [faces + start for (_, faces), start in zip(meshes, starts, strict=False)]
    return np.concatenate([vertices for vertices, _ in meshes]), np.concatenate(faces)


def _turned(profile: np.ndarray) -> Mesh:
    """Turn a profile (N, 2) of (radius, z), from below upwards, around z."""
    angle = np.linspace(0, 2 * np.pi, SEGMENTS, endpoint=False)
    ring = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    vertices = np.concatenate([np.column_stack([r * ring, np.full(SEGMENTS, z)]) for r, z in profile])
    k = np.arange(SEGMENTS)
    after = (k + 1) % SEGMENTS
    faces = []
    for i in range(len(profile) - 1):
        low, high = i * SEGMENTS, (i + 1) * SEGMENTS
        if profile[i, 0] > 0:
            faces.append(np.column_stack([low + k, low + after, high + after]))
        if profile[i + 1, 0] > 0:
            faces.append(np.column_stack([low + k, high + after, high + k]))
    return vertices, np.concatenate(faces)


def _mesh(model: mujoco.MjModel, geom: int) -> Mesh | None:
    kind, size = model.geom_type[geom], model.geom_size[geom]
    kinds = mujoco.mjtGeom
    if kind == kinds.mjGEOM_BOX:
        return box(size)
    if kind == kinds.mjGEOM_SPHERE:
        return ellipsoid(np.full(3, size[0]))
    if kind == kinds.mjGEOM_ELLIPSOID:
        return ellipsoid(size)
    if kind == kinds.mjGEOM_CYLINDER:
        return cylinder(size[0], size[1])
    if kind == kinds.mjGEOM_CAPSULE:
        return capsule(size[0], size[1])
    if kind == kinds.mjGEOM_PLANE and size[0] > 0 and size[1] > 0:
        return _plane(size[0], size[1])
    if kind == kinds.mjGEOM_MESH:
        return _stored(model, int(model.geom_dataid[geom]))
    return None


def _plane(half_x: float, half_y: float) -> Mesh:
    corners = np.array([[-1, -1, 0], [1, -1, 0], [1, 1, 0], [-1, 1, 0]]) * (half_x, half_y, 0)
    return corners, np.array([[0, 1, 2], [0, 2, 3]])


def _stored(model: mujoco.MjModel, mesh: int) -> Mesh:
    first, first_face = model.mesh_vertadr[mesh], model.mesh_faceadr[mesh]
    vertices = model.mesh_vert[first : first + model.mesh_vertnum[mesh]]
    faces = model.mesh_face[first_face : first_face + model.mesh_facenum[mesh]]
    return vertices.astype(np.float64), faces.astype(np.int64)


def _placed(model: mujoco.MjModel, geom: int, mesh: Mesh) -> Mesh:
    rotation = np.empty(9)
    mujoco.mju_quat2Mat(rotation, model.geom_quat[geom])
    return mesh[0] @ rotation.reshape(3, 3).T + model.geom_pos[geom], mesh[1]


def _colour(model: mujoco.MjModel, geom: int) -> Colour:
    """Return the geom's RGBA; of a textured material the mean of its texture."""
    rgba, material = model.geom_rgba[geom].astype(np.float64), int(model.geom_matid[geom])
    if material >= 0 and np.allclose(rgba, PLAIN):
        rgba = model.mat_rgba[material].astype(np.float64)
        texture = int(model.mat_texid[material, mujoco.mjtTextureRole.mjTEXROLE_RGB.value])
        if texture >= 0:
            rgba[:3] *= _mean_of(model, texture)
    return tuple(round(float(value), 3) for value in rgba)  # type: ignore[return-value]


def _mean_of(model: mujoco.MjModel, texture: int) -> np.ndarray:
    channels = int(model.tex_nchannel[texture])
    first = int(model.tex_adr[texture])
    count = int(model.tex_height[texture]) * int(model.tex_width[texture]) * channels
    pixels = model.tex_data[first : first + count].reshape(-1, channels)
    return pixels[:, :3].mean(axis=0) / 255 if channels >= 3 else np.full(3, pixels[:, 0].mean() / 255)
