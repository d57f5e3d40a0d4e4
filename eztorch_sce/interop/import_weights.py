"""Import of a file of another code base: every tensor accounted for, or an error that names those that are not."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from eztorch_sce.augment.statistics import STATISTICS, ChannelStatistics, register_statistics
from eztorch_sce.errors import ConfigError, shorten
from eztorch_sce.interop import accounting
from eztorch_sce.interop.accounting import TensorRow
from eztorch_sce.interop.containers import Container, read_container
from eztorch_sce.interop.format import IGNORED_ALWAYS, Facts
from eztorch_sce.interop.inflation import inflated
from eztorch_sce.interop.layouts import COUNTER, shapes_of
from eztorch_sce.interop.recognition import Found, recognize
from eztorch_sce.models.backbones.base import BackboneConfig
from eztorch_sce.types import InputSpec


@dataclass(frozen=True)
class Choices:
    """What a user may say about a file of another code base.

    Attributes:
        format: Its format; None recognizes it.
        encoder: Which of its encoders to take; None takes the first of the format.
        backbone: Registered name of our network; None recognizes it.
        allow: Names of tensors or modules, or patterns, that may be missing, unexpected or of another shape.
        inflate: "repeat" or "center" to give 2-D convolutions the frames of a video network; None refuses them.
    """

    format: str | None = None
    encoder: str | None = None
    backbone: str | None = None
    allow: Sequence[str] = ()
    inflate: str | None = None


@dataclass
class Imported:
    """A network of another code base as one of ours.

    Attributes:
        found: What was recognized.
        config: The config that builds the network.
        spec: Input specification.
        state: State dict of the backbone, by our names; tensors that are missing and allowed are left out.
        head: State dict of the linear classifier, or None.
        method: State of our method beside the backbone, from which a pretraining goes on; empty if there is none.
        rows: What became of each tensor.
        notes: What was assumed or left out, in words.
        refused: Why it cannot be used, with the cure; "" if it can. Only `examine` returns such a network.
    """

    found: Found
    config: BackboneConfig
    spec: InputSpec
    state: dict[str, Tensor]
    head: dict[str, Tensor] | None
    method: dict[str, Tensor]
    rows: list[TensorRow]
    notes: list[str] = field(default_factory=list)
    refused: str = ""


def import_file(file: str, choices: Choices = Choices()) -> Imported:
    """Read the network of a file of another code base.

    Args:
        file: The file or folder.
        choices: What the user says about it.

    Raises:
        ConfigError: If it holds no network that we know, tensors are missing, unexpected or of another shape and not
            allowed, or its network computes what ours cannot express. The message names the tensors or facts.
        DamagedFileError: If the file is damaged or hostile.
        OSError: If it cannot be read.
    """
    return import_container(read_container(file), file, choices)


def import_container(container: Container, file: str, choices: Choices = Choices()) -> Imported:
    """Return the network of a container that has been read, see `import_file`."""
    imported = examine(container, file, choices)
    if imported.refused:
        raise ConfigError([imported.refused])
    return imported


def examine(container: Container, file: str, choices: Choices = Choices()) -> Imported:
    """Return the network of a container with an account of every tensor, also if `refused` says that it is unusable.

    Raises:
        ConfigError: If it holds no network that we know.
    """
    found = recognize(container, file, choices.format, choices.encoder, choices.backbone)
    facts = found.facts
    state, rows = _backbone_state(found, facts, choices)
    others = _Others(found, rows)
    head, method = others.head(), others.method()
    others.leave_out()
    rows = [
        row._replace(status=accounting.ALLOWED, note=f"{row.status}, as allowed")
        if row.status in accounting.PROBLEMS and accounting.is_allowed(row, choices.allow)
        else row
        for row in others.rows
    ]
    refused = f"{file} ({found.format.title}): {facts.refused}" if facts.refused else ""
    if not refused and (problems := accounting.problems(rows)):
        refused = _refusal(file, found, problems)
    spec = InputSpec(facts.num_frames, facts.clip_s, facts.size, _stats_name(found, facts), "rgb", facts.frame_stride)
    notes = [facts.assumed] if facts.assumed else []
    return Imported(found, found.network.config(facts.settings), spec, state, head, method, rows, notes, refused)


def _backbone_state(found: Found, facts: Facts, choices: Choices) -> tuple[dict[str, Tensor], list[TensorRow]]:
    """Return the state dict of the backbone, and what became of its tensors."""
    state: dict[str, Tensor] = {}
    rows: list[TensorRow] = []
    for ours, shape in shapes_of(found.network).items():
        theirs = found.prefix + found.layout.theirs(ours)
        tensor = found.container.tensors.get(theirs)
        if tensor is None:
            if not ours.endswith(COUNTER):
                rows.append(TensorRow("", ours, accounting.MISSING, f"{theirs} is not in the file"))
                continue
            tensor, row = torch.zeros((), dtype=torch.long), TensorRow("", ours, accounting.CHANGED, "set to 0")
        else:
            tensor, row = _taken(theirs, ours, tensor, shape, choices)
            if row.status == accounting.MISFIT:
                rows.append(row)
                continue
            if facts.channels == "bgr" and theirs == found.prefix + found.layout.anchor:
                tensor, row = tensor.flip(1), row._replace(status=accounting.CHANGED, note="from BGR to RGB")
        state[ours] = tensor
        rows.append(row)
    return state, rows


def _taken(theirs: str, ours: str, tensor: Tensor, shape: torch.Size, choices: Choices) -> tuple[Tensor, TensorRow]:
    """Return a tensor in our shape, and what was done."""
    if tensor.shape == shape:
        if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
            note = "holds numbers that are NaN or infinite"
            return tensor, TensorRow(theirs, ours, accounting.MISFIT, note)
        return tensor, TensorRow(theirs, ours, accounting.MATCHED if theirs == ours else accounting.RENAMED)
    if choices.inflate is not None and (video := inflated(tensor, shape, choices.inflate)) is not None:
        return video, TensorRow(theirs, ours, accounting.INFLATED, f"{tuple(tensor.shape)} to {tuple(shape)}")
    note = f"has the shape {tuple(tensor.shape)} instead of {tuple(shape)}"
    return tensor, TensorRow(theirs, ours, accounting.MISFIT, note)


class _Others:
    """The tensors of a file beside those of the backbone.

    Args:
        found: What was recognized.
        rows: What became of the tensors of the backbone.
    """

    def __init__(self, found: Found, rows: list[TensorRow]) -> None:
        self.found, self.rows = found, rows
        taken = {row.theirs for row in rows}
        self.left = {name: tensor for name, tensor in found.container.tensors.items() if name not in taken}
        self._leave_out(found.format.ignored)

    def head(self) -> dict[str, Tensor] | None:
        """Take the linear classifier."""
        if not self.found.layout.head:
            return None
        name = self.found.prefix + self.found.layout.head
        weight, bias = self.left.get(f"{name}.weight"), self.left.get(f"{name}.bias")
        if weight is None or bias is None or len(weight) != len(bias):
            return None
        for part in ("weight", "bias"):
            self._take(f"{name}.{part}", f"classifier.{part}")
        return {"weight": weight.flatten(1), "bias": bias}  # some classifiers are convolutions

    def method(self) -> dict[str, Tensor]:
        """Take what our method has beside the backbone."""
        found: dict[str, Tensor] = {}
        for pattern, replacement in self.found.format.method:
            for name in [name for name in self.left if re.fullmatch(pattern, name)]:
                ours = re.sub(pattern, replacement, name)
                found[ours] = self.left[name]
                self._take(name, ours)
        return found

    def leave_out(self) -> None:
        """Account for the rest: other encoders, states of training, and what is unexpected."""
        for encoder, prefix in self.found.encoders.items():
            if prefix != self.found.prefix:
                self._leave_out({re.escape(prefix): f"of the encoder {encoder}, which encoder={encoder} takes"}, True)
        self._leave_out(IGNORED_ALWAYS)
        self._leave_out({rf"(^|\.){COUNTER}$": "counter of batch norm"})
        self.rows += [TensorRow(name, "", accounting.UNEXPECTED) for name in self.left]

    def _leave_out(self, patterns: Mapping[str, str], from_start: bool = False) -> None:
        search = re.match if from_start else re.search
        for pattern, reason in patterns.items():
            for name in [name for name in self.left if search(pattern, name)]:
                del self.left[name]
                self.rows.append(TensorRow(name, "", accounting.IGNORED, reason))

    def _take(self, name: str, ours: str) -> None:
        del self.left[name]
        self.rows.append(TensorRow(name, ours, accounting.RENAMED))


def _stats_name(found: Found, facts: Facts) -> str:
    """Return the name of the statistics; numbers that no name has are registered under the name of the format."""
    if isinstance(facts.stats, str):
        return facts.stats
    wanted = ChannelStatistics(*facts.stats)
    for name, known in STATISTICS.items():
        if known == wanted:
            return name
    register_statistics(found.format.name, *wanted)
    return found.format.name


def _refusal(file: str, found: Found, problems: Sequence[TensorRow]) -> str:
    """Return which tensors are not accounted for, and the cure."""
    what = f"{file} ({found.format.title}, {found.network.backbone}) cannot be taken as it is"
    parts = list(_by_status(problems))
    names = sorted({_module_of(row) for row in problems})
    cure = f"allow them by name if that is meant (allow=[{','.join(names[:3])}{',...' if len(names) > 3 else ''}])"
    return f"{what}: {'; '.join(parts)}; {cure}"


def _by_status(problems: Sequence[TensorRow]) -> Iterator[str]:
    for status in accounting.PROBLEMS:
        rows = [row for row in problems if row.status == status]
        if rows and status == accounting.MISFIT:
            yield f"{len(rows)} do not fit: {shorten([f'{row.theirs} {row.note}' for row in rows], num=3)}"
        elif rows:
            names = [row.theirs or row.ours for row in rows]
            yield f"{len(rows)} are {status}: {shorten(names, num=8)}"


def _module_of(row: TensorRow) -> str:
    return (row.theirs or row.ours).rpartition(".")[0] or row.theirs or row.ours
