"""A stand-in for torchvision: the three names that LeRobotDataset uses, so that its reader runs beside a CPU torch.

torchvision from PyPI is built for one torch and brings gigabytes of CUDA. With this folder on PYTHONPATH lerobot
itself runs unmodified; its parquet reading, indexing and time matching are its own, pixels come through PyAV and PIL.
"""

from torchvision import io, transforms

__all__ = ["io", "set_video_backend", "transforms"]


def set_video_backend(name):
    if name != "pyav":
        raise ValueError(f"the stand-in has only pyav, not {name!r}")
