"""Seconds that `import robopolicy` takes in a fresh process, beside numpy alone and beside torch.

python tests/benchmarks/bench_import.py
"""

import statistics
import subprocess
import sys

CODE = "import time; start = time.perf_counter(); import {}; print(time.perf_counter() - start)"


def median_s(module: str, runs: int = 9) -> float:
    """Median over fresh processes."""
    command = [sys.executable, "-c", CODE.format(module)]
    times = [
        float(subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()[-1])
        for _ in range(runs)
    ]
    return statistics.median(times)


if __name__ == "__main__":
    numpy_s = median_s("numpy")
    for module in ("robopolicy", "robopolicy.cli.main", "torch"):
        seconds = median_s(module)
        print(f"import {module:<20} {seconds:.3f} s, {seconds / numpy_s:.1f} x numpy ({numpy_s:.3f} s)")
