"""The launch file is valid, passes only options that exist, and declares what it uses. Real ROS 2 is not here."""

import runpy
import sys
import types
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from robopolicy.cli.main import build_parser

LAUNCH = Path(__file__).parents[1] / "launch"


class Recorded:
    def __init__(self, *args, **kwargs):
        self.args, self.kwargs = args, kwargs


@pytest.fixture
def stand_ins(monkeypatch):
    """Modules with the names `launch` exports that the file uses; each call is only recorded."""
    for name, classes in {
        "launch": ["LaunchDescription"],
        "launch.actions": ["DeclareLaunchArgument", "ExecuteProcess"],
        "launch.substitutions": ["LaunchConfiguration"],
    }.items():
        module = types.ModuleType(name)
        for cls in classes:
            setattr(module, cls, type(cls, (Recorded,), {}))
        monkeypatch.setitem(sys.modules, name, module)


def test_deploy_launch_passes_options_that_exist(stand_ins):
    description = runpy.run_path(str(LAUNCH / "deploy.launch.py"))["generate_launch_description"]()
    *declared, process = description.args[0]
    names = {action.args[0] for action in declared}
    words = [word if isinstance(word, str) else word.args[0] for word in process.kwargs["cmd"]]
    used = {word.args[0] for word in process.kwargs["cmd"] if not isinstance(word, str)}
    assert used == names
    filled = ["0" if word == "seed" else "hold" if word == "on_alarm" else word for word in words[1:]]
    args = build_parser().parse_args(filled)
    assert (args.command, args.checkpoint.name, args.realtime) == ("deploy", "checkpoint", True)


def test_package_xml_names_the_resource_marker():
    name = ElementTree.parse(LAUNCH / "package.xml").getroot().findtext("name")
    assert (LAUNCH / "resource" / name).exists()
    assert (LAUNCH / name / "__init__.py").exists()
