"""Import of a file of another code base: every tensor accounted for, or an error that names those that are not."""

import shlex
from collections.abc import Collection, Iterator, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from math import inf, isfinite

import torch
from torch import Tensor

from eztorch_sce import registry
from eztorch_sce.augment.statistics import name_statistics
from eztorch_sce.errors import ConfigError, did_you_mean, shorten
from eztorch_sce.interop import accounting
from eztorch_sce.interop.accounting import TensorRow
from eztorch_sce.interop.containers import Container, read_container
from eztorch_sce.interop.format import Facts
from eztorch_sce.interop.inflation import FLAT, WAYS
from eztorch_sce.interop.layouts import Network
from eztorch_sce.interop.module_facts import contradictions
from eztorch_sce.interop.others import classes_of, other_tensors
from eztorch_sce.interop.recognition import Found, check_backbone, recognize, unwrapped
from eztorch_sce.interop.taking import Taker
from eztorch_sce.models.backbones.base import BackboneConfig, as_backbone, build_network
from eztorch_sce.models.backbones.timm_models import TimmConfig
from eztorch_sce.models.weights_content import problems_of_input
from eztorch_sce.types import InputSpec

_VIDEO_FRAMES = 8  # of a network that image weights are inflated for


@dataclass(frozen=True)
class Choices:
    """What a user may say about a file of another code base.

    Attributes:
        format: Its format; None recognizes it.
        encoder: Which of its encoders to take; None takes the first of the format.
        backbone: Registered name of our network, or timm/MODEL for one of timm; None recognizes it.
        allow: Names of tensors or modules, or patterns, that may be missing, unexpected or of another shape.
        inflate: "repeat" or "center" to give 2-D convolutions the frames of the video network `backbone`; None refuses
            them.
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
        state: State dict of the backbone, by our names. Tensors that are missing and allowed are initialized at random.
        head: State dict of the linear classifier, or None.
        classes: Names of the classifier's classes, in the order of its outputs; empty if the file has none.
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
    classes: list[str]
    method: dict[str, Tensor]
    rows: list[TensorRow]
    notes: list[str] = field(default_factory=list)
    refused: str = ""

    @property
    def title(self) -> str:
        """What was recognized, in a few words."""
        found = self.found
        others = [name for name in found.encoders if name != found.encoder]
        is_first = found.encoder == next(iter(found.format.encoders)) or len(found.format.encoders) == 1
        named = "" if is_first and not others else f", encoder={found.encoder}"
        named += f" (also {', '.join(others)})" if others else ""
        return f"{found.format.title}, {registry.name_of(self.config)}{named}"


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
        ConfigError: If it holds no network that we know, or a choice is invalid.
    """
    container = unwrapped(container)
    container, choices = _with_model(container, choices)
    found = _recognized(container, file, choices)
    network, facts = _network_of(found, file, choices), found.facts
    taker = Taker(found, network, facts.channels, choices.inflate)
    state, rows = taker.network(found.prefix)
    others = other_tensors(found, rows, taker)
    rows = [_allowed(row, choices.allow, taker.shapes) for row in others.rows]
    _check_choices(found, rows, file, choices)
    _initialize(state, rows, network)
    refused = f"{file} ({found.format.title}): {facts.refused}" if facts.refused else ""
    if not refused and (problems := accounting.problems(rows)):
        refused = _refusal(file, found, problems, [row for row in rows if row not in problems])
    notes = [note for note in (facts.assumed, *others.notes) if note]
    config, spec = network.config(facts.settings), _spec(found, facts, network)
    if network != found.network and spec.num_frames != facts.num_frames:
        notes.append(f"clips of {spec.num_frames} frames over {spec.clip_s} s are assumed for the inflated network")
    if not refused and network == found.network and (differing := contradictions(found, config)):
        what = f"its layers are not those of {network.backbone}: {shorten(differing)}"
        refused = f"{file} ({found.format.title}): {what}"
    head, classes = others.head, classes_of(container, others.head)
    return Imported(found, config, spec, state, head, classes, others.method, rows, notes, refused)


def _with_model(container: Container, choices: Choices) -> tuple[Container, Choices]:
    """Take a network of timm that the user names, `backbone=timm/MODEL`, as if the file said so."""
    name, _, model = (choices.backbone or "").partition("/")
    if name != "timm" or not model:
        return container, choices
    TimmConfig(model).architecture()  # raises ConfigError if timm has none of this name
    return container._replace(values={"architecture": model, **container.values}), replace(choices, backbone=name)


def _recognized(container: Container, file: str, choices: Choices) -> Found:
    """Return the network in a file, which may be an image network that the user has inflated."""
    if choices.inflate is not None and choices.inflate not in WAYS:
        raise ConfigError([f"inflate={choices.inflate} must be one of {', '.join(WAYS)}"])
    if choices.backbone is None:
        if choices.inflate is not None:
            known = ", ".join(FLAT)
            raise ConfigError([f"inflate={choices.inflate} needs a video network: add backbone=..., one of {known}"])
        return recognize(container, file, choices.format, choices.encoder)
    check_backbone(choices.backbone)
    flat = FLAT.get(choices.backbone)
    backbones = [choices.backbone] if flat is None else [choices.backbone, flat.backbone]
    return recognize(container, file, choices.format, choices.encoder, backbones)


def _network_of(found: Found, file: str, choices: Choices) -> Network:
    """Return the network to import: the one that was found, or the video network that it is inflated for."""
    if choices.backbone in (None, found.network.backbone):
        return found.network
    assert choices.backbone is not None
    if choices.inflate is None:
        what = f"backbone={choices.backbone}: {file} holds {found.network.backbone}, a network for images"
        raise ConfigError([f"{what}: add inflate=repeat or inflate=center to give its convolutions frames"])
    network = Network(choices.backbone)
    known = [item.name for item in fields(registry.choices("backbone")[choices.backbone])]
    settings = {**dict(found.network.settings), **found.facts.settings}
    if unknown := [f"{name}={value}" for name, value in settings.items() if name not in known]:
        what = f"{file} holds {found.network.backbone} with {', '.join(unknown)}"
        raise ConfigError([f"{what}, which backbone={choices.backbone} cannot express: import it without inflate"])
    return network


def _spec(found: Found, facts: Facts, network: Network) -> InputSpec:
    num_frames = facts.num_frames if network == found.network else max(facts.num_frames, _VIDEO_FRAMES)
    numbers = None if isinstance(facts.stats, str) else facts.stats
    if numbers and not all(isfinite(mean) and 0 < std < inf for mean, std in zip(*numbers, strict=True)):
        raise ConfigError([f"{found.format.title}: the file says the mean and standard deviation {numbers}"])
    stats = facts.stats if isinstance(facts.stats, str) else name_statistics(*facts.stats)
    spec = InputSpec(num_frames, facts.clip_s, facts.size, stats, "rgb", facts.frame_stride)
    if problems := list(problems_of_input(asdict(spec))):
        raise ConfigError([f"{found.format.title}: the file says that {', '.join(problems)}"])
    return spec


def _allowed(row: TensorRow, allow: Sequence[str], of_network: Collection[str]) -> TensorRow:
    if row.status not in accounting.PROBLEMS or not accounting.is_allowed(row, allow):
        return row
    random = ": initialized at random" if row.ours in of_network else ""
    return row._replace(status=accounting.ALLOWED, note=f"{row.note or row.status}, as allowed{random}")


def _check_choices(found: Found, rows: Sequence[TensorRow], file: str, choices: Choices) -> None:
    """Raise ConfigError if the user allows or inflates what is not there."""
    problems = []
    for name in choices.allow:
        if not any(accounting.is_allowed(row, [name]) for row in rows):
            modules = {part for row in rows for part in (row.theirs or row.ours).split(".")}
            problems.append(f"allow=[{name}] names no tensor of {file}{did_you_mean(name, modules)}")
    inflated = any(row.status == accounting.INFLATED for row in rows)
    if choices.inflate is not None and choices.backbone == found.network.backbone and not inflated:
        problems.append(f"inflate={choices.inflate} has no effect: {file} holds a network for videos")
    if problems:
        raise ConfigError(problems)


def _initialize(state: dict[str, Tensor], rows: Sequence[TensorRow], network: Network) -> None:
    """Initialize the tensors of a network that are missing and allowed at random, always in the same way."""
    missing = [row.ours for row in rows if row.status == accounting.ALLOWED and row.ours]
    if not missing:
        return
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        initial = as_backbone(build_network(network.config())).state_dict()
    state |= {name: initial[name] for name in missing if name in initial}


def _refusal(file: str, found: Found, problems: Sequence[TensorRow], others: Sequence[TensorRow]) -> str:
    """Return which tensors are not accounted for, and the cure."""
    what = f"{file} ({found.format.title}, {found.network.backbone}) cannot be taken as it is"
    taken = {name for row in others if row.ours for name in (row.theirs, row.ours)}
    taken = {name.rsplit(".", number)[0] for name in taken for number in range(name.count(".") + 1)}
    names = list(dict.fromkeys(_module_of(row, taken) for row in problems))
    allow = f"allow=[{','.join(names[:3])}{',...' if len(names) > 3 else ''}]"
    command = f"eztorch-sce checkpoint import {shlex.quote(file)} OUT {allow}"
    return f"{what}: {'; '.join(_by_status(problems))}; if that is meant, allow it by name: `{command}`"


def _by_status(problems: Sequence[TensorRow]) -> Iterator[str]:
    for status in accounting.PROBLEMS:
        rows = [row for row in problems if row.status == status]
        if rows and status == accounting.MISFIT:
            yield f"{len(rows)} do not fit: {shorten([f'{row.theirs} {row.note}' for row in rows], num=3)}"
        elif rows:
            names = [row.theirs or row.ours for row in rows]
            yield f"{len(rows)} are {status}: {shorten(names, num=8)}"


def _module_of(row: TensorRow, taken: Collection[str]) -> str:
    """Return the outermost module of a tensor that holds none that is taken, or the tensor itself, for the cure.

    Args:
        row: What became of the tensor.
        taken: Names of the tensors that are taken, and of the modules that hold them.
    """
    parts = (row.theirs or row.ours).split(".")
    modules = (".".join(parts[:number]) for number in range(1, len(parts) + 1))
    return next((name for name in modules if name not in taken), ".".join(parts))
