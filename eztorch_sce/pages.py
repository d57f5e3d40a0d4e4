"""Pages of runs: finding the runs, opening their data for thumbnails, writing the file."""

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

from eztorch_sce.errors import ConfigError
from eztorch_sce.report.page import write_page
from eztorch_sce.report.run_files import open_runs
from eztorch_sce.report.settings import ReportConfig
from eztorch_sce.thumbnails import prepare_media

PAGE = "report.html"


def report_page(runs: Sequence[str | os.PathLike[str]], config: ReportConfig | None = None) -> Path:
    """Write the page of runs, one HTML file that needs no network, and return its path.

    Args:
        runs: Run directories, or folders that contain runs; several are shown side by side.
        config: Where to write the page, and where the data are now.

    Raises:
        ConfigError: If a directory holds no run, or the page cannot be written; raised before anything is read.
    """
    config = config or ReportConfig()
    opened, messages = open_runs([os.fspath(run) for run in runs])
    messages += _missing(config.data.root)
    if config.out is not None or opened:
        file = Path(config.out) if config.out is not None else opened[0].directory / PAGE
        messages += _unwritable(file, is_typed=config.out is not None)
    if messages:
        raise ConfigError(messages)
    place = [] if config.data.root is None else [f"data.root={config.data.root}"]
    write_page(file, opened, prepare_media(opened, place, config.map))
    return file


def _unwritable(file: Path, is_typed: bool) -> list[str]:
    """Return a message if a file cannot be written."""
    name = f"out={file}"
    cure = "set out=FILE to a file in an existing folder that you may write to"
    if file.is_dir():
        return [f"{name} is a folder: {cure}, such as {file / PAGE}"]
    if not file.parent.is_dir():
        return [f"{name} is in a folder that does not exist: {cure}"]
    try:
        with tempfile.TemporaryFile(dir=file.parent):
            return []
    except OSError as error:
        place = name if is_typed else f"{file.parent}, the run directory,"
        return [f"{place} cannot be written ({error.strerror}): {cure}"]


def _missing(root: str | None) -> list[str]:
    """Return a message if the folder of the data does not exist."""
    return (
        [] if root is None or Path(root).is_dir() else [f"data.root={root} does not exist: name the folder of the data"]
    )
