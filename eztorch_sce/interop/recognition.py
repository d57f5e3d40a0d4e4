"""Recognition: the format, the network and the encoder of a file, from the names and shapes of its tensors."""

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from functools import cache
from typing import NamedTuple

import torch

from eztorch_sce import registry
from eztorch_sce.errors import ConfigError, did_you_mean, first_line, shorten
from eztorch_sce.interop.containers import Container
from eztorch_sce.interop.format import BY_PREFIX, WRAPPERS, Facts, Format
from eztorch_sce.interop.formats import FORMATS, UNSUPPORTED
from eztorch_sce.interop.layouts import COUNTER, LAYOUTS, Layout, Network, shapes_of

_ENOUGH = 0.5  # of the tensors of a network, to speak of it as incomplete instead of unknown
_TRANSPARENT = re.compile(r"(?:^|(?<=\.))(?:_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")


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
        """What the network computes beyond names and shapes.

        Raises:
            ConfigError: If the file says nonsense about it, such as an infinite size.
        """
        if isinstance(self.format.facts, Facts):
            return self.format.facts
        try:
            return self.format.facts(self)
        except ConfigError:
            raise
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
            what = f"the settings beside the weights cannot be those of {self.format.title}"
            raise ConfigError([f"{what} ({first_line(error)})"]) from error


def unwrapped(container: Container) -> Container:
    """Return a container whose names lack what compiled, sharded and checkpointed modules put into them.

    Names that would become those of other tensors stay as they are.
    """
    names = {name: _TRANSPARENT.sub("", name) for name in container.tensors}
    if len(set(names.values())) < len(names):
        return container
    return container._replace(tensors={names[name]: tensor for name, tensor in container.tensors.items()})


def recognize(
    container: Container,
    file: str,
    format_name: str | None = None,
    encoder: str | None = None,
    backbones: Collection[str] = (),
) -> Found:
    """Return the network in a file: complete if there is one, else the one that most of its tensors fit.

    Args:
        container: The content of the file.
        file: Its path as typed, for messages.
        format_name: Name of its format; None recognizes it.
        encoder: Which of several encoders to take; None takes the first of the format.
        backbones: Registered names of the networks that it may be; none recognizes it.

    Raises:
        ConfigError: If a name is unknown, no network is found, or there are several and none is named.
    """
    formats = _named(FORMATS, format_name)
    found = list(_all_found(container, formats, backbones))
    if not found:
        raise ConfigError([_unknown(container, file, format_name, backbones)])
    best = max(found, key=_rank)  # the first of equal ones
    same = [each for each in found if each.format is best.format and each[2:4] == best[2:4]]  # layout and network
    by_name: dict[str, Found] = {}
    for each in sorted(same, key=lambda each: _order(each.encoder, best.format)):
        by_name.setdefault(each.encoder, each)
    encoders = {name: each.prefix for name, each in by_name.items()}
    wanted = next(iter(by_name)) if encoder is None else encoder
    if encoder is None and wanted not in best.format.encoders and len(by_name) > 1:
        choice = f"name the one to take (encoder={wanted})"
        raise ConfigError([f"{file} holds {len(by_name)} networks, {', '.join(by_name)}: {choice}"])
    if wanted not in by_name:
        known = f"it holds {', '.join(by_name)}"
        raise ConfigError([f"encoder={wanted}: {file} has no such encoder{did_you_mean(wanted, by_name)}; {known}"])
    return by_name[wanted]._replace(encoders=encoders)


def check_backbone(name: str) -> None:
    """Raise ConfigError unless a name is that of a registered backbone."""
    known = list(registry.choices("backbone"))
    if name not in known:
        raise ConfigError([f"backbone={name} is not known{did_you_mean(name, known)}; choose from {', '.join(known)}"])


def _order(encoder: str, of: Format) -> int:
    """Return the place of an encoder in its format; those named by their prefix come last."""
    return list(of.encoders).index(encoder) if encoder in of.encoders else len(of.encoders)


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


def _all_found(container: Container, formats: Iterable[Format], backbones: Collection[str]) -> Iterator[Found]:
    """Yield every network of every format whose first convolution is in the file, if enough of it is."""
    names = [*container.tensors, *container.values, *container.objects]
    for each in formats:
        if not all(any(re.search(pattern, name) for name in names) for pattern in each.evidence):
            continue
        for layout in each.layouts(container) if callable(each.layouts) else [LAYOUTS[name] for name in each.layouts]:
            for encoder, prefix in _prefixes(container, each, layout):
                yield from _fitting(container, each, layout, encoder, prefix, backbones)


def _prefixes(container: Container, each: Format, layout: Layout) -> Iterator[tuple[str, str]]:
    """Yield the encoders of a format that the file holds, with what stands before their names."""
    starts = dict.fromkeys(
        name.removesuffix(anchor)
        for anchor in layout.names(layout.anchor)
        for name in container.tensors
        if name == anchor or name.endswith(f".{anchor}")
    )
    for start in starts:
        fits = [name for name, pattern in each.encoders.items() if re.fullmatch(WRAPPERS + pattern + WRAPPERS, start)]
        if fits:
            yield (start.rstrip(".") or "network" if fits[0] == BY_PREFIX else fits[0]), start


def _fitting(
    container: Container, each: Format, layout: Layout, encoder: str, prefix: str, backbones: Collection[str]
) -> Iterator[Found]:
    shapes: dict[str, torch.Size] = {
        name.removeprefix(prefix): tensor.shape for name, tensor in container.tensors.items() if name.startswith(prefix)
    }
    for network in layout.networks:
        if backbones and network.backbone not in backbones:
            continue
        needed = _shapes_by_their_names(layout, network)
        fitting = sum(any(shapes.get(name) == shape for name in names) for names, shape in needed.items())
        if fitting >= _ENOUGH * len(needed):
            yield Found(container, each, layout, network, encoder, prefix, {}, fitting, len(needed))


@cache
def _shapes_by_their_names(layout: Layout, network: Network) -> Mapping[tuple[str, ...], torch.Size]:
    """Return the shapes of the tensors of a network by the names of each in a layout, without counters."""
    shapes = shapes_of(network).items()
    return {layout.names(layout.theirs(name)): shape for name, shape in shapes if not name.endswith(COUNTER)}


def _unknown(container: Container, file: str, format_name: str | None, backbones: Collection[str]) -> str:
    """Return that no network was found, with what the file holds and the cure."""
    asked = f" in format={format_name}" if format_name else ""
    network = " or ".join(backbones) or "a network we know"
    if not container.tensors:
        return f"{file} holds no tensors: give a file with the weights of a network"
    for each in UNSUPPORTED:
        if all(any(re.search(pattern, name) for name in container.tensors) for pattern in each.evidence):
            return f"{file} holds {each.title}, for which there is no backbone here{asked}: {each.cure}"
    held = f"{len(container.tensors)} tensors ({shorten(list(container.tensors), num=3)})"
    cure = (
        "see `eztorch-sce checkpoint inspect`, or name format=... and backbone=..., for one of timm backbone=timm/MODEL"
    )
    return f"{file} holds {held} that are not those of {network}{asked}: {cure}"
