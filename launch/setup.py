"""Install the launch files where `ros2 launch robopolicy_bringup ...` looks for them."""

from glob import glob

from setuptools import setup

NAME = "robopolicy_bringup"

setup(
    name=NAME,
    version="0.1.0",
    packages=[NAME],
    data_files=[
        ("share/ament_index/resource_index/packages", [f"resource/{NAME}"]),
        (f"share/{NAME}", ["package.xml", *sorted(glob("*.launch.py"))]),
        (f"share/{NAME}/config", sorted(glob("config/*.yaml"))),
    ],
    install_requires=["setuptools"],
    zip_safe=True,
)
