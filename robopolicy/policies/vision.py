"""Pictures to features: a ResNet-18 with GroupNorm and a spatial softmax, one for each camera or one for all."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from robopolicy.area import area_weights
from robopolicy.errors import ContractError
from robopolicy.policies.ranges import require_least
from robopolicy.spec import CameraSpec

STAGES = ("layer1", "layer2", "layer3", "layer4")  # each but the first halves the map, and doubles its channels


@dataclass(frozen=True)
class VisionConfig:
    """Size of a `CameraEncoder`.

    Raises:
        ContractError: if a size is out of its range.
    """

    crop: float = 0.875  # side of the crop, as a share of the picture's: 0.875 is 84 of 96 px
    keypoints: int = 32  # points in the picture that the spatial softmax finds
    feature_dim: int = 64  # numbers a picture becomes
    width: int = 64  # channels of the first stage; 64 is ResNet-18
    stages: int = 4  # of its four stages, those that are used: 3 leaves maps of a 16th of the picture's side, 2 an 8th
    shared: bool = False  # one encoder for all cameras, not one for each
    frozen: bool = False  # weights come from elsewhere and stay; crops are the centre, so a frame is embedded once
    sizes: tuple[tuple[str, int, int], ...] = ()  # camera, height, width its pictures are made smaller to, px

    def __post_init__(self) -> None:
        object.__setattr__(self, "sizes", tuple((str(n), int(h), int(w)) for n, h, w in self.sizes))
        require_least("vision", self, 1, "keypoints", "feature_dim", "width", "stages")
        if self.stages > len(STAGES):
            raise ContractError(f"vision: stages is {self.stages}; want at most {len(STAGES)}, which is ResNet-18")
        if not 0 < self.crop <= 1:
            raise ContractError(f"vision: crop is {self.crop}; want a share of the side, above 0, at most 1")

    def size(self, name: str, camera: CameraSpec) -> tuple[int, int]:
        """Return height and width of a camera's pictures as the network gets them, before the crop."""
        return {n: (h, w) for n, h, w in self.sizes}.get(name, (camera.height, camera.width))


class CameraEncoder(nn.Module):
    """uint8 pictures (B, T, H, W, 3) of a camera to features (B, T, feature_dim).

    Training crops at random (the same place for all T pictures of a sample, or their motion would be lost),
    otherwise the centre is taken. Pictures of any size fit, so one encoder can serve several cameras.

    Attributes:
        mean, std: (3,) what is taken from a channel in 0..1, and what it is then divided by: to [-1, 1], unless
            weights from elsewhere were trained on another scale.
    """

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.config = config
        self.mean: Tensor
        self.std: Tensor
        self.register_buffer("mean", torch.full((3,), 0.5))
        self.register_buffer("std", torch.full((3,), 0.5))
        self.net = ResNet18(config.width, config.stages)
        self.pool = SpatialSoftmax(self.net.channels, config.keypoints)
        self.head = nn.Linear(2 * config.keypoints, config.feature_dim)
        self.requires_grad_(not config.frozen)

    def forward(self, images: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Encode; ``generator``, on the device of the images, places the crops when training."""
        return self.told(self.maps(images, generator))

    def told(self, maps: Tensor) -> Tensor:
        """Return features (B, T, feature_dim) of feature maps (B, T, C, h, w)."""
        features: Tensor = self.head(self.pool(maps.flatten(0, 1))).unflatten(0, maps.shape[:2])
        return features

    def maps(self, images: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Return feature maps (B, T, C, h, w) of images (B, T, H, W, 3)."""
        size = crop_size(self.config, images.shape[2], images.shape[3])
        moving = self.training and not self.config.frozen
        cut = random_crop(images, size, generator) if moving else centre_crop(images, size)
        pixels = cut.flatten(0, 1).permute(0, 3, 1, 2).float()  # (B * T, 3, h, w) in memory as they were: h, w, 3
        scaled = pixels * (1 / (255 * self.std))[:, None, None] - (self.mean / self.std)[:, None, None]
        maps: Tensor = self.net(scaled).unflatten(0, images.shape[:2])
        return maps


def require_visible(config: VisionConfig, name: str, camera: CameraSpec) -> None:
    """Check that a `CameraEncoder` can look at what a camera shows.

    Raises:
        ContractError: if it is a depth map, would have to grow, or is too small for a network that shrinks pictures 32
            times.
    """
    if camera.kind != "colour":
        raise ContractError(f"vision: camera {name!r} is a {camera.kind} map; policies see colour, so leave it out")
    size = config.size(name, camera)
    if size[0] > camera.height or size[1] > camera.width:
        raise ContractError(
            f"vision: camera {name!r} shows {camera.height}x{camera.width} px, which cannot grow to {size[0]}x{size[1]}"
        )
    height, width = crop_size(config, *size)
    if min(height, width) <= 32:
        raise ContractError(
            f"vision: a crop of {height}x{width} px of camera {name!r} shrinks to one row or column, which has no "
            "position to tell; want pictures of at least 40x40"
        )


def crop_size(config: VisionConfig, height: int, width: int) -> tuple[int, int]:
    """Return the height and width of what is cut out of pictures of ``height`` and ``width``."""
    return round(height * config.crop), round(width * config.crop)


def centre_crop(images: Tensor, size: tuple[int, int]) -> Tensor:
    """Cut the centre (h, w) out of images (B, T, H, W, 3)."""
    top, left = (images.shape[2] - size[0]) // 2, (images.shape[3] - size[1]) // 2
    return images[:, :, top : top + size[0], left : left + size[1]]


def random_crop(images: Tensor, size: tuple[int, int], generator: torch.Generator | None) -> Tensor:
    """Cut one window (h, w) out of each sample of images (B, T, H, W, 3), in one gather of the bytes as they are."""
    batch, _, height, width, _ = images.shape
    device = images.device
    top = torch.randint(height - size[0] + 1, (batch, 1), generator=generator, device=device)
    left = torch.randint(width - size[1] + 1, (batch, 1), generator=generator, device=device)
    windows = images.unfold(2, size[0], 1).unfold(3, size[1], 1)  # a view: (B, T, tops, lefts, 3, h, w)
    windows = windows.permute(0, 2, 3, 1, 5, 6, 4)  # (B, tops, lefts, T, h, w, 3)
    return windows[torch.arange(batch, device=device), top[:, 0], left[:, 0]]


def shrink(images: Tensor, size: tuple[int, int] | None) -> Tensor:
    """Return images (B, T, H, W, 3) uint8 as (B, T, h, w, 3) uint8, as `robopolicy.area.shrink` does; None: as is."""
    if size is None or images.shape[2:4] == size:
        return images
    rows, columns = (
        torch.tensor(area_weights(n, fewer), device=images.device)
        for n, fewer in zip(images.shape[2:4], size, strict=True)
    )
    made = rows @ images.flatten(3).float()  # (B, T, h, W * 3)
    made = columns @ made.unflatten(3, (images.shape[3], 3))  # (B, T, h, w, 3)
    return made.round().clamp(0, 255).to(torch.uint8)


class SpatialSoftmax(nn.Module):
    """Feature maps (B, C, h, w) to the expected positions (B, 2 * keypoints) of that many heat maps in [-1, 1].

    Levine et al., End-to-End Training of Deep Visuomotor Policies, 2016, section 6.1.
    """

    def __init__(self, channels: int, keypoints: int) -> None:
        super().__init__()
        self.maps = nn.Conv2d(channels, keypoints, 1)

    def forward(self, features: Tensor) -> Tensor:
        """Return x then y of each key point."""
        heat = self.maps(features)
        height, width = heat.shape[-2:]
        weight = heat.flatten(2).softmax(-1).unflatten(-1, (height, width))
        x = (weight.sum(-2) * torch.linspace(-1, 1, width, device=heat.device)).sum(-1)
        y = (weight.sum(-1) * torch.linspace(-1, 1, height, device=heat.device)).sum(-1)
        return torch.cat([x, y], dim=-1)


class ResNet18(nn.Module):
    """ResNet-18 without its classifier, GroupNorm in place of BatchNorm, under torchvision's parameter names.

    Batch statistics do not survive the averaging of weights over training (EMA); GroupNorm has none.

    Args:
        width: channels of the first stage.
        stages: how many of the four there are.
    """

    def __init__(self, width: int = 64, stages: int = len(STAGES)) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, 7, stride=2, padding=3, bias=False)
        self.bn1 = _norm(width)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        self.channels, self._stages = width, STAGES[:stages]
        for stage, name in enumerate(self._stages):
            wide, stride = width * 2**stage, 1 if stage == 0 else 2
            self.add_module(name, nn.Sequential(_BasicBlock(self.channels, wide, stride), _BasicBlock(wide, wide, 1)))
            self.channels = wide

    def forward(self, x: Tensor) -> Tensor:
        """Map pictures (B, 3, H, W) to features (B, channels, H / 32, W / 32), after four stages."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        for name in self._stages:
            x = getattr(self, name)(x)
        return x


class _BasicBlock(nn.Module):
    def __init__(self, n_in: int, n_out: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(n_in, n_out, 3, stride=stride, padding=1, bias=False)
        self.bn1 = _norm(n_out)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(n_out, n_out, 3, padding=1, bias=False)
        self.bn2 = _norm(n_out)
        self.downsample = None
        if stride != 1 or n_in != n_out:
            self.downsample = nn.Sequential(nn.Conv2d(n_in, n_out, 1, stride=stride, bias=False), _norm(n_out))

    def forward(self, x: Tensor) -> Tensor:
        skip = x if self.downsample is None else self.downsample(x)
        return self.relu(self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x))))) + skip)


def _norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(max(channels // 16, 1), channels)
