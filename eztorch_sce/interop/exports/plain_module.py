"""A network as the source of a module that needs nothing but PyTorch, with the same names in its state dict."""

import re
import textwrap
from collections.abc import Iterator
from typing import Any

from torch import Tensor, nn

from eztorch_sce.errors import ConfigError, first_line
from eztorch_sce.interop.exports.check import EXAMPLE_SIZE
from eztorch_sce.interop.exports.taken import Taken, WholeNetwork
from eztorch_sce.interop.exports.tracing import is_leaf, traced

_BY_NAME = "**{"
"""In the source of modules whose names are numbers, but not 0, 1, 2 and so on: they cannot be indexed."""

_MODEL = '''\
"""{title} in plain PyTorch, for the weights in model.safetensors. Written by eztorch-sce."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


{preprocess}


class Model(nn.Module):
    """The network. Call `eval()` after its weights are loaded."""

    def __init__(self) -> None:
        super().__init__()
{modules}

    def forward(self, inputs: Tensor) -> tuple[Tensor, ...]:
        """Return {outputs} of a batch of inputs, {batch}."""
{forward}


def _group(**modules: nn.Module) -> nn.Module:
    """Return modules under their names."""
    group = nn.Module()
    for name, module in modules.items():
        group.add_module(name, module)
    return group
'''

_PREPROCESS = '''\
def preprocess({argument}: Tensor) -> Tensor:
    """Return the input of the network from {what}.

    Args:
        {argument}: RGB, uint8 {shape}, with any height H and width W.

    Returns:
        Normalized, float32 {result}.
    """
{body}'''

_RESIZE = """\
height, width = frames.shape[-2:]
scale = {short_side} / min(height, width)
size = max({short_side}, round(height * scale)), max({short_side}, round(width * scale))
frames = F.interpolate(frames, size=size, mode="bilinear", antialias=True)
top, left = round((size[0] - {crop}) / 2), round((size[1] - {crop}) / 2)
pixels = frames[:, :, top : top + {crop}, left : left + {crop}].float() / 255  # (T, 3, {crop}, {crop})
"""

_DIFFERENCE = """\
gray = (pixels * torch.tensor([0.2989, 0.587, 0.114]).view(3, 1, 1)).sum(dim=1, keepdim=True)
difference = (gray[:-1] - gray[1:] + 1) / 2
pixels = torch.cat([difference, difference[-1:]]).expand(-1, 3, -1, -1)
"""

_NORMALIZE = """\
mean = torch.tensor({mean}).view(3, 1, 1)
std = torch.tensor({std}).view(3, 1, 1)
pixels = (pixels - mean) / std
"""

_STANDARDIZE = """\
pixels = (pixels - pixels.mean()) / pixels.std(unbiased=False).clamp_min(1 / 255)
"""


def head_name(network: WholeNetwork) -> str:
    """Return the name of the classifier among the modules of the backbone."""
    return "classifier" if hasattr(network.backbone, "head") else "head"


def source_of(taken: Taken) -> str:
    """Return the source of a file with `Model`, the network, and `preprocess`.

    Raises:
        ConfigError: If the network does more than modules and functions of PyTorch do, or depends on its input.
    """
    try:
        modules, forward = "\n".join(_modules(taken.network)), _forward(taken.network, taken.inputs(EXAMPLE_SIZE))
        if _BY_NAME not in modules:
            forward = _indexed(forward)
    except Exception as error:  # whatever its code raises when it is traced
        reason = f"{type(error).__name__}: {first_line(error)}"
        raise ConfigError([f"the backbone {taken.name} cannot be written in plain PyTorch: {reason}"]) from error
    shape = ", ".join(map(str, taken.card["preprocessing"]["shape"]))
    return _MODEL.format(
        title=taken.name,
        preprocess=_preprocess(taken),
        modules=textwrap.indent(modules, " " * 8),
        outputs=" and ".join(taken.output_names),
        batch=f"({shape})",
        forward=forward,
    )


def _preprocess(taken: Taken) -> str:
    """Return the source of the function that prepares the input."""
    card, takes_clips = taken.card["preprocessing"], taken.network.backbone.takes_clips
    crop, num_frames = card["crop"], card["num_frames"]
    body = "" if takes_clips else "frames = image.unsqueeze(0)\n"
    body += _RESIZE.format(**card)
    if card["input"] == "difference":
        body += _DIFFERENCE
    body += _STANDARDIZE if card["mean"] is None else _NORMALIZE.format(**card)
    body += "return pixels.transpose(0, 1)" if takes_clips else "return pixels.squeeze(0)"
    return _PREPROCESS.format(
        argument="frames" if takes_clips else "image",
        what=f"the {num_frames} frames of a clip" if takes_clips else "an image",
        shape=f"({num_frames}, 3, H, W)" if takes_clips else "(3, H, W)",
        result=f"(3, {num_frames}, {crop}, {crop})" if takes_clips else f"(3, {crop}, {crop})",
        body=textwrap.indent(body, " " * 4),
    )


def _indexed(forward: str) -> str:
    """Return code with `self.stages[0]` in place of `getattr(self.stages, "0")`."""
    changed = re.sub(r'getattr\(([\w.\[\]]+), "(\d+)"\)', r"\1[\2]", forward)
    return changed if changed == forward else _indexed(changed)


def _forward(network: WholeNetwork, example: Tensor) -> str:
    """Return the body of the method `forward`."""
    code: Any = traced(network, example).python_code("self")
    lines = [re.sub(r";  [\w, =]+ = None$", "", line) for line in code.src.strip().splitlines()[1:]]
    text = re.sub(r"\bself\.head\b", f"self.{head_name(network)}", "\n".join(lines))
    return textwrap.indent(re.sub(r"\bself\.backbone\b", "self", text), " " * 4)


def _modules(network: WholeNetwork) -> Iterator[str]:
    """Yield the statements that make the modules."""
    for name, module in network.backbone.named_children():
        yield f"self.{name} = {_expression(module)}"
    if network.head is not None:
        yield f"self.{head_name(network)} = {_expression(network.head)}"
    for path, module in network.backbone.named_modules():
        if not is_leaf(module):
            yield from _own_tensors(path, module)


def _expression(module: nn.Module) -> str:
    """Return the expression that makes a module."""
    if is_leaf(module):
        if next(module.children(), None) is not None:
            raise TypeError(f"{type(module).__name__} has modules inside")
        # Earlier versions of PyTorch do not take this default. Some networks are built with numbers of NumPy.
        text = f"nn.{module!r}".replace("affine=True, bias=True", "affine=True")
        return re.sub(r"\bnp\.\w+\(([^()]+)\)", r"\1", text)
    children = {name: _expression(child) for name, child in module.named_children()}
    if list(children) == [str(number) for number in range(len(children))]:
        return f"nn.Sequential(\n{_indented(f'{each},' for each in children.values())}\n)"
    if all(name.isidentifier() for name in children):
        return f"_group(\n{_indented(f'{name}={each},' for name, each in children.items())}\n)"
    entries = _indented((f"{name!r}: {each}," for name, each in children.items()), 8)
    return f"_group(\n    {_BY_NAME}\n{entries}\n    }}\n)"


def _indented(lines: Iterator[str], num_spaces: int = 4) -> str:
    return textwrap.indent("\n".join(lines), " " * num_spaces)


def _own_tensors(path: str, module: nn.Module) -> Iterator[str]:
    """Yield the statements that register the tensors of a module that is not one of PyTorch."""
    place = f"self.get_submodule({path!r})" if path else "self"
    stored = module.state_dict()
    for kind, tensors in (
        ("parameter", module.named_parameters(recurse=False)),
        ("buffer", module.named_buffers(recurse=False)),
    ):
        for name, tensor in tensors:
            if name not in stored:
                raise TypeError(f"the buffer {path}.{name} is not stored")
            empty = f"torch.empty({tuple(tensor.shape)}, dtype={tensor.dtype})"
            value = f"nn.Parameter({empty})" if kind == "parameter" else empty
            yield f"{place}.register_{kind}({name!r}, {value})"


def built(source: str) -> nn.Module:
    """Return `Model()` of a source that `source_of` wrote.

    Raises:
        ConfigError: If the source cannot make the network again.
    """
    variables: dict[str, Any] = {"__name__": "model"}
    try:
        exec(compile(source, "model.py", "exec"), variables)
        model: nn.Module = variables["Model"]()
    except Exception as error:
        reason = f"{type(error).__name__}: {first_line(error)}"
        raise ConfigError([f"the network cannot be written in plain PyTorch: {reason}"]) from error
    return model
