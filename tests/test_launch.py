"""launch/ is a package that colcon builds; its files start commands that exist, its YAML files are read by our loaders.

Real launch and real arms are not here: the launch files run against a fake of launch.
"""

import os
import re
import runpy
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

from robopolicy.cli.main import build_parser
from robopolicy.errors import ConfigError

LAUNCH = Path(__file__).parents[1] / "launch"
CONFIG = LAUNCH / "config"
FAKES = Path(__file__).parent / "fake_launch"
ARMS = {"fr3": 7, "ur5e": 6, "generic": 7}  # numbers of a command


@pytest.fixture
def start(monkeypatch):
    """Run a launch file with arguments against the fake; return the command that it starts."""
    monkeypatch.syspath_prepend(str(FAKES))
    for name in [n for n in sys.modules if n.split(".")[0] == "launch"]:
        monkeypatch.delitem(sys.modules, name)

    def run(file, **arguments):
        from launch import launched

        description = runpy.run_path(str(LAUNCH / f"{file}.launch.py"))["generate_launch_description"]()
        (process,) = launched(description, **arguments)
        assert process.output == "screen"
        assert process.cmd[0] == "robopolicy"
        return process.cmd[1:]

    yield run
    for name in [n for n in sys.modules if n.split(".")[0] == "launch"]:
        del sys.modules[name]


def parsed(words):
    return build_parser().parse_args(words)


def test_deploy_without_arguments_leaves_everything_to_the_parameters(start):
    args = parsed(start("deploy"))
    assert (args.command, args.transport, args.name) == ("node", "rclpy", "robopolicy")
    assert (args.robot, args.checkpoint, args.limits, args.autostart, args.use_sim_time) == (None,) * 5


@pytest.mark.parametrize("arm", ARMS)
def test_deploy_of_an_arm_names_its_own_files(start, arm):
    args = parsed(start("deploy", arm=arm, checkpoint="runs/first", namespace="left", use_sim_time="true"))
    assert args.robot == f"ros:{CONFIG / arm}.yaml"
    assert args.limits == str(CONFIG / f"{arm}_limits.yaml")
    assert (args.checkpoint, args.namespace, args.use_sim_time) == ("runs/first", "left", True)


def test_deploy_passes_every_argument_on(start):
    told = {
        "namespace": "left", "name": "node", "use_sim_time": "True", "params_file": "p.yaml", "transport": "dds",
        "arm": "fr3", "robot": "twin:lift", "checkpoint": "c", "monitor": "m", "on_alarm": "log", "limits": "l.yaml",
        "on_overrun": "stop", "monitor_late": "hold", "control_rate": "100", "allow_slow": "true", "seed": "3",
        "domain": "7", "autostart": "true",
    }  # fmt: skip
    args = parsed(start("deploy", **told))
    assert (args.robot, args.limits, args.monitor, args.on_alarm) == ("twin:lift", "l.yaml", "m", "log")
    assert (args.on_overrun, args.monitor_late) == ("stop", "hold")
    assert (args.control_rate, args.seed, args.domain, args.autostart, args.use_sim_time) == (100.0, 3, 7, True, True)
    assert args.allow_slow is True
    assert (args.transport, args.name, str(args.params_file)) == ("dds", "node", "p.yaml")
    declared = runpy.run_path(str(LAUNCH / "deploy.launch.py"))["ARGUMENTS"]
    assert set(declared) == set(told)


def test_an_arm_that_has_no_files_is_refused(start):
    for file in ("deploy", "record"):
        with pytest.raises(RuntimeError, match="arm:=panda: want one of fr3, ur5e, generic"):
            start(file, arm="panda")


def test_record_and_twin_pass_every_argument_on(start):
    args = parsed(start("record"))
    assert (args.command, args.robot, args.teleop, args.episodes) == ("record", "twin:lift", "browser", 20)
    told = {
        "arm": "ur5e", "robot": "", "data": "d.zarr", "teleop": "ros", "topic": "/t", "message": "JointState",
        "episodes": "3", "operator": "ann", "task": "tidy up", "checkpoint": "c", "monitor": "m", "limits": "",
        "domain": "7", "on_alarm": "handover",
    }  # fmt: skip
    args = parsed(start("record", **told))
    assert (args.robot, args.topic, args.message) == (f"ros:{CONFIG / 'ur5e.yaml'}", "/t", "JointState")
    assert args.limits == CONFIG / "ur5e_limits.yaml"
    assert args.on_alarm == "handover"
    assert (args.operator, args.task, args.domain, str(args.monitor)) == ("ann", "tidy up", 7, "m")
    assert set(runpy.run_path(str(LAUNCH / "record.launch.py"))["ARGUMENTS"]) == set(told)
    args = parsed(start("twin"))
    assert (args.command, args.action, args.task, args.command_timeout) == ("twin", "serve", "lift", 0.1)
    told = {
        "task": "pusht", "config": "twin_joint", "node": "lab/twin", "rate": "50", "camera_hz": "10", "seed": "4",
        "command_timeout": "0", "latency_ms": "30", "domain": "7",
    }  # fmt: skip
    args = parsed(start("twin", **told))
    assert (args.task, args.config, args.node, args.rate) == ("pusht", CONFIG / "twin_joint.yaml", "lab/twin", 50.0)
    assert (args.camera_hz, args.seed, args.command_timeout, args.latency_ms) == (10.0, 4, 0.0, 30.0)
    assert set(runpy.run_path(str(LAUNCH / "twin.launch.py"))["ARGUMENTS"]) == set(told)


def test_every_argument_is_described(start):
    for file in LAUNCH.glob("*.launch.py"):
        for default, text in runpy.run_path(str(file))["ARGUMENTS"].values():
            assert isinstance(default, str)
            assert len(text) > 5


@pytest.mark.parametrize("arm", ARMS)
def test_an_arms_files_are_read_by_our_loaders_and_fit_each_other(arm):
    pytest.importorskip("rosbags", reason="rosbags is not installed: pip install 'robopolicy[ros]'")
    from robopolicy.spec import CameraSpec, PolicySpec, StateSpec
    from robopolicy.topics.config import load_config
    from robopolicy_hardware.ros.holding import require_measured
    from robopolicy_hardware.ros.robot import _action
    from robopolicy_hardware.ros.set_points import of_action
    from robopolicy_hardware.ros.streams import type_of
    from robopolicy_hardware.safety import SafetyLayer
    from robopolicy_hardware.safety_limits import load_limits

    config = load_config(CONFIG / f"{arm}.yaml")
    for what, topic in config.observed().items():
        assert type_of(what, topic).startswith("sensor_msgs/msg/")
    of_action(config.action, 1 / config.rate_hz)
    dims = {name: 1 if name == "gripper" else len(topic.joints) for name, topic in config.state.items()}
    units = {"q": "rad", "dq": "rad/s", "gripper": "open"}
    state = {name: StateSpec(dim, (units[name],)) for name, dim in dims.items()}
    spec = PolicySpec({name: CameraSpec(24, 32) for name in config.cameras}, state, _action(config), config.rate_hz)
    require_measured(config, spec)  # a stop holds it
    assert spec.action.dim == ARMS[arm]
    limits, watchdogs = load_limits(CONFIG / f"{arm}_limits.yaml", spec)
    SafetyLayer(limits, spec)
    assert watchdogs.tracking is not None
    for key in ("low", "high", "max_rate", "max_accel"):
        assert len(getattr(limits, key)) == spec.action.dim


def limits_of(arm):
    from ruamel.yaml import YAML

    return YAML(typ="safe", pure=True).load((CONFIG / f"{arm}_limits.yaml").read_text())


def test_limits_stay_within_the_makers_numbers():
    """FR3: limits on Franka's page of control parameters; UR5e: joint_limits.yaml of its ROS 2 description."""
    fr3 = limits_of("fr3")
    assert np.all(np.array(fr3["low"]) >= [-2.7437, -1.7837, -2.9007, -3.0421, -2.8065, 0.5445, -3.0159])
    assert np.all(np.array(fr3["high"]) <= [2.7437, 1.7837, 2.9007, -0.1518, 2.8065, 4.5169, 3.0159])
    assert np.all(np.array(fr3["max_rate"]) <= [2.0, 1.0, 1.5, 1.25, 3.0, 1.5, 3.0])
    assert np.all(np.array(fr3["max_accel"]) <= 10.0)
    ur5e = limits_of("ur5e")
    assert np.all(np.array(ur5e["low"]) >= -np.radians(360.01))
    assert np.all(np.array(ur5e["high"]) <= np.radians(360.01))
    assert np.abs([ur5e["low"][2], ur5e["high"][2]]).max() <= np.radians(180.01)
    assert np.all(np.array(ur5e["max_rate"]) <= np.radians(180))
    assert np.all(np.array(ur5e["max_accel"]) <= np.radians(180))


def test_the_nodes_parameter_file_has_every_parameter_at_its_default(tmp_path):
    from robopolicy_hardware.ros.node_parameters import NESTED, Parameters, load_parameters

    text = (CONFIG / "node.yaml").read_text()
    assert load_parameters(CONFIG / "node.yaml", "/robopolicy") == Parameters()
    for name in set(asdict(Parameters())) - set(NESTED):
        assert re.search(rf"^    {name}: .*# .", text, re.MULTILINE), f"{name} is not there, or not explained"
    file = tmp_path / "p.yaml"
    file.write_text(
        "/**: {ros__parameters: {seed: 1, robot: mock}}\n/left/robopolicy: {ros__parameters: {seed: 2}}\n"
        "other: {ros__parameters: {seed: 9}}\n"
    )
    assert load_parameters(file, "/left/robopolicy") == Parameters(robot="mock", seed=2)
    assert load_parameters(file, "/robopolicy") == Parameters(robot="mock", seed=1)
    file.write_text(
        "/**: {ros__parameters: {topics: {action: {topic: /a}, rate_hz: 5}, safety: {max_rate: [1, 0.5]}}}\n"
        "/robopolicy: {ros__parameters: {topics: {action: {topic: /b}}}}\n"
    )
    told = load_parameters(file, "/robopolicy")
    assert (told.topics, told.safety) == ({"action.topic": "/b", "rate_hz": 5}, {"max_rate": [1.0, 0.5]})
    for bad, says in (
        ("/**: {ros__parameters: {sed: 1}}", "no key in /\\*\\*.ros__parameters 'sed'; valid: "),
        ("/**: {seed: 1}", "/\\*\\* has no 'ros__parameters'"),
        ("/**: {ros__parameters: {on_alarm: panic}}", "'panic'; valid: handover, hold, log"),
        ("/**: {ros__parameters: {threads: 0}}", "parameter threads is 0; want 1 or more"),
    ):
        file.write_text(bad)
        with pytest.raises(ConfigError, match=says):
            load_parameters(file, "/robopolicy")


@pytest.mark.parametrize("file", sorted(CONFIG.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_line_of_an_arms_file_is_explained_or_plain(file):
    if file.stem.startswith("twin_"):
        pytest.skip("the twin's files are explained at their top")
    lines = [line for line in file.read_text().splitlines() if line.strip() and not line.lstrip().startswith("#")]
    explained = [line for line in lines if "#" in line]
    assert len(explained) >= 0.5 * len(lines)


def test_the_package_is_one_that_ament_python_takes():
    name = ElementTree.parse(LAUNCH / "package.xml").getroot().findtext("name")
    assert (LAUNCH / "resource" / name).exists()
    assert (LAUNCH / name / "__init__.py").exists()
    assert not (LAUNCH / "__init__.py").exists()
    assert f"lib/{name}" in (LAUNCH / "setup.cfg").read_text()


@pytest.fixture(scope="session")
def builder():
    """A Python that has colcon and catkin_pkg: one of its own, as .ci/run makes, or the one of ``colcon`` here."""
    told, here = os.environ.get("ROBOPOLICY_COLCON_PYTHON"), shutil.which("colcon")
    if not (told or here):
        pytest.skip(
            "no colcon: ROBOPOLICY_COLCON_PYTHON is the Python of an environment with "
            "colcon-common-extensions catkin_pkg setuptools"
        )
    return Path(told) if told else Path(here).with_name("python3")


def test_catkin_pkg_reads_the_package(builder):
    words = "import sys; from catkin_pkg.package import parse_package as p; a = p(sys.argv[1]); a.validate(); "
    command = [builder, "-c", words + "print(a.name, a.get_build_type())", LAUNCH / "package.xml"]
    done = subprocess.run(command, env=alone(builder), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["robopolicy_bringup", "ament_python"]


def alone(builder):
    """The environment of another Python: ours would lend it modules of another version."""
    left = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    return {**left, "PATH": f"{builder.parent}:{left['PATH']}"}


def test_colcon_builds_and_installs_it(tmp_path, builder):
    shutil.copytree(LAUNCH, tmp_path / "src")
    command = [builder.with_name("colcon"), "build", "--base-paths", "src"]
    done = subprocess.run(command, cwd=tmp_path, env=alone(builder), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    share = tmp_path / "install" / "robopolicy_bringup" / "share"
    assert (share / "ament_index" / "resource_index" / "packages" / "robopolicy_bringup").exists()
    installed = {path.name for path in (share / "robopolicy_bringup").rglob("*")}
    assert {path.name for path in [*LAUNCH.glob("*.launch.py"), *CONFIG.glob("*.yaml")]} <= installed
