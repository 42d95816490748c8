"""What a motion-track policy's views say of each other: free scores, by geometry alone."""

from robopolicy.monitor.scores.told import Told

LACKING = "it takes a motion-track policy (train --policy motion-track)"


class ViewGap(Told):
    """Pixels between the tracks that each view drew by itself and those that all agreed on.

    Two views of one motion meet in space; where they do not, at least one of them is of another mode or of nothing the
    policy was taught. It is taken before the views are brought together, so their agreement does not hide it.
    """

    name = "view_gap"
    source = "view_gap"
    lacking = LACKING
    requires = frozenset({"view_gap"})


class Misfit(Told):
    """Metres between the triangulated points and those of a rigid gripper at its best pose."""

    name = "misfit"
    source = "misfit"
    lacking = LACKING
    requires = frozenset({"misfit"})
