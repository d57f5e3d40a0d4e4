"""Recognition: the format, the network and the encoder of a file, from the names and shapes of its tensors."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import torch

from eztorch_sce.errors import ConfigError, did_you_mean, shorten
from eztorch_sce.interop.containers import Container
from eztorch_sce.interop.format import BY_PREFIX, WRAPPERS, Facts, Format
from eztorch_sce.interop.formats import FORMATS
from eztorch_sce.interop.layouts import COUNTER, LAYOUTS, Layout, Network, shapes_of

_ENOUGH = 0.5  # of the tensors of a network, to speak of it as incomplete instead of unknown


class Found(NamedTuple):
    """A network in a file.

    Attributes:
        container: The content of the file.
        format: Its format.
        layout: The layout of its names.
        network: The network of ours that has these tensors.
        encoder: Which of the format's encoders it is.
        prefix: What stands before the names of its tensors.
        encoders: All encoders of the format that the file holds, with their prefixes.
        fitting: Number of tensors of the network that the file has in the right shape, without counters.
        needed: Number of tensors of the network, without counters.
    """

    container: Container
    format: Format
    layout: Layout
    network: Network
    encoder: str
    prefix: str
    encoders: dict[str, str]
    fitting: int
    needed: int

    @property
    def is_complete(self) -> bool:
        """Whether every tensor of the network is there in its shape."""
        return self.fitting == self.needed

    @property
    def facts(self) -> Facts:
        """What the network computes beyond names and shapes."""
        return self.format.facts if isinstance(self.format.facts, Facts) else self.format.facts(self)


def recognize(
    container: Container,
    file: str,
    format_name: str | None = None,
    encoder: str | None = None,
    backbone: str | None = None,
) -> Found:
    """Return the network in a file: complete if there is one, else the one that most of its tensors fit.

    Args:
        container: The content of the file.
        file: Its path as typed, for messages.
        format_name: Name of its format; None recognizes it.
        encoder: Which of several encoders to take; None takes the first of the format.
        backbone: Registered name of the network; None recognizes it.

    Raises:
        ConfigError: If a name is unknown, or no network is found.
    """
    formats = _named(FORMATS, format_name)
    found = list(_all_found(container, formats, backbone))
    if not found:
        raise ConfigError([_unknown(container, file, format_name, backbone)])
    best = max(found, key=_rank)  # the first of equal ones
    same = [each for each in found if each.format is best.format and each.layout is best.layout]
    encoders = {each.encoder: each.prefix for each in same if each.network == best.network}
    wanted = _first(encoders, best.format) if encoder is None else encoder
    if wanted not in encoders:
        known = f"it holds {', '.join(encoders)}"
        raise ConfigError([f"encoder={wanted}: {file} has no such encoder{did_you_mean(wanted, encoders)}; {known}"])
    chosen = next(each for each in same if each.encoder == wanted and each.network == best.network)
    return chosen._replace(encoders=encoders)


def _first(encoders: Mapping[str, str], found_format: Format) -> str:
    """Return the encoder that is taken unless the user names another; those named by their prefix come last."""
    order = list(found_format.encoders)
    return min(encoders, key=lambda name: order.index(name) if name in order else len(order))


def _rank(found: Found) -> tuple[bool, float, int]:
    """Return how well a network fits: a complete one before others, and a larger one before one that it contains."""
    return found.is_complete, found.fitting / found.needed, found.needed


def _named(formats: Sequence[Format], name: str | None) -> Sequence[Format]:
    if name is None:
        return [each for each in formats if not each.named_only]
    names = [each.name for each in formats]
    if name not in names:
        raise ConfigError([f"format={name} is not known{did_you_mean(name, names)}; choose from {', '.join(names)}"])
    return [each for each in formats if each.name == name]


def _all_found(container: Container, formats: Iterable[Format], backbone: str | None) -> Iterator[Found]:
    """Yield every network of every format whose first convolution is in the file, if enough of it is."""
    names = [*container.tensors, *container.values, *container.objects]
    for each in formats:
        if not all(any(re.search(pattern, name) for name in names) for pattern in each.evidence):
            continue
        for layout in each.layouts(container) if callable(each.layouts) else [LAYOUTS[name] for name in each.layouts]:
            for encoder, prefix in _prefixes(container, each, layout):
                yield from _fitting(container, each, layout, encoder, prefix, backbone)


def _prefixes(container: Container, each: Format, layout: Layout) -> Iterator[tuple[str, str]]:
    """Yield the encoders of a format that the file holds, with what stands before their names."""
    starts = [
        name.removesuffix(layout.anchor)
        for name in container.tensors
        if name == layout.anchor or name.endswith(f".{layout.anchor}")
    ]
    for encoder, pattern in each.encoders.items():
        for start in starts:
            if re.fullmatch(WRAPPERS + pattern + WRAPPERS, start):
                yield (start.rstrip(".") if encoder == BY_PREFIX else encoder), start


def _fitting(
    container: Container, each: Format, layout: Layout, encoder: str, prefix: str, backbone: str | None
) -> Iterator[Found]:
    shapes: dict[str, torch.Size] = {
        name.removeprefix(prefix): tensor.shape for name, tensor in container.tensors.items() if name.startswith(prefix)
    }
    for network in layout.networks:
        if backbone not in (None, network.backbone):
            continue
        needed = {
            layout.theirs(name): shape for name, shape in shapes_of(network).items() if not name.endswith(COUNTER)
        }
        fitting = sum(shapes.get(name) == shape for name, shape in needed.items())
        if fitting >= _ENOUGH * len(needed):
            yield Found(container, each, layout, network, encoder, prefix, {}, fitting, len(needed))


def _unknown(container: Container, file: str, format_name: str | None, backbone: str | None) -> str:
    """Return that no network was found, with what the file holds and the cure."""
    asked = "".join(f", {what}" for what in (format_name and f"format={format_name}", backbone) if what)
    if not container.tensors:
        return f"{file} holds no tensors{asked}: give a file with the weights of a network"
    held = f"{len(container.tensors)} tensors ({shorten(list(container.tensors), num=3)})"
    cure = "see `eztorch-sce checkpoint inspect`, or name format=... and backbone=..."
    return f"{file} holds {held} that are not those of a network we know{asked}: {cure}"
