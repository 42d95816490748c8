"""`recover`: every interrupted recording of a dataset that can be an episode becomes one."""

from pathlib import Path

from robopolicy.spec import PolicySpec
from robopolicy_data.layout import TRASH
from robopolicy_data.leftovers import Interrupted
from robopolicy_data.metadata import read_root, writable_folder
from robopolicy_data.writer import DatasetWriter

__all__ = ["Interrupted", "recover"]


def recover(path: Path | str) -> list[Interrupted]:
    """Make episodes of what interrupted recordings left in ``.wip`` and ``.trash``.

    An episode ends before the first step that is not whole in the journal or whose frame is not whole in its shard.
    ``success`` is False; ``notes`` and ``attributes.recovered`` say what happened.

    Returns:
        What was found; those with a ``number`` are episodes now, of the others ``reason`` says why not.

    Raises:
        DatasetError, NewerFormat: if there is no such dataset.
        DatasetBusy: if somebody is recording into it.
    """
    folder = writable_folder(path)
    spec = PolicySpec.from_json(read_root(folder)["spec"])
    with DatasetWriter(folder, spec, recover=True) as writer:
        found = list(writer.interrupted)
        known = {one.folder.name for one in found}
        for left in sorted((folder / TRASH).glob("*/journal")):
            if left.parent.name not in known:
                found += writer.take_care(left.parent, recover=True)
    return found
