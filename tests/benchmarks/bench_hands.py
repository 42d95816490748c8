"""How often mediapipe finds drawn hands, and how far its landmarks are from the known ones.

python tests/benchmarks/bench_hands.py [--steps 30] [--out pictures/]
(in the Python that tests/peers/mediapipe_install.py makes)

A hand comes, pinches and lets go (`drawn_hand.reach`), left and right, seen by cameras from five sides, 240x320; each
film is looked at once as a video, in which the hand is followed, and once picture by picture.
"""

import argparse
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))
from drawn_hand import draw, looking, reach

from robopolicy.geometry.keypoints import LANDMARKS, ROLES
from robopolicy_data.hands import hand_size
from robopolicy_data.hands_mediapipe import MediapipeHands
from robopolicy_data.hands_tracks import follow

ANGLES = (-60, -30, 0, 30, 60)  # degrees to the side of the palm
PARTS = {"wrist": [0], "thumb's two lower joints": [1, 2], "knuckles": [5, 9, 13, 17], "tips": [4, 8, 12, 16, 20]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--out", type=Path, help="keep the pictures here")
    args = parser.parse_args()
    errors: dict[str, list[np.ndarray]] = {"video": [], "picture by picture": []}
    found = dict.fromkeys(errors, 0)
    sides = dict.fromkeys(errors, 0)
    sizes, total = [], 0
    for left in (False, True):
        for angle in ANGLES:
            camera = looking(np.zeros(3), np.radians(angle), 0.45, height=0.25)
            hands = reach(args.steps, left=left)
            film = [draw(hand, camera, seed=abs(angle)) for hand in hands]
            true = camera.project(hands)
            sizes.append(hand_size(true))
            total += len(film)
            keep(args.out, film, f"{'left' if left else 'right'}{angle:+03d}")
            for kind in errors:
                detector = MediapipeHands(video=kind == "video")
                seen = [detector.detect(picture) for picture in film]
                detector.close()
                which = "left" if left else "right"
                sides[kind] += sum(hand.handedness == which for picture in seen for hand in picture[:1])
                found[kind] += sum(bool(picture) for picture in seen)
                track = follow([[p[0]] if p else [] for p in seen], seen_as(seen, which))
                errors[kind].append(np.linalg.norm(track.landmarks - true, axis=-1)[track.detected])
    size = float(np.median(np.concatenate(sizes)))
    print(f"{total} pictures of 240x320, hands of {size:.0f} px (median)")
    for kind, parts in errors.items():
        error = np.concatenate(parts)
        print(f"\n{kind}: {found[kind]} of {total} found ({found[kind] / total:.1%}), ", end="")
        print(f"{sides[kind] / max(found[kind], 1):.1%} of them the right side")
        print(
            f"  all 21 landmarks: median {np.median(error):.1f} px ({np.median(error) / size:.1%} of the hand), ",
            end="",
        )
        print(f"90 % below {np.quantile(error, 0.9):.1f} px")
        for name, marks in PARTS.items():
            print(f"  {name}: median {np.median(error[:, marks]):.1f} px")
        five = ", ".join(f"{r} {np.median(error[:, k]):.1f}" for r, k in zip(ROLES, LANDMARKS["right"], strict=True))
        print(f"  as roles of a right hand, px: {five}")


def seen_as(seen: list, which: str) -> str:
    """The label that most pictures have, so that a hand taken for the other one is measured too."""
    labels = [picture[0].handedness for picture in seen if picture]
    return max(set(labels), key=labels.count) if labels else which


def keep(out: Path | None, film: list[np.ndarray], name: str) -> None:
    """Write some pictures."""
    if out is not None:
        import cv2

        out.mkdir(parents=True, exist_ok=True)
        for k, picture in enumerate(film):
            cv2.imwrite(str(out / f"{name}-{k:02d}.png"), picture[..., ::-1])


if __name__ == "__main__":
    main()
