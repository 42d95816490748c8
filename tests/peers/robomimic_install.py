"""Makes a Python in which robomimic 0.3.0 reads files, for the tests of the exchange; prints its path.

python tests/peers/robomimic_install.py FOLDER

Its SequenceDataset needs torch, h5py and tqdm, which this takes from the Python that runs it, and termcolor; robomimic
itself is the source package from PyPI, unmodified: 30 MB with pip, some seconds.
"""

import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

PACKAGES = ["robomimic==0.3.0", "termcolor"]


def main():
    folder = Path(sys.argv[1]).resolve()
    venv.create(folder, with_pip=True)
    python = folder / "bin" / "python"
    where = subprocess.check_output([python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"], text=True)
    (Path(where.strip()) / "shared.pth").write_text(sysconfig.get_path("purelib") + "\n")
    install = [python, "-m", "pip", "install", "--quiet", "--no-deps", *PACKAGES]
    subprocess.run(install, check=True, stdout=sys.stderr)
    print(python)


if __name__ == "__main__":
    main()
