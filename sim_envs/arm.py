"""A low-poly seven-joint arm with a two-finger gripper: public Panda kinematics, our own shapes and masses."""

from typing import Any

import mujoco
import numpy as np

JOINTS = tuple(f"joint{i}" for i in range(1, 8))
FINGERS = ("finger_left", "finger_right")
FINGER_TRAVEL = 0.04  # m, each finger; the opening between them is twice that
TOOL = "tool"  # the site between the finger tips: x forward, y the way the fingers open, z out of the hand
FLANGE_TO_TOOL = 0.1034  # m
STICK_RADIUS = 0.0146  # m: 15 px of the published Push-T world
STICK_LENGTH = 0.06  # m, beyond the finger tips
STICK_REACH = (0.29, 0.80)  # m from the base's axis: where a stick that points straight down gets to the table

# Pose of each link in its parent's frame: position (m) and the turn about x (quarter turns); joints turn about z.
# Source: the modified Denavit-Hartenberg table published by Franka Robotics (d1 .333, d3 .316, a4 .0825,
# a5 -.0825, d5 .384, a7 .088, flange .107).
KINEMATICS = (
    ((0, 0, 0.333), 0),
    ((0, 0, 0), -1),
    ((0, -0.316, 0), 1),
    ((0.0825, 0, 0), 1),
    ((-0.0825, 0.384, 0), -1),
    ((0, 0, 0), 1),
    ((0.088, 0, 0), 1),
)
LIMITS = (  # rad
    (-2.8973, 2.8973),
    (-1.7628, 1.7628),
    (-2.8973, 2.8973),
    (-3.0718, -0.0698),
    (-2.8973, 2.8973),
    (-0.0175, 3.7525),
    (-2.8973, 2.8973),
)
HOME = (0.0, -0.087, 0.0, -2.5415, 0.0, 2.4545, np.pi / 4)  # rad; the tool at (0.45, 0, 0.20) m, pointing down
KP = np.array([3000.0, 3000, 3000, 3000, 1200, 1200, 800])  # N m / rad
KV = np.array([180.0, 180, 160, 160, 50, 40, 25])  # N m s / rad, close to critical
TORQUE = (87.0, 87, 87, 87, 12, 12, 12)  # N m, the published limits
MASS = (3.0, 2.8, 2.6, 2.4, 2.6, 1.5, 0.6)  # kg, of this class of arm

SHELL, JOINT, DARK, ACCENT = "shell", "joint", "dark", "accent"
# Each link's shapes: (kind, from, to or half sizes, radius, material); the first one carries the link's mass.
SHAPES: tuple[tuple[tuple[Any, ...], ...], ...] = (
    (
        ("cylinder", (0, 0, -0.195), (0, 0, -0.07), 0.062, SHELL),
        ("capsule", (0, 0, -0.08), (0, 0, 0), 0.062, SHELL),
        ("cylinder", (0, -0.072, 0), (0, 0.072, 0), 0.056, JOINT),
    ),
    (
        ("capsule", (0, 0, 0), (0, -0.13, 0), 0.055, SHELL),
        ("cylinder", (0, 0, -0.082), (0, 0, 0.082), 0.05, SHELL),
        ("cylinder", (0, -0.12, 0), (0, -0.205, 0), 0.058, SHELL),
    ),
    (
        ("capsule", (0, 0, -0.065), (0.07, 0, 0), 0.052, SHELL),
        ("cylinder", (0, 0, -0.111), (0, 0, -0.1), 0.053, JOINT),
        ("cylinder", (0, 0, -0.1), (0, 0, -0.05), 0.058, SHELL),
        ("cylinder", (0.0825, -0.066, 0), (0.0825, 0.066, 0), 0.05, JOINT),
    ),
    (
        ("capsule", (0, 0, 0), (-0.0825, 0.075, 0), 0.05, SHELL),
        ("cylinder", (0, 0, -0.074), (0, 0, 0.074), 0.044, SHELL),
        ("cylinder", (-0.0825, 0.07, 0), (-0.0825, 0.125, 0), 0.056, SHELL),
    ),
    (
        ("capsule", (0, 0, -0.2), (0, 0, -0.02), 0.046, SHELL),
        ("cylinder", (0, 0, -0.259), (0, 0, -0.248), 0.051, JOINT),
        ("cylinder", (0, 0, -0.248), (0, 0, -0.2), 0.056, SHELL),
        ("cylinder", (0, -0.06, 0), (0, 0.06, 0), 0.046, JOINT),
    ),
    (
        ("capsule", (0, 0, 0), (0.075, 0, 0), 0.042, SHELL),
        ("cylinder", (0, 0, -0.068), (0, 0, 0.068), 0.04, SHELL),
        ("cylinder", (0.088, 0.055, 0), (0.088, -0.045, 0), 0.048, SHELL),
    ),
    (
        ("cylinder", (0, 0, 0.056), (0, 0, 0.092), 0.046, SHELL),
        ("cylinder", (0, 0, 0.045), (0, 0, 0.056), 0.043, JOINT),
        ("cylinder", (0, 0, 0.092), (0, 0, 0.107), 0.034, DARK),
    ),
)
_KINDS = {
    "capsule": mujoco.mjtGeom.mjGEOM_CAPSULE,
    "cylinder": mujoco.mjtGeom.mjGEOM_CYLINDER,
    "box": mujoco.mjtGeom.mjGEOM_BOX,
}
COLLIDES = {5, 6}  # links that can reach the table beside the hand; the others cannot, so are only drawn


def add_arm(spec: mujoco.MjSpec, *, stick: bool = False) -> None:
    """Put the arm at the origin of ``spec``, its base on z = 0, facing +x, weightless by gravity compensation.

    Args:
        spec: the scene; it gets the materials, bodies, joints, actuators and the wrist camera.
        stick: the fingers hold a round stick, whose tip is then the tool point.
    """
    _add_materials(spec)
    body = spec.worldbody.add_body(name="base")
    _shape(body, ("cylinder", (0, 0, 0), (0, 0, 0.018), 0.098, DARK), 0.0)
    _shape(body, ("cylinder", (0, 0, 0.018), (0, 0, 0.128), 0.072, SHELL), 0.0)
    _shape(body, ("box", (-0.06, 0, 0.05), (0.05, 0.05, 0.034), 0, SHELL), 0.0)
    _shape(body, ("cylinder", (0, 0, 0.128), (0, 0, 0.138), 0.063, JOINT), 0.0)
    for i, (position, quarters) in enumerate(KINEMATICS):
        body = body.add_body(name=f"link{i + 1}", pos=position, quat=_about_x(quarters), gravcomp=1)
        body.add_joint(name=JOINTS[i], axis=[0, 0, 1], range=LIMITS[i], limited=True, armature=0.1, damping=[1.0, 0, 0])
        for k, shape in enumerate(SHAPES[i]):
            _shape(body, shape, MASS[i] if k == 0 else 0.0, solid=i + 1 in COLLIDES and k == 0)
        _add_servo(spec, i)
    _add_hand(spec, body, stick)


def _add_servo(spec: mujoco.MjSpec, i: int) -> None:
    servo = spec.add_actuator(name=JOINTS[i], trntype=mujoco.mjtTrn.mjTRN_JOINT, target=JOINTS[i])
    servo.set_to_position(kp=KP[i], kv=KV[i])
    servo.forcelimited = True
    servo.forcerange = [-TORQUE[i], TORQUE[i]]


def _add_hand(spec: mujoco.MjSpec, link7: Any, stick: bool) -> None:
    eighth = np.pi / 8
    hand = link7.add_body(name="hand", pos=[0, 0, 0.107], quat=[np.cos(eighth), 0, 0, -np.sin(eighth)], gravcomp=1)
    _shape(hand, ("box", (0, 0, 0.034), (0.03, 0.1, 0.03), 0, SHELL), 0.6, solid=True)
    _shape(hand, ("box", (0, 0, 0.061), (0.024, 0.096, 0.005), 0, DARK), 0.0)
    _shape(hand, ("box", (0.031, 0, 0.034), (0.004, 0.022, 0.008), 0, ACCENT), 0.0)
    _shape(hand, ("box", (0.058, 0, 0.02), (0.03, 0.022, 0.012), 0, DARK), 0.0)  # the wrist camera's house
    eye, target = (0.090, 0, 0.02), (0.030, 0, 0.12)
    hand.add_camera(name="wrist", pos=eye, quat=look(eye, target, up=(1, 0, 0)), fovy=70)
    for name, side in zip(FINGERS, (1, -1), strict=True):
        _add_finger(spec, hand, name, side)
    equality = spec.add_equality(type=mujoco.mjtEq.mjEQ_JOINT, name1=FINGERS[0], name2=FINGERS[1])
    equality.objtype = mujoco.mjtObj.mjOBJ_JOINT
    equality.data[:5] = [0, 1, 0, 0, 0]
    length = STICK_LENGTH if stick else 0.0
    if stick:
        hand.add_geom(
            name="stick",
            type=_KINDS["cylinder"],
            fromto=[0, 0, 0.08, 0, 0, FLANGE_TO_TOOL + length],
            size=[STICK_RADIUS, 0, 0],
            material=ACCENT,
            mass=0.05,
            friction=[0.3, 0.005, 0.0001],
            condim=3,
        )
    hand.add_site(name=TOOL, pos=[0, 0, FLANGE_TO_TOOL + length], size=[0.004, 0, 0], group=4)


def _add_finger(spec: mujoco.MjSpec, hand: Any, name: str, side: int) -> None:
    finger = hand.add_body(name=name, pos=[0, 0, 0.0584], gravcomp=1)
    finger.add_joint(
        name=name,
        type=mujoco.mjtJoint.mjJNT_SLIDE,
        axis=[0, side, 0],
        range=[0, FINGER_TRAVEL],
        limited=True,
        armature=0.1,
        damping=[2.0, 0, 0],
    )
    _shape(finger, ("box", (0, side * 0.015, 0.012), (0.0105, 0.0115, 0.008), 0, JOINT), 0.03)
    _shape(finger, ("box", (0, side * 0.0105, 0.034), (0.0095, 0.006, 0.018), 0, SHELL), 0.0)
    finger.add_geom(
        name=f"{name}_pad",
        type=_KINDS["box"],
        pos=[0, side * 0.0055, 0.0395],
        size=[0.0100, 0.0055, 0.0110],
        material=DARK,
        mass=0.02,
        friction=[1.5, 0.01, 0.0005],
        condim=4,
    )
    servo = spec.add_actuator(name=name, trntype=mujoco.mjtTrn.mjTRN_JOINT, target=name)
    servo.set_to_position(kp=1000.0, kv=60.0)
    servo.forcelimited = True
    servo.forcerange = [-30.0, 30.0]


def look(eye: tuple[float, ...], target: tuple[float, ...], up: tuple[float, ...] = (0, 0, 1)) -> np.ndarray:
    """Return the quaternion wxyz of a MuJoCo camera (which looks along -z, +y up) at ``eye`` facing ``target``."""
    back = np.subtract(eye, target)
    back = back / np.linalg.norm(back)
    right = np.cross(up, back)
    right /= np.linalg.norm(right)
    quat = np.empty(4)
    mujoco.mju_mat2Quat(quat, np.column_stack([right, np.cross(back, right), back]).ravel())
    return quat


def _shape(body: Any, shape: tuple[Any, ...], mass: float, *, solid: bool = False) -> None:
    kind, first, second, radius, material = shape
    where: dict[str, Any] = {"pos": first, "size": second}
    if kind != "box":
        where = {"fromto": [*first, *second], "size": [radius, 0, 0]}
    body.add_geom(
        name=f"{body.name}_{len(body.geoms)}",
        type=_KINDS[kind],
        material=material,
        mass=mass,
        contype=int(solid),
        conaffinity=int(solid),
        group=2,
        **where,
    )


def _about_x(quarters: int) -> list[float]:
    half = quarters * np.pi / 4
    return [float(np.cos(half)), float(np.sin(half)), 0.0, 0.0]


def _add_materials(spec: mujoco.MjSpec) -> None:
    spec.add_material(name=SHELL, rgba=[0.90, 0.91, 0.92, 1], specular=0.35, shininess=0.5)
    spec.add_material(name=JOINT, rgba=[0.20, 0.21, 0.24, 1], specular=0.4, shininess=0.5)
    spec.add_material(name=DARK, rgba=[0.12, 0.125, 0.14, 1], specular=0.2, shininess=0.3)
    spec.add_material(name=ACCENT, rgba=[0.10, 0.45, 0.80, 1], specular=0.4, shininess=0.5)
