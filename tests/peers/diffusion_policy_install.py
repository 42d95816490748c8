"""Makes a Python in which diffusion_policy's and UMI's replay buffers run, for the exchange's tests; prints its path.

python tests/peers/diffusion_policy_install.py FOLDER

Neither is on PyPI: the tests take them from checkouts of real-stanford/diffusion_policy and
real-stanford/universal_manipulation_interface, unmodified, which ROBOPOLICY_DIFFUSION_POLICY and ROBOPOLICY_UMI name.
They need zarr 2; with numba, which compiles the sampler's indexes, it comes to 560 MB.
"""

import subprocess
import sys
import venv
from pathlib import Path

PACKAGES = ["zarr<3", "numcodecs<0.16", "numba", "scipy", "imagecodecs"]


def main():
    folder = Path(sys.argv[1]).resolve()
    venv.create(folder, with_pip=True)
    python = folder / "bin" / "python"
    subprocess.run([python, "-m", "pip", "install", "--quiet", *PACKAGES], check=True, stdout=sys.stderr)
    print(python)


if __name__ == "__main__":
    main()
