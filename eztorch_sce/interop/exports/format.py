"""What a format of exports is, and what an export returns."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from eztorch_sce.interop.exports.taken import Taken


@dataclass(frozen=True)
class Written:
    """What the writer of a format did.

    Attributes:
        difference: Largest absolute difference between the outputs of what was written and those of the network.
        compared: What was compared, in words.
        names: Names of the files in the folder, if it is one.
        notes: What a user of the output should know, in words.
    """

    difference: float
    compared: str
    names: Sequence[str] = ()
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class ExportFormat:
    """A format of exports.

    Attributes:
        name: Its name, as in `format=NAME`.
        title: What it is, for people.
        networks: The networks that it takes, in words.
        write: Writes a network to a path and compares it; raises ConfigError if it does not take the network.
        is_folder: Whether the output is a folder.
        suffix: Usual suffix of the file; empty for a folder.
        needs: Packages that writing and comparing need beside those of this package, by the name of their import.
        extra: The extra of this package that brings them.
    """

    name: str
    title: str
    networks: str
    write: Callable[[Taken, Path], Written]
    is_folder: bool = False
    suffix: str = ""
    needs: tuple[str, ...] = ()
    extra: str = ""


@dataclass(frozen=True)
class Exported:
    """The result of an export.

    Attributes:
        files: The files that were written.
        num_bytes: Their size.
        difference: Largest absolute difference between the outputs of what was written and those of the network.
        compared: What was compared, in words.
        notes: What a user of the output should know, in words.
    """

    files: list[Path]
    num_bytes: int
    difference: float
    compared: str
    notes: list[str]
