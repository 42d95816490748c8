"""Run by diffusion_policy's Python: its ReplayBuffer and SequenceSampler over a buffer, to an .npz.

python diffusion_policy_read.py CHECKOUT BUFFER.zarr[.zip] OUT.npz SEQUENCE_LENGTH PAD_BEFORE PAD_AFTER
"""

import sys

import numpy as np


def main(checkout: str, path: str, out: str, length: str, before: str, after: str) -> None:
    sys.path.insert(0, checkout)
    import zarr
    from diffusion_policy.common.replay_buffer import ReplayBuffer
    from diffusion_policy.common.sampler import SequenceSampler

    if path.endswith(".zip"):
        with zarr.ZipStore(path, mode="r") as store:
            buffer = ReplayBuffer.copy_from_store(src_store=store, store=zarr.MemoryStore())
    else:
        buffer = ReplayBuffer.copy_from_path(path)
    sampler = SequenceSampler(buffer, int(length), pad_before=int(before), pad_after=int(after))
    windows = [sampler.sample_sequence(k) for k in range(len(sampler))]
    found = {f"data/{key}": np.asarray(buffer[key][:]) for key in buffer.keys()}  # noqa: SIM118
    found |= {f"window/{key}": np.stack([window[key] for window in windows]) for key in windows[0]}
    np.savez(out, episode_ends=np.asarray(buffer.episode_ends[:]), indices=sampler.indices, **found)


main(*sys.argv[1:])
