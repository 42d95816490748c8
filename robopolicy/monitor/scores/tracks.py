"""What a motion-track policy's views say of each other, and of where they stand: scores of cameras and of plans."""

from collections.abc import Mapping, Sequence

import numpy as np

from robopolicy.errors import ContractError, MonitorError
from robopolicy.monitor.episodes import Episodes, owners
from robopolicy.monitor.layout import ActionLayout
from robopolicy.monitor.scores.folds import packed, require_fitted, unpacked
from robopolicy.monitor.scores.told import Told
from robopolicy.types import Decision

LACKING = "it takes a motion-track policy (train --policy motion-track)"
RIDGE = 0.01  # of the features' variance
USUAL = 0.95  # of good decisions lie below what is called usual
NO_POSE_M = 0.1  # misfit of a step that tells no pose; what is believed lies below 0.03
NOWHERE_PX = 1000.0  # gap of points that all views together put behind a camera


class ViewGap(Told):
    """Pixels between the tracks that each view drew by itself and those that all agreed on.

    Two views of one motion meet in space; where they do not, at least one of them is of another mode or of nothing the
    policy was taught. It is taken before the views are brought together, so their agreement does not hide it.
    """

    name = "view_gap"
    source = "view_gap"
    lacking = LACKING
    requires = frozenset({"view_gap"})
    most = NOWHERE_PX


class Misfit(Told):
    """Metres between the triangulated points and those of a rigid gripper at its best pose."""

    name = "misfit"
    source = "misfit"
    lacking = LACKING
    requires = frozenset({"misfit"})
    most = NO_POSE_M


class Displaced:
    """Pixels between where a picture shows the gripper and where its camera's calibration puts it; the worst view's.

    A camera that was moved since it was calibrated shows the gripper elsewhere than the policy is told it is, and all
    that the policy plans is then of another place. Where a picture shows the gripper is read off the policy's own
    features of that picture, by a ridge regression of the projected points on them over successful episodes.

    Args:
        layout: of no use.
        seed: nothing is drawn.
        views: names of the cameras, for messages; () numbers them.
    """

    name = "displaced"
    requires = frozenset({"features", "points"})
    min_candidates = 1

    def __init__(self, *, layout: ActionLayout | None = None, seed: int = 0, views: Sequence[str] = ()) -> None:
        self._views = tuple(views)
        self._newest: np.ndarray | None = None

    def fit(self, episodes: Episodes) -> None:
        """Learn where pictures show the gripper.

        Raises:
            MonitorError: if a decision has no features of pictures.
            ContractError: if there is none, or they are not finite.
        """
        features, points = self._told([decision for episode in episodes for decision in episode])
        self._center, self._scale = features.mean(0), features.std(0) + 1e-6  # (V, F)
        self._slope, self._offset = _regressed((features - self._center) / self._scale, points)
        self._n = len(episodes)
        off = self._off(features, points, self._slope, self._offset)
        if self._n > 1:
            off = np.concatenate(self._left_out(features, points, owners(episodes)))
        self._usual = np.quantile(off, USUAL, axis=0)  # (V,)

    def update(self, decision: Decision) -> float:
        """Return the root mean square over the points of the view that is furthest off, px."""
        self._newest = self._off(*self._told([decision]), self._slope, self._offset)[0]
        return float(self._newest.max())

    def reset(self) -> None:
        """Forget what was seen last."""
        self._newest = None

    def words(self) -> str:
        """Return in words which camera's picture was off in the newest decision, more than is usual; "" if none was."""
        if self._newest is None or not (self._newest > self._usual).any():
            return ""
        view = int(np.argmax(self._newest / self._usual))
        name = repr(self._views[view]) if view < len(self._views) else f"{view + 1} of {len(self._newest)}"
        return (
            f"camera {name} shows the gripper {self._newest[view]:.1f} px from where its calibration puts it, "
            f"at most {self._usual[view]:.1f} px in {USUAL:.0%} of good decisions: was it moved since?"
        )

    def held_out(self, episodes: Episodes) -> list[np.ndarray]:
        """Return each fitted episode's scores (T_i,), by what the others tell; scales are kept.

        Raises:
            ContractError: if these are not as many episodes as were fitted.
            MonitorError: if there is only one.
        """
        require_fitted(episodes, self._n)
        told = self._told([decision for episode in episodes for decision in episode])
        return [off.max(-1) for off in self._left_out(*told, owners(episodes))]

    def arrays(self) -> dict[str, np.ndarray]:
        """Return scales, regression, what is usual, and the cameras' names."""
        return {
            "center": self._center, "scale": self._scale, "slope": self._slope, "offset": self._offset,
            "usual": self._usual, "episodes": np.array(self._n), "views": packed({"views": self._views}),
        }  # fmt: skip

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> "Displaced":
        """Rebuild what ``arrays`` gave."""
        score = cls(views=unpacked(arrays["views"])["views"])
        score._center, score._scale, score._slope, score._offset, score._usual = (
            np.asarray(arrays[name], np.float64) for name in ("center", "scale", "slope", "offset", "usual")
        )
        score._n = int(arrays["episodes"])
        return score

    def _left_out(self, features: np.ndarray, points: np.ndarray, owner: np.ndarray) -> list[np.ndarray]:
        """Return what `_off` does (T_i, V) of each episode, by what the others tell."""
        standard, off = (features - self._center) / self._scale, []
        for i in range(self._n):
            out = owner == i
            off.append(self._off(features[out], points[out], *_regressed(standard[~out], points[~out])))
        return off

    def _off(self, features: np.ndarray, points: np.ndarray, slope: np.ndarray, offset: np.ndarray) -> np.ndarray:
        """Return (M, V) px of features (M, V, F) and points (M, V, 10)."""
        shown = np.einsum("mvf,vfp->mvp", (features - self._center) / self._scale, slope) + offset
        squares = ((shown - points) ** 2).reshape(*points.shape[:2], -1, 2).sum(-1)
        off: np.ndarray = np.sqrt(squares.mean(-1))
        return off

    def _told(self, decisions: Sequence[Decision]) -> tuple[np.ndarray, np.ndarray]:
        """Return features (M, V, F) and points (M, V, 10) px."""
        if not decisions:
            raise ContractError("no decisions to learn from")
        for decision in decisions:
            if lacking := sorted(self.requires - decision.aux.keys()):
                has = ", ".join(sorted(decision.aux)) or "nothing"
                raise MonitorError(
                    f"score {self.name} needs the policy to give aux {' and '.join(lacking)}; it gives {has}: {LACKING}"
                )
        features = np.stack([np.asarray(decision.aux["features"], np.float64) for decision in decisions])
        points = np.stack([np.asarray(decision.aux["points"], np.float64) for decision in decisions])
        return features, points.reshape(*points.shape[:2], -1)


def _regressed(features: np.ndarray, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return slope (V, F, 10) and offset (V, 10) of points (M, V, 10) on standard features (M, V, F)."""
    middle, mean = features.mean(0), points.mean(0)
    x, y = features - middle, points - mean
    square = np.einsum("mvf,mvg->vfg", x, x) + RIDGE * len(x) * np.eye(x.shape[-1])
    slope = np.linalg.solve(square, np.einsum("mvf,mvp->vfp", x, y))
    return slope, mean - np.einsum("vf,vfp->vp", middle, slope)
