"""Hands linked from picture to picture by where they are, no farther than a hand moves: chains, and which are taken."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from robopolicy.geometry.keypoints import Handedness
from robopolicy_data.hands import Hand, hand_size

SPEED = 15.0  # hand sizes a second: 1.5 m/s of a palm of 10 cm, at which or below reaching hands peak
LEAST = 0.5  # hand sizes from one picture to the next that are allowed at any rate: a detector's worst scatter
FARTHEST = 3.0  # hand sizes over a gap, however long: farther, nothing is told by interpolating
SAME = 0.5  # hand sizes within which two in a picture are one hand found twice
WRONG = 0.5  # hand sizes that a label unlike the chain's own weighs, where several hands are in reach

Found = Sequence[Sequence[Hand]]  # the hands in each of T pictures of a view


@dataclass
class Chain:
    """One hand, seen at some steps, with no gap longer than can be bridged."""

    hands: dict[int, Hand] = field(default_factory=dict)  # by step, ascending
    alone: int = 0  # steps at which it is the picture's only hand
    rights: int = 0  # steps at which it is labelled right

    @property
    def first(self) -> int:
        """The step at which it is seen first."""
        return next(iter(self.hands))

    @property
    def last(self) -> int:
        """The step at which it was seen last."""
        return next(reversed(self.hands))

    def add(self, step: int, hand: Hand, *, alone: bool) -> None:
        """Note where it is at the next step that shows it."""
        self.hands[step] = hand
        self.alone += alone
        self.rights += hand.handedness == "right"

    def lead(self, which: Handedness) -> int:
        """Return by how many pictures more it is labelled ``which`` than the other hand."""
        lead = 2 * self.rights - len(self.hands)
        return lead if which == "right" else -lead

    def score(self) -> float:
        """Return the mean score of its labels."""
        return float(np.mean([hand.score for hand in self.hands.values()]))


def chains(found: Found, which: Handedness, rate_hz: float, most: int) -> list[Chain]:
    """Return the hands of a view, each linked over gaps of at most ``most`` steps, by their first steps.

    A hand belongs to the chain that ends nearest to it, if that is in reach: `SPEED` times the time since, at least
    `LEAST`, and over a gap at most `FARTHEST`.
    """
    step_reach = max(SPEED / rate_hz, LEAST)
    made: list[Chain] = []
    open_: list[Chain] = []
    for step, seen in enumerate(found):
        hands = _once(seen, which)
        open_ = [chain for chain in open_ if step - chain.last <= most + 1]
        pairs = []
        for chain in open_:
            reach = max(min(step_reach * (step - chain.last), FARTHEST), step_reach)
            end, label = chain.hands[chain.last], "right" if chain.lead("right") > 0 else "left"
            for number, hand in enumerate(hands):
                if (away := way(hand, end)) <= reach:
                    pairs.append((away + WRONG * (hand.handedness != label), chain, number))
        free = set(range(len(hands)))
        for _, chain, number in sorted(pairs, key=lambda pair: pair[0]):
            if number in free and chain.last != step:
                chain.add(step, hands[number], alone=len(hands) == 1)
                free.remove(number)
        for number in sorted(free):
            made.append(Chain())
            made[-1].add(step, hands[number], alone=len(hands) == 1)
            open_.append(made[-1])
    return made


def chosen(made: Sequence[Chain], which: Handedness, most: int) -> list[Chain]:
    """Return the chains that are the wanted hand: no two within ``most`` steps of each other, which it could not jump.

    They are those mostly labelled ``which``. Where a hand labelled otherwise is in more pictures, and mostly alone in
    them, the view's labels are wrong, and it is taken all the same.
    """
    right = [chain for chain in made if chain.lead(which) > 0]
    alone = [chain for chain in made if chain.lead(which) <= 0 and 2 * chain.alone > len(chain.hands)]
    if sum(len(chain.hands) for chain in right) < max((len(chain.hands) for chain in alone), default=0):
        ranked = sorted(right + alone, key=lambda chain: -len(chain.hands))
    else:
        longest = max((chain.lead(which) for chain in right), default=0)
        ranked = sorted(right, key=lambda c: (2 * c.lead(which) <= longest, -c.score(), -c.lead(which)))
    taken: list[Chain] = []
    for chain in ranked:
        if all(chain.first > one.last + most + 1 or one.first > chain.last + most + 1 for one in taken):
            taken.append(chain)
    return taken


def way(hand: Hand, last: Hand) -> float:
    """Return how far a hand is from where one was, in sizes of the bigger."""
    size = max(float(hand_size(last.landmarks_px)), float(hand_size(hand.landmarks_px)), 1e-9)
    return float(np.linalg.norm(hand.landmarks_px - last.landmarks_px, axis=-1).mean() / size)


def _once(hands: Sequence[Hand], which: Handedness) -> list[Hand]:
    """Return a picture's hands without those that are one found twice; the label that is wanted stays."""
    kept: list[Hand] = []
    for hand in sorted(hands, key=lambda one: (one.handedness != which, -one.score)):
        if all(way(hand, other) >= SAME for other in kept):
            kept.append(hand)
    return kept
