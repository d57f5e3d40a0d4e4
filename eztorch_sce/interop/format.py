"""What a format of checkpoints is: how its files are arranged, and what its networks compute."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from torch import Tensor

from eztorch_sce.augment.statistics import Channels

if TYPE_CHECKING:
    from eztorch_sce.interop.containers import Container
    from eztorch_sce.interop.layouts import Layout
    from eztorch_sce.interop.recognition import Found

WRAPPERS = (
    r"(?:(?:state_dict|model_state|model_state_dict|model|net|network|module|_orig_mod|params|weights|checkpoint)\.)*"
)
"""Pattern of names around a network that say nothing about it; any format may have them."""
BY_PREFIX = "*"
"""Name in `Format.encoders` of networks that are named by what stands before their tensors."""


@dataclass(frozen=True)
class Facts:
    """What a network computes that the names and shapes of its tensors do not say.

    Attributes:
        stats: Name of the mean and standard deviation of its input, or the numbers for pixels in [0, 1], in RGB order.
        channels: "rgb", or "bgr" for a network that takes blue first; its first convolution is then turned around.
        size: Side of the square crop in pixels.
        num_frames: Frames per clip; 1 for images.
        clip_s: Duration of a clip in seconds.
        frame_stride: Step between frames in video frames, in place of `clip_s`.
        settings: Settings of our network that express what it computes, such as the epsilon of batch norm.
        refused: What our network cannot express, in words: the file is then refused; otherwise "".
        assumed: What the file does not say and is assumed, in words, for the user to check; otherwise "".
    """

    stats: str | tuple[Channels, Channels] = "image"
    channels: str = "rgb"
    size: int = 224
    num_frames: int = 1
    clip_s: float = 2.56
    frame_stride: int | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    refused: str = ""
    assumed: str = ""


def as_it_is(tensor: Tensor) -> Tensor:
    """Return the tensor."""
    return tensor


def turned(tensor: Tensor) -> Tensor:
    """Return a queue that is stored (dim, size) as (size, dim)."""
    return tensor.t() if tensor.ndim == 2 else tensor


def as_scalar(tensor: Tensor) -> Tensor:
    """Return a tensor of one number without dimensions."""
    return tensor.reshape(()) if tensor.numel() == 1 else tensor


class Move(NamedTuple):
    """Tensors that a pretraining goes on from, beside the backbone.

    Attributes:
        theirs: Pattern of their names, without what stands before the encoders' names.
        ours: Their names in the state dict of our method, as a replacement for `re.sub`.
        change: What brings such a tensor into our form.
    """

    theirs: str
    ours: str
    change: Callable[[Tensor], Tensor] = as_it_is


@dataclass(frozen=True)
class Format:
    """A public kind of checkpoint.

    Attributes:
        name: Its name, as in `format=NAME`.
        title: The code base and its version, for people.
        layouts: Names of the layouts of its networks, or a function that returns the layouts themselves, for networks
            whose names follow from what the file says.
        encoders: The networks that a file may hold, by name, with the pattern of what stands before the names of their
            tensors, besides `WRAPPERS`. The first one that a file holds is taken unless the user names another. What
            the name `BY_PREFIX` finds is named by what stands before its tensors; of several such networks, the user
            names one.
        facts: What the networks compute, or a function of what was found that returns it.
        evidence: Patterns, each of which must match a name of a tensor or value in the file, by `re.search`. They
            distinguish files whose networks have the same names.
        ignored: Patterns of names of tensors that are left out, with the reason. They take precedence over `method` and
            over the classifier.
        head: Pattern of the names of linear classifiers outside the network, without ".weight", besides `WRAPPERS`.
        method: What a pretraining of ours goes on from. It belongs to the first encoder.
        momentum: Name of the encoder that is the moving average of the first one, if there is one.
        named_only: Whether it is taken only as `format=NAME`, because nothing in its files distinguishes them from
            those of another format.
    """

    name: str
    title: str
    layouts: "tuple[str, ...] | Callable[[Container], Sequence[Layout]]"
    encoders: Mapping[str, str]
    facts: "Facts | Callable[[Found], Facts]"
    evidence: tuple[str, ...] = ()
    ignored: Mapping[str, str] = field(default_factory=dict)
    head: str = ""
    method: tuple[Move, ...] = ()
    momentum: str = ""
    named_only: bool = False


@dataclass(frozen=True)
class Unsupported:
    """Networks that we recognize and have no home for.

    Attributes:
        title: What they are, for people.
        evidence: Patterns, each of which matches a name of a tensor in such a file, by `re.search`.
        cure: What to do instead, in words.
    """

    title: str
    evidence: tuple[str, ...]
    cure: str


IGNORED_ALWAYS: Mapping[str, str] = {
    r"(^|\.)optimizers?(_states?|_state_dict)?\.": "state of an optimizer",
    r"(^|\.)(lr_)?schedulers?\.|(^|\.)lr_schedulers\.": "state of a schedule",
    r"(^|\.)(\w+_)?scaler\.": "state of a gradient scaler",
    r"(^|\.)(rng_state|cuda_rng_state|random_state)(s)?(\.|$)": "state of a random generator",
    r"^(callbacks|loops|hooks|message_hub)\.": "state of a training loop",
}
"""Tensors that no format needs, with the reason."""
