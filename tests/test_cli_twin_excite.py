"""`robopolicy twin excite` drives an arm: whatever ends it stops the arm, and the limits of its file hold."""

import os
import signal

import numpy as np
import pytest

import robopolicy.cli.worlds
from robopolicy.cli.main import main
from robopolicy_data.reader import Dataset
from sim_envs.tasks import make_task
from sim_envs.twin import Twin

STOPS = []  # reasons


class Signalled(Twin):
    """Gets a signal while it is being moved."""

    def command(self, action, due_ns):
        self.commands = getattr(self, "commands", 0) + 1
        if self.commands == 20:
            os.kill(os.getpid(), signal.SIGTERM)
        return super().command(action, due_ns)

    def stop(self, reason=""):
        STOPS.append(reason)
        return super().stop(reason)


def test_a_signal_stops_the_arm_and_keeps_what_was_recorded(tmp_path, monkeypatch):
    STOPS.clear()
    make = lambda name, clock, spec, **_: Signalled(make_task("lift"), clock, cameras=())  # noqa: E731
    monkeypatch.setattr(robopolicy.cli.worlds, "make_robot", make)
    before = signal.signal(signal.SIGTERM, lambda *_: None)  # or a program that does not care ends the tests
    try:
        with pytest.raises(SystemExit) as ended:
            main(["twin", "excite", "--robot", "twin:lift", "--data", str(tmp_path / "d.zarr"), "--episodes", "1"])
    finally:
        signal.signal(signal.SIGTERM, before)
    assert ended.value.code == 128 + signal.SIGTERM
    assert STOPS[-1] == f"ended by SystemExit: {128 + signal.SIGTERM}"
    (episode,) = Dataset(tmp_path / "d.zarr")
    assert 15 <= episode.length <= 20
    assert episode.meta.success is False


def test_the_limits_of_a_file_hold_here_too(tmp_path, capsys):
    limits = tmp_path / "limits.yaml"
    limits.write_text("low: [0.1, -0.6, 0.0]\nhigh: [0.9, 0.6, 0.9]\nmax_speed_m_s: 0.01\nmax_turn_rad_s: 1.0\n")
    words = ["--robot", "twin:lift", "--data", str(tmp_path / "d.zarr"), "--episodes", "1", "--seconds", "3"]
    assert main(["twin", "excite", *words, "--limits", str(limits)]) == 0, capsys.readouterr().err
    (episode,) = Dataset(tmp_path / "d.zarr")
    moved = np.linalg.norm(np.diff(episode.action()[:, :3].astype(float), axis=0), axis=1) * 20.0
    assert 0 < moved.max() <= 0.0101
