"""A human hand drawn with shading, whose 21 landmarks are known: what a detector is measured against."""

from itertools import pairwise

import numpy as np

# Of an open right hand, m: x towards the thumb, y along the fingers, z out of the palm; the order of mediapipe.
OPEN = np.array([
    [0, 0, 0],
    [30, 22, 10], [54, 46, 16], [69, 72, 19], [80, 95, 20],
    [25, 90, 0], [31, 131, 2], [34, 155, 3], [36, 176, 3],
    [3, 93, 0], [4, 139, 2], [4, 167, 3], [4, 190, 3],
    [-18, 87, 0], [-22, 129, 2], [-25, 155, 3], [-27, 177, 3],
    [-36, 77, 0], [-45, 109, 2], [-51, 127, 3], [-56, 145, 3],
]) / 1000  # fmt: skip
THICK = np.array([
    25, 18, 14, 11.5, 9.5, 12.5, 9.6, 8.6, 7.4, 12.5, 9.8, 8.8, 7.6, 12, 9.4, 8.4, 7.2, 11, 8.4, 7.4, 6.4,
]) / 1000  # fmt: skip
FINGERS = ((1, 2, 3, 4), (5, 6, 7, 8), (9, 10, 11, 12), (13, 14, 15, 16), (17, 18, 19, 20))
BONES = [
    *((0, f[0]) for f in FINGERS), *(bone for f in FINGERS for bone in pairwise(f)),
    (5, 9), (9, 13), (13, 17), (1, 5), (2, 5),
]  # fmt: skip
SKIN = np.array([0.86, 0.63, 0.51])
SOFT = 0.009  # m, over which parts melt into each other
LIGHTS = ((np.array([-0.45, -0.7, -0.6]), 0.75), (np.array([0.8, -0.1, -0.6]), 0.25))  # towards them, camera frame


def landmarks(curl=(0.0, 0.1, 0.1, 0.1, 0.1), pinch=0.0, left=False):
    """Return (21, 3) of a hand, m; ``curl`` in rad a joint by finger, ``pinch`` 0 to 1 joins thumb and index."""
    points = OPEN.copy()
    curl = np.array(curl, float)
    curl[1] += 0.75 * pinch
    for finger, amount in zip(FINGERS, curl, strict=True):
        along = points[finger[3]] - points[finger[0]]
        across = np.cross([0, 0, 1], along / np.linalg.norm(along)) if finger[0] > 1 else np.array([0.5, -0.6, -0.6])
        turn = _turn(-across / np.linalg.norm(across), amount)
        for joint in range(3):  # each turns all that lies beyond it
            at = points[finger[joint]]
            for beyond in finger[joint + 1 :]:
                points[beyond] = at + turn @ (points[beyond] - at)
    if pinch:
        for k, share in ((2, 0.15), (3, 0.55), (4, 1.0)):
            points[k] += share * pinch * (points[8] + [0.004, -0.010, 0.004] - points[4]) * (1.0 if k == 4 else 0.6)
    return points * [-1, 1, 1] if left else points


def draw(points, camera, seed=0):
    """Return the picture (H, W, 3) uint8 of a hand (21, 3) in the base frame, by sphere tracing.

    Args:
        points: where its landmarks are, m.
        camera: what sees it; a `Camera` without a lens.
        seed: of the background.
    """
    height, width = camera.size
    seen = (points - camera.T_base_cam[:3, 3]) @ camera.T_base_cam[:3, :3]  # camera frame
    wrist, middle = seen[0], seen[9]
    elbow = wrist + (wrist - middle) / np.linalg.norm(wrist - middle) * 0.30
    ends = np.array([[seen[a], seen[b]] for a, b in BONES] + [[wrist, elbow]])
    radii = np.array([[THICK[a] if a else 0.017, THICK[b]] for a, b in BONES] + [[0.024, 0.036]])
    picture = _background(height, width, seed)
    near = _near(camera, ends, radii)
    y, x = np.divmod(near, width)
    rays = np.concatenate([camera.rays(np.stack([x, y], axis=-1).astype(float)), np.ones((len(near), 1))], axis=-1)
    rays /= np.linalg.norm(rays, axis=-1, keepdims=True)
    depth, hit = _trace(rays, ends, radii)
    at = depth[hit, None] * rays[hit]
    normal = _normals(at, ends, radii)
    colour = SKIN * np.ones((len(at), 1))
    crease = np.exp(-((np.linalg.norm(at[:, None] - seen[None, 1:], axis=-1).min(1) / 0.012) ** 2))
    colour = colour * (1 - np.outer(crease, [0.05, 0.13, 0.14]))  # redder at the joints
    open_sky = np.clip(_distance(at + 0.012 * normal, ends, radii) / 0.012, 0.25, 1)  # ambient occlusion
    light = 0.35 * open_sky
    for towards, strength in LIGHTS:
        facing = np.clip(normal @ (towards / np.linalg.norm(towards)), 0, None)
        light = light + strength * facing * (0.4 + 0.6 * open_sky)
    picture.reshape(-1, 3)[near[hit]] = np.clip(colour * light[:, None], 0, 1)
    grain = np.random.default_rng(seed + 1).normal(0, 0.008, picture.shape)
    return (np.clip(picture + grain, 0, 1) ** (1 / 1.15) * 255).round().astype(np.uint8)


def _near(camera, ends, radii):
    """Return the pixels that the hand may cover, as indices into the flattened picture."""
    import cv2

    mask = np.zeros(camera.size, np.uint8)
    for end, radius in zip(ends, radii, strict=True):
        steps = end[0] + np.linspace(0, 1, 12)[:, None] * (end[1] - end[0])
        steps = steps[steps[:, 2] > 0.03]
        pixels = steps[:, :2] / steps[:, 2:] @ camera.K[:2, :2].T + camera.K[:2, 2]
        for pixel, depth in zip(pixels, steps[:, 2], strict=True):
            reach = (radius.max() + 0.015) * camera.K[0, 0] / depth
            cv2.circle(mask, tuple(np.round(pixel).astype(int).tolist()), int(reach), 1, -1)
    return np.flatnonzero(mask)


def _background(height, width, seed):
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width]
    wave = sum(np.sin(rng.uniform(0.01, 0.06) * x + rng.uniform(0.01, 0.06) * y + k) for k in range(4)) / 4
    base = rng.uniform(0.25, 0.55) * np.array([0.75, 0.9, 1.0])
    return base * (1 + 0.12 * wave[..., None]) * np.ones((height, width, 3))


def _trace(rays, ends, radii):
    """Return how far (N,) each ray goes to the hand, and whether it meets it."""
    centre = ends.reshape(-1, 3).mean(0)
    depth = np.full(len(rays), max(np.linalg.norm(centre) - 0.35, 0.05))
    live = np.ones(len(rays), bool)
    hit = np.zeros(len(rays), bool)
    for _ in range(48):
        index = np.flatnonzero(live)
        if not len(index):
            break
        gap = _distance(depth[index, None] * rays[index], ends, radii)
        depth[index] += gap * 0.9
        done = gap < 2e-4
        hit[index[done]] = True
        live[index[done | (depth[index] > np.linalg.norm(centre) + 0.5)]] = False
    return depth, hit


def _distance(at, ends, radii):
    """Return the smooth distance (N,) from points (N, 3) to tapered capsules (B, 2, 3) of radii (B, 2)."""
    start, along = ends[:, 0], ends[:, 1] - ends[:, 0]
    share = (at @ along.T - (start * along).sum(1)) / (along * along).sum(1)
    share = np.clip(share, 0, 1)
    total = np.zeros(len(at))
    for k in range(len(ends)):
        off = at - start[k] - share[:, k, None] * along[k]
        gap = np.sqrt((off * off).sum(1)) - (radii[k, 0] + share[:, k] * (radii[k, 1] - radii[k, 0]))
        total += np.exp(-np.clip(gap, -0.05, 0.5) / (SOFT / 3))
    return -(SOFT / 3) * np.log(np.maximum(total, 1e-60))


def _normals(at, ends, radii):
    step = 4e-4 * np.eye(3)
    slope = np.stack([_distance(at + s, ends, radii) - _distance(at - s, ends, radii) for s in step], axis=-1)
    return slope / np.linalg.norm(slope, axis=-1, keepdims=True)


def _turn(axis, angle):
    """Return the rotation matrix about a unit axis (Rodrigues)."""
    cross = np.array([[0, -axis[2], axis[1]], [axis[2], 0, -axis[0]], [-axis[1], axis[0], 0]])
    return np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross


def looking(at, angle, away, size=(240, 320), focal=300.0, height=0.0):
    """Return a camera ``away`` m from a point, ``angle`` rad to the right of straight ahead of an upright palm."""
    from robopolicy.geometry.cameras import Camera

    back = np.array([np.sin(angle), height, np.cos(angle)])
    back /= np.linalg.norm(back)
    right = np.cross([0, 1, 0], back)
    right /= np.linalg.norm(right)
    pose = np.eye(4)
    pose[:3, :3] = np.stack([right, np.cross(-back, right), -back], axis=1)
    pose[:3, 3] = at + away * back
    middle = ((size[1] - 1) / 2, (size[0] - 1) / 2)
    return Camera([[focal, 0, middle[0]], [0, focal, middle[1]], [0, 0, 1]], pose, size=size)


def reach(steps, left=False):
    """Return (T, 21, 3) of a hand that comes, pinches in the middle third of the way, and lets go."""
    share = np.linspace(0, 1, steps)
    pinch = np.clip(np.minimum((share - 0.25) / 0.12, (0.75 - share) / 0.12), 0, 1)
    hands = np.stack([landmarks(pinch=p, left=left) for p in pinch])
    way = np.stack([0.05 * np.sin(3 * share), 0.03 * np.cos(4 * share) - 0.09, 0.02 * share], axis=-1)
    return hands + way[:, None]


def film(path, pictures, rate=10.0, codec="h264"):
    """Write pictures (T, H, W, 3) as a video, hardly compressed."""
    from robopolicy_data.videos import VideoWriter

    with VideoWriter(path, *pictures[0].shape[:2], rate, codec=codec, crf=12) as writer:
        for picture in pictures:
            writer.add(picture)
