"""The links of an arm, by plain arrays, against MuJoCo; and a safety layer that keeps them inside the cell."""

from dataclasses import replace

import mujoco
import numpy as np
import pytest

from robopolicy.cli.worlds import make_safety
from robopolicy.errors import ConfigError, ContractError, UnknownName
from robopolicy.spec import ActionSpec, PolicySpec, StateSpec
from robopolicy.types import Observation
from robopolicy_hardware.kinematics import Chain
from robopolicy_hardware.mock import ARM as MOCK
from robopolicy_hardware.safety import SafetyLayer, SafetyLimits
from robopolicy_hardware.safety_limits import load_limits
from sim_envs.arm import HOME, JOINTS, add_arm
from sim_envs.chains import read_chain
from sim_envs.scene import make_scene

ARM = PolicySpec(
    state={"q": StateSpec(7, ("rad",)), "gripper": StateSpec(1, ("open",))},
    action=ActionSpec("joint", (*JOINTS, "gripper"), (*("rad",) * 7, "open")),
    rate_hz=50.0,
)
MIXED = """
<mujoco><worldbody><body name="rail" pos=".1 .2 .3" euler="10 20 30"><geom type="sphere" size=".02"/>
  <joint name="slide" type="slide" axis="1 1 0" pos=".1 0 0" range="-.5 .5" limited="true"/>
  <body name="upper" pos="0 .1 .2" quat=".5 .5 -.5 .5"><geom type="capsule" size=".03 .1" pos=".1 0 0" euler="0 90 0"/>
    <joint name="pan" axis="0 1 1" pos=".02 .01 0" ref="20"/><joint name="tilt" axis="1 0 0" pos="0 0 .05"/>
    <body name="fixed" pos=".2 0 0" euler="0 0 45"><geom type="ellipsoid" size=".05 .02 .01" pos="0 .1 0"/>
      <body name="left" pos="0 .1 0"><geom type="box" size=".1 .02 .01"/><joint name="left" axis="0 0 1"/></body>
      <body name="right" pos="0 -.1 0"><geom type="cylinder" size=".02 .05"/><joint name="right" axis="0 1 0"/></body>
    </body></body></body></worldbody></mujoco>
"""


@pytest.fixture(scope="module")
def arm():
    scene = make_scene()
    add_arm(scene)
    return scene.compile()


@pytest.fixture(scope="module")
def chain(arm):
    return Chain(**read_chain(arm, JOINTS))


def body_points(model, chain, q):
    """Where MuJoCo has the chain's points, (P, 3): each stays where it is in the frame of its body."""
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    addresses = [model.joint(name).qposadr[0] for name in chain.joints]
    bodies = [model.body(name).id for name in chain.links]
    frames = data.xmat[bodies].reshape(-1, 3, 3)
    local = np.einsum("pij,pi->pj", frames, chain.points - data.xpos[bodies])
    data.qpos[addresses] = q
    mujoco.mj_forward(model, data)
    return data.xpos[bodies] + np.einsum("pij,pj->pi", data.xmat[bodies].reshape(-1, 3, 3), local)


def test_points_are_where_mujoco_has_them(arm, chain):
    rng = np.random.default_rng(0)
    mixed = mujoco.MjModel.from_xml_string(MIXED)
    for model, made in ((arm, chain), (mixed, Chain(**read_chain(mixed, ["slide", "pan", "tilt", "right", "left"])))):
        several = rng.uniform(-2, 2, (50, len(made.joints)))
        for q, points in zip(several, made.forward(several), strict=True):
            np.testing.assert_allclose(points, body_points(model, made, q), atol=1e-9)
            np.testing.assert_allclose(points, made.forward(q), atol=1e-12)


def test_the_balls_hold_the_shapes(arm, chain):
    """Of every solid shape, the lowest point that MuJoCo finds over a far plane is not below that of the balls."""
    rng, data = np.random.default_rng(1), mujoco.MjData(arm)
    solid = [g for g in range(arm.ngeom) if arm.geom_contype[g] and arm.body(arm.geom_bodyid[g]).name in chain.links]
    addresses = [arm.joint(name).qposadr[0] for name in JOINTS]
    assert len(solid) == 5
    for _ in range(30):
        data.qpos[addresses] = q = rng.uniform(chain.low, chain.high)
        mujoco.mj_forward(arm, data)
        points = chain.forward(q)
        for geom in solid:
            mine = np.array([link == arm.body(arm.geom_bodyid[geom]).name for link in chain.links])
            away = np.array([0.0, 0.0, -1.0])
            lowest = float(np.min(points[mine, 2] - chain.radii[mine]))
            shape, size = arm.geom_type[geom], arm.geom_size[geom]
            local = data.geom_xmat[geom].reshape(3, 3).T @ away
            if shape == mujoco.mjtGeom.mjGEOM_BOX:
                reach = float(np.abs(local) @ size)
            elif shape == mujoco.mjtGeom.mjGEOM_CAPSULE:
                reach = float(size[0] + abs(local[2]) * size[1])
            else:
                reach = float(size[0] * np.hypot(*local[:2]) + abs(local[2]) * size[1])
            assert lowest <= data.geom_xpos[geom][2] - reach + 1e-9


def test_the_corners_hold_a_mesh_and_an_ellipsoid():
    rng = np.random.default_rng(2)
    vertices = rng.normal(size=(20, 3)) * (0.1, 0.03, 0.05) + (0.2, 0.0, -0.1)
    spec = mujoco.MjSpec()
    spec.add_mesh(name="lump", uservert=vertices.ravel())
    body = spec.worldbody.add_body(name="link", pos=[0.1, 0.2, 0.3], quat=[0.5, 0.5, 0.1, 0.7])
    body.add_joint(name="j", axis=[1, 2, 3])
    body.add_geom(type=mujoco.mjtGeom.mjGEOM_MESH, meshname="lump", pos=[0.05, 0.0, 0.0], quat=[0.9, 0.1, 0.4, 0.0])
    model = spec.compile()
    made, data = Chain(**read_chain(model, ["j"])), mujoco.MjData(model)
    for angle in np.linspace(-3, 3, 20):
        data.qpos[0] = angle
        mujoco.mj_forward(model, data)
        solid = data.geom_xpos[0] + model.mesh_vert @ data.geom_xmat[0].reshape(3, 3).T
        points = made.forward(np.array([angle]))
        assert np.all(points.min(axis=0) <= solid.min(axis=0) + 1e-6)
        assert np.all(points.max(axis=0) >= solid.max(axis=0) - 1e-6)
        assert np.all(points.max(axis=0) - points.min(axis=0) < 0.8), "and are no farther than they need to be"


def test_a_chain_follows_the_command_not_the_file(arm):
    with pytest.raises(UnknownName, match=r"no joint of the MJCF 'elbow'; valid: finger_left, .*joint1"):
        read_chain(arm, ["joint1", "elbow"])
    with pytest.raises(ConfigError, match="joint 'joint3' of the MJCF moves the arm and is not commanded"):
        read_chain(arm, [name for name in JOINTS if name != "joint3"])


def test_a_file_that_is_none(tmp_path):
    with pytest.raises(ConfigError, match=r"none\.xml is no file"):
        read_chain(tmp_path / "none.xml", JOINTS)
    (tmp_path / "bad.xml").write_text("<mujoco><wordbody/></mujoco>")
    with pytest.raises(ConfigError, match=r"bad\.xml: XML Error"):
        read_chain(tmp_path / "bad.xml", JOINTS)
    (tmp_path / "ball.xml").write_text(
        "<mujoco><worldbody><body><geom size='.1'/><joint name='b' type='ball'/></body></worldbody></mujoco>"
    )
    with pytest.raises(ConfigError, match="joint 'b' of the MJCF neither turns nor slides"):
        read_chain(tmp_path / "ball.xml", ["b"])


def driven(layer, goals, start, *, seed=0):
    """Send each goal for a second at uneven periods from ``start``; return what was sent (T, A) and when (T,) s."""
    rng, now_ns, sent, times = np.random.default_rng(seed), 0, [start], [-1 / ARM.rate_hz]
    at = {"q": np.float32(start[:7]), "gripper": np.float32(start[7:])}
    for goal in goals:
        for _ in range(50):
            sent.append(layer.limit(goal, Observation(now_ns, at), now_ns).astype(float))
            times.append(now_ns * 1e-9)
            now_ns += round(ARM.period_ns * rng.choice([0.7, 1.0]))
    return np.array(sent), np.array(times)


@pytest.mark.parametrize("accel", [None, 8.0])
def test_no_link_leaves_the_cell_whatever_is_commanded(chain, accel):
    low, high, table = (-0.32, -0.45, -0.3), (0.7, 0.45, 1.0), 0.02
    limits = SafetyLimits(
        max_rate=(1.5,) * 8, max_accel=None if accel is None else (accel,) * 8,
        workspace_low=low, workspace_high=high, table_m=table,
    )  # fmt: skip
    layer = SafetyLayer(limits, ARM, chain)
    rng = np.random.default_rng(0)
    goals = rng.uniform(np.r_[chain.low, 0], np.r_[chain.high, 1], (40, 8))
    sent, times = driven(layer, goals, np.r_[HOME, 1.0])
    points, ball = chain.forward(sent[:, :7]), chain.radii[:, None]
    assert np.min(points - ball - np.array([*low[:2], table])) >= -1e-6
    assert np.max(points + ball - np.array(high)) <= 1e-6
    assert np.min(points - ball, axis=(0, 1))[2] < table + 0.01, "it was driven into the table"
    assert 0 < layer.counts["workspace"] < len(sent)
    dt = np.diff(times)[:, None]
    velocity = np.diff(sent, axis=0) / dt
    assert np.max(np.abs(velocity)) <= 1.5 + 1e-4
    assert np.all((sent[:, :7] >= chain.low - 1e-6) & (sent[:, :7] <= chain.high + 1e-6)), "the box is the model's"
    if accel is not None:
        assert np.max(np.abs(np.diff(velocity, axis=0) / dt[1:])) <= accel + 1e-2


def test_into_the_table_it_slows_along_the_line_and_holds(chain):
    limits = SafetyLimits(max_rate=(1.5,) * 8, max_accel=(8.0,) * 8, table_m=0.05)
    layer = SafetyLayer(limits, ARM, chain)
    start = np.r_[HOME, 1.0]
    goal = start.copy()
    goal[1] += 0.8  # the shoulder down: far below the table
    sent, _ = driven(layer, [goal] * 2, start)
    gone = sent - start
    assert np.max(np.abs(np.delete(gone, 1, axis=1))) < 1e-6, "no other joint moves"
    assert np.all(np.diff(gone[:, 1]) >= -1e-6), "it does not turn back"
    assert np.max(np.abs(np.diff(sent[-20:], axis=0))) < 1e-4, "it holds"
    lowest = chain.forward(sent[-1, :7])[:, 2] - chain.radii
    assert 0.05 - 1e-6 <= lowest.min() < 0.055
    up = start.copy()
    up[1] -= 0.3
    later_ns = 10**11
    back = layer.limit(up, Observation(later_ns, {"q": np.float32(sent[-1, :7]), "gripper": np.float32([1])}), later_ns)
    assert back[1] < sent[-1, 1], "and leaves it again"


def test_a_long_way_is_looked_at_all_along():
    """Both ends are over the table; the way between them, half a turn downwards in one command, is not."""
    model = mujoco.MjModel.from_xml_string(
        "<mujoco><worldbody><body pos='0 0 .3'><joint name='a' axis='0 1 0'/><geom type='capsule' size='.02' "
        "fromto='0 0 0 .5 0 0'/></body></worldbody></mujoco>"
    )
    spec = PolicySpec(state={"q": StateSpec(1, ("rad",))}, action=ActionSpec("joint", ("a",), ("rad",)))
    swing = Chain(**read_chain(model, ["a"]))
    layer = SafetyLayer(SafetyLimits(table_m=0.0), spec, swing)
    observation = Observation(0, {"q": np.zeros(1, np.float32)})
    sent = layer.limit(np.float32([np.pi]), observation, 0)
    down = np.arcsin(0.28 / 0.5)  # where the tip touches
    assert down - np.pi / 64 - 0.01 <= sent[0] <= down
    layer.reset()
    assert layer.limit(np.float32([-np.pi]), observation, 0)[0] == pytest.approx(-np.pi), "the way over the top is free"


def test_from_below_the_table_it_may_only_rise(chain):
    layer = SafetyLayer(SafetyLimits(max_rate=(1.5,) * 8, table_m=0.05), ARM, chain)
    start = np.r_[HOME, 1.0]
    start[1] += 0.5
    depth = (chain.forward(start[:7])[:, 2] - chain.radii).min()
    assert depth < 0.0
    for way, moves in ((+0.2, False), (-0.2, True)):
        layer.reset()
        goal = start.copy()
        goal[1] += way
        sent, _ = driven(layer, [goal], start)
        assert (np.abs(sent[-1, 1] - start[1]) > 0.1) == moves


def test_only_the_links_that_are_named(chain):
    beside = SafetyLimits(max_rate=(1.5,) * 8, workspace_low=(0.2, -0.6, 0.0), workspace_high=(0.9, 0.6, 1.0))
    with pytest.raises(ContractError, match=r"'link1' is outside the workspace wherever the joints are; .* links:"):
        SafetyLayer(beside, ARM, chain)
    layer = SafetyLayer(replace(beside, links=("hand", "finger_left", "finger_right")), ARM, chain)
    goal = np.r_[HOME, 1.0]
    goal[3] -= 0.5  # the elbow closes: the hand comes back to the base
    sent, _ = driven(layer, [goal] * 2, np.r_[HOME, 1.0])
    hand = chain.only(("hand", "finger_left", "finger_right"))
    nearest = hand.forward(sent[:, :7])[..., 0].min()
    assert 0.2 - 1e-6 <= nearest < 0.21
    with pytest.raises(ContractError, match="nothing is solid on 'fist'; valid: link1, "):
        SafetyLayer(replace(beside, links=("fist",)), ARM, chain)


@pytest.mark.parametrize(
    ("limits", "spec", "says"),
    [
        (
            {"low": (-4,) + (-3,) * 7, "high": (1,) * 8},
            ARM,
            "low of joint1 is -4; its range in the MJCF begins at -2.8",
        ),
        ({"low": (-1,) * 3 + (-2,) + (0,) * 4, "high": (1,) * 8}, ARM, "high of joint4 is 1; .* ends at -0.0698"),
        (
            {},
            replace(ARM, action=replace(ARM.action, names=(*JOINTS[:6], "wrist", "gripper"))),
            r"the robot commands joints \['joint1', .* 'wrist'\], the MJCF moves \['joint1', .* 'joint7'\]",
        ),
    ],
)
def test_a_model_of_another_arm_is_refused(chain, limits, spec, says):
    with pytest.raises(ContractError, match=says):
        SafetyLayer(SafetyLimits(**limits, table_m=0.0), spec, chain)


def test_a_table_without_a_model_is_refused():
    with pytest.raises(ContractError, match="wants to know where the links are: name an MJCF, mjcf: FILE"):
        SafetyLayer(SafetyLimits(max_rate=(1.0,) * 8, table_m=0.0), ARM)


def test_a_file_of_limits_names_the_model(tmp_path):
    """As ``--limits`` reads it: the MJCF is seen from the file, and is read with the joints of the action."""
    scene = mujoco.MjSpec()
    scene.compiler.degree = False
    add_arm(scene)
    scene.compile()
    (tmp_path / "arm.xml").write_text(scene.to_xml())
    path = tmp_path / "limits.yaml"
    path.write_text("mjcf: arm.xml\ntable_m: 0.05\nlinks: [hand, finger_left, finger_right]\n")
    limits, _ = load_limits(path, ARM)
    assert limits.mjcf == str(tmp_path / "arm.xml")
    layer = make_safety(ARM, limits)
    down = np.r_[HOME, 1.0]
    down[1] += 0.8
    sent, _ = driven(layer, [down] * 2, np.r_[HOME, 1.0])
    assert layer.counts["workspace"] > 0
    assert np.all(sent[:, 1] < down[1] - 0.3)
    path.write_text("mjcf: none.xml\n")
    with pytest.raises(ConfigError, match=r"mjcf: .*none\.xml is no file"):
        make_safety(ARM, load_limits(path, ARM)[0])
    path.write_text("workspace_low: [0, 0, 0]\n")
    with pytest.raises(ConfigError, match="give both workspace_low and workspace_high"):
        load_limits(path, ARM)
    path.write_text("table_m: 0\n")
    with pytest.raises(ConfigError, match="workspace, table_m and mjcf are for joint actions; tool_pose actions take"):
        load_limits(path, MOCK)


def test_a_chain_that_makes_no_sense(chain):
    with pytest.raises(ContractError, match="radii has another length"):
        replace(chain, radii=chain.radii[:-1])
    with pytest.raises(ContractError, match="before the one that carries it"):
        replace(chain, parents=chain.parents + 1)
