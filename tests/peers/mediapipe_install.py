"""Makes a Python in which mediapipe 0.10.21 runs on our numpy and OpenCV; prints its path.

python tests/peers/mediapipe_install.py FOLDER
FOLDER/bin/python -m pytest tests/test_data_hands_itself.py

`pip install 'robopolicy[human]'` resolves too, to numpy 1.26 and protobuf 4. This takes all that both need from the
Python that runs it, and a protobuf below 5, beside which alone mediapipe runs.
"""

import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

PACKAGES = ["mediapipe==0.10.21", "protobuf>=4.25.3,<5", "absl-py", "attrs>=19.1", "flatbuffers>=2.0"]
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
