"""What a run keeps: `last.ckpt` to resume, and a weights file to share."""

import hashlib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint

from eztorch_sce.errors import ConfigError
from eztorch_sce.files import replacing
from eztorch_sce.models.backbones.base import Backbone
from eztorch_sce.models.classifier import Classifier
from eztorch_sce.registry import choices, name_of
from eztorch_sce.types import InputSpec

FORMAT = "eztorch_sce weights 1"


@dataclass
class Weights:
    """The content of a weights file.

    Attributes:
        backbone: The config that builds the backbone.
        spec: What the backbone sees.
        state: State dict of the backbone.
        head: State dict of the linear classifier, or None.
        classes: Names of its classes.
        sha256: Hash of the file, the first 16 hexadecimal digits.
    """

    backbone: Any
    spec: InputSpec
    state: dict[str, torch.Tensor]
    head: dict[str, torch.Tensor] | None
    classes: list[str]
    sha256: str

    def build_backbone(self, untrained: bool = False) -> Backbone:
        """Return the backbone with its weights; `untrained`: as it was initialized, for comparison."""
        backbone: Backbone = self.backbone.build()
        if not untrained:
            backbone.load_state_dict(self.state)
        return backbone


def save_weights(
    path: Path, backbone: Backbone, config: Any, spec: InputSpec, classifier: Classifier | None, classes: list[str]
) -> None:
    """Write a weights file that `torch.load(..., weights_only=True)` reads; atomically.

    Args:
        path: Where to; replaced if there.
        backbone: The network.
        config: Its registered config, kept so that the file builds it again.
        spec: What the network sees.
        classifier: The classifier whose linear layer is kept too, or None.
        classes: Names of the classes, in the order of the outputs.
    """
    content = {
        "format": FORMAT,
        "backbone": {"name": name_of(config), "settings": asdict(config)},
        "input": asdict(spec),
        "state": {key: value.cpu() for key, value in backbone.state_dict().items()},
        "head": None if classifier is None else {k: v.cpu() for k, v in classifier.linear.state_dict().items()},
        "classes": classes,
    }
    with replacing(path) as partial:
        torch.save(content, partial)


def load_weights(path: str) -> Weights:
    """Read a weights file.

    Raises:
        ConfigError: If the file is not there or is something else; it says what to do.
    """
    file = Path(path)
    if file.is_dir():  # a run directory
        file = next((file / name for name in ("classifier.pt", "backbone.pt") if (file / name).is_file()), file)
    if not file.is_file():
        raise ConfigError([f"weights={path}: no such file; a run writes backbone.pt (pretrain) or classifier.pt"])
    try:
        content = torch.load(file, weights_only=True, map_location="cpu")
        if content["format"] != FORMAT:
            raise ValueError(f"its format is {content['format']}")
        config = choices("backbone")[content["backbone"]["name"]](**content["backbone"]["settings"])
    except Exception as error:
        raise ConfigError(
            [f"weights={path} is not a weights file of this package ({error}); give the backbone.pt of a run"]
        ) from error
    sha256 = hashlib.sha256(file.read_bytes()).hexdigest()[:16]
    return Weights(config, InputSpec(**content["input"]), content["state"], content["head"], content["classes"], sha256)


def resumable_checkpoint(run_dir: Path) -> ModelCheckpoint:
    """Return the callback that keeps `last.ckpt`, written after every epoch."""
    return ModelCheckpoint(dirpath=run_dir, filename="last", save_on_train_epoch_end=True, enable_version_counter=False)


class SaveBackbone(pl.Callback):
    """Write the backbone every n epochs, to `backbone-epoch-0010.pt` and so on.

    Args:
        run_dir: Where to.
        every: Epochs between two files.
        config: The registered config of the backbone.
        spec: What the backbone sees.
    """

    def __init__(self, run_dir: Path, every: int, config: Any, spec: InputSpec) -> None:
        self.run_dir, self.every, self.config, self.spec = run_dir, every, config, spec

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write the file, on the main process."""
        epoch = trainer.current_epoch + 1
        if epoch % self.every == 0 and trainer.is_global_zero:
            backbone: Any = pl_module.method.backbone  # type: ignore[union-attr]
            save_weights(self.run_dir / f"backbone-epoch-{epoch:04d}.pt", backbone, self.config, self.spec, None, [])
