"""Writing a file so that a crash leaves the old one or the new one, never half of either."""

import errno
import os
from pathlib import Path

from robopolicy.errors import DiskFull


def replace_file(path: Path, content: bytes) -> None:
    """Write ``content`` beside ``path``, flush it to the disk, then rename it into place.

    Raises:
        DiskFull: if there is no room; the old file is untouched.
    """
    temporary = path.with_name(f".{path.name}.wip")
    try:
        with open(temporary, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DiskFull(f"no space left for {path} ({len(content) / 1e6:.1f} MB); free some and resume") from error
        raise
