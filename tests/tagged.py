"""The lift task with a tag on top of its cube."""

import sim_envs  # noqa: F401  the GL backend is chosen before mujoco is loaded

# isort: split
import cv2
import mujoco
import numpy as np

from sim_envs.lift import HALF, Lift

NUMBER, CELLS = 7, 8  # of the tag, white border included: 4 x 4 bits in a black frame
SIZE = 2 * HALF * 6 / CELLS  # m, of the black square
THICK = 0.0005  # m, half


def tag_picture(pixels_a_cell=40):
    """The tag with its white border, (H, W) uint8."""
    side = 6 * pixels_a_cell
    dictionary = cv2.aruco.getPredefinedDictionary(cv2.aruco.DICT_4X4_50)
    picture = np.full((side + 2 * pixels_a_cell,) * 2, 255, np.uint8)
    picture[pixels_a_cell:-pixels_a_cell, pixels_a_cell:-pixels_a_cell] = cv2.aruco.generateImageMarker(
        dictionary, NUMBER, side
    )
    return picture


class TaggedLift(Lift):
    def build(self):
        spec = super().build()
        picture = tag_picture()
        texture = spec.add_texture(name="tag", type=mujoco.mjtTexture.mjTEXTURE_2D, width=len(picture),
                                   height=len(picture), nchannel=3)  # fmt: skip
        texture.data = np.repeat(picture[..., None], 3, axis=2).tobytes()
        material = spec.add_material(name="tag")
        textures = list(material.textures)
        textures[mujoco.mjtTextureRole.mjTEXROLE_RGB.value] = "tag"
        material.textures = textures
        spec.body("cube").add_geom(
            type=mujoco.mjtGeom.mjGEOM_BOX, size=[HALF, HALF, THICK], pos=[0, 0, HALF + THICK], material="tag",
            mass=1e-4, contype=0, conaffinity=0,
        )  # fmt: skip
        return spec
