"""The packages, found in the tree. All else is in pyproject.toml, which cannot say that the folder of this file is the package `wegen`."""

from setuptools import find_packages, setup

setup(
    script_name="setup.py",  # which stays out of the wheel
    packages=["wegen", *(f"wegen.{name}" for name in find_packages(include=["nodes*", "wegen_model*"]))],
)
