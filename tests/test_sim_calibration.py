"""The calibration against the pictures: small things at known places are drawn where it says."""

import numpy as np
import pytest

from robopolicy.clock import SimClock
from robopolicy.errors import NoGLBackend
from sim_envs.lift import Lift
from sim_envs.rendering import Decoration
from sim_envs.twin import Twin

PLACES, RADIUS = 40, 0.006  # m: so small that its picture's middle is its middle's picture
SIZE = (240, 320)


def seen_at(twin, camera, place, bare):
    """Return the middle of what a ball at ``place`` changes in the picture, (2,) px, None if it is not in full view."""
    twin.decorations = (Decoration("sphere", tuple(place), (RADIUS,) * 3, (1.0, 0.0, 1.0)),)
    rows, columns = np.nonzero(np.abs(twin.draw(camera, *SIZE).astype(int) - bare).sum(axis=2) > 25)
    twin.decorations = ()
    inside = (
        len(rows) and min(rows.min(), columns.min()) > 1 and rows.max() < SIZE[0] - 2 and columns.max() < SIZE[1] - 2
    )
    return (np.array([columns.mean(), rows.mean()]), len(rows)) if inside else None


@pytest.mark.parametrize(("camera", "low", "high"), [
    ("front", (0.30, -0.25, 0.01), (0.65, 0.25, 0.15)), ("side", (0.40, -0.20, 0.01), (0.60, 0.15, 0.15)),
    ("wrist", (0.05, -0.06, -0.14), (0.14, 0.06, -0.06)),
])  # fmt: skip
def test_a_ball_is_drawn_within_a_fraction_of_a_pixel_of_where_the_calibration_says(camera, low, high):
    clock, rng, errors = SimClock(), np.random.default_rng(0), []
    twin = Twin(Lift(), clock, cameras=(camera,), size=SIZE)
    try:
        for seed in range(2):
            twin.reset(seed)
            about = np.zeros(3) if camera != "wrist" else twin.data.site("tool").xpos
            try:
                bare = twin.read().images[camera].astype(int)
            except NoGLBackend as error:
                pytest.skip(str(error))
            told = twin.camera_calibration()[camera]
            for place in about + rng.uniform(low, high, (PLACES, 3)):
                point = np.linalg.inv(told["T_base_cam"]) @ [*place, 1.0]
                pixel = np.array(told["K"]) @ point[:3]
                found = seen_at(twin, camera, place, bare) if point[2] > 0 else None
                if found is not None and found[1] > 0.9 * np.pi * (told["K"][0][0] * RADIUS / point[2]) ** 2:
                    errors.append(found[0] - pixel[:2] / pixel[2])  # of those that nothing hides
    finally:
        twin.close()
    assert len(errors) > PLACES // 2
    assert np.abs(np.mean(errors, axis=0)).max() < 0.15  # px
    assert np.abs(errors).max() < 0.6
