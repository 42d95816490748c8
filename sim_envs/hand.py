"""A floating human-like hand: forearm, palm, five fingers, of which thumb and index pinch; its 21 landmarks."""

from typing import Any

import mujoco
import numpy as np

from robopolicy.geometry.keypoints import Handedness
from sim_envs.arm import FINGER_TRAVEL, FINGERS, TOOL

HANDS: tuple[Handedness, ...] = ("right", "left")
LANDMARKS = (  # in MediaPipe's order
    "wrist",
    *(f"thumb_{part}" for part in ("cmc", "mcp", "ip", "tip")),
    *(f"{finger}_{part}" for finger in ("index", "middle", "ring", "pinky") for part in ("mcp", "pip", "dip", "tip")),
)
PINCH = "pinch"  # joint: half of the way between the finger tips, m; 0 closed
TARGET = "hand_target"  # the mocap body that the hand is drawn to
TIPS = ("index_tip", "thumb_tip")
FLESH = 0.008  # m from the tip's landmark to the skin that touches
WELD_S = 0.01  # time constant by which the hand follows its target, critically damped

# Places are (x, y, z) in the tool frame of a left hand, m: z out of the hand, y from thumb to index; the right hand is
# its mirror image across y. Index and thumb bend in the plane x = 0, so that they open along y.
WRIST = (0.024, 0.010, -0.168)
ELBOW = (0.004, 0.060, -0.300)
KNUCKLES = {  # where the finger begins, m; its bones, m; how far each bone is bent from straight on, rad
    "middle": ((0.021, 0.019, -0.097), (0.045, 0.028, 0.020), (1.10, 2.75, 3.60)),
    "ring": ((0.041, 0.019, -0.095), (0.042, 0.026, 0.019), (1.20, 2.85, 3.70)),
    "pinky": ((0.059, 0.016, -0.088), (0.034, 0.020, 0.017), (1.25, 2.90, 3.75)),
}
# Of each of the two: side of the tool, where it begins, lengths of its bones to the last joint, which keeps its
# direction, (across, out) m from the tip; radii of its three bones.
PINCHING: dict[str, tuple[float, tuple[float, float], tuple[float, float], tuple[float, float], tuple[float, ...]]] = {
    "index": (1.0, (0.014, -0.092), (0.043, 0.040), (0.006, -0.022), (0.0095, 0.0088, 0.0080)),
    "thumb": (-1.0, (0.018, -0.118), (0.062, 0.037), (0.008, -0.028), (0.0130, 0.0105, 0.0092)),
}
PARTS = {"index": ("mcp", "pip", "dip"), "thumb": ("cmc", "mcp", "ip")}
ARMATURE = 2e-3  # kg m2, of a finger's joint: what holds the joints together is as stiff as they are heavy
GRIP_KP, GRIP_KV, GRIP_N = 2000.0, 120.0, 60.0  # N/m, N s/m, N; both fingers share it
SKIN, CREASE, NAIL, SLEEVE = "skin", "crease", "nail", "sleeve"
HIDDEN = 3  # the group of geoms that touch and are not drawn
_CAPSULE, _BOX = mujoco.mjtGeom.mjGEOM_CAPSULE, mujoco.mjtGeom.mjGEOM_BOX
_ELLIPSOID = mujoco.mjtGeom.mjGEOM_ELLIPSOID


def add_hand(spec: mujoco.MjSpec, hand: Handedness = "right") -> None:
    """Put a hand into ``spec``, its tool frame at the origin, weightless, drawn to the mocap body `TARGET`.

    The body ``hand`` lies in the tool frame: the middle between the tips of index and thumb, y from the second to the
    first finger of `robopolicy.geometry.keypoints.ROLES` on either hand, z out of the hand.
    """
    mirror = _mirror(hand)
    _add_materials(spec)
    spec.worldbody.add_body(name=TARGET, mocap=True)
    body = spec.worldbody.add_body(name="hand", gravcomp=1)
    body.add_freejoint(name="hand")
    weld = spec.add_equality(type=mujoco.mjtEq.mjEQ_WELD, name1=TARGET, name2="hand", solref=[WELD_S, 1.0])
    weld.objtype = mujoco.mjtObj.mjOBJ_BODY
    weld.data[:11] = [0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1]  # anchor, pose of one in the other, metres a radian
    body.add_site(name=TOOL, size=[0.004, 0, 0], group=4)
    _add_palm(body, mirror)
    for name, (knuckle, bones, bends) in KNUCKLES.items():
        _add_curled(body, name, knuckle, bones, bends, mirror)
    _add_pinch(spec, body)
    for name in PINCHING:
        _add_pinching(spec, body, name, hand)


def bone_angles(name: str, gap: np.ndarray) -> np.ndarray:
    """Return the directions (..., 2) of a pinching finger's first two bones in the (y, z) plane, rad.

    Args:
        name: ``"index"`` or ``"thumb"``, of a left hand.
        gap: (...,) m, half of what is between the finger tips.
    """
    side, (across, out), (one, other), (over, up), _ = PINCHING[name]
    last = np.stack([side * (gap + FLESH + over), np.full_like(gap, up)], axis=-1)  # the last joint
    way = last - np.array([side * across, out])
    length = np.linalg.norm(way, axis=-1)
    straight = np.arctan2(way[..., 1], way[..., 0])
    bend = np.arccos((one**2 + length**2 - other**2) / (2 * one * length))  # the law of cosines, the joint outwards
    first = straight - side * bend
    joint = np.array([side * across, out]) + one * np.stack([np.cos(first), np.sin(first)], axis=-1)
    rest = last - joint
    return np.stack([first, np.arctan2(rest[..., 1], rest[..., 0])], axis=-1)


def joint_angles(name: str, gap: np.ndarray, hand: Handedness) -> np.ndarray:
    """Return the positions (..., 3) of a pinching finger's joints, rad; 0 where the hand is open."""
    bones = bone_angles(name, np.asarray([gap, FINGER_TRAVEL * np.ones_like(gap)]))
    zero = np.zeros_like(bones[..., :1])
    turns = np.diff(np.concatenate([zero, bones, zero], axis=-1), axis=-1)  # each against the bone before it
    found: np.ndarray = _mirror(hand) * (turns[0] - turns[1])
    return found


def _add_palm(body: Any, mirror: float) -> None:
    """Add wrist, palm and forearm; the palm carries the hand's mass."""
    wrist, elbow = _at(WRIST, mirror), _at(ELBOW, mirror)
    _site(body, "wrist", wrist)
    middle = _at((0.029, 0.013, -0.132), mirror)
    body.add_geom(
        name="palm", type=_ELLIPSOID, pos=middle, size=[0.040, 0.016, 0.046], material=SKIN, mass=0.45, contype=0,
        conaffinity=0, group=2,
    )  # fmt: skip
    body.add_geom(name="palm_solid", type=_BOX, pos=middle, size=[0.030, 0.012, 0.035], mass=0, group=HIDDEN)
    starts = [_at((0.0, *PINCHING["index"][1]), mirror), *(_at(knuckle, mirror) for knuckle, _, _ in KNUCKLES.values())]
    for number, knuckle in enumerate(starts):  # the bones in the back of the hand
        root = wrist + np.array([0.008 * (number - 1.5), 0, 0.012])
        _bone(body, f"back_{number}", root, knuckle, 0.0125)
    thumb = _at((0.0, -PINCHING["thumb"][1][0], PINCHING["thumb"][1][1]), mirror)
    _bone(body, "heel", wrist + np.array([-0.008, 0, 0.010]), thumb, 0.0165)
    _bone(body, "web", thumb, starts[0] + np.array([0, 0, -0.012]), 0.0100)
    along = (elbow - wrist) / np.linalg.norm(elbow - wrist)
    _bone(body, "forearm", wrist - 0.004 * along, wrist + 0.075 * along, 0.0235)
    _bone(body, "cuff", wrist + 0.062 * along, wrist + 0.066 * along, 0.0320, SLEEVE)
    _bone(body, "sleeve", wrist + 0.066 * along, elbow, 0.0335, SLEEVE)


def _add_curled(
    body: Any,
    name: str,
    knuckle: tuple[float, ...],
    bones: tuple[float, ...],
    bends: tuple[float, ...],
    mirror: float,
) -> None:
    """Add a finger that stays bent into the palm."""
    place = np.array(knuckle)
    _site(body, f"{name}_mcp", _at(place, mirror))
    for part, bone, bend, radius in zip(("pip", "dip", "tip"), bones, bends, (0.0092, 0.0085, 0.0078), strict=True):
        end = place + bone * np.array([0, -np.sin(bend), np.cos(bend)])
        _bone(body, f"{name}_{part}", _at(place, mirror), _at(end, mirror), radius, CREASE if part == "pip" else SKIN)
        _site(body, f"{name}_{part}", _at(end, mirror))
        place = end


def _add_pinch(spec: mujoco.MjSpec, body: Any) -> None:
    """Add the joint that the two fingers' joints follow, and what drives it."""
    slide = body.add_body(name=PINCH, gravcomp=1, mass=0.001, inertia=[1e-7, 1e-7, 1e-7], explicitinertial=True)
    slide.add_joint(
        name=PINCH, type=mujoco.mjtJoint.mjJNT_SLIDE, axis=[0, 0, 1], range=[0, FINGER_TRAVEL], limited=True,
        ref=FINGER_TRAVEL, armature=0.1, damping=[2.0, 0, 0],
    )  # fmt: skip
    servo = spec.add_actuator(name=PINCH, trntype=mujoco.mjtTrn.mjTRN_JOINT, target=PINCH)
    servo.set_to_position(kp=GRIP_KP, kv=GRIP_KV)
    servo.forcelimited = True
    servo.forcerange = [-GRIP_N, GRIP_N]


def _add_pinching(spec: mujoco.MjSpec, body: Any, name: str, hand: Handedness) -> None:
    """Add a finger of three joints that follow `PINCH` so that its tip moves along y and does not turn."""
    side, (across, out), lengths, (over, up), radii = PINCHING[name]
    mirror = _mirror(hand)
    gaps = np.linspace(0.0, FINGER_TRAVEL, 41)
    turns = joint_angles(name, gaps, hand)  # (41, 3)
    open_angles = bone_angles(name, gaps[-1])
    first, second = (n * np.array([0, np.cos(a), np.sin(a)]) for n, a in zip(lengths, open_angles, strict=True))
    tip = np.array([0, -side * over, -up])
    place, parent = np.array([0, side * across, out]), body
    for number, (part, bone) in enumerate(zip(PARTS[name], (first, second, tip), strict=True)):
        last = number == 2
        finger = FINGERS[0 if side * mirror > 0 else 1] if last else f"{name}_{part}"
        parent = parent.add_body(name=finger, pos=_at(place, mirror), gravcomp=1)
        joint = f"{name}_{part}"
        parent.add_joint(name=joint, axis=[1, 0, 0], armature=ARMATURE, damping=[0.01, 0, 0])
        _follow(spec, joint, gaps, turns[:, number])
        _site(parent, joint, np.zeros(3))
        end = bone - (0.002 * np.array([0, 0, 1]) if last else 0)
        _bone(parent, f"{joint}_bone", np.zeros(3), _at(end, mirror), radii[number], mass=0.02)
        place = bone
    _site(parent, f"{name}_tip", _at(tip, mirror))
    outside = tip + np.array([0, side * 0.0076, -0.003])
    parent.add_geom(
        name=f"{name}_nail", type=_ELLIPSOID, pos=_at(outside, mirror), size=[0.005, 0.0018, 0.006], material=NAIL,
        mass=0, contype=0, conaffinity=0, group=2,
    )  # fmt: skip
    inside = tip + np.array([0, side * (0.004 - FLESH), -0.0045])
    parent.add_geom(
        name=f"{name}_pad", type=_BOX, pos=_at(inside, mirror), size=[0.0085, 0.0040, 0.0095], mass=0.01,
        friction=[1.5, 0.01, 0.0005], condim=4, group=HIDDEN,
    )  # fmt: skip


def _follow(spec: mujoco.MjSpec, joint: str, gaps: np.ndarray, turns: np.ndarray) -> None:
    """Tie a joint to `PINCH` by the polynomial that MuJoCo has for it, fitted to ``turns`` (N,) rad at ``gaps``."""
    powers = (gaps - FINGER_TRAVEL)[:, None] ** np.arange(1, 5)
    scale = np.abs(powers).max(0)
    fitted = np.linalg.lstsq(powers / scale, turns, rcond=None)[0] / scale
    equality = spec.add_equality(type=mujoco.mjtEq.mjEQ_JOINT, name1=joint, name2=PINCH, solref=[0.004, 1.0])
    equality.objtype = mujoco.mjtObj.mjOBJ_JOINT
    equality.data[:5] = [0.0, *fitted]


def _bone(
    body: Any, name: str, start: np.ndarray, end: np.ndarray, radius: float, material: str = SKIN, mass: float = 0.0
) -> None:
    body.add_geom(
        name=name, type=_CAPSULE, fromto=[*start, *end], size=[radius, 0, 0], material=material, mass=mass, contype=0,
        conaffinity=0, group=2,
    )  # fmt: skip


def _site(body: Any, name: str, place: np.ndarray) -> None:
    body.add_site(name=name, pos=place, size=[0.003, 0, 0], group=4)


def _mirror(hand: Handedness) -> float:
    return -1.0 if hand == "right" else 1.0


def _at(place: Any, mirror: float) -> np.ndarray:
    return np.asarray(place, np.float64) * np.array([1.0, mirror, 1.0])


def _add_materials(spec: mujoco.MjSpec) -> None:
    spec.add_material(name=SKIN, rgba=[0.88, 0.66, 0.53, 1], specular=0.15, shininess=0.2)
    spec.add_material(name=CREASE, rgba=[0.84, 0.60, 0.47, 1], specular=0.15, shininess=0.2)
    spec.add_material(name=NAIL, rgba=[0.96, 0.80, 0.74, 1], specular=0.5, shininess=0.6)
    spec.add_material(name=SLEEVE, rgba=[0.16, 0.28, 0.52, 1], specular=0.05, shininess=0.1)
