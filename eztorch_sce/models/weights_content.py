"""Checks of what a weights file holds: its checksums say that it is as it was written, not that it was written well."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import fields
from typing import Any

from torch import Tensor

from eztorch_sce.errors import DamagedFileError, shorten
from eztorch_sce.types import InputSpec

_MOST = 1_000_000  # of frames and pixels of a side
_EXTRA = "_extra_state"  # what `get_extra_state` of a module returned, which may be a plain value
_INTEGERS = ("num_frames", "size", "frame_stride")
_INPUTS = ("rgb", "difference")


def check_content(content: Mapping[str, Any], file: str) -> None:
    """Check the content of a weights file of the newest format.

    Raises:
        DamagedFileError: If something is missing or of another type, or the weights hold numbers that are NaN; the
            message names it.
    """
    try:
        problems = list(_problems(content))
    except KeyError as error:
        problems = [f"{error.args[0]} is missing"]
    if problems:
        raise DamagedFileError(file, f"its content is not that of a weights file: {shorten(problems)}")


def _problems(content: Mapping[str, Any]) -> Iterator[str]:
    network = content["backbone"]
    if not isinstance(network, dict) or not ("object" in network or isinstance(network.get("name"), str)):
        yield "backbone does not describe a network"
    elif "object" not in network and not isinstance(network.get("settings"), dict):
        yield "backbone has no settings"
    yield from problems_of_input(content["input"])
    numbers = content["normalization"]
    if numbers is not None and not _are_statistics(numbers):
        yield "normalization is not a mean and a standard deviation of three channels"
    yield from _problems_of_weights("state", content["state"])
    head, classes = content["head"], content["classes"]
    if head is not None:
        yield from _problems_of_weights("head", head)
        weight = head.get("weight") if isinstance(head, dict) else None
        if not isinstance(weight, Tensor) or weight.ndim != 2:
            yield "head has no weight of a linear layer"
    if not isinstance(classes, list) or not all(isinstance(name, str) for name in classes):
        yield "classes are not names"
    yield from _problems_of_weights("method", content["method"])
    if not isinstance(content["about"], dict):
        yield "about is no dictionary"
    if not all(isinstance(content[name], (dict, type(None))) for name in ("data", "source")):
        yield "data and source are not dictionaries"


def problems_of_input(spec: Any) -> Iterator[str]:
    """Yield what is wrong with the fields of an `InputSpec`."""
    if not isinstance(spec, dict) or not spec.keys() <= {field.name for field in fields(InputSpec)}:
        yield "input is no input specification"
        return
    for name, value in spec.items():
        if name == "frame_stride" and value is None:
            continue
        if name in _INTEGERS:
            is_valid = type(value) is int and 0 < value <= _MOST
        elif name == "stats":
            is_valid = isinstance(value, str)
        elif name == "input":
            is_valid = value in _INPUTS
        else:
            is_valid = type(value) in (int, float) and 0 < value <= _MOST
        if not is_valid:
            yield f"input.{name} is {str(value)[:40]!r}"


def _are_statistics(numbers: Any) -> bool:
    if not isinstance(numbers, dict) or numbers.keys() != {"mean", "std"}:
        return False
    return all(
        isinstance(values, list)
        and len(values) == 3
        and all(type(value) in (int, float) and math.isfinite(value) for value in values)
        for values in numbers.values()
    )


def _problems_of_weights(name: str, state: Any) -> Iterator[str]:
    if not isinstance(state, dict) or not all(isinstance(key, str) for key in state):
        yield f"{name} is no state dict"
        return
    for key, tensor in state.items():
        if not isinstance(tensor, Tensor):
            if not key.endswith(_EXTRA):
                yield f"{name}.{key} is no tensor"
        elif tensor.is_floating_point() and bool(tensor.isnan().any()):
            yield f"{name}.{key} holds numbers that are NaN"
