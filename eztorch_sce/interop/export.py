"""Export of a network to a file or folder that other programs read, compared with the network before it is kept."""

from collections.abc import Mapping
from pathlib import Path

from eztorch_sce.errors import ConfigError, did_you_mean
from eztorch_sce.files import replacing, replacing_folder
from eztorch_sce.interop.exports.card import check_license
from eztorch_sce.interop.exports.format import Exported, ExportFormat
from eztorch_sce.interop.exports.ours import OURS
from eztorch_sce.interop.exports.taken import open_run

_ALL = (OURS,)

EXPORTS: Mapping[str, ExportFormat] = {each.name: each for each in _ALL}
"""The formats of exports by name."""


def export(run: str, out: str, format: str, *, license: str | None = None) -> Exported:
    """Write the network of a run for other programs, and compare what was written with the network.

    The output is kept only if both compute the same. An existing file is replaced; an existing folder only if an
    earlier export wrote it.

    Args:
        run: The run directory, or a file of weights.
        out: The file or folder to write, see `ExportFormat.is_folder`.
        format: One of `EXPORTS`.
        license: Identifier of the license of the weights, such as "cc-by-nc-4.0", for the card; None leaves it open.

    Raises:
        ConfigError: If the format is unknown, does not take this network, or needs a package that is missing; if `out`
            cannot be written there; if the weights cannot be read; or if the outputs differ.
    """
    if format not in EXPORTS:
        raise ConfigError(
            [f"format={format} is not known{did_you_mean(format, EXPORTS)}; choose from {', '.join(EXPORTS)}"]
        )
    chosen, path = EXPORTS[format], Path(out)
    check_license(license)
    taken = open_run(run, license)
    with (replacing_folder if chosen.is_folder else replacing)(path) as partial:
        written = chosen.write(taken, partial)
    files = [path / name for name in written.names] if chosen.is_folder else [path]
    num_bytes = sum(file.stat().st_size for file in files)
    return Exported(files, num_bytes, written.difference, written.compared, written.notes)
