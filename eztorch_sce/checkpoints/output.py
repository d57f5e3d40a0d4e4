"""What `eztorch-sce checkpoint` prints: facts about a file, and what became of its tensors."""

import csv
import io
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.table import Table
from torch import Tensor

from eztorch_sce import registry
from eztorch_sce.augment.statistics import normalization_of
from eztorch_sce.checkpoints.inspection import Inspection
from eztorch_sce.errors import ConfigError, counted, shorten
from eztorch_sce.files import write_text
from eztorch_sce.interop.accounting import MATCHED, TensorRow
from eztorch_sce.interop.exports.format import Exported
from eztorch_sce.models.network_config import name_of_network
from eztorch_sce.models.weights import Weights
from eztorch_sce.printing import PlainConsole, lines, print_line, visible, wrapped
from eztorch_sce.settings import show
from eztorch_sce.types import InputSpec

_COLUMN = 12  # where facts start
_MAX_VALUES, _MAX_OBJECTS, _MAX_CLASSES = 8, 4, 3
_LONG = 40  # characters of a value; longer ones are texts, such as a whole config


def print_fact(name: str, text: str) -> None:
    """Print a fact, wrapped to the width of the terminal."""
    console = PlainConsole()
    first, *more = wrapped(text, console.width - _COLUMN) or [""]
    for line in [f"{name:{_COLUMN}}{first}", *(" " * _COLUMN + line.strip() for line in more)]:
        console.print(line, soft_wrap=True)


def print_inspection(inspection: Inspection, full: bool) -> None:
    """Print what a file holds and what became of its tensors: each of them if `full`, else in groups."""
    for name, text in _facts(inspection):
        print_fact(name, text)
    if full:
        _print_table(_all_rows(inspection), inspection.container.tensors)
    elif any(row.status != MATCHED for row in inspection.rows):
        _print_summary(inspection.rows)


def print_exported(exported: Exported, out: str) -> None:
    """Print what an export wrote, and how it compares with the network."""
    print_fact("compared", f"{exported.compared}: largest difference {exported.difference:.2g}")
    for note in exported.notes:
        print_fact("note", note)
    others = [path.name for path in exported.files if path != Path(os.path.abspath(out))]
    names = f": {', '.join(others)}" if others else ""
    print_line(f"written to {out} ({_size(exported.num_bytes)}){names}")


def write_csv(inspection: Inspection, path: str) -> None:
    """Write what became of each tensor to a file.

    Raises:
        ConfigError: If the file cannot be written.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("in_the_file", "here", "shape", "became", "note"))
    for row in _all_rows(inspection):
        cells = (row.theirs, row.ours, _shape(row, inspection.container.tensors), row.status, row.note)
        writer.writerow(map(visible, cells))
    try:
        write_text(Path(path), text.getvalue())
    except OSError as error:
        raise ConfigError([f"csv={path} cannot be written ({error.strerror}): choose another place"]) from error


def _facts(inspection: Inspection) -> Iterator[tuple[str, str]]:
    container = inspection.container
    yield "container", f"{container.kind}, {_size(inspection.num_bytes)}"
    dtypes = Counter(str(tensor.dtype).removeprefix("torch.") for tensor in container.tensors.values())
    count = sum(tensor.numel() for tensor in container.tensors.values())
    yield "tensors", f"{len(container.tensors)} of {count:,} numbers ({', '.join(dtypes) or 'none'})"
    yield "format", inspection.title or "not recognized"
    if len(inspection.encoders) > 1:
        others = ", ".join(name for name in inspection.encoders if name != inspection.encoder)
        yield "encoder", f"{inspection.encoder} (encoder=NAME takes another: {others})"
    if inspection.weights is not None:
        yield from _facts_of_network(inspection.weights, inspection.num_parameters)
        yield from _facts_of_card(inspection.weights, inspection.file)
    if values := _short_values(container.values):
        yield "values", shorten(values, _MAX_VALUES)
    if container.objects:
        classes = [f"{name} ({cls})" if name else cls for name, cls in container.objects.items()]
        yield "objects", f"{shorten(classes, _MAX_OBJECTS)}: not loaded, and nothing of them was run"
    for note in inspection.notes:
        yield "note", note


def _facts_of_network(weights: Weights, num_parameters: int | None) -> Iterator[tuple[str, str]]:
    settings = ", ".join(_changed_settings(weights.network))
    size = "" if num_parameters is None else f", {num_parameters:,} parameters"
    yield "network", f"{name_of_network(weights.network)}{f' ({settings})' if settings else ''}{size}"
    yield "input", _input(weights.spec)
    if weights.head is not None:
        named = f" ({shorten(weights.classes, _MAX_CLASSES)})" if weights.classes else ", without names"
        yield "classifier", f"{counted(len(weights.head['bias']), 'class', 'classes')}{named}"
    if weights.method:
        names = (name.removeprefix("online.").split(".")[0].replace("_", " ") for name in weights.method)
        held = ", ".join(f"{name} ({counted(count, 'tensor')})" for name, count in Counter(names).items())
        yield "training", f"{held}: a pretraining with the same method goes on from them"
    if weights.provenance is not None and weights.provenance.num_records:
        yield "trained on", f"{counted(weights.provenance.num_records, 'record')} of {weights.provenance.source}"


def _facts_of_card(weights: Weights, file: str) -> Iterator[tuple[str, str]]:
    source = weights.source or {}
    if source.get("file", file) != file:  # of a weights file that was imported
        yield "origin", f"{source.get('title', 'imported')}, from {source['file']}"
    for name in ("license", "recipe"):
        if weights.about.get(name):
            yield name, str(weights.about[name])


def _changed_settings(network: dict[str, Any]) -> Iterator[str]:
    """Yield the settings of a network that are not the defaults."""
    cls = registry.choices("backbone").get(name_of_network(network))
    try:
        defaults = asdict(cls()) if cls is not None else {}
    except TypeError:  # a network of a plugin whose settings have no defaults
        defaults = {}
    for name, value in network.get("settings", {}).items():
        if name not in defaults or defaults[name] != value:
            yield f"{name}={show(value)}"


def _input(spec: InputSpec) -> str:
    span = f"every {counted(spec.frame_stride, 'frame')}" if spec.frame_stride else f"over {spec.clip_s:.3g} s"
    frames = "an image" if spec.num_frames == 1 else f"{spec.num_frames} frames {span}"
    numbers = normalization_of(spec.stats) or {}
    exact = ", ".join(f"{name} {' '.join(f'{value:.4g}' for value in values)}" for name, values in numbers.items())
    named = exact if spec.stats.startswith("mean_") else f"{spec.stats} ({exact})" if exact else spec.stats
    return f"{frames}, {spec.size} x {spec.size} pixels, normalized by {named}"


def _short_values(values: Mapping[str, Any]) -> list[str]:
    """Return the values of a container as one types them, without long ones, the outer ones first."""
    shown = [(name, show(value)) for name, value in values.items() if name]
    ordered = sorted((pair for pair in shown if len(pair[1]) <= _LONG), key=lambda pair: pair[0].count("."))
    return [f"{name}={value}" for name, value in ordered]


def _all_rows(inspection: Inspection) -> Sequence[TensorRow]:
    """Return the account of the tensors, or their names if there is none, since no network was recognized."""
    return inspection.rows or [TensorRow(name, "", "not recognized") for name in inspection.container.tensors]


def _print_summary(rows: Sequence[TensorRow]) -> None:
    """Print the number of tensors that became the same, with an example or the reason."""
    table = Table("became", "tensors", "why, or an example", title_justify="left")
    groups: dict[tuple[str, str], list[TensorRow]] = {}
    for row in rows:
        note = row.note if row.theirs and not row.ours else ""
        groups.setdefault((row.status, note), []).append(row)
    for (status, note), members in groups.items():
        table.add_row(status, str(len(members)), lines(note or _example(members[0])))
    PlainConsole().print(table)


def _example(row: TensorRow) -> str:
    names = row.theirs if row.theirs == row.ours or not row.ours else f"{row.theirs} -> {row.ours}".removeprefix(" -> ")
    return f"{names}: {row.note}" if row.note else names


def _print_table(rows: Sequence[TensorRow], tensors: Mapping[str, Tensor]) -> None:
    table = Table("in the file", "here", "shape", "became", title_justify="left")
    for row in rows:
        became = [row.status, row.note] if row.note else [row.status]
        table.add_row(row.theirs, row.ours, _shape(row, tensors), lines(*became))
    PlainConsole().print(table)


def _shape(row: TensorRow, tensors: Mapping[str, Tensor]) -> str:
    tensor = tensors.get(row.theirs)
    return "" if tensor is None else "x".join(map(str, tensor.shape)) or "scalar"


def _size(num_bytes: int) -> str:
    """Return a size in words.

    >>> _size(999), _size(25_600_000), _size(2_300_000_000)
    ('999 bytes', '25.6 MB', '2.3 GB')
    """
    if num_bytes >= 1e9:
        return f"{num_bytes / 1e9:.1f} GB"
    return f"{num_bytes / 1e6:.1f} MB" if num_bytes >= 1e5 else f"{num_bytes} bytes"
