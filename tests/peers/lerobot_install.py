"""Makes a Python in which lerobot 0.4.4 loads and records datasets, for the tests of the exchange; prints its path.

python tests/peers/lerobot_install.py FOLDER

`pip install lerobot==0.4.4` brings torch for CUDA: 8.2 GB. This takes torch, pyarrow and PyAV from the Python that
runs it, a stand-in for the three names of torchvision (see torchvision_standin), and what else LeRobotDataset
imports: some 20 MB. lerobot itself is the wheel from PyPI, unmodified.
"""

import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

PACKAGES = [
    "lerobot==0.4.4",
    "datasets>=4,<5",
    "accelerate",
    "pandas",
    "multiprocess",
    "dill",
    "xxhash",
    "fsspec",
    "filelock",
    "packaging",
    "pyyaml",
    "psutil",
    "tqdm",
    "huggingface-hub",
    "requests",
    "urllib3",
    "certifi",
    "charset-normalizer",
    "idna",
    "httpx",
    "httpcore",
    "h11",
    "anyio",
    "typing-extensions",
    "click",
    "aiohttp",
    "aiosignal",
    "aiohappyeyeballs",
    "frozenlist",
    "multidict",
    "propcache",
    "yarl",
    "attrs",
    "python-dateutil",
    "six",
    "tzdata",
    "pillow",
    "cloudpickle",
    "safetensors",
]


def main():
    folder = Path(sys.argv[1]).resolve()
    venv.create(folder, with_pip=True)
    python = folder / "bin" / "python"
    standin = Path(__file__).resolve().parent / "torchvision_standin"
    where = subprocess.check_output([python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"], text=True)
    shared = "\n".join([sysconfig.get_path("purelib"), str(standin)])
    (Path(where.strip()) / "shared.pth").write_text(shared + "\n")  # what is found there, pip does not install again
    install = [python, "-m", "pip", "install", "--quiet", "--no-deps", *PACKAGES]
    subprocess.run(install, check=True, stdout=sys.stderr)
    print(python)


if __name__ == "__main__":
    main()
