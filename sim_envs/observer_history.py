"""What a twin believed at each of its last moments, so that a late measurement meets the belief of its own time."""

import numpy as np

Pose = tuple[np.ndarray, np.ndarray]  # position (3,) m, quaternion wxyz (4,)
ROOM = 256  # moments that are kept at least


class History:
    """Object poses and joints of the last moments; corrections are re-based into it.

    Re-basing is what keeps a correction by delayed measurements stable: a correction that was made is not asked for
    again by measurements that are older than it.

    Args:
        objects: how many.
        joints: how many.
    """

    def __init__(self, objects: int, joints: int) -> None:
        self._stamps = np.zeros(2 * ROOM, np.int64)
        self._positions = np.zeros((2 * ROOM, objects, 3))
        self._quats = np.zeros((2 * ROOM, objects, 4))
        self._joints = np.zeros((2 * ROOM, 2, joints))  # q, dq
        self.clear()

    def clear(self) -> None:
        """Forget everything."""
        self._end = 0

    def add(self, stamp_ns: int, positions: np.ndarray, quats: np.ndarray, joints: np.ndarray) -> None:
        """Keep a moment, later than those before: positions (O, 3), quats (O, 4), joints (2, J) of q and dq."""
        if self._end == 2 * ROOM:
            for kept in (self._stamps, self._positions, self._quats, self._joints):
                kept[:ROOM] = kept[ROOM:]
            self._end = ROOM
        i = self._end
        self._stamps[i], self._positions[i], self._quats[i], self._joints[i] = stamp_ns, positions, quats, joints
        self._end += 1

    @property
    def span_ns(self) -> tuple[int, int]:
        """Stamps of the oldest and the newest moment; (0, -1) without any."""
        return (int(self._stamps[0]), int(self._stamps[self._end - 1])) if self._end else (0, -1)

    def pose_at(self, i: int, stamp_ns: int) -> Pose:
        """Return where object ``i`` was, between two moments on the straight way; outside the span the nearest."""
        k, weight = self._find(stamp_ns)
        a, b = self._quats[k, i], self._quats[k + (weight > 0), i]
        quat = (1 - weight) * a + weight * (b if a @ b >= 0 else -b)
        position = (1 - weight) * self._positions[k, i] + weight * self._positions[k + (weight > 0), i]
        return position, quat / np.linalg.norm(quat)

    def joints_at(self, stamp_ns: int) -> np.ndarray:
        """Return q and dq (2, J), as `pose_at` does."""
        k, weight = self._find(stamp_ns)
        found: np.ndarray = (1 - weight) * self._joints[k] + weight * self._joints[k + (weight > 0)]
        return found

    def move(self, i: int, since_ns: int, shift: np.ndarray, turn: np.ndarray) -> None:
        """Re-base: move object ``i`` by ``shift`` (3,) m and turn it by ``turn`` (4,), from ``since_ns`` on."""
        rows = slice(self._find(since_ns)[0], self._end)
        self._positions[rows, i] += shift
        self._quats[rows, i] = multiply(turn, self._quats[rows, i])

    def move_joints(self, since_ns: int, change: np.ndarray) -> None:
        """Re-base q and dq by ``change`` (2, J), from ``since_ns`` on."""
        self._joints[self._find(since_ns)[0] : self._end] += change

    def put_joints(self, since_ns: int, joints: np.ndarray) -> None:
        """Say that q and dq were ``joints`` (2, J), from ``since_ns`` on."""
        self._joints[self._find(since_ns)[0] : self._end] = joints

    def _find(self, stamp_ns: int) -> tuple[int, float]:
        """Return the row before a stamp, and how far towards the next one it is."""
        stamps = self._stamps[: self._end]
        k = int(np.searchsorted(stamps, stamp_ns, side="right")) - 1
        if k < 0 or k == self._end - 1:
            return max(k, 0), 0.0
        return k, float(stamp_ns - stamps[k]) / float(stamps[k + 1] - stamps[k])


def multiply(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return the product of quaternions wxyz (..., 4): first the turn ``b``, then ``a``, both in the base frame."""
    (aw, ax, ay, az), (bw, bx, by, bz) = np.moveaxis(a, -1, 0), np.moveaxis(b, -1, 0)
    product = [
        aw * bw - ax * bx - ay * by - az * bz,
        aw * bx + ax * bw + ay * bz - az * by,
        aw * by - ax * bz + ay * bw + az * bx,
        aw * bz + ax * by - ay * bx + az * bw,
    ]
    return np.stack(product, axis=-1)


def quat_of(vector: np.ndarray) -> np.ndarray:
    """Return the quaternion (4,) of a turn about ``vector`` (3,) by its length in rad."""
    angle = float(np.linalg.norm(vector))
    if angle < 1e-12:
        return np.array([1.0, 0.0, 0.0, 0.0])
    return np.array([np.cos(angle / 2), *(np.sin(angle / 2) / angle * vector)])


def turn_between(start: np.ndarray, end: np.ndarray) -> np.ndarray:
    """Return the shortest turn (3,) rad, in the base frame, from one quaternion (4,) to another."""
    quat = multiply(end, start * [1, -1, -1, -1])
    quat = quat if quat[0] >= 0 else -quat
    length = float(np.linalg.norm(quat[1:]))
    if length < 1e-12:
        return np.zeros(3)
    turn: np.ndarray = quat[1:] * (2.0 * np.arctan2(length, quat[0]) / length)
    return turn
