"""Run by UMI's Python: a dataset.zarr.zip as UMI's pipeline makes it, lossy JPEG-XL pictures included.

python umi_write.py CHECKOUT DATASET.zarr.zip EXPECTED.npz
"""

import sys

import numpy as np


def main(checkout: str, path: str, expected: str) -> None:
    sys.path.insert(0, checkout)
    import zarr
    from diffusion_policy.codecs.imagecodecs_numcodecs import JpegXl, register_codecs
    from diffusion_policy.common.replay_buffer import ReplayBuffer

    register_codecs()
    rng = np.random.default_rng(5)
    buffer = ReplayBuffer.create_empty_zarr(storage=zarr.MemoryStore())
    for length in (6, 8):
        poses = np.broadcast_to(rng.standard_normal((2, 1, 6)), (2, length, 6))
        episode = {
            "robot0_eef_pos": rng.standard_normal((length, 3)).astype("f4"),
            "robot0_eef_rot_axis_angle": rng.standard_normal((length, 3)).astype("f4"),
            "robot0_gripper_width": rng.uniform(0, 0.08, (length, 1)).astype("f4"),
            "robot0_demo_start_pose": poses[0],
            "robot0_demo_end_pose": poses[1],
        }
        buffer.add_episode(data=episode, compressors=None)
    pictures = rng.integers(0, 256, (14, 32, 40, 3), dtype="u1")
    array = buffer.data.require_dataset(
        name="camera0_rgb", shape=pictures.shape, chunks=(1, *pictures.shape[1:]),
        compressor=JpegXl(level=99, numthreads=1), dtype=np.uint8,
    )  # fmt: skip
    for k, picture in enumerate(pictures):
        array[k] = picture
    found = {key: np.asarray(buffer[key][:]) for key in buffer.keys()}  # noqa: SIM118
    with zarr.ZipStore(path, mode="w") as store:
        buffer.save_to_store(store=store)
    np.savez(expected, episode_ends=buffer.episode_ends[:], **found)


main(*sys.argv[1:])
