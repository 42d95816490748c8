"""System identification of an arm that the twin does not know: the bar's row, and what could not be identified.

python tests/benchmarks/bench_sysid.py [--motions 2] [--seconds 8] [--seeds 1]
"""

import argparse
import sys
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from hidden_arm import NOISE_RAD, hidden_parameters, record

from sim_envs.sysid_arm import arm_spec, identify

BAR = 20.0
KEYS = (("kp", "kp"), ("kv", "kv"), ("damping", "damping"), ("armature", "armature"), ("friction", "frictionloss"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--motions", type=int, default=2, help="to identify from; one more is held out")
    parser.add_argument("--seconds", type=float, default=8.0, help="of each")
    parser.add_argument("--seeds", type=int, default=1, help="hidden arms")
    args = parser.parse_args()
    model = arm_spec().compile()
    for seed in range(args.seeds):
        rng = np.random.default_rng(seed)
        truth = hidden_parameters(rng)
        motions = [record(truth, rng, args.seconds, name=f"motion {i}") for i in range(args.motions + 1)]
        started, cpu = time.monotonic(), time.process_time()
        found = identify(model, motions[:-1], motions[-1:])
        spent, cpu = time.monotonic() - started, time.process_time() - cpu
        before, after = (1e3 * float(np.sqrt(np.mean(rms**2))) for rms in (found.before, found.after))
        print(
            f"hidden arm {seed}: {args.motions} motions of {args.seconds:g} s at 100 Hz, noise {1e3 * NOISE_RAD} mrad"
        )
        print(f"  {'parameter':18} {'nominal':>9} {'hidden':>9} {'found':>9} {'std err':>8}  status")
        true = {"delay": truth.delay_s}
        true |= {f"{name} {word}": getattr(joint, key) for name, joint in truth.joints.items() for word, key in KEYS}
        for e in found.fit.estimates:
            error = "" if e.std_err is None else f"{e.std_err:.2g}"
            row = f"  {e.name:18} {e.nominal:9.4g} {true[e.name]:9.4g} {e.value:9.4g} {error:>8}  {e.status}"
            print(f"{row}{': ' + e.note if e.note else ''}")
        print(f"  condition {found.fit.condition:.2g} of all, {found.fit.condition_kept:.2g} of those identified")
        print(f"  {spent:.0f} s, {cpu:.0f} s of CPU")
        print(
            f"held-out joint error: nominal {before:.3f} mrad, identified {after:.3f} (noise {1e3 * NOISE_RAD:.3f}): "
            f"{found.ratio:.0f} x less   >= {BAR:g} x   {'yes' if found.ratio >= BAR else 'NO'}"
        )


if __name__ == "__main__":
    main()
