"""Trial of a network on a small batch: whether it takes clips or images, and how wide its features are."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor, nn

from eztorch_sce.errors import ConfigError, first_line
from eztorch_sce.models.modes import evaluation_mode

_GIVE = "give as_backbone the num_frames and the size of its input"
_COMMON = ((8, 64), (8, 224), (16, 224), (16, 112), (8, 32))  # (frames, side in pixels); the last for images of CIFAR
_BATCH_SIZE = 2  # tells (B, F) from the features of a network that drops the batch axis


class Probed(NamedTuple):
    """Input and output of a network.

    Attributes:
        takes_clips: Whether it takes (B, C, T, H, W); otherwise it takes (B, C, H, W).
        num_features: Width F of its output (B, F).
    """

    takes_clips: bool
    num_features: int


def check_network(network: object) -> None:
    """Raise ConfigError unless the value is a module."""
    if isinstance(network, type):
        name = network.__name__
        raise ConfigError([f"{name} is a class, and a backbone is an object: pass {name}()"])
    if not isinstance(network, nn.Module):
        raise ConfigError([f"a backbone is a torch.nn.Module, not {network!r}"])


def probe(network: nn.Module, name: str, num_frames: int | None, size: int | None) -> Probed:
    """Pass clips through a network or, if it does not take them, images.

    The network runs in evaluation mode on its own device; its mode, its buffers and the state of the random generators
    are left as they were.

    Args:
        network: The network.
        name: Its name in error messages.
        num_frames: Frames of the clips; None tries common numbers.
        size: Side of the clips or images in pixels; None tries common sizes.

    Raises:
        ConfigError: If it takes neither, does not return features (B, F), or returns a number of features that depends
            on the input where that is not given.
    """
    if num_frames is not None and size is not None:
        probed = _probe_one(network, name, num_frames, size)
        if isinstance(probed, str):
            raise ConfigError([probed])
        return probed
    if any(isinstance(tensor, nn.UninitializedParameter) for tensor in network.parameters()):
        raise ConfigError([f"{name} has lazy layers, which take their shape from the input: {_GIVE}"])
    tries = [(num_frames or frames, size or side) for frames, side in _COMMON]
    failures = []
    for frames, side in dict.fromkeys(tries):
        probed = _probe_one(network, name, frames, side)
        if isinstance(probed, Probed):
            _check_width(network, name, probed, (frames, side), (num_frames or frames + 4, size or side + 32))
            return probed
        failures.append(probed)
    raise ConfigError([failures[0]])


def _check_width(
    network: nn.Module, name: str, probed: Probed, first: tuple[int, int], second: tuple[int, int]
) -> None:
    """Raise ConfigError if the number of features is another for an input of another size."""
    other = _probe_one(network, name, *second)
    if isinstance(other, Probed) and other.num_features != probed.num_features:
        counts = {first: probed.num_features, second: other.num_features}
        sizes = " and ".join(f"{count} for {frames} x {side} x {side}" for (frames, side), count in counts.items())
        raise ConfigError(
            [f"{name} returns features whose number depends on the input ({sizes}): pool them, or {_GIVE}"]
        )


def _probe_one(network: nn.Module, name: str, num_frames: int, size: int) -> Probed | str:
    """Return what a network takes and returns, or why it takes neither clips nor images of this size.

    Raises:
        ConfigError: If it takes them, and does not return features (B, F).
    """
    shapes = {True: (_BATCH_SIZE, 3, num_frames, size, size), False: (_BATCH_SIZE, 3, size, size)}
    failures: dict[bool, Exception] = {}
    with undisturbed(network):
        for takes_clips, shape in shapes.items():
            try:
                output = network(zeros_for(network, shape))
            except Exception as error:  # reported below, if images fail too
                failures[takes_clips] = error
                continue
            if message := _output_message(output, name):
                raise ConfigError([message])
            return Probed(takes_clips, int(output.shape[1]))
    return _failure_message(network, name, shapes, failures)


@contextmanager
def undisturbed(network: nn.Module) -> Iterator[None]:
    """Run a network in evaluation mode, without gradients and without advancing the random generators."""
    device = device_of(network)
    with evaluation_mode(network), torch.no_grad(), torch.random.fork_rng([device] if device.type == "cuda" else []):
        yield


def zeros_for(network: nn.Module, shape: tuple[int, ...]) -> Tensor:
    """Return zeros on the device of a network, in the type of its weights."""
    dtypes = (parameter.dtype for parameter in network.parameters() if parameter.is_floating_point())
    return torch.zeros(shape, device=device_of(network), dtype=next(dtypes, torch.float32))


def device_of(network: nn.Module) -> torch.device:
    """Return the device of the first parameter or buffer of a network; the CPU if it has none."""
    for tensor in (*network.parameters(), *network.buffers()):
        return tensor.device
    return torch.device("cpu")


def _failure_message(
    network: nn.Module, name: str, shapes: Mapping[bool, tuple[int, ...]], failures: Mapping[bool, Exception]
) -> str:
    """Return why a network takes neither clips nor images."""
    layers = list(network.modules())
    shown = [True, False]
    if any(isinstance(layer, nn.Conv3d) for layer in layers):
        shown = [True]
    elif any(isinstance(layer, nn.Conv2d) for layer in layers):
        shown = [False]
    elif first_line(failures[True]) == first_line(failures[False]):  # a mistake in its code
        shown = [True]
    kinds = {True: "clips (B, C, T, H, W)", False: "images (B, C, H, W)"}
    reasons = [
        f"fails on {kinds[kind]} of shape {shapes[kind]}: {first_line(failures[kind]).rstrip('.!')}" for kind in shown
    ]
    _, _, num_frames, height, width = shapes[True]
    return (
        f"{name} {', and '.join(reasons)}. If it needs an input of another size than {num_frames} x {height} x {width} "
        "(frames x height x width), set data.num_frames and the size of the views, or num_frames and size of "
        "as_backbone"
    )


def _output_message(output: object, name: str) -> str | None:
    """Return what is wrong with the output of a network, or None if it is features (B, F)."""
    expected = "a backbone returns features (B, F)"
    if not isinstance(output, Tensor):
        kind = type(output).__name__
        cure = "wrap it in a module whose forward returns the features"
        if isinstance(output, Mapping | tuple | list) and (parts := _parts(output)):
            cure += f": one of {parts}"
        return f"{name} returns {'None' if output is None else f'a {kind}'}, but {expected}: {cure}"
    shape = tuple(output.shape)
    returned = f"{name} returns shape {shape} for a batch of {_BATCH_SIZE}"
    if output.ndim == 2 and shape[0] == _BATCH_SIZE:
        return None if output.is_floating_point() else f"{name} returns {output.dtype}, but {expected} as floats"
    if output.ndim >= 4 and shape[0] == _BATCH_SIZE:
        axes = len(shape) - 2
        cure = f"end it with nn.AdaptiveAvgPool{axes}d(1) and nn.Flatten()"
        return f"{returned}: these are feature maps, not features (B, F); {cure}"
    if output.ndim == 3 and shape[0] == _BATCH_SIZE:
        return f"{returned}: these are tokens, not features (B, F); return one of them, or their mean(dim=1)"
    return f"{returned}, but {expected}: keep the batch as the first axis"


def _parts(output: Mapping[object, object] | tuple[object, ...] | list[object]) -> str:
    """Return the tensors in an output with their shapes, such as "pooler_output (2, 768)"."""
    items = output.items() if isinstance(output, Mapping) else ((f"[{i}]", value) for i, value in enumerate(output))
    return ", ".join(f"{key} {tuple(value.shape)}" for key, value in items if isinstance(value, Tensor))
