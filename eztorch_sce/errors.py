"""Errors whose messages are shown to users, and the suggestions in them."""

import difflib
import errno
import os
import shlex
from collections.abc import Iterable, Sequence
from pathlib import Path
from signal import SIGINT, Signals


class ConfigError(ValueError):
    """Invalid settings, all of them in one message.

    Args:
        problems: One message per problem: the setting, its value, the allowed values and the cure.
    """

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems = list(problems)
        super().__init__(self.problems)

    def __str__(self) -> str:
        return "\n".join(f"- {problem}" for problem in self.problems)

    def __reduce__(self) -> tuple[type, tuple[list[str]]]:
        return type(self), (self.problems,)  # keeps the arguments when pickled by a worker process


class _FileError(RuntimeError):
    """A file that cannot be used.

    Args:
        path: The file.
        reason: Why it cannot be used, without the path.
    """

    def __init__(self, path: str, reason: str) -> None:
        self.path, self.reason = path, reason
        super().__init__(f"{path}: {reason}")

    def __reduce__(self) -> tuple[type, tuple[str, str]]:
        return type(self), (self.path, self.reason)


class MediaError(_FileError):
    """A video or image that cannot be read."""


class DamagedFileError(_FileError):
    """A tensor file whose bytes are not those that were written, or another kind of file."""


class NewerFileError(DamagedFileError):
    """A tensor file of a newer version of this package."""


class SourceError(RuntimeError):
    """A mistake in the code of a data source; the message names the record, the mistake and the line."""

    @property
    def summary(self) -> str:
        """The message, without the traceback that torch adds to an error of a worker process."""
        return str(self).rpartition(f"{type(self).__name__}: ")[2].strip()


class TrainingError(RuntimeError):
    """Training that cannot continue; the message gives the step, the reason and the cure."""


class LoadingError(RuntimeError):
    """Worker processes of a loader that died, hung or ran out of shared memory; the message gives the file, the reason
    and the cure."""


class ProcessError(RuntimeError):
    """Another process of a command failed or died, which ends all; the message says which and why."""


STOPPED, INTERRUPTED = 75, 130
"""Exit statuses: EX_TEMPFAIL after a signal that asks to end, and that of shells after Ctrl-C."""


class Stopped(SystemExit):
    """A command that ends because a signal asked for it. Uncaught, it ends the program silently with its exit status.

    Args:
        signal: Number of the signal.
        saved: What is saved, such as "saved at step 40 of 100"; empty if there was nothing to save.
        again: How the user goes on; empty for the command of this process.
    """

    def __init__(self, signal: int, saved: str = "", again: str = "") -> None:
        self.signal, self.saved, self.again = signal, saved, again
        super().__init__(INTERRUPTED if signal == SIGINT else STOPPED)

    @property
    def left(self) -> str:
        """What the command leaves, and how the user goes on."""
        from eztorch_sce.started import how_to_go_on

        return f"{self.saved or 'nothing to save'}; {self.again or how_to_go_on()}"

    def __str__(self) -> str:
        how = "interrupted" if self.signal == SIGINT else f"stopped by {Signals(self.signal).name}"
        return f"{how}: {self.left}"

    def __reduce__(self) -> tuple[type, tuple[int, str, str]]:
        return type(self), (self.signal, self.saved, self.again)


EXPLAINED = (ConfigError, DamagedFileError, LoadingError, MediaError, SourceError, TrainingError)
"""Errors whose text says what to do. All processes of a command raise the same one, and the command line prints it."""


_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_BROKEN = (errno.EIO, errno.EROFS, errno.ESTALE)


def describe_disk(error: OSError, run_dir: Path | None = None) -> str | None:
    """Return what is wrong with the disk, and the cure, or None if the error is not one of disks.

    Args:
        error: The error. One of a file that is open already does not name it.
        run_dir: The directory that the command writes to, if the error does not name a file.

    >>> describe_disk(OSError(errno.ENOSPC, "No space left on device", "/runs/1/report.json"))
    'cannot write to /runs/1: No space left on device. Free some space'
    >>> describe_disk(FileNotFoundError(errno.ENOENT, "No such file or directory", "/runs/1/report.json")) is None
    True
    """
    if error.errno not in (*_FULL, *_BROKEN):
        return None
    folder = Path(os.fsdecode(error.filename)).parent if isinstance(error.filename, str | bytes) else run_dir
    place = "" if folder is None else f" to {folder}"
    return f"cannot write{place}: {error.strerror}. {disk_cure(error)}"


def disk_cure(error: OSError) -> str:
    """Return what to do about a file that cannot be written, as the beginning of a sentence.

    >>> disk_cure(OSError(errno.EIO, "Input/output error")), disk_cure(PermissionError(errno.EACCES, "denied"))
    ('Wait until the disk works again', 'Make the directory writable')
    """
    if error.errno in _FULL:
        return "Free some space"
    return "Wait until the disk works again" if error.errno in _BROKEN else "Make the directory writable"


def describe_newer(actual: str, known: str) -> str:
    """Return the reason of a `NewerFileError`.

    >>> describe_newer("format 4", "formats 1 to 3")
    'of format 4, of a newer version of eztorch_sce; this one reads formats 1 to 3: install the newer version'
    """
    return f"of {actual}, of a newer version of eztorch_sce; this one reads {known}: install the newer version"


def first_line(error: BaseException) -> str:
    """Return the first line of an error of a library, with its type if the message says nothing without it.

    >>> first_line(OSError("no space\\nsee the log")), first_line(OSError()), first_line(KeyError("format"))
    ('no space', 'OSError', "KeyError: 'format'")
    """
    name, text = type(error).__name__, str(error).strip()
    return (f"{name}: {text}" if text and isinstance(error, LookupError) else text or name).splitlines()[0]


def typed(*settings: tuple[str, object]) -> str:
    """Return settings as one types them in a shell.

    >>> typed(("data.root", "/x/a b"), ("data.layout", "folder"))
    "'data.root=/x/a b' data.layout=folder"
    """
    return shlex.join(f"{name}={value}" for name, value in settings)


def normalized(word: str) -> str:
    """Return a word without case and separators.

    >>> normalized("R(2+1)D_18"), normalized("NT-Xent")
    ('r21d18', 'ntxent')
    """
    return "".join(filter(str.isalnum, word.casefold()))


def nearest(word: str, known: Iterable[str]) -> str | None:
    """Return the known word nearest to `word`, or None if none is near.

    A word that differs only in case and separators is nearest.

    >>> nearest("resnet81", ["resnet18", "r3d18"]), nearest("r2plus1d18", ["r2plus1d_50", "r2plus1d_18"])
    ('resnet18', 'r2plus1d_18')
    >>> nearest("root", ["data.root", "seed"])
    'data.root'
    """
    known = list(known)
    if (same := [name for name in known if normalized(name) == normalized(word)]) and normalized(word):
        return same[0]
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    if not close:
        by_word = {normalized(name): name for name in known}
        close = [by_word[each] for each in difflib.get_close_matches(normalized(word), by_word, n=1, cutoff=0.5)]
    if not close:  # the right name without its path, as in `root` for `data.root`
        close = [name for name in known if name.split(".")[-1] == word.split(".")[-1]][:1]
    return close[0] if close else None


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return "; did you mean X?" with the known word nearest to `word`, or an empty string.

    >>> did_you_mean("resnet81", ["resnet18", "r3d18"])
    '; did you mean resnet18?'
    """
    suggestion = nearest(word, known)
    return "" if suggestion is None else f"; did you mean {suggestion}?"


def shorten(names: Sequence[str], num: int = 3) -> str:
    """Return the first `num` names and the number of further names.

    >>> shorten(["a.mp4", "b.mp4", "c.mp4"], num=2)
    'a.mp4, b.mp4 and 1 more'
    """
    more = f" and {len(names) - num} more" if len(names) > num else ""
    return ", ".join(names[:num]) + more


def counted(number: int, noun: str, plural: str = "") -> str:
    """Return a number and its noun.

    >>> counted(1, "record"), counted(2, "record"), counted(0, "class", "classes")
    ('1 record', '2 records', '0 classes')
    """
    return f"{number} {noun if number == 1 else plural or noun + 's'}"


def first_messages(messages: Sequence[str], num: int = 10) -> list[str]:
    """Return the first `num` messages of one kind, followed by one that counts the rest."""
    more = [f"and {len(messages) - num} more of this kind"] if len(messages) > num else []
    return [*messages[:num], *more]
