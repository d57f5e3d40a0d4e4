"""Copies of the checkout, in which a build may write files."""

import shutil
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def copy_checkout(destination: Path) -> Path:
    """Copy the checkout without its hidden folders, and return the destination."""
    ignored = shutil.ignore_patterns(".?*", "__pycache__", "runs", "build", "dist", "site")
    shutil.copytree(ROOT, destination, ignore=ignored)
    return destination
