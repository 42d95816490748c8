"""What lerobot takes from torchvision.transforms."""

import numpy as np
import torch


class ToTensor:
    """A PIL picture as (C, H, W): 8 bits become float 0..1, 16 bits stay numbers."""

    def __call__(self, picture):
        array = np.atleast_3d(np.array(picture))
        if array.dtype == np.uint16:
            return torch.from_numpy(array.view(np.int16)).permute(2, 0, 1).contiguous()
        tensor = torch.from_numpy(array).permute(2, 0, 1).contiguous()
        return tensor.float() / 255 if tensor.dtype == torch.uint8 else tensor
