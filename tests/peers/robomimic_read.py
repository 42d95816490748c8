"""Run by robomimic's Python: every sequence that its own SequenceDataset gives of a file, to an .npz.

python robomimic_read.py FILE.hdf5 OUT.npz SEQ_LENGTH FRAME_STACK [FILTER]
"""

import sys

import h5py
import numpy as np
import robomimic
import robomimic.utils.obs_utils as obs_utils
from robomimic.utils.dataset import SequenceDataset


def main(path: str, out: str, seq_length: str, frame_stack: str, wanted: str | None = None) -> None:
    with h5py.File(path) as file:
        obs = file["data"]["demo_0"]["obs"]
        keys = sorted(obs)
        pictures = [key for key in keys if obs[key].ndim == 4 and obs[key].shape[-1] == 3]
    low = [key for key in keys if key not in pictures]
    obs_utils.initialize_obs_utils_with_obs_specs({"obs": {"low_dim": low, "rgb": pictures}})
    dataset = SequenceDataset(
        path, obs_keys=keys, dataset_keys=("actions", "rewards", "dones", "states"), seq_length=int(seq_length),
        frame_stack=int(frame_stack), get_pad_mask=True, hdf5_cache_mode=None, filter_by_attribute=wanted,
    )  # fmt: skip
    items = [dataset[k] for k in range(len(dataset))]
    found = {"demos": np.array(dataset.demos), "version": np.array(robomimic.__version__)}
    for key in ("actions", "rewards", "dones", "states"):
        found[key] = np.stack([item[key] for item in items])
    for group in ("obs", "next_obs"):
        for key in [*keys, "pad_mask"]:
            found[f"{group}/{key}"] = np.stack([item[group][key] for item in items])
    np.savez(out, **found)


main(*sys.argv[1:])
