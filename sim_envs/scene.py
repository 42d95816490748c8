"""The room every task shares: a wooden table with its top at z = 0, a floor, soft light and three fixed cameras."""

from functools import cache

import mujoco
import numpy as np

from sim_envs.arm import look
from sim_envs.rendering import OFFSCREEN

TABLE_CENTRE = (0.38, 0.0)  # m
TABLE_HALF = (0.58, 0.62)  # m
FRONT_EYE, FRONT_TARGET = (1.08, 0.0, 0.58), (0.43, 0.0, 0.03)  # m, the policies' camera
SIDE_EYE, SIDE_TARGET = (0.56, 0.84, 0.46), (0.50, 0.0, 0.13)  # m, their second: 69 degrees from the first
VIEW_EYE, VIEW_TARGET = (1.28, 0.90, 0.88), (0.27, 0.0, 0.27)  # m, the people's camera


def make_scene() -> mujoco.MjSpec:
    """Return the empty room; a task adds its objects, the twin adds the arm at the origin."""
    spec = mujoco.MjSpec()
    spec.compiler.degree = False
    spec.option.timestep = 0.002
    spec.option.integrator = mujoco.mjtIntegrator.mjINT_IMPLICITFAST
    spec.option.cone = mujoco.mjtCone.mjCONE_ELLIPTIC
    spec.option.impratio = 10  # keeps grasped and pushed things from creeping
    spec.visual.global_.offheight, spec.visual.global_.offwidth = OFFSCREEN
    spec.visual.quality.offsamples = 0
    spec.visual.quality.shadowsize = 512  # a picture for people pays 10 ms for its shadows
    spec.visual.quality.numslices, spec.visual.quality.numstacks = 16, 6
    spec.visual.headlight.ambient = [0.28, 0.28, 0.30]
    spec.visual.headlight.diffuse = [0.25, 0.25, 0.25]
    spec.visual.headlight.specular = [0.05, 0.05, 0.05]
    spec.visual.map.znear, spec.visual.map.zfar = 0.01, 20
    spec.visual.map.shadowclip = 1.0
    spec.stat.extent, spec.stat.center = 1.2, [0.4, 0, 0.2]
    _add_surroundings(spec)
    world = spec.worldbody
    world.add_camera(name="front", pos=FRONT_EYE, quat=look(FRONT_EYE, FRONT_TARGET), fovy=45)
    world.add_camera(name="view", pos=VIEW_EYE, quat=look(VIEW_EYE, VIEW_TARGET), fovy=38)
    world.add_camera(name="side", pos=SIDE_EYE, quat=look(SIDE_EYE, SIDE_TARGET), fovy=37)
    return spec


def _add_surroundings(spec: mujoco.MjSpec) -> None:
    texture, builtin = mujoco.mjtTexture, mujoco.mjtBuiltin
    spec.add_texture(
        name="sky",
        type=texture.mjTEXTURE_SKYBOX,
        builtin=builtin.mjBUILTIN_GRADIENT,
        rgb1=[0.86, 0.89, 0.92],
        rgb2=[0.42, 0.48, 0.55],
        width=64,
        height=384,
    )
    spec.add_texture(
        name="tiles",
        type=texture.mjTEXTURE_2D,
        builtin=builtin.mjBUILTIN_CHECKER,
        rgb1=[0.33, 0.36, 0.39],
        rgb2=[0.29, 0.32, 0.35],
        width=128,
        height=128,
    )
    wood = spec.add_texture(name="wood", type=texture.mjTEXTURE_2D, width=256, height=256, nchannel=3)
    wood.data = _wood().tobytes()
    _add_textured(spec, "floor", "tiles", (5, 5))
    _add_textured(spec, "table", "wood", (1, 1))
    world, geom = spec.worldbody, mujoco.mjtGeom
    world.add_light(
        name="sun",
        pos=[0.95, 0.6, 1.9],
        dir=[-0.45, -0.45, -1.3],
        type=mujoco.mjtLightType.mjLIGHT_DIRECTIONAL,
        diffuse=[0.55, 0.54, 0.52],
        specular=[0.2, 0.2, 0.2],
        castshadow=True,
    )
    world.add_light(
        name="fill",
        pos=[1.2, -1.0, 1.6],
        dir=[-0.6, 0.7, -1.0],
        type=mujoco.mjtLightType.mjLIGHT_DIRECTIONAL,
        diffuse=[0.20, 0.21, 0.23],
        specular=[0, 0, 0],
        castshadow=False,
    )
    world.add_geom(
        name="floor",
        type=geom.mjGEOM_PLANE,
        pos=[0, 0, -0.75],
        size=[4, 4, 0.1],
        material="floor",
        contype=0,
        conaffinity=0,
    )
    world.add_geom(
        name="table",
        type=geom.mjGEOM_BOX,
        pos=[*TABLE_CENTRE, -0.02],
        size=[*TABLE_HALF, 0.02],
        material="table",
        friction=[0.8, 0.005, 0.0001],
        condim=3,
    )
    for x in (-1, 1):
        for y in (-1, 1):
            corner = [TABLE_CENTRE[0] + x * (TABLE_HALF[0] - 0.05), TABLE_CENTRE[1] + y * (TABLE_HALF[1] - 0.05)]
            world.add_geom(
                name=f"leg_{'front' if x > 0 else 'back'}_{'left' if y > 0 else 'right'}",
                type=geom.mjGEOM_BOX,
                pos=[*corner, -0.395],
                size=[0.03, 0.03, 0.355],
                rgba=[0.23, 0.24, 0.26, 1],
                contype=0,
                conaffinity=0,
            )


def _add_textured(spec: mujoco.MjSpec, name: str, texture: str, repeat: tuple[int, int]) -> None:
    material = spec.add_material(name=name, texrepeat=repeat, specular=0.08, shininess=0.1)
    textures = list(material.textures)
    textures[mujoco.mjtTextureRole.mjTEXROLE_RGB.value] = texture
    material.textures = textures


@cache
def _wood(size: int = 256, planks: int = 6) -> np.ndarray:
    """Return planks of a light wood (size, size, 3) uint8: a tone a plank and fine lines along the grain."""
    rng = np.random.default_rng(7)  # part of the scene, not of any episode
    along = np.linspace(0, 1, size)[None, :]
    across = np.arange(size)[:, None]
    plank = across * planks // size
    tone = rng.uniform(-0.035, 0.035, planks)[plank]
    grain = np.zeros((size, size))
    for wave, weight in ((3, 0.012), (9, 0.010), (27, 0.008)):
        phase = rng.uniform(0, 2 * np.pi, planks)[plank]
        bend = 0.6 * np.sin(2 * np.pi * (along * 1.5) + phase)
        grain += weight * np.sin(wave * 2 * np.pi * across / (size / planks) / 3 + bend + phase)
    grain += 0.012 * rng.standard_normal((size, 1))
    seam = np.where(across * planks % size < planks, -0.14, 0.0)
    colour = np.array([0.74, 0.60, 0.44]) * (1 + 1.6 * (tone + grain + seam))[..., None]
    return (np.clip(colour, 0, 1) * 255).astype(np.uint8)
