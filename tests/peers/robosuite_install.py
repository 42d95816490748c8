"""Makes a Python in which robosuite 1.5.2 runs on our MuJoCo and numpy; prints its path.

python tests/peers/robosuite_install.py FOLDER
FOLDER/bin/python -m pytest tests/test_sim_robosuite.py

`pip install 'robopolicy[robosuite]'` resolves too, to numpy 1.26 (its inverse kinematics, which nothing here uses, says
so). This takes all that both need from the Python that runs it, robosuite and what it imports as they are on PyPI.
"""

import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

PACKAGES = [
    "robosuite==1.5.2",
    "mink==0.0.5",
    "qpsolvers",
    "termcolor",
    "pynput",
    "tqdm",
    "numba",
    "llvmlite",
    "pillow",
]
ROOT = Path(__file__).resolve().parents[2]


def main():
    folder = Path(sys.argv[1]).resolve()
    venv.create(folder, with_pip=True)
    python = folder / "bin" / "python"
    where = subprocess.check_output([python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"], text=True)
    shared = [sysconfig.get_path("purelib"), ROOT, ROOT / "data", ROOT / "hardware"]
    (Path(where.strip()) / "shared.pth").write_text("".join(f"{path}\n" for path in shared))
    install = [python, "-m", "pip", "install", "--quiet", "--no-deps", *PACKAGES]
    subprocess.run(install, check=True, stdout=sys.stderr)
    print(python)


if __name__ == "__main__":
    main()
