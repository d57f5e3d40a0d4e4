"""Networks for images from timm, with their public parameter names after `network.`.

Source: Wightman, "PyTorch Image Models", github.com/huggingface/pytorch-image-models.
"""

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from eztorch_sce.augment.statistics import name_statistics
from eztorch_sce.errors import ConfigError, did_you_mean, first_line
from eztorch_sce.models.backbones.base import Backbone
from eztorch_sce.registry import register
from eztorch_sce.settings import Settings, setting
from eztorch_sce.types import InputSpec

INSTALL = "pip install 'eztorch-sce[timm]'"
_RESERVED = ("pretrained", "pretrained_cfg", "pretrained_cfg_overlay", "checkpoint_path", "cache_dir", "num_classes")
"""Arguments of `timm.create_model` that are not options; a weights file names options too, and must name no file."""


class TimmBackbone(Backbone):
    """A network of timm without its classifier.

    Args:
        name: Name in error messages.
        network: Network of timm with `num_classes=0`: it maps (B, 3, H, W) to (B, F).
        num_features: Width F of its output.
        stage_names: Names of its modules whose outputs are its feature maps.
    """

    takes_clips = False

    def __init__(self, name: str, network: nn.Module, num_features: int, stage_names: Sequence[str] = ()) -> None:
        super().__init__(name, num_features)
        self.network, self.stage_names = network, stage_names

    def features(self, clips: Float[Tensor, "B C 1 H W"]) -> Float[Tensor, "B F"]:
        """Return pooled features of normalized images."""
        features: Tensor = self.network(clips.squeeze(2))
        return features


@register("backbone", "timm")
@dataclass
class TimmConfig(Settings):
    """Any network for images from timm, without its classifier; needs `pip install 'eztorch-sce[timm]'`."""

    model: str = setting("resnet26d", help="Name of the network in timm, such as convnext_tiny.")
    options: dict[str, Any] = setting(
        {}, help="Further arguments of timm.create_model, such as {dynamic_img_size: true}."
    )

    def build(self) -> Backbone:
        """Return the backbone, randomly initialized.

        Raises:
            ConfigError: If timm is not installed, or has no network of this name and these arguments.
        """
        name = self.architecture()
        if reserved := [option for option in self.options if option in _RESERVED]:
            given = f"backbone.options sets {', '.join(reserved)}"
            raise ConfigError([f"{given}, which loads weights or changes the outputs; give weights by weights=FILE"])
        try:
            network = _create(name, self.options)
        except Exception as error:  # whatever a network of timm raises
            given = f"backbone.model={self.model} and backbone.options={self.options}"
            raise ConfigError([f"timm does not build {given}: {type(error).__name__}: {first_line(error)}"]) from error
        num_features = int(getattr(network, "head_hidden_size", network.num_features))
        return TimmBackbone(name, network, num_features, _stages_of(network))

    def architecture(self) -> str:
        """Return the name of the network without that of its weights, which follows a dot.

        Raises:
            ConfigError: If timm is not installed, or has no network of this name.
        """
        timm, name = import_timm(), self.model.split(".")[0]
        if not timm.is_model(name):
            hint = did_you_mean(name, timm.list_models())
            raise ConfigError([f"backbone.model={self.model} is not a network of timm {timm.__version__}{hint}"])
        return name

    def input_spec(self) -> InputSpec:
        """Return the input that timm's weights of the network take: one frame, their size and their statistics.

        Raises:
            ConfigError: If timm is not installed, or has no network of this name.
        """
        timm = import_timm()
        published = timm.get_pretrained_cfg(self.model) or timm.get_pretrained_cfg(self.architecture())
        if published is None:  # timm has no weights of it
            return InputSpec(num_frames=1, stats="image")
        size = self.options.get("img_size", published.input_size[-1])
        size = size if isinstance(size, int) else min(size)
        return InputSpec(num_frames=1, size=size, stats=name_statistics(published.mean, published.std))


def _create(name: str, options: dict[str, Any]) -> Any:
    """Return a network of timm without its classifier: for views of any size, if it can take them."""
    timm = import_timm()
    published = timm.get_pretrained_cfg(name)
    if published is not None and published.fixed_input_size and not {"img_size", "dynamic_img_size"} & options.keys():
        with contextlib.suppress(TypeError):  # of networks that take one size only
            return timm.create_model(name, pretrained=False, num_classes=0, dynamic_img_size=True, **options)
    return timm.create_model(name, pretrained=False, num_classes=0, **options)


def _stages_of(network: nn.Module) -> list[str]:
    """Return the names of the modules that timm takes feature maps from, without bare activations."""
    names = [str(stage["module"]) for stage in getattr(network, "feature_info", []) if isinstance(stage, dict)]
    modules = dict(network.named_modules())
    return [f"network.{name}" for name in names if name in modules and any(True for _ in modules[name].parameters())]


def import_timm() -> ModuleType:
    """Import timm.

    Raises:
        ConfigError: If it is not installed.
    """
    try:
        import timm  # takes seconds to import
    except ImportError as error:
        raise ConfigError([f"backbone=timm needs the package timm: {INSTALL}"]) from error
    module: ModuleType = timm
    return module
