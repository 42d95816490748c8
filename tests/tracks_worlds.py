"""Twins for motion tracks, importable by name in a spawned process: small pictures, and arms that leave them."""

import shlex
from dataclasses import replace

import numpy as np

from robopolicy.cli.main import main
from sim_envs.tasks import make_task
from sim_envs.twin import Twin

SIZE, CAMERAS = (48, 48), ("front", "side")
STEPS = 16  # commands of a `Brief` episode


TRAIN = shlex.split(
    "--policy motion-track --cameras front side --net.width 64 --net.depth 2 --vision.width 16 --vision.feature-dim 16 "
    "--solver.steps 4 --horizon 8 --n-execute 4 --batch-size 16 --threads 1 --steps 60"
)


def make_checkpoint(folder):
    """Train a policy of `Small` that hardly knows anything, but how a gripper goes about; return its folder."""
    record = "record --robot twin:lift --episodes 3 --cameras front side --camera-size 48x48 --data"
    assert main([*record.split(), str(folder / "d.zarr")]) == 0
    assert main(["train", *TRAIN, "--data", str(folder / "d.zarr"), "--out", str(folder / "policy")]) == 0
    return folder / "policy"


class Small(Twin):
    """Lift, seen by two cameras that stand 69 degrees apart."""

    def __init__(self, clock, size=SIZE):
        super().__init__(make_task("lift"), clock, cameras=CAMERAS, size=size)


class Brief(Small):
    """An episode of it is a success after `STEPS` commands, whatever was done."""

    def reset(self, seed):
        self._sent = 0
        super().reset(seed)

    def command(self, action, due_ns):
        self._sent += 1
        return super().command(action, due_ns)

    def success(self):
        return self._sent >= STEPS


AWAY = {1: (0.0, -0.8, 0.0), 2: (4.0, 0.0, 0.0)}  # m, by the seed


class Leaving(Brief):
    """From its sixth observation on it says that the tool is out of the pictures (seed 1), or behind a camera (2)."""

    def reset(self, seed):
        self._seed = seed
        super().reset(seed)

    def read(self):
        seen = super().read()
        if self._sent < 5 or self._seed not in AWAY:
            return seen
        told = seen.state["tool_pos"] + np.float32(AWAY[self._seed])
        return replace(seen, state={**seen.state, "tool_pos": told})


class Elsewhere(Brief):
    """Its front camera was put up again, and calibrated anew, 20 cm from where it was."""

    def camera_calibration(self):
        told = super().camera_calibration()
        told["front"]["T_base_cam"][1][3] += 0.2
        return told


class HalfTold(Brief):
    """Only one of its cameras is calibrated."""

    def camera_calibration(self):
        return {"front": super().camera_calibration()["front"]}


class Large(Brief):
    """Its pictures are larger than those of the training data."""

    def __init__(self, clock):
        super().__init__(clock, size=(64, 64))


class Untold(Brief):
    """It tells nothing of its cameras."""

    def camera_calibration(self):
        return {}


class Moved(Brief):
    """Somebody has pushed its side camera 12 cm up; nobody has calibrated it anew."""

    def __init__(self, clock):
        super().__init__(clock)
        self._told = super().camera_calibration()
        self.model.cam_pos[self.model.camera("side").id] += [0.0, 0.0, 0.12]

    def camera_calibration(self):
        return self._told
