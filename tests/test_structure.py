"""Who may import whom, how big modules are, what importing costs."""

import ast
import shutil
import subprocess
import sys
from pathlib import Path
from statistics import median

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = {
    "robopolicy": ROOT / "robopolicy",
    "sim_envs": ROOT / "sim_envs",
    "robopolicy_data": ROOT / "data" / "robopolicy_data",
    "robopolicy_hardware": ROOT / "hardware" / "robopolicy_hardware",
}
CONTRACT = {
    "types", "spec", "interfaces", "errors", "rotations", "clock", "loop", "agents", "chunks", "geometry",
    "alignment", "area", "behaviour", "following", "inference", "measured", "reactions", "realtime", "resampling",
    "settings", "smoothness", "topics", "trajectory",
}  # fmt: skip
HEAVY = {"torch", "zarr", "mujoco", "cv2", "diffusers", "scipy", "rclpy", "safetensors", "rich", "simplejpeg"}
PARTS = {"sim_envs", "robopolicy_data", "robopolicy_hardware"}
FORBIDDEN_IN_PART = {
    "sim_envs": {"torch", "zarr", "rclpy", "diffusers"},
    "robopolicy_data": {"mujoco", "rclpy", "diffusers"},
    "robopolicy_hardware": {"torch", "zarr", "diffusers"},
}
RCLPY_HOMES = {"robopolicy_hardware.ros.rclpy_topics", "robopolicy_hardware.ros.lifecycle"}


def modules() -> list[tuple[str, Path]]:
    return [
        (".".join([package, *path.relative_to(root).with_suffix("").parts]).removesuffix(".__init__"), path)
        for package, root in PACKAGES.items()
        for path in sorted(root.rglob("*.py"))
    ]


def imports(path: Path) -> set[str]:
    """Every absolute module imported anywhere in the file, inside functions too."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def tops(names: set[str]) -> set[str]:
    return {name.split(".")[0] for name in names}


@pytest.mark.parametrize(("name", "path"), modules(), ids=lambda v: v if isinstance(v, str) else "")
def test_import_direction(name: str, path: Path) -> None:
    package, *rest = name.split(".")
    names = imports(path)
    used = tops(names)
    core = {n.split(".")[1] for n in names if n.startswith("robopolicy.") and n.count(".") >= 1}
    core_modules = {
        c for c in core if (PACKAGES["robopolicy"] / c).is_dir() or (PACKAGES["robopolicy"] / f"{c}.py").exists()
    }
    if package in PARTS:
        assert not used & (PARTS - {package}), "parts never import each other"
        assert core_modules <= CONTRACT, f"a part sees only the numpy-only core, not {core_modules - CONTRACT}"
        allowed = {"torch"} if name == "robopolicy_data.windows" else set()
        assert not used & FORBIDDEN_IN_PART[package] - allowed
    elif rest[:1] in (["cli"], ["__main__"]):
        pass  # everything, imported inside the command that needs it; test_cli_is_light sees to that
    elif rest and rest[0] in CONTRACT:
        assert not used & (HEAVY | PARTS)
        assert core_modules <= CONTRACT
    else:
        assert not used & (PARTS | {"mujoco", "rclpy"})
        assert "cli" not in core_modules
    assert "rclpy" not in used or name in RCLPY_HOMES
    assert "launch" not in used


def loaded_after(statement: str) -> set[str]:
    code = f"import sys\n{statement}\nprint(*sorted(m.split('.')[0] for m in sys.modules))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    return set(out.split())


@pytest.mark.parametrize(
    "statement",
    [
        "import robopolicy",
        "import robopolicy.cli.main",
        "from robopolicy.cli.main import build_parser; build_parser()",
        "import sim_envs",
        "import robopolicy_data",
        "import robopolicy_hardware",
    ],
)
def test_importing_is_cheap(statement: str) -> None:
    assert not loaded_after(statement) & {"torch", "zarr", "mujoco", "cv2", "diffusers", "scipy", "rclpy"}


def test_module_sizes() -> None:
    sizes = {name: len(path.read_text().splitlines()) for name, path in modules()}
    assert max(sizes.values()) <= 400, max(sizes, key=sizes.__getitem__)
    assert median(size for size in sizes.values() if size > 2) <= 150


def test_launch_does_not_shadow_ros() -> None:
    assert not (ROOT / "launch" / "__init__.py").exists()


def test_top_level_is_what_the_layout_names() -> None:
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    names = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    assert names
    top = {name.split("/")[0] for name in names if not name.startswith(".")}
    assert top <= {
        "pyproject.toml", "robopolicy", "sim_envs", "hardware", "data", "tests", "launch",
        "README.md", "LICENSE", "CHANGELOG.md",
    }  # fmt: skip
