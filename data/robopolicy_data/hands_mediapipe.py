"""Hands found by mediapipe, whose models come in its wheel: nothing is downloaded."""

from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np

from robopolicy.errors import ConfigError, ContractError, MissingExtra
from robopolicy_data.hands import Hand

MIRROR: dict[str, Any] = {"Left": "right", "Right": "left"}  # mediapipe takes every picture for a mirror's
PROTOBUF = 5  # major version from which on mediapipe 0.10.21 does not run


class MediapipeHands:
    """A `HandDetector`: mediapipe's palm detector and full landmark model, on the CPU.

    Args:
        at_most: hands in a picture.
        least: confidence, 0 to 1, below which a palm is none, and below which a hand is lost.
        video: follow a hand from one picture to the next; False looks for it anew in each.

    Raises:
        MissingExtra: without mediapipe.
        ConfigError: beside a protobuf with which it does not run.
    """

    def __init__(self, *, at_most: int = 2, least: float = 0.5, video: bool = True) -> None:
        _require_protobuf()
        try:
            from mediapipe.python.solutions.hands import Hands
        except ImportError as error:
            raise MissingExtra("mediapipe", "human") from error
        self._hands: Any = Hands(
            static_image_mode=not video,
            max_num_hands=at_most,
            min_detection_confidence=least,
            min_tracking_confidence=least,
        )

    def detect(self, rgb: np.ndarray) -> list[Hand]:
        """Return the hands in a picture (H, W, 3) uint8 RGB, none if there is none.

        Raises:
            ContractError: on another shape or type.
        """
        if rgb.ndim != 3 or rgb.shape[2] != 3 or rgb.dtype != np.uint8:
            raise ContractError(f"hand: a picture is {rgb.dtype} {rgb.shape}; want uint8 (H, W, 3)")
        found = self._hands.process(np.ascontiguousarray(rgb))
        size = np.array([rgb.shape[1], rgb.shape[0]], np.float64)
        hands = []
        for marks, sides in zip(found.multi_hand_landmarks or (), found.multi_handedness or (), strict=True):
            shares = np.array([[mark.x, mark.y] for mark in marks.landmark])
            side = sides.classification[0]
            # Its (0, 0) is the centre of the first pixel: pictures turned by half add up to W - 1 and H - 1, measured.
            hands.append(Hand(shares * size, MIRROR[side.label], float(side.score)))
        return hands

    def close(self) -> None:
        """Free the models."""
        self._hands.close()


def _require_protobuf() -> None:
    try:
        version("mediapipe")
        found = version("protobuf")
    except PackageNotFoundError as error:
        raise MissingExtra("mediapipe", "human") from error
    if int(found.partition(".")[0]) >= PROTOBUF:
        raise ConfigError(
            f"mediapipe does not run beside protobuf {found}, it wants one below {PROTOBUF}: install "
            "'robopolicy[human]' into a Python environment of its own, and import videos there"
        )
