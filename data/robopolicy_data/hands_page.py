"""What was understood of a hand's videos as one self-contained HTML page: tracks over pictures, detections, grasp."""

from base64 import b64encode
from collections.abc import Callable, Mapping, Sequence
from html import escape
from pathlib import Path

import numpy as np

from robopolicy.geometry.keypoints import ROLES
from robopolicy_data.files import disk_full_as
from robopolicy_data.hands_episode import HandEpisode, counted
from robopolicy_data.hands_grasp import GraspRule
from robopolicy_data.hands_tracks import Track, runs

WIDTH = 320  # px, of a picture on the page
STRIP = 11  # pictures a view
TRAIL_S = 0.5  # of a point behind the hand
BONES = (("base", "first_mid"), ("first_mid", "first_tip"), ("base", "second_mid"), ("second_mid", "second_tip"))
KINDS = ("detected", "interpolated", "no hand", "cut off")
STYLE = """
:root { --first: #27b3c9; --second: #f08a24; --base: #f4f6f8; }
.films { grid-template-columns: repeat(auto-fill, minmax(200px, 1fr)); }
figure { margin: 0; } figure.all { grid-column: span 2; grid-row: span 2; }
figcaption { font-size: 12px; color: var(--soft); }
figure.closed svg { outline: 3px solid var(--second); outline-offset: -3px; }
.bone, .way { fill: none; stroke-linecap: round; stroke-linejoin: round; vector-effect: non-scaling-stroke; }
.bone { stroke-width: 2px; } .way { stroke-width: 1.5px; stroke-opacity: .85; }
.first { stroke: var(--first); } .second { stroke: var(--second); } .base { stroke: var(--base); }
circle.first { fill: var(--first); } circle.second { fill: var(--second); } circle.base { fill: var(--base); }
circle { stroke: #10161c; stroke-width: .8px; vector-effect: non-scaling-stroke; }
.s0 { fill: var(--calm); } .s1 { fill: #e0b93b; } .s2 { fill: var(--odd); } .s3 { fill: var(--line); }
.key { display: inline-block; width: 11px; height: 11px; border-radius: 3px; margin: 0 5px 0 14px; }
.key.s0 { background: var(--calm); } .key.s1 { background: #e0b93b; } .key.s2 { background: var(--odd); }
.key.s3 { background: var(--line); } .key.first { background: var(--first); } .key.second { background: var(--second); }
"""

Pictures = Callable[[str, Sequence[int]], np.ndarray]  # view and steps of the episode -> (n, H, W, 3) uint8 RGB


def write_review(
    out: Path, hand: HandEpisode, pictures: Pictures, *, title: str, rate_hz: float, rule: GraspRule
) -> Path:
    """Write the page and return its path; it asks nothing of any network.

    Args:
        out: file.
        hand: what was understood.
        pictures: of the episode, by view and steps.
        title: of the page: task and number.
        rate_hz: steps a second.
        rule: by which the grasp was told.

    Raises:
        DiskFull: if there is no room for it.
    """
    css = (Path(__file__).parent / "quality" / "page.css").read_text("utf-8") + STYLE
    body = [_header(hand, title, rate_hz), _grasp(hand, rate_hz, rule)]
    body += [_view(view, hand, pictures, rate_hz) for view in hand.tracks]
    html = (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{css}</style></head>\n<body><main>"
        + "\n".join(body)
        + "</main></body></html>\n"
    )
    with disk_full_as(lambda: f"cannot write {out}; the episode is in the dataset"):
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(html, "utf-8")
    return out


def _header(hand: HandEpisode, title: str, rate_hz: float) -> str:
    steps, votes, grasps = hand.stop - hand.start, hand.votes, len(runs(hand.grasp > 0))
    tiles = {
        f"s, {steps} steps at {rate_hz:g} Hz": f"{steps / rate_hz:.1f}",
        f"hand: {votes.left} pictures say left, {votes.right} right": votes.chosen,
        f"of the steps closed, {grasps} grasp{'s' * (grasps != 1)}": f"{hand.grasp.mean():.0%}",
    }
    if hand.residual_px is not None:
        tiles[f"px of the videos between the views, {hand.max_residual_px:.1f} allowed"] = f"{hand.residual_px:.2f}"
    cards = "".join(
        f'<div class="card"><div class="number">{escape(value)}</div><div class="soft small">{escape(name)}</div></div>'
        for name, value in tiles.items()
    )
    return f'<h1>{escape(title)}</h1><div class="grid tiles">{cards}</div>'


def _grasp(hand: HandEpisode, rate_hz: float, rule: GraspRule) -> str:
    count, top = len(hand.grasp), max(float(hand.aperture.max()), rule.open) * 1.05
    x = 960 / count

    def y(value: float) -> float:
        return 116 - 108 * value / top

    spans = _bars(hand.grasp > 0, x, 120, "span", rate_hz)
    if hand.contact is not None:
        spans += _bars(hand.contact.touching, x, 8, "s1", rate_hz)
    line = "L".join(f"{(k + 0.5) * x:.1f} {y(v):.1f}" for k, v in enumerate(hand.aperture.tolist()))
    rules = "".join(
        f'<line x1="0" x2="960" y1="{y(v):.1f}" y2="{y(v):.1f}" class="middle"/>'
        f'<text x="4" y="{y(v) - 4:.1f}" class="tick">{word} {v:g}</text>'
        for v, word in ((rule.close, "closes below"), (rule.open, "opens above"))
    )
    touch = "" if hand.contact is None else " Bar at the top: thumb and a finger touch the object's mask."
    return (
        '<h2>Grasp</h2><div class="card"><p class="soft small">Between the tips of thumb and index, in sizes of the '
        f'hand; shaded: closed.{touch}</p><svg viewBox="0 0 960 134" role="img" aria-label="aperture and grasp">'
        f'{spans}{rules}<path d="M{line}" class="trace"/><line x1="0" x2="960" y1="118" y2="118" class="axis"/>'
        f'<text x="0" y="131" class="tick">0 s</text><text x="960" y="131" class="tick" text-anchor="end">'
        f"{count / rate_hz:.1f} s</text></svg></div>"
    )


def _view(view: str, hand: HandEpisode, pictures: Pictures, rate_hz: float) -> str:
    points, track = hand.keypoints[view], hand.tracks[view]
    steps = np.unique(np.linspace(0, len(points) - 1, STRIP).round().astype(int))
    films = []
    for step, picture in zip(steps.tolist(), pictures(view, steps.tolist()), strict=True):
        first = max(0, step - round(TRAIL_S * rate_hz))
        how = "" if track.detected[hand.start + step] else ", interpolated"
        closed = bool(hand.grasp[step])
        films.append(
            f'<figure class="{"closed" if closed else "open"}">{_picture(picture, points[first : step + 1], True)}'
            f"<figcaption>{step / rate_hz:.2f} s{', closed' if closed else ''}{how}</figcaption></figure>"
        )
    middle = len(points) // 2
    whole = _picture(pictures(view, [middle])[0], points, False)
    words = counted(track, hand.start, hand.stop)
    words += "" if words.endswith("?") else "."
    keys = "".join(f'<span class="key s{k}"></span>{name}' for k, name in enumerate(KINDS))
    return (
        f"<h2>View {escape(view)}</h2><p>{words}</p>{_detections(track, hand.start, hand.stop)}"
        f'<p class="soft small">{keys}</p><p class="soft small"><span class="key first"></span>first finger'
        '<span class="key second"></span>second finger; outlined: closed. The first shows the way of all steps.</p>'
        f'<div class="grid films"><figure class="all">{whole}<figcaption>all {len(points)} steps</figcaption></figure>'
        f"{''.join(films)}</div>"
    )


def _detections(track: Track, start: int, stop: int) -> str:
    kind = np.where(track.detected, 0, np.where(track.filled, 1, 2))
    outside = np.ones(len(kind), bool)
    outside[start:stop] = False
    kind[outside] = 3
    bars = "".join(_bars(kind == k, 960 / len(kind), 14, f"s{k}") for k in range(len(KINDS)))
    return f'<svg viewBox="0 0 960 14" role="img" aria-label="detections over time">{bars}</svg>'


def _bars(flags: np.ndarray, width: float, height: float, kind: str, rate_hz: float | None = None) -> str:
    def title(first: int, stop: int) -> str:
        if rate_hz is None:
            return f"pictures {first} to {stop - 1}"
        return f"{first / rate_hz:.2f} to {stop / rate_hz:.2f} s"

    return "".join(
        f'<rect x="{first * width:.2f}" y="0" width="{(stop - first) * width:.2f}" height="{height}" class="{kind}">'
        f"<title>{title(first, stop)}</title></rect>"
        for first, stop in runs(flags)
    )


def _picture(picture: np.ndarray, points: np.ndarray, hand: bool) -> str:
    """Draw the ways of the five points (n, 5, 2) over a picture, and the hand where they end."""
    height, width = picture.shape[:2]
    places = points + 0.5  # SVG counts from the picture's edge
    parts = [f'<image href="{_jpeg(picture)}" width="{width}" height="{height}"/>']
    for k, role in enumerate(ROLES):
        way = "L".join(f"{x:.1f} {y:.1f}" for x, y in places[:, k])
        parts.append(f'<path d="M{way}" class="way {_colour(role)}"/>')
    if hand:
        at: Mapping[str, np.ndarray] = dict(zip(ROLES, places[-1], strict=True))
        for a, b in BONES:
            parts.append(
                f'<path d="M{at[a][0]:.1f} {at[a][1]:.1f}L{at[b][0]:.1f} {at[b][1]:.1f}" class="bone {_colour(b)}"/>'
            )
        radius = max(height, width) / 110
        for role, (x, y) in at.items():
            parts.append(
                f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius:.1f}" class="{_colour(role)}">'
                f"<title>{role}</title></circle>"
            )
    return f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="hand">{"".join(parts)}</svg>'


def _colour(role: str) -> str:
    return role.partition("_")[0]


def _jpeg(picture: np.ndarray) -> str:
    import cv2

    height, width = picture.shape[:2]
    if width > WIDTH:
        picture = cv2.resize(picture, (WIDTH, max(1, round(height * WIDTH / width))), interpolation=cv2.INTER_AREA)
    done, data = cv2.imencode(".jpg", picture[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 80])
    assert done
    return f"data:image/jpeg;base64,{b64encode(data.tobytes()).decode()}"
