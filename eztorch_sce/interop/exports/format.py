"""What a format of exports is, and what an export returns."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from eztorch_sce.interop.exports.taken import Taken


@dataclass(frozen=True)
class Written:
    """What the writer of a format did.

    Attributes:
        difference: Largest absolute difference between the outputs of what was written and those of the network.
        compared: What was compared with the network, in words.
        notes: What a user of the output should know, in words.
    """

    difference: float
    compared: str
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class ExportFormat:
    """A format of exports.

    Attributes:
        name: Its name, as in `format=NAME`.
        title: What it is, for people.
        networks: The networks that it takes, in words.
        write: Writes a network and compares what it wrote, given the network and the path of the file or folder. It may
            write other files beside a file. It raises ConfigError if it does not take the network.
        suffixes: Suffixes that the file may have, the usual one first; empty for a folder.
        needs: Packages beside the dependencies of this package, by the names that they are imported by.
        install: What installs them.
    """

    name: str
    title: str
    networks: str
    write: Callable[[Taken, Path], Written]
    suffixes: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()
    install: str = ""

    @property
    def is_folder(self) -> bool:
        """Whether the output is a folder."""
        return not self.suffixes


@dataclass(frozen=True)
class Exported:
    """The result of an export.

    Attributes:
        files: The files that were written.
        num_bytes: Their size.
        difference: Largest absolute difference between the outputs of what was written and those of the network.
        compared: What was compared with the network, in words.
        notes: What a user of the output should know, in words.
    """

    files: list[Path]
    num_bytes: int
    difference: float
    compared: str
    notes: list[str]
