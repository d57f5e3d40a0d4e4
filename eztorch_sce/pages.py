"""Pages of runs: finding the runs, opening their data for thumbnails, writing the file."""

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

from eztorch_sce.errors import ConfigError, first_line
from eztorch_sce.progress import print_above
from eztorch_sce.report.links import sources_of
from eztorch_sce.report.page import write_page
from eztorch_sce.report.run_files import RunFiles, open_runs
from eztorch_sce.report.settings import ReportConfig
from eztorch_sce.thumbnails import cached_media, prepare_media
from eztorch_sce.waiting import announced

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
    if messages := mistakes_in_report(runs, config):
        raise ConfigError(messages)
    opened, _ = open_runs([os.fspath(run) for run in runs])
    file = Path(config.out) if config.out is not None else opened[0].directory / PAGE
    place = [] if config.data.root is None else [f"data.root={config.data.root}"]
    media = prepare_media(opened, place, config.map)
    with announced("writing the page"):
        write_page(file, opened, media)
    return file


def mistakes_in_report(runs: Sequence[str | os.PathLike[str]], config: ReportConfig) -> list[str]:
    """Return one message per run, folder of data and file to write that `report_page` cannot use."""
    opened, messages = open_runs([os.fspath(run) for run in runs])
    messages += _missing(config.data.root)
    if config.out is not None or opened:
        file = Path(config.out) if config.out is not None else opened[0].directory / PAGE
        messages += _unwritable(file, is_typed=config.out is not None)
    return messages


def refresh_pages(run_dir: Path) -> list[Path]:
    """Write the pages of the runs whose weights an evaluation used, and return their paths.

    Nothing is decoded: the pages show the images that `report_page` made before. A run that cannot be written stays as
    it is, with a note.

    Args:
        run_dir: The directory of the evaluation.
    """
    written: dict[Path, None] = {}
    queue, seen = [run_dir], {run_dir.resolve()}
    while queue:
        run = RunFiles(queue.pop(), "")
        weights, features = run.report.get("protocol", {}).get("weights"), run.config.get("features")
        for source in sources_of(weights, features):
            if source.resolve() in seen:
                continue
            seen.add(source.resolve())
            queue.append(source)
            if RunFiles(source, "").command != "extract":
                around = [source.parent] if (source.parent / PAGE).is_file() else []  # of a demo or a study
                written |= {page: None for place in [source, *around] for page in _refresh(place)}
    return list(written)


def _refresh(source: Path) -> list[Path]:
    opened, _ = open_runs([os.fspath(source)])
    file = source / PAGE
    try:
        write_page(file, opened, cached_media(opened))
    except (ConfigError, OSError) as error:  # such as a folder that others may only read, or a damaged file of a run
        print_above(f"note: {file} stays as it is: {first_line(error)}")
        return []
    return [file]


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
