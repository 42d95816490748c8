"""Perturbations of what the cameras see and nothing else: their own place, light, textures, other things about."""

import math
from typing import Any

import mujoco
import numpy as np

from sim_envs.perturbation_axis import Axis, Effect, Start, is_twin
from sim_envs.rendering import Decoration

CAMERA_M, CAMERA_ON_HAND_M, CAMERA_RAD = 0.08, 0.02, np.radians(8)
FOR_PEOPLE = "view"  # the camera of videos; it stays
# Divisor of brightness; part of a colour that is missing; lights about the vertical. Only darker: the table is lit so
# that more light would show nowhere.
LIGHT, TINT, TURN_RAD = 2.5, 0.3, np.radians(90)
DISTRACTORS = 8
NEAR, FAR = (0.26, 0.18), (0.74, 0.36)  # m, x and |y| on the table between which distractors stand: beside the work
KINDS = ("box", "cylinder", "sphere")


def move_cameras(start: Start) -> Effect:
    """Move and turn each camera; the calibration that the policy is told stays the nominal one."""
    model = start.model
    position, quat = start.take("cam_pos"), start.take("cam_quat")
    for camera in sorted(range(model.ncam), key=lambda index: model.camera(index).name == "side"):  # came later
        way, axis = _direction(start.rng), _direction(start.rng)
        if model.camera(camera).name == FOR_PEOPLE:
            continue
        most = CAMERA_M if model.cam_bodyid[camera] == 0 else CAMERA_ON_HAND_M
        position[camera] += most * start.severity * way
        half = CAMERA_RAD * start.severity / 2
        turned = np.empty(4)
        mujoco.mju_mulQuat(turned, quat[camera], np.array([np.cos(half), *(np.sin(half) * axis)]))
        quat[camera] = turned
    mujoco.mj_camlight(model, start.data)
    moved = 100 * CAMERA_M * start.severity
    return Effect(f"cameras moved {moved:.1f} cm (on the hand a quarter), turned {np.degrees(2 * half):.1f} deg")


def relight(start: Start) -> Effect:
    """Make the light darker, tint it, and let it come from another side."""
    model, severity = start.model, start.severity
    factor = LIGHT**-severity
    tint = 1 - TINT * severity * start.rng.permutation([0.0, 0.5, 1.0])
    turn = start.sign() * TURN_RAD * severity
    for name in ("light_diffuse", "light_ambient", "light_specular"):
        start.take(name)[:] *= (factor * tint).astype(np.float32)
    for name in ("ambient", "diffuse", "specular"):
        start.take(f"vis.headlight.{name}")[:] *= (factor * tint).astype(np.float32)
    c, s = np.cos(turn), np.sin(turn)
    ways = start.take("light_dir")
    ways[:, :2] = ways[:, :2] @ np.array([[c, s], [-s, c]])
    mujoco.mj_camlight(model, start.data)
    return Effect(f"light x {factor:.2f}, from {np.degrees(turn):.0f} deg aside, tinted {np.round(tint, 2).tolist()}")


def retexture(start: Start) -> Effect:
    """Blend every texture of the scene (table, floor, sky) with a drawn pattern; plain colours stay."""
    model = start.model
    pixels = start.take("tex_data")
    for texture in range(model.ntex):
        rng = np.random.default_rng(start.rng.integers(2**63))
        shape = int(model.tex_height[texture]), int(model.tex_width[texture]), int(model.tex_nchannel[texture])
        first = int(model.tex_adr[texture])
        here = slice(first, first + math.prod(shape))
        pattern = _pattern(rng, *shape).ravel()
        pixels[here] = np.round((1 - start.severity) * pixels[here] + start.severity * pattern).astype(np.uint8)
    start.world.retexture()
    return Effect(f"{model.ntex} textures, {100 * start.severity:.0f} % of them new")


def add_distractors(start: Start) -> Effect:
    """Let things stand about that are only drawn: nothing touches them, no state tells of them."""
    places = start.rng.permutation(DISTRACTORS)
    drawn = [_distractor(start.rng, int(place)) for place in places]
    count = int(np.ceil(DISTRACTORS * start.severity))
    start.world.decorations = tuple(drawn[:count])
    return Effect(f"{count} things beside the work, drawn only")


def _distractor(rng: np.random.Generator, place: int) -> Decoration:
    """Draw a thing in one of the fields, four on either side of the work."""
    kind = str(rng.choice(KINDS))
    radius, height = rng.uniform(0.015, 0.035), rng.uniform(0.015, 0.06)
    half = {
        "box": (radius, rng.uniform(0.015, 0.035), height),
        "cylinder": (radius, radius, height),
        "sphere": (radius, radius, radius),
    }[kind]
    (near_x, near_y), (far_x, far_y), side = NEAR, FAR, 1.0 if place % 2 else -1.0
    x = near_x + (far_x - near_x) * (place // 2 + rng.uniform(0.25, 0.75)) / (DISTRACTORS // 2)
    y = rng.uniform(near_y, far_y)
    red, green, blue = rng.uniform(0.05, 0.95, 3)
    return Decoration(
        kind, (float(x), float(side * y), half[2]), half, (float(red), float(green), float(blue)),
        float(rng.uniform(-np.pi, np.pi)),
    )  # fmt: skip


def _pattern(rng: np.random.Generator, height: int, width: int, channels: int) -> np.ndarray:
    """Return stripes, checks or patches of two colours, (height, width, channels) float64, 0 to 255."""
    one, other = rng.uniform(30, 225, (2, channels))
    kind, cells, angle = rng.integers(3), rng.integers(3, 12), rng.uniform(0, np.pi)
    patches = rng.uniform(size=(12, 12))
    v, u = np.mgrid[0:height, 0:width] / np.array([height, width]).reshape(2, 1, 1)
    if kind == 0:
        mix = np.sin(2 * np.pi * cells * (u * np.cos(angle) + v * np.sin(angle))) > 0
    elif kind == 1:
        mix = (np.floor(u * cells) + np.floor(v * cells)) % 2 > 0
    else:
        mix = patches[(v * cells).astype(int), (u * cells).astype(int)] > 0.5
    return np.where(mix[..., None], one, other)


def _direction(rng: np.random.Generator) -> np.ndarray:
    """Draw a unit vector (3,)."""
    way = rng.normal(size=3)
    return way / np.linalg.norm(way)


def _lacks_cameras(world: Any) -> str:
    return "" if is_twin(world) else "no scene that can be changed"


AXES = {
    "camera": Axis("each camera stands 8 cm away (on the hand 2 cm), turned by 8 deg", _lacks_cameras, move_cameras),
    "lighting": Axis(
        "40 % of the light, one colour a further 15 % and one 30 % less, from 90 deg aside", _lacks_cameras, relight
    ),
    "texture": Axis("table, floor and sky have other textures altogether", _lacks_cameras, retexture),
    "distractors": Axis("8 things stand beside the work; nothing touches them", _lacks_cameras, add_distractors),
}
