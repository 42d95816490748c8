"""Pictures made smaller by area, against OpenCV's."""

import numpy as np
import pytest

from robopolicy.area import area_weights, shrink
from robopolicy.errors import ContractError


@pytest.mark.parametrize("size", [(48, 64), (24, 32), (36, 48), (20, 13), (7, 5), (1, 1), (48, 5)])
def test_every_size_is_opencvs(size):
    cv2 = pytest.importorskip("cv2")
    picture = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)
    made = shrink(picture, size)
    assert made.shape == (*size, 3)
    assert made.dtype == np.uint8
    want = cv2.resize(picture, size[::-1], interpolation=cv2.INTER_AREA).reshape(*size, 3)
    assert np.abs(made.astype(int) - want).max() <= 1, "but for rounding"


def test_every_new_pixel_is_the_mean_of_all_that_it_covers():
    picture = np.random.default_rng(0).integers(0, 256, (131, 97, 3), dtype=np.uint8)
    rows, columns = (area_weights(n, fewer).astype(float) for n, fewer in ((131, 53), (97, 37)))
    want = np.einsum("hy,yxc,wx->hwc", rows, picture, columns)
    assert np.abs(shrink(picture, (53, 37)) - want).max() < 0.501


def test_what_is_one_colour_stays_so_and_the_same_size_is_the_same_picture():
    assert (shrink(np.full((31, 17, 3), 255, np.uint8), (7, 5)) == 255).all()
    picture = np.random.default_rng(0).integers(0, 256, (9, 8, 3), dtype=np.uint8)
    assert np.array_equal(shrink(picture, (9, 8)), picture)


@pytest.mark.parametrize(("n", "fewer"), [(5, 6), (5, 0)])
def test_pictures_do_not_grow(n, fewer):
    with pytest.raises(ContractError, match=f"{n} pixels cannot become {fewer}; want 1 to {n}"):
        area_weights(n, fewer)
