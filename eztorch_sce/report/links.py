"""Links from runs to the evaluations of their weights or features: `evaluations.json` in the directory of the run.

The file is a list of run directories, relative to its own folder, in the order in which the evaluations ended. They may
be gone since then. `RunFiles.evaluations` follows them.
"""

import json
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from eztorch_sce.files import open_text, write_text
from eztorch_sce.launch import is_first_process
from eztorch_sce.models.weights import hash_of, weights_file
from eztorch_sce.progress import print_above

_FILE = "evaluations.json"


def link_to_sources(run_dir: Path, weights: Mapping[str, Any] | None, features: str | None) -> None:
    """Add an evaluation to the lists of the run whose weights it used, and of the run of `extract` whose features.

    A run that cannot be written stays as it is, with a note. Only the first process writes.

    Args:
        run_dir: The directory of the evaluation.
        weights: The weights on its protocol card, see `BackboneSource.card`; None if there are none.
        features: The run directory of `extract`, or None.
    """
    if not is_first_process():
        return
    for source in sources_of(weights, features):
        _add(source, run_dir)


def sources_of(weights: Mapping[str, Any] | None, features: str | None) -> list[Path]:
    """Return the run of `extract` that an evaluation read, and the run whose weights it used, if they are known.

    Args:
        weights: The weights on its protocol card.
        features: The run directory of `extract`, or the folder or URL of its shards, or None.
    """
    card = weights or {}
    if features is not None and "://" in features:
        return []
    if card.get("imported"):
        return [] if features is None else [Path(features)]  # no run of ours: a config.yaml beside it is another's
    sources = [_run_of(card.get("file"))] if features is None else [Path(features), _run_behind(features, card)]
    return [source for source in sources if source is not None]


def _run_of(weights: str | Path | None) -> Path | None:
    """Return the run directory that a weights file is in, or None if it is in no run directory."""
    if weights is None:
        return None
    directory = weights_file(weights).parent
    return directory if (directory / "config.yaml").is_file() else None


def _run_behind(features: str, card: Mapping[str, Any]) -> Path | None:
    """Return the run whose weights the features are from, or None if it is not where `extract` found it.

    The path on the card may be relative to the folder that `extract` was started in, which is looked for among the
    parents of its run directory. The hash tells whether the weights are the same.
    """
    if card.get("file") is None:
        return None
    for folder in (Path(), *Path(features).resolve().parents):
        file = weights_file(folder / card["file"])
        if file.is_file() and hash_of(file) == card.get("sha256"):
            return _run_of(file)
    return None


def _add(source: Path, run_dir: Path) -> None:
    path = os.path.relpath(run_dir.resolve(), source.resolve())
    try:
        with _locked(source):
            entries = _entries(source / _FILE)
            if path not in entries:
                write_text(source / _FILE, json.dumps([*entries, path], indent=2) + "\n")
    except OSError as error:  # such as a folder that others may only read
        print_above(f"note: {source} cannot list this evaluation ({error.strerror}): name both to show them together")


def _entries(file: Path) -> list[str]:
    """Return the paths in a list of evaluations; none if the file is missing or damaged."""
    if not file.is_file():
        return []
    with open_text(file) as stream, suppress(ValueError):
        content = json.load(stream)
        return [entry for entry in content if isinstance(entry, str)] if isinstance(content, list) else []
    return []


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Let one process at a time change the files of a folder: the jobs of a sweep may end together."""
    if sys.platform == "win32":
        yield  # a folder cannot be locked there
        return
    import fcntl

    handle = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):  # some network file systems have no locks
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
