"""Tensors of a file beside those of the network: its classifier, what a pretraining goes on from, and the rest."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from eztorch_sce.interop import accounting
from eztorch_sce.interop.accounting import TensorRow
from eztorch_sce.interop.containers import Container
from eztorch_sce.interop.format import IGNORED_ALWAYS, WRAPPERS
from eztorch_sce.interop.layouts import COUNTER
from eztorch_sce.interop.recognition import Found
from eztorch_sce.interop.taking import Taker, fault_of, in_float32

_CLASSES = re.compile(r"(?:^|\.)(?:CLASSES|classes|class_names|id2label)\.(\d+)$")
MOMENTUM_BACKBONE = "momentum_encoder.encoder.backbone."


@dataclass
class Others:
    """What became of the other tensors.

    Attributes:
        rows: What became of each tensor, with those of the network first.
        head: State dict of the linear classifier, or None.
        method: State of our method beside the backbone.
        notes: What was left out, in words.
    """

    rows: list[TensorRow]
    head: dict[str, Tensor] | None = None
    method: dict[str, Tensor] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def other_tensors(found: Found, rows: list[TensorRow], taker: Taker) -> Others:
    """Account for every tensor of a file that is not of the network.

    Args:
        found: What was recognized.
        rows: What became of the tensors of the network.
        taker: Takes the network, for its moving average.
    """
    account = _Account(found, rows)
    account.leave_out(found.format.ignored)
    others = Others(account.rows)
    others.head = account.head(taker)
    if found.format.method or found.format.momentum:
        if next(iter(found.encoders)) == found.encoder == next(iter(found.format.encoders)):
            others.method = account.method()
            others.method |= account.moving_average(taker, others.notes)
        else:
            account.leave_out_method()
    account.leave_out_encoders()
    account.leave_out(IGNORED_ALWAYS)
    account.leave_out_numbers()
    account.leave_out({rf"(^|\.){COUNTER}$": "counter of batch norm"})
    account.rows += [TensorRow(name, "", accounting.UNEXPECTED) for name in account.left]
    return others


def classes_of(container: Container, head: Mapping[str, Tensor] | None) -> list[str]:
    """Return the names of the classes of a classifier, if the file holds as many as it has outputs; otherwise []."""
    if head is None:
        return []
    by_number: dict[int, str] = {}
    for name, value in container.values.items():
        if (match := _CLASSES.search(name)) and isinstance(value, str):
            by_number[int(match.group(1))] = value
    numbers = range(len(head["bias"]))
    return [by_number[number] for number in numbers] if by_number.keys() == set(numbers) else []


class _Account:
    """The tensors of a file that are not accounted for yet.

    Args:
        found: What was recognized.
        rows: What became of the others; added to.
    """

    def __init__(self, found: Found, rows: list[TensorRow]) -> None:
        self.found, self.rows = found, rows
        taken = {row.theirs for row in rows}
        self.left = {name: tensor for name, tensor in found.container.tensors.items() if name not in taken}

    def head(self, taker: Taker) -> dict[str, Tensor] | None:
        """Take the linear classifier: the first one that takes the features of the network."""
        for name in self._heads():
            weight, bias = self.left[f"{name}.weight"], self.left.get(f"{name}.bias")
            if bias is None or bias.ndim != 1 or weight.flatten(1).shape != (len(bias), taker.num_features):
                continue
            faults = [fault_of(weight, "weight"), fault_of(bias, "bias")]
            for part, fault in zip(("weight", "bias"), faults, strict=True):
                self._take(f"{name}.{part}", f"classifier.{part}", fault)
            if any(faults):
                return None
            return {"weight": in_float32(weight.flatten(1)), "bias": in_float32(bias)}  # some are convolutions
        return None

    def method(self) -> dict[str, Tensor]:
        """Take what our method has beside the backbone and the momentum encoder's backbone."""
        state: dict[str, Tensor] = {}
        for move in self.found.format.method:
            for name in list(self.left):
                if match := re.fullmatch(f"{WRAPPERS}(?P<inner>{move.theirs})", name):
                    ours = re.sub(move.theirs, move.ours, match["inner"])
                    tensor = move.change(self.left[name])
                    fault = "" if tensor.dtype == torch.int64 else fault_of(tensor, ours)  # counters and positions
                    self._take(name, ours, fault)
                    if not fault:
                        state[ours] = in_float32(tensor)
        return state

    def leave_out_method(self) -> None:
        """Leave out what a pretraining goes on from, since another encoder was chosen."""
        first = next(iter(self.found.format.encoders))
        reason = f"of the pretraining of the encoder {first}"
        self.leave_out({rf"^{WRAPPERS}{move.theirs}$": reason for move in self.found.format.method})

    def moving_average(self, taker: Taker, notes: list[str]) -> dict[str, Tensor]:
        """Take the backbone of the momentum encoder, if the file has all of it."""
        name = self.found.format.momentum
        prefix = self.found.encoders.get(name)
        if prefix is None or name == self.found.encoder:
            return {}
        state, rows = taker.network(prefix)
        is_whole = not accounting.problems(rows)
        for row in rows:
            self.left.pop(row.theirs, None)
            ours = MOMENTUM_BACKBONE + row.ours if row.ours else ""
            if row.status in accounting.PROBLEMS or is_whole or not row.theirs:
                status = accounting.RENAMED if row.status == accounting.MATCHED else row.status
                self.rows.append(row._replace(ours=ours, status=status))
            else:
                reason = f"of the encoder {name}, which is not whole"
                self.rows.append(TensorRow(row.theirs, "", accounting.IGNORED, reason))
        if not is_whole:
            notes.append(f"its encoder {name} is not whole, and left out")
            return {}
        return {MOMENTUM_BACKBONE + name: tensor for name, tensor in state.items()}

    def leave_out_encoders(self) -> None:
        """Leave out the other encoders."""
        for encoder, prefix in self.found.encoders.items():
            if prefix != self.found.prefix:
                reason = f"of the encoder {encoder}, which encoder={encoder} takes"
                self.leave_out({rf"^{re.escape(self._outer(encoder, prefix))}": reason})

    def _outer(self, encoder: str, prefix: str) -> str:
        """Return what stands before all tensors of an encoder, of which the network may be a part beside a head."""
        match = re.match(WRAPPERS + self.found.format.encoders.get(encoder, ""), prefix)
        outer = match.group() if match else prefix
        return outer if outer and not self.found.prefix.startswith(outer) else prefix

    def leave_out_numbers(self) -> None:
        """Leave out single numbers beside the state dict, such as the best accuracy so far."""
        if self.found.prefix:
            numbers = [name for name, tensor in self.left.items() if "." not in name and tensor.numel() == 1]
            self.leave_out({rf"^{re.escape(name)}$": "number of the training" for name in numbers})

    def leave_out(self, patterns: Mapping[str, str]) -> None:
        """Leave out the tensors whose names match a pattern, with the reason."""
        for pattern, reason in patterns.items():
            for name in [name for name in self.left if re.search(pattern, name)]:
                del self.left[name]
                self.rows.append(TensorRow(name, "", accounting.IGNORED, reason))

    def _heads(self) -> Iterator[str]:
        """Yield the names of modules that may be the classifier."""
        layout, pattern = self.found.layout, self.found.format.head
        names = [name.removesuffix(".weight") for name in self.left if name.endswith(".weight")]
        if layout.head:
            yield from [name for name in names if name == self.found.prefix + layout.head]
        if pattern:
            yield from [name for name in names if re.fullmatch(WRAPPERS + pattern, name) and self._is_alone(name)]

    def _is_alone(self, name: str) -> bool:
        """Return whether a linear layer is all that its module holds: other classifiers than linear ones hold more."""
        parent = name.rpartition(".")[0]
        return all(other.startswith(f"{name}.") for other in self.left if other.startswith(f"{parent}."))

    def _take(self, name: str, ours: str, fault: str = "") -> None:
        del self.left[name]
        self.rows.append(TensorRow(name, ours, accounting.MISFIT if fault else accounting.RENAMED, fault))
