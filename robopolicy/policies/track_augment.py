"""Pictures moved together with the points in them, on the device they are on.

Points are shares of the picture: (-1, -1) is its top left corner, (1, 1) its bottom right one, so they mean the same in
a picture of any size.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from robopolicy.policies.track_config import TrackAugmentation


@dataclass(frozen=True)
class Moved:
    """What one sample's picture and points go through: q = matrix p + shift, and its colours."""

    matrix: Tensor  # (M, 2, 2)
    shift: Tensor  # (M, 2)
    gain: Tensor  # (M, 1, 1, 3)
    bias: Tensor  # (M, 1, 1, 3), shares of 255

    def points(self, points: Tensor) -> Tensor:
        """Return where points (M, ..., 2) have gone."""
        flat = points.flatten(1, -2) @ self.matrix.transpose(-1, -2) + self.shift[:, None]
        return flat.view(points.shape)

    def pictures(self, pictures: Tensor) -> Tensor:
        """Return pictures (M, T, H, W, 3) uint8, moved; what comes in from outside repeats the edge."""
        inverse = torch.linalg.inv(self.matrix)
        theta = torch.cat([inverse, -(inverse @ self.shift[..., None])], dim=-1)  # where each place comes from
        frames, height, width = pictures.shape[1:4]
        pixels = pictures.float() * self.gain[:, None] + 255 * self.bias[:, None]
        flat = pixels.permute(0, 1, 4, 2, 3).flatten(1, 2)  # (M, T * 3, H, W)
        grid = functional.affine_grid(theta, [len(flat), 3, height, width], align_corners=False)
        made = functional.grid_sample(flat, grid, padding_mode="border", align_corners=False)
        made = made.unflatten(1, (frames, 3)).permute(0, 1, 3, 4, 2)
        return made.round().clamp(0, 255).to(torch.uint8)


def draw_moves(
    config: TrackAugmentation, shape: tuple[int, int], sizes: Tensor, generator: torch.Generator | None
) -> Moved:
    """Return what each of B x V pictures goes through, drawn sample by sample.

    Args:
        config: how far.
        shape: B and V.
        sizes: (V, 2) width and height of each view's pictures, px, on the device: a turn is one in pixels.
        generator: on the same device.
    """
    device, (count, views) = sizes.device, shape
    drawn = torch.rand((count, views, 9), generator=generator, device=device).flatten(0, 1) * 2 - 1  # in +-1
    turn = drawn[:, 0] * math.radians(config.turn_deg)
    zoom = (1 + config.zoom) ** drawn[:, 1]
    side = sizes.repeat(count, 1)  # (M, 2)
    cos, sin = zoom * turn.cos(), zoom * turn.sin()
    tall = side[:, 1] / side[:, 0]
    matrix = torch.stack([cos, -sin * tall, sin / tall, cos], dim=-1).view(-1, 2, 2)
    colour = config.colour * drawn[:, 4:9]
    gain = 1 + colour[:, :1] + colour[:, 1:4] / 2  # of contrast, and of each channel
    bias = colour[:, 4:5] / 2 - 0.5 * colour[:, :1]  # of brightness; contrast is about the middle
    return Moved(matrix, 2 * config.shift * drawn[:, 2:4], gain[:, None, None], bias[:, None, None].expand(-1, 1, 1, 3))
