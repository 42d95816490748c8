"""A monitor on disk: ``monitor.json`` to be read, ``arrays.npz`` and ``scores.safetensors``; never a pickle."""

import io
import json
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from robopolicy.errors import MonitorError, RobopolicyError
from robopolicy.monitor.alike import require_fit
from robopolicy.monitor.calibration import Calibration
from robopolicy.monitor.layout import ActionLayout
from robopolicy.monitor.runtime import ConformalMonitor, DecisionShape, Provenance
from robopolicy.monitor.scores import SCORES, copied, score_from_arrays
from robopolicy.monitor.statistic import Combination, Statistic
from robopolicy.training.files import replace_file

SCHEMA = 2
DESCRIBED = "monitor.json"
FILES = ("arrays.npz", "scores.safetensors")


def save_monitor(monitor: ConformalMonitor, folder: str | Path) -> Path:
    """Write the arrays of calibration and statistic, those of the scores, then the json; return ``folder``.

    Each file is replaced in one stroke, and the json has the sha of the others and one of all that it says itself: a
    monitor is whole and as it was calibrated, or none. That finds accidents and edits by hand; it is no signature, for
    whoever means to can work it out again.

    Raises:
        DiskFull: if there is no room.
        MonitorError: if a score is not one of ``SCORES``, which could not be loaded by its name.
    """
    from safetensors.numpy import save

    folder = Path(folder)
    for score in monitor.scores:
        if score.name not in SCORES:
            raise MonitorError(f"score {score.name!r} cannot be saved: it is not one of {', '.join(sorted(SCORES))}")
    folder.mkdir(parents=True, exist_ok=True)
    calibration = monitor.calibration
    archive = io.BytesIO()
    np.savez(
        archive,
        traces=np.concatenate(calibration.traces),  # (sum T_j,)
        lengths=np.array([len(trace) for trace in calibration.traces], dtype=np.int64),  # (n,)
        **{f"statistic/{name}": array for name, array in monitor.statistic.arrays().items()},
    )  # type: ignore[arg-type]
    tensors = {f"{score.name}/{name}": array for score in monitor.scores for name, array in copied(score).items()}
    contents = {FILES[0]: archive.getvalue(), FILES[1]: save(tensors)}
    for name, content in contents.items():
        replace_file(folder / name, content)
    shas = {name: sha256(content).hexdigest() for name, content in contents.items()}
    described = {"schema": SCHEMA, **monitor.describe(), "sha256": shas}
    shas[DESCRIBED] = _digest(described)
    replace_file(folder / DESCRIBED, (json.dumps(described, indent=2) + "\n").encode())
    return folder


def load_monitor(
    folder: str | Path,
    *,
    policy_sha: str | None = None,
    embedding_dim: int | None = None,
    layout: ActionLayout | None = None,
    timing: str | None = None,
) -> ConformalMonitor:
    """Load what ``save_monitor`` wrote.

    Args:
        folder: of the monitor.
        policy_sha: of the policy to be guarded; None does not compare.
        embedding_dim: of the policy to be guarded; None leaves it to the first decision.
        layout: of its actions, with the time between two rows; None does not compare.
        timing: how its plans come to the robot, in words, see `require_fit`; None does not compare.

    Raises:
        MonitorError: if the folder holds no monitor, one of another format, or one that is not as it was written.
        SpecMismatch: if it was calibrated on another policy, timing, other embeddings or actions; both are named.
    """
    described, arrays, tensors = _read(Path(folder))
    try:
        shape = DecisionShape(**described["decision"])
        theirs = ActionLayout.from_json(described["layout"])
        provenance = Provenance.from_json(described["provenance"])
        said = described["statistic"]
        how = Combination(said["combine"], said["window"], said["patience"], said["shape"])
        names = [str(name) for name in said["scores"]]
        starts = np.cumsum(arrays["lengths"])[:-1]
        traces = tuple(np.split(arrays["traces"], starts))
        calibration = Calibration(traces, described["alpha"], described["alpha_time"], described["alpha_warn"])
        scores = [score_from_arrays(name, _of(tensors, name)) for name in names]
        statistic = Statistic(names, how, _of(arrays, "statistic"))
    except (KeyError, TypeError, AttributeError) as error:
        raise MonitorError(f"{folder} is not a monitor of schema {SCHEMA}: {error!r}") from error
    monitor = ConformalMonitor(scores, statistic, calibration, shape, theirs, provenance)
    require_fit(monitor, str(folder), policy_sha=policy_sha, embedding_dim=embedding_dim, layout=layout, timing=timing)
    return monitor


def _digest(described: Mapping[str, Any]) -> str:
    """Return the sha256 of what the json says, but for this number itself; layout and order of it do not count."""
    shas = {name: sha for name, sha in described["sha256"].items() if name != DESCRIBED}
    said = json.dumps({**described, "sha256": shas}, sort_keys=True, separators=(",", ":"))
    return sha256(said.encode()).hexdigest()


def _of(arrays: Mapping[str, np.ndarray], prefix: str) -> dict[str, np.ndarray]:
    return {name.removeprefix(f"{prefix}/"): a for name, a in arrays.items() if name.startswith(f"{prefix}/")}


def _read(folder: Path) -> tuple[dict[str, Any], dict[str, np.ndarray], dict[str, np.ndarray]]:
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        described = json.loads((folder / DESCRIBED).read_text())
        if described["schema"] != SCHEMA:
            older = described["schema"] < SCHEMA
            raise MonitorError(
                f"{folder} has schema {described['schema']}, this robopolicy reads {SCHEMA}: "
                + ("calibrate anew" if older else "it was written by a newer one")
            )
        if _digest(described) != described["sha256"].get(DESCRIBED):
            raise MonitorError(
                f"{folder / DESCRIBED} is not as it was written; its promise holds for what was calibrated and nothing "
                "else: to change it, robopolicy monitor recalibrate (other episodes, another alpha), or calibrate anew"
            )
        contents = {name: (folder / name).read_bytes() for name in FILES}
        for name, content in contents.items():
            if sha256(content).hexdigest() != described["sha256"][name]:
                raise MonitorError(f"{folder}: {name} is not the file that monitor.json was written with")
        with np.load(io.BytesIO(contents[FILES[0]]), allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        # Copies: those of the file lie unaligned, and sums over them are rounded otherwise.
        return described, arrays, {name: np.array(array) for name, array in load(contents[FILES[1]]).items()}
    except RobopolicyError:
        raise
    except (OSError, KeyError, TypeError, ValueError, SafetensorError) as error:
        raise MonitorError(f"{folder} is not a monitor (monitor.json, {', '.join(FILES)}): {error}") from error
