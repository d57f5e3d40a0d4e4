"""Export of a network to a file or folder that other programs read, compared with the network before it is kept."""

import os
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path

from eztorch_sce.errors import ConfigError, did_you_mean
from eztorch_sce.files import replacing_folder, temporary_folder
from eztorch_sce.interop.exports.card import check_license
from eztorch_sce.interop.exports.format import Exported, ExportFormat, Written
from eztorch_sce.interop.exports.hugging_face import FILES, HUGGING_FACE
from eztorch_sce.interop.exports.onnx_file import ONNX
from eztorch_sce.interop.exports.other_names import OTHER_NAMES
from eztorch_sce.interop.exports.ours import OURS
from eztorch_sce.interop.exports.taken import Taken, open_run
from eztorch_sce.interop.exports.torch_export import TORCH_EXPORT
from eztorch_sce.models.weights import WEIGHTS_IN_FOLDER, weights_file
from eztorch_sce.tensor_file import is_tensor_file

_ALL = (OURS, HUGGING_FACE, *OTHER_NAMES, ONNX, TORCH_EXPORT)

EXPORTS: Mapping[str, ExportFormat] = {each.name: each for each in _ALL}
"""The formats of exports by name."""


def export(run: str, out: str, format: str, *, license: str | None = None) -> Exported:
    """Write the network of a run for other programs, and compare what was written with the network.

    The output is kept only if both compute the same. A file at `out` is replaced, and so is a folder that an earlier
    export wrote.

    Args:
        run: The run directory, or a file of weights.
        out: The file or folder to write, see `ExportFormat.is_folder`.
        format: One of `EXPORTS`.
        license: Identifier of the license of the weights, such as "cc-by-nc-4.0", for the card; None leaves it open.

    Raises:
        ConfigError: If the format is unknown, does not take this network, or needs a package that is missing; if `out`
            cannot be written; if the weights cannot be read; or if the outputs differ.
    """
    if format not in EXPORTS:
        known = f"choose from {', '.join(EXPORTS)}"
        raise ConfigError([f"format={format} is not known{did_you_mean(format, EXPORTS)}; {known}"])
    chosen, path = EXPORTS[format], Path(os.path.abspath(out))
    if problems := [*check_license(license), *_missing(chosen), *_misplaced(chosen, Path(run), path, out)]:
        raise ConfigError(problems)
    taken = open_run(run, license)
    try:
        files, written = (_write_folder if chosen.is_folder else _write_files)(chosen, taken, path)
    except OSError as error:
        raise ConfigError([f"OUT={out} cannot be written: {error.strerror or error}"]) from error
    num_bytes = sum(file.stat().st_size for file in files)
    return Exported(files, num_bytes, written.difference, written.compared, written.notes)


def _write_folder(chosen: ExportFormat, taken: Taken, path: Path) -> tuple[list[Path], Written]:
    with replacing_folder(path) as folder:
        written = chosen.write(taken, folder)
        names = sorted(entry.name for entry in folder.iterdir())
    return [path / name for name in names], written


def _write_files(chosen: ExportFormat, taken: Taken, path: Path) -> tuple[list[Path], Written]:
    """Write a file, and those beside it, in a temporary folder, from which they are moved when all are compared."""
    with temporary_folder(path) as folder:
        written = chosen.write(taken, folder / path.name)
        names = sorted((entry.name for entry in folder.iterdir()), key=lambda name: name != path.name)
        for name in names:
            os.replace(folder / name, path.parent / name)
    return [path.parent / name for name in names], written


def _missing(chosen: ExportFormat) -> Iterator[str]:
    if absent := [name for name in chosen.needs if find_spec(name) is None]:
        yield f"format={chosen.name} needs {', '.join(absent)}: {chosen.install}"


def _misplaced(chosen: ExportFormat, run: Path, path: Path, typed: str) -> Iterator[str]:
    """Yield why the output cannot be at its path."""
    source = weights_file(run).resolve()
    if not path.parent.is_dir():
        yield f"OUT={typed} is in a folder that does not exist: create {path.parent}"
    elif chosen.is_folder:
        if path.is_file():
            yield f"OUT={typed} is a file; format={chosen.name} writes a folder: give the path of a new one"
        elif path.is_dir() and not _is_export(path):
            yield f"OUT={typed} is a folder with other files, which stay as they are: give the path of a new one"
    elif path.is_dir():
        yield f"OUT={typed} is a folder; format={chosen.name} writes a file: give {path / f'NAME{chosen.suffixes[0]}'}"
    elif path.suffix not in chosen.suffixes:
        yield f"OUT={typed} must end in {' or '.join(chosen.suffixes)} for format={chosen.name}"
    if path.resolve() == source or (chosen.is_folder and source.parent == path.resolve()):
        yield f"OUT={typed} is where the weights are read from: give another path"


def _is_export(folder: Path) -> bool:
    """Return whether a folder is empty, or holds what an earlier export wrote and nothing else."""
    names = [entry.name for entry in folder.iterdir()]
    own = WEIGHTS_IN_FOLDER in names and is_tensor_file(folder / WEIGHTS_IN_FOLDER)
    return not names or (own and set(names) <= set(FILES))
