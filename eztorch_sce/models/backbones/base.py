"""The contract of backbones: clips in, one pooled feature vector per clip out."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import Field
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from eztorch_sce.errors import did_you_mean
from eztorch_sce.models.backbones.probing import check_network, probe, undisturbed, zeros_for
from eztorch_sce.registry import place_of, wrong_result
from eztorch_sce.types import InputSpec


class Backbone(nn.Module, ABC):
    """A network without a classifier. An image is a clip with T = 1.

    A subclass implements `features`, sets `takes_clips = False` if it only takes images, and sets `stage_names` if it
    has feature maps. Parameters keep the public names of their architecture, so that public checkpoints load unchanged.

    Args:
        name: Name in error messages.
        num_features: Width F of the features.

    Attributes:
        takes_clips: Whether T may be larger than 1.
        input_spec: The input that it was trained on, or None if it is new.
        stage_names: Names of the modules whose outputs are the feature maps, in order, as in the state dict.
    """

    takes_clips: bool = True
    input_spec: InputSpec | None = None
    stage_names: Sequence[str] = ()

    def __init__(self, name: str, num_features: int) -> None:
        super().__init__()
        self.name = name
        self.num_features = num_features

    # `clips` has no shape annotation: the type check in the tests would preempt the errors of `_with_frames`.
    def forward(self, clips: Tensor) -> Float[Tensor, "B F"]:
        """Return pooled features of normalized clips (B, C, T, H, W) or images (B, C, H, W).

        Raises:
            ValueError: If the input has another shape, or has T > 1 for a backbone that only takes images.
        """
        return self.features(self._with_frames(clips))

    if TYPE_CHECKING:
        __call__ = forward  # that of nn.Module takes and returns Any

    @abstractmethod
    def features(self, clips: Float[Tensor, "B C T H W"]) -> Float[Tensor, "B F"]:
        """Return pooled features of normalized clips."""

    def feature_maps(self, clips: Tensor, stage_names: Sequence[str] | None = None) -> dict[str, Tensor]:
        """Return the output of each stage, not pooled: for detection, attentive probes or class activation maps.

        Args:
            clips: Normalized clips (B, C, T, H, W) or images (B, C, H, W), of which the maps have the axes: clips give
                (B, C', T', H', W') and images give (B, C', H', W').
            stage_names: Names of modules, instead of those that the backbone names.

        Raises:
            ValueError: If the backbone names no stages, a name is not one of its modules, or the output of a stage is
                not a tensor; and as `forward` does.
        """
        names = list(self.stage_names if stage_names is None else stage_names)
        modules = self._modules_of(names)
        maps: dict[str, Tensor] = {}
        with ExitStack() as hooks:
            for name, module in zip(names, modules, strict=True):
                hooks.enter_context(module.register_forward_hook(partial(self._keep, maps, name)))
            self(clips)
        if unused := [name for name in names if name not in maps]:
            raise ValueError(f"backbone {self.name} does not call its stages {', '.join(unused)}: choose others")
        return {name: _with_axes_of(clips, maps[name]) for name in names}

    def stage_channels(self, clips: Tensor | None = None) -> dict[str, int]:
        """Return the number of channels of each feature map, as torchvision's `FeaturePyramidNetwork` needs them.

        Args:
            clips: Input to try; None tries one black image of 64 x 64 pixels.
        """
        with undisturbed(self):
            maps = self.feature_maps(zeros_for(self, (1, 3, 64, 64)) if clips is None else clips)
        return {name: stage.shape[1] for name, stage in maps.items()}

    def _staged(self) -> nn.Module:
        """Return the module that the names of the stages are relative to."""
        return self

    def _modules_of(self, names: Sequence[str]) -> list[nn.Module]:
        """Return the stages of these names."""
        known = dict(self._staged().named_modules())
        children = ", ".join(name for name, _ in self._staged().named_children())
        if not names:
            raise ValueError(
                f"backbone {self.name} names no stages: set its attribute stage_names to the names of modules whose "
                f"outputs are feature maps (its modules: {children})"
            )
        for name in names:
            if not name or name not in known:
                hint = did_you_mean(name, known)
                raise ValueError(f"backbone {self.name} has no module {name!r}{hint} (its modules: {children})")
        return [known[name] for name in names]

    def _keep(self, maps: dict[str, Tensor], name: str, module: nn.Module, inputs: object, output: object) -> None:
        """Keep the output of a stage, as a forward hook."""
        if not isinstance(output, Tensor):
            raise ValueError(f"stage {name} of backbone {self.name} returns a {type(output).__name__}, not a tensor")
        maps[name] = output

    def _with_frames(self, clips: Tensor) -> Tensor:
        """Return clips (B, C, T, H, W), of T = 1 if the input is images, after checking its shape."""
        shape = tuple(clips.shape)
        if clips.ndim not in (4, 5):
            raise ValueError(
                f"backbone {self.name} takes (B, C, T, H, W), got shape {shape}; a batch of images is (B, C, H, W)"
            )
        convolutions = (module for module in self.modules() if isinstance(module, nn.Conv2d | nn.Conv3d))
        num_channels = next((module.in_channels for module in convolutions), shape[1])
        if shape[1] != num_channels:  # perhaps not the first convolution that runs: only likely mistakes are errors
            found = f"backbone {self.name} takes {num_channels} channels, got shape {shape}"
            if clips.ndim == 4 and shape[0] == num_channels:
                raise ValueError(f"{found}; a single clip (C, T, H, W) needs a batch axis: clip.unsqueeze(0)")
            if clips.ndim == 5 and shape[2] == num_channels:
                raise ValueError(f"{found}; the axes are (B, C, T, H, W): clips.transpose(1, 2)")
        if clips.ndim == 4:
            clips = clips.unsqueeze(2)
        if not self.takes_clips and clips.shape[2] != 1:
            raise ValueError(
                f"backbone {self.name} takes images (T = 1), got clips of T = {clips.shape[2]} frames; "
                "set data.num_frames=1, or choose a video backbone such as backbone=r3d18"
            )
        return clips


@runtime_checkable
class BackboneConfig(Protocol):
    """A config dataclass that builds a backbone; `@register("backbone", name)` makes it a choice.

    It may also have a method `input_spec()` that returns the `InputSpec` of its network; data and views override it.
    """

    __dataclass_fields__: ClassVar[dict[str, Field[Any]]]  # weights files store the fields

    def build(self) -> nn.Module:
        """Return the backbone, randomly initialized: a `Backbone`, or any module that `as_backbone` takes."""
        ...


class BlockBackbone(Backbone):
    """A stem and blocks, averaged over time and space. State-dict keys are `blocks.0...`, as in pytorchvideo.

    Args:
        name: Name in error messages.
        num_features: Channels of the last block.
        blocks: Modules that map (B, C, T, H, W) to (B, C', T', H', W').
    """

    stage_names = ("blocks.1", "blocks.2", "blocks.3", "blocks.4")

    def __init__(self, name: str, num_features: int, blocks: nn.ModuleList) -> None:
        super().__init__(name, num_features)
        self.blocks = blocks

    def features(self, clips: Float[Tensor, "B C T H W"]) -> Float[Tensor, "B F"]:
        """Return pooled features of normalized clips."""
        x = clips
        for block in self.blocks:
            x = block(x)
        return x.mean(dim=(2, 3, 4))


class NetworkBackbone(Backbone):
    """Any network as a backbone; see also `as_backbone`.

    Args:
        name: Name in error messages.
        num_features: Width F of the network's output.
        network: Maps clips (B, C, T, H, W), or images (B, C, H, W) if `takes_clips` is false, to (B, F).
        takes_clips: Whether the network takes clips.
        stage_names: Names of the modules of the network whose outputs are its feature maps.
    """

    def __init__(
        self,
        name: str,
        num_features: int,
        network: nn.Module,
        takes_clips: bool = True,
        stage_names: Sequence[str] = (),
    ) -> None:
        super().__init__(name, num_features)
        self.network, self.takes_clips, self.stage_names = network, takes_clips, stage_names

    def features(self, clips: Float[Tensor, "B C T H W"]) -> Float[Tensor, "B F"]:
        """Return pooled features of normalized clips."""
        features: Tensor = self.network(clips if self.takes_clips else clips.squeeze(2))
        if features.shape != (len(clips), self.num_features):
            raise ValueError(
                f"backbone {self.name} returned shape {tuple(features.shape)} for an input of shape "
                f"{tuple(clips.shape)}, instead of (B, F) with F = {self.num_features}"
            )
        return features

    def _staged(self) -> nn.Module:
        """Return the network: its stages have the names that they have in it."""
        return self.network


def build_network(config: BackboneConfig) -> nn.Module:
    """Return what a config builds.

    Raises:
        ConfigError: If that is not a module.
    """
    network: object = config.build()
    if not isinstance(network, nn.Module) and place_of(config) is not None:
        raise wrong_result(config, "build", network, "a torch.nn.Module that maps (B, C, T, H, W) to (B, F)")
    return network  # type: ignore[return-value]  # objects that are passed in Python are checked by `as_backbone`


def as_backbone(
    network: nn.Module,
    num_frames: int | None = None,
    size: int | None = None,
    name: str | None = None,
    stage_names: Sequence[str] = (),
) -> Backbone:
    """Return any network as a backbone; a backbone is returned as it is.

    Whether the network takes clips (B, 3, T, H, W) or images (B, 3, H, W), and the width F of its output (B, F), are
    found by a forward pass on its device. It changes neither the network nor the state of the random generators, except
    that lazy layers get their shapes.

    Args:
        network: A module without a classifier.
        num_frames: Frames T of the clips that it will get; None tries common numbers.
        size: Side in pixels of the clips or images that it will get; None tries common sizes.
        name: Name in error messages; None takes that of the class.
        stage_names: Names of the modules of the network whose outputs are its feature maps.

    Raises:
        ConfigError: If the network is not a module, takes neither clips nor images, or does not return features (B, F).

    Examples:
        >>> as_backbone(nn.Sequential(nn.AdaptiveAvgPool3d(1), nn.Flatten()), name="mean color").num_features
        3
    """
    check_network(network)
    if isinstance(network, Backbone):
        return network
    name = name or type(network).__name__
    takes_clips, num_features = probe(network, name, num_frames, size)
    return NetworkBackbone(name, num_features, network, takes_clips, stage_names)


def built_on_meta(config: BackboneConfig) -> Backbone:
    """Return a network whose tensors have shapes but no memory, on the "meta" device.

    Raises:
        ConfigError: As `as_backbone` does.
    """
    with torch.device("meta"):
        return as_backbone(build_network(config))


def _with_axes_of(clips: Tensor, stage: Tensor) -> Tensor:
    """Return a feature map with an axis for time if the input has one. Outputs other than maps are left as they are."""
    if clips.ndim == 5 and stage.ndim == 4:
        return stage.unsqueeze(2)
    return stage.squeeze(2) if clips.ndim == 4 and stage.ndim == 5 else stage


def init_convolutions(net: nn.Module) -> None:
    """Initialize every convolution with the Kaiming normal distribution by fan-out (He et al., arXiv:1502.01852)."""
    for module in net.modules():
        if isinstance(module, nn.Conv2d | nn.Conv3d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")


def zero_batch_norm(num_channels: int) -> nn.BatchNorm3d:
    """Return a batch norm with zero weights, so that a residual branch that ends in it is initially zero."""
    norm = nn.BatchNorm3d(num_channels)
    nn.init.zeros_(norm.weight)
    return norm
