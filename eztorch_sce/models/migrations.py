"""Migrations: the content of weights files of earlier formats, brought to the newest one step at a time.

To change the content of weights files, raise `NEWEST`, add the step that brings a file of the previous number to the
new one, and store a small file of the previous number in tests/vectors.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any

from eztorch_sce.augment.statistics import normalization_of, statistics_names
from eztorch_sce.errors import DamagedFileError, NewerFileError, describe_newer

NEWEST = 3
_NAME = "eztorch_sce weights"
FORMAT = f"{_NAME} {NEWEST}"

Content = dict[str, Any]


def _with_numbers(content: Content) -> Content:
    """Bring 1 to 2: files of torch, of which the first held neither the normalization in numbers nor the records."""
    stats = content["input"]["stats"]
    numbers = normalization_of(stats) if stats in statistics_names() else None
    return {"normalization": numbers, "data": None, **content}


def _with_origin(content: Content) -> Content:
    """Bring 2 to 3: room for imported networks, what a pretraining goes on from, and a card for people."""
    return {**content, "method": {}, "source": None, "about": {}}


_STEPS: Mapping[int, Callable[[Content], Content]] = {1: _with_numbers, 2: _with_origin}
"""The step that brings a file of each number to the next."""


def is_of_this_package(name: object) -> bool:
    """Return whether this is the name of a format of weights files, of any version."""
    return _number(name) is not None


def migrated(content: Content, file: str) -> Content:
    """Return the content of a weights file of any format so far as one of the newest.

    Raises:
        DamagedFileError: If it is not the content of a weights file.
        NewerFileError: If its format is newer than this version of the package.
    """
    name = content.get("format")
    number = _number(name)
    if number is not None and number > NEWEST:
        raise NewerFileError(file, describe_newer(f"format {number}", f"formats 1 to {NEWEST}"))
    if number is None or number < 1:
        raise DamagedFileError(file, f"its format is {name} instead of {FORMAT}")
    for step in range(number, NEWEST):
        content = _STEPS[step](content)
    return content | {"format": FORMAT}


def _number(name: object) -> int | None:
    match = re.fullmatch(rf"{_NAME} (\d{{1,6}})", name) if isinstance(name, str) else None
    return None if match is None else int(match.group(1))
