"""What lerobot takes from torchvision.io."""

import av
import torch


class VideoReader:
    """Yields frames {"data": (C, H, W) uint8, "pts": seconds} from the key frame before the time sought."""

    def __init__(self, path, stream):
        self.container = av.open(path)
        self._stream = self.container.streams.video[0]

    def seek(self, time_s, keyframes_only):
        offset = round(time_s / self._stream.time_base)
        self.container.seek(offset, any_frame=not keyframes_only, stream=self._stream)

    def __iter__(self):
        for frame in self.container.decode(self._stream):
            yield {"data": torch.from_numpy(frame.to_ndarray(format="rgb24")).permute(2, 0, 1), "pts": frame.time}
