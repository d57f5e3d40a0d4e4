"""Versions of this package and of the packages that affect its numbers."""

import platform
from importlib.metadata import PackageNotFoundError, version

from eztorch_sce import __version__

_PACKAGES = (
    "torch",
    "torchvision",
    "pytorchvideo",
    "pytorch-lightning",
    "hydra-core",
    "av",
    "decord",
    "eva-decord",
    "numpy",
    "scikit-learn",
)


def installed_versions() -> dict[str, str]:
    """Return the versions by name, without the packages that are not installed."""
    versions = {"eztorch_sce": __version__, "python": platform.python_version(), "platform": platform.platform()}
    for package in _PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return versions


def version_line() -> str:
    """Return the versions of this package, torch and Python in one line, without importing torch."""
    versions = installed_versions()
    return f"eztorch-sce {versions['eztorch_sce']} (torch {versions['torch']}, Python {versions['python']})"
