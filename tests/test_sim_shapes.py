"""A model as meshes: closed, right side out, as big as MuJoCo says, and where MuJoCo puts them."""

import mujoco
import numpy as np
import pytest

from robopolicy.clock import SimClock
from robopolicy.interfaces import Scene
from robopolicy.rotations import quat_to_matrix
from sim_envs.shapes import box, capsule, cylinder, ellipsoid, make_shapes, poses_of
from sim_envs.tasks import TASKS, make_task
from sim_envs.twin import Twin

SOLIDS = {
    "box": (box(np.array([0.1, 0.2, 0.3])), 8 * 0.1 * 0.2 * 0.3),
    "cylinder": (cylinder(0.1, 0.2), np.pi * 0.01 * 0.4),
    "capsule": (capsule(0.1, 0.2), np.pi * 0.01 * 0.4 + 4 / 3 * np.pi * 0.001),
    "ellipsoid": (ellipsoid(np.array([0.1, 0.2, 0.3])), 4 / 3 * np.pi * 0.006),
}


def volume(vertices: np.ndarray, faces: np.ndarray) -> float:
    """By the divergence theorem: right only if the surface is closed and every face looks outwards."""
    corners = vertices[faces]
    return float(np.einsum("ij,ij->", corners[:, 0], np.cross(corners[:, 1], corners[:, 2])) / 6)


@pytest.mark.parametrize("name", SOLIDS)
def test_a_solid_is_closed_and_looks_outwards(name):
    (vertices, faces), wanted = SOLIDS[name]
    assert volume(vertices, faces) == pytest.approx(wanted, rel=0.04)
    edges: dict[tuple, int] = {}
    for face in vertices.round(9)[faces]:
        for a, b in ((0, 1), (1, 2), (2, 0)):
            key = (*face[a], *face[b])
            edges[key] = edges.get(key, 0) + 1
    for (*a, bx, by, bz), count in edges.items():
        assert count == edges.get((bx, by, bz, *a)), "each edge is walked once each way"


def model_of(geoms: str, assets: str = "") -> tuple[mujoco.MjModel, mujoco.MjData]:
    model = mujoco.MjModel.from_xml_string(f"<mujoco><asset>{assets}</asset><worldbody>{geoms}</worldbody></mujoco>")
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    return model, data


def test_one_part_for_each_body_and_colour():
    model, data = model_of(
        """<body name="a" pos="1 2 3" euler="0 0 90"><freejoint/>
        <geom type="box" size=".1 .2 .3" rgba="1 0 0 1"/><geom type="sphere" size=".1" rgba="1 0 0 1"/>
        <geom type="sphere" size=".1" pos="0 0 1" rgba="0 0 1 .5"/></body>"""
    )
    shapes, bodies = make_shapes(model)
    assert [shape.colour for shape in shapes] == [(1, 0, 0, 1), (0, 0, 1, 0.5)]
    assert shapes[1].vertices.mean(axis=0) == pytest.approx([0, 0, 1], abs=1e-6)
    poses = poses_of(data, shapes, bodies)
    assert set(poses) == {shape.name for shape in shapes}
    for pose in poses.values():
        assert pose == pytest.approx([1, 2, 3, np.sqrt(0.5), 0, 0, np.sqrt(0.5)], abs=1e-6)


def test_what_nobody_sees_is_left_out():
    model, _ = model_of(
        """<geom type="sphere" size="1" group="3"/><geom type="sphere" size="1" rgba="1 1 1 0"/>
        <geom type="plane" size="0 0 1"/><geom type="plane" size="1 2 1"/>"""
    )
    (plane,), _ = make_shapes(model)
    assert plane.vertices.max(axis=0).tolist() == [1, 2, 0]


def test_a_mesh_is_as_mujoco_holds_it_and_a_texture_gives_its_mean_colour():
    model, data = model_of(
        '<geom type="mesh" mesh="m" pos="0 0 2" material="paint"/>',
        """<mesh name="m" vertex="0 0 0  1 0 0  0 1 0  0 0 1"/>
        <texture name="t" type="2d" builtin="flat" rgb1="1 .5 0" width="4" height="4"/>
        <material name="paint" texture="t" rgba=".5 1 1 1"/>""",
    )
    (shape,), _ = make_shapes(model)
    corners = {tuple(np.round(v, 5) + 0.0) for v in shape.vertices}
    assert corners == {(0, 0, 2), (1, 0, 2), (0, 1, 2), (0, 0, 3)}
    assert volume(shape.vertices, shape.faces) == pytest.approx(1 / 6, rel=1e-4)
    assert shape.colour == pytest.approx((0.5, 0.5, 0, 1), abs=0.01)
    assert data.ncon == 0


@pytest.mark.parametrize("task", TASKS)
def test_a_twin_is_a_scene(task):
    clock = SimClock()
    twin = Twin(make_task(task), clock, cameras=())
    assert isinstance(twin, Scene)
    shapes, before = twin.shapes(), twin.poses()
    assert set(before) == {shape.name for shape in shapes}
    assert sum(len(shape.faces) for shape in shapes) < 14_000
    for shape in shapes:
        assert shape.vertices.dtype == np.float32 == before[shape.name].dtype
        assert shape.faces.dtype == np.int32
        assert shape.faces.max() < len(shape.vertices)
        assert all(0 <= value <= 1 for value in shape.colour)
    action = twin.stop()
    action[2] += 0.05
    for _ in range(2):  # the first may find the arm braked
        clock.sleep_until(clock.now_ns() + 2_500_000_000)
        twin.read()
        twin.command(action, clock.now_ns())
    clock.sleep_until(clock.now_ns() + 1_000_000_000)
    twin.read()
    moved = twin.poses()["hand.0"] - before["hand.0"]
    assert moved[2] == pytest.approx(0.05, abs=0.01)
    assert before["world.0"].tolist() == twin.poses()["world.0"].tolist()
    hand = twin.data.body("hand")
    pose = twin.poses()["hand.0"]
    assert pose[:3] == pytest.approx(hand.xpos, abs=1e-5)
    assert quat_to_matrix(pose[3:]).ravel() == pytest.approx(hand.xmat, abs=1e-5)
