"""A renderer that knows nothing of ours: MuJoCo draws the board, and its camera is found where the twin says it is."""

import sys
from pathlib import Path

import sim_envs  # noqa: F401  the GL backend is chosen before mujoco is loaded

# isort: split
import mujoco
import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))
from charuco_pictures import BOARD, MIDDLE, apart, boards_in_base

from robopolicy.errors import NoGLBackend
from robopolicy.rotations import matrix_to_quat
from robopolicy_hardware.cameras.calibration import calibrate
from robopolicy_hardware.cameras.charuco import BoardFinder
from robopolicy_hardware.cameras.hand_eye import Setup
from sim_envs.arm import look
from sim_envs.calibration import camera_pose, intrinsics
from sim_envs.rendering import Painter

SIZE = (480, 640)
EYES = {"left": (0.95, 0.38, 0.55), "right": (0.95, -0.36, 0.5)}
THICK = 0.001  # m
PICTURES = 14


def scene():
    spec = mujoco.MjSpec()
    spec.visual.global_.offheight, spec.visual.global_.offwidth = SIZE
    spec.visual.map.znear, spec.visual.map.zfar = 0.01, 20
    spec.visual.quality.offsamples = 8
    spec.visual.headlight.ambient, spec.visual.headlight.diffuse = [0.8] * 3, [0.1] * 3
    for name, eye in EYES.items():
        spec.worldbody.add_camera(name=name, pos=eye, quat=look(eye, tuple(MIDDLE)), fovy=40)
    picture = BOARD.picture(80, margin=40)  # half a square of white paper
    texture = spec.add_texture(
        name="board", type=mujoco.mjtTexture.mjTEXTURE_2D, width=picture.shape[1], height=picture.shape[0], nchannel=3
    )
    texture.data = np.repeat(picture[..., None], 3, axis=2).tobytes()
    material = spec.add_material(name="board")
    textures = list(material.textures)
    textures[mujoco.mjtTextureRole.mjTEXROLE_RGB.value] = "board"
    material.textures = textures
    half = (np.array(BOARD.size_m) + BOARD.square_m) / 2
    body = spec.worldbody.add_body(name="board", mocap=True)
    body.add_geom(type=mujoco.mjtGeom.mjGEOM_BOX, size=[*half, THICK], material="board", contype=0, conaffinity=0)
    return spec.compile()


def test_cameras_are_found_where_mujoco_has_them():
    model = scene()
    data, painter, finder = mujoco.MjData(model), Painter(model), BoardFinder(BOARD)
    # the box's upper face shows the picture: its x is the board's, its y and z are against the board's
    turned = np.diag([1.0, -1.0, -1.0])
    seen, tools = [], {}
    try:
        for k, board in enumerate(boards_in_base(PICTURES)):
            middle = board[:3, :3] @ [*np.array(BOARD.size_m) / 2, THICK] + board[:3, 3]
            data.mocap_pos[0], data.mocap_quat[0] = middle, matrix_to_quat(board[:3, :3] @ turned)
            mujoco.mj_forward(model, data)
            tools[str(k)] = board  # the tool is the board's own frame
            for view in EYES:
                try:
                    found = finder.find(painter.draw(data, view, *SIZE), view, str(k))
                except NoGLBackend as error:
                    pytest.skip(str(error))
                seen += [] if found is None else [found]
        truth = {view: camera_pose(model, data, view) for view in EYES}
    finally:
        painter.close()
    assert len(seen) > 1.6 * PICTURES
    found = calibrate(BOARD, seen, Setup("tool", (), tools), coefficients=0)
    for view, place in truth.items():
        mm, deg = apart(place, found.places.cameras[view])
        assert mm < 3.0
        assert deg < 0.3
        K = np.array(intrinsics(model, view, *SIZE))
        assert abs(found.lenses[view].K[0, 0] / K[0, 0] - 1) < 0.005
        assert np.abs(found.lenses[view].K[:2, 2] - K[:2, 2]).max() < 3
        assert found.error_px(view) < 0.5
    assert apart(np.eye(4), found.places.board)[0] < 2.0  # found where it was
