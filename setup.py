"""What pyproject.toml has no words for: packages found under gateway/, and migrations/, which is a package of it."""

from setuptools import find_namespace_packages, find_packages, setup

setup(
    packages=[
        *find_packages(include=["gateway", "gateway.*"]),
        *(f"gateway.{name}" for name in find_namespace_packages(include=["migrations", "migrations.*"])),
    ],
    package_dir={"gateway.migrations": "migrations"},
)
