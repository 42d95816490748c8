"""Run by diffusion_policy's Python: a buffer recorded with its own ReplayBuffer, numbers from a seed.

python diffusion_policy_write.py CHECKOUT BUFFER.zarr[.zip] EXPECTED.npz
"""

import sys

import numpy as np


def main(checkout: str, path: str, expected: str) -> None:
    sys.path.insert(0, checkout)
    import zarr
    from diffusion_policy.common.replay_buffer import ReplayBuffer

    rng = np.random.default_rng(3)
    buffer, every = ReplayBuffer.create_empty_zarr(), []
    for length in (5, 9, 4):
        episode = {
            "action": rng.standard_normal((length, 6)).astype("f4"),
            "robot_eef_pose": rng.standard_normal((length, 6)).astype("f4").astype("f8"),
            "stage": rng.integers(0, 3, length),
            "camera_1": rng.integers(0, 256, (length, 24, 32, 3), dtype="u1"),
            "timestamp": 1.7e9 + np.arange(length) * 0.1,
        }
        buffer.add_episode(episode, compressors="disk")
        every.append(episode)
    if path.endswith(".zip"):
        with zarr.ZipStore(path, mode="w") as store:
            buffer.save_to_store(store)
    else:
        buffer.save_to_path(path)
    joined = {key: np.concatenate([episode[key] for episode in every]) for key in every[0]}
    np.savez(expected, episode_ends=buffer.episode_ends[:], **joined)


main(*sys.argv[1:])
