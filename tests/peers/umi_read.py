"""Run by UMI's Python: its ReplayBuffer and SequenceSampler over a dataset.zarr.zip, to an .npz.

python umi_read.py CHECKOUT DATASET.zarr.zip OUT.npz HORIZON
"""

import sys

import numpy as np


def main(checkout: str, path: str, out: str, horizon: str) -> None:
    sys.path.insert(0, checkout)
    import zarr
    from diffusion_policy.codecs.imagecodecs_numcodecs import register_codecs
    from diffusion_policy.common.replay_buffer import ReplayBuffer
    from diffusion_policy.common.sampler import SequenceSampler

    register_codecs()
    with zarr.ZipStore(path, mode="r") as store:
        buffer = ReplayBuffer.copy_from_store(src_store=store, store=zarr.MemoryStore())
    pictures = [key for key in buffer.keys() if key.endswith("_rgb")]  # noqa: SIM118
    low = [key for key in buffer.keys() if key.startswith("robot0_") and "demo" not in key]  # noqa: SIM118
    sampler = SequenceSampler(
        shape_meta={}, replay_buffer=buffer, rgb_keys=pictures, lowdim_keys=low,
        key_horizon=dict.fromkeys(pictures + low, 2) | {"action": int(horizon)},
        key_latency_steps=dict.fromkeys([*pictures, *low, "action"], 0),
        key_down_sample_steps=dict.fromkeys([*pictures, *low, "action"], 1), action_padding=True,
    )  # fmt: skip
    windows = [sampler.sample_sequence(k) for k in range(len(sampler))]
    found = {f"data/{key}": np.asarray(buffer[key][:]) for key in buffer.keys()}  # noqa: SIM118
    found |= {f"window/{key}": np.stack([window[key] for window in windows]) for key in windows[0]}
    np.savez(out, episode_ends=np.asarray(buffer.episode_ends[:]), **found)


main(*sys.argv[1:])
