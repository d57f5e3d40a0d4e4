"""Accounting: what became of each tensor of a file, and of each tensor of our network."""

import fnmatch
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple

MATCHED = "matched"
RENAMED = "renamed"
CHANGED = "changed"
"""Taken in another form, such as with its channels turned around."""
INFLATED = "inflated"
IGNORED = "ignored"
MISSING = "missing"
UNEXPECTED = "unexpected"
MISFIT = "misfit"
"""Of another shape than ours."""
ALLOWED = "allowed"
"""Missing, unexpected or of another shape, as the user allows."""

PROBLEMS = (MISSING, UNEXPECTED, MISFIT)


class TensorRow(NamedTuple):
    """What became of a tensor.

    Attributes:
        theirs: Its name in the file; "" if it is missing there.
        ours: Its name in our network; "" if it has no place there.
        status: One of the constants of this module.
        note: Why, or what was done, in words; "" if the status says it all.
    """

    theirs: str
    ours: str
    status: str
    note: str = ""


def is_allowed(row: TensorRow, allow: Iterable[str]) -> bool:
    """Return whether the user allows a problem by a name: of the tensor, of a module that holds it, or a pattern.

    >>> is_allowed(TensorRow("module.fc.weight", "", UNEXPECTED), ["fc"])
    True
    """
    return any(_is_named(name, wanted) for name in (row.theirs, row.ours) if name for wanted in allow)


def _is_named(name: str, wanted: str) -> bool:
    parts, wanted_parts = name.split("."), wanted.split(".")
    width = len(wanted_parts)
    runs = (parts[start : start + width] for start in range(len(parts) - width + 1))
    return wanted_parts in runs or fnmatch.fnmatchcase(name, wanted)


def problems(rows: Sequence[TensorRow]) -> list[TensorRow]:
    """Return the rows that must be allowed by name."""
    return [row for row in rows if row.status in PROBLEMS]


def summary(rows: Sequence[TensorRow]) -> str:
    """Return the number of tensors of each status in words.

    >>> summary([TensorRow("a", "a", MATCHED), TensorRow("b", "", IGNORED, "optimizer")])
    '1 matched, 1 ignored'
    """
    counts = Counter(row.status for row in rows)
    return ", ".join(f"{count} {status}" for status, count in counts.items())
