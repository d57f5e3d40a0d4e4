"""Tests of the preparation of modules for their device: memory format, precision, TF32 and checkpointing."""

from pathlib import Path
from typing import Any, cast

import pytest
import torch
from torch import nn

fake_gpu = pytest.importorskip("fake_gpu", exc_type=ImportError)

from fake_gpu import CUDA, fake_processes, on_fake_gpu  # noqa: E402
from memory_formats import Formats, is_channels_last  # noqa: E402

from eztorch_sce.augment.view import ViewConfig  # noqa: E402
from eztorch_sce.augment.views import Views  # noqa: E402
from eztorch_sce.losses.sce import SCELoss  # noqa: E402
from eztorch_sce.methods.momentum_contrast import MomentumContrast, MomentumContrastConfig  # noqa: E402
from eztorch_sce.models.backbones.base import as_backbone  # noqa: E402
from eztorch_sce.models.batch_norm import sync_batch_norms  # noqa: E402
from eztorch_sce.models.classifier import Classifier  # noqa: E402
from eztorch_sce.models.weights import load_weights, save_weights  # noqa: E402
from eztorch_sce.optim.adamw import AdamWConfig  # noqa: E402
from eztorch_sce.optim.schedules import ScheduleConfig  # noqa: E402
from eztorch_sce.optim.sgd import SGDConfig  # noqa: E402
from eztorch_sce.registry import choices  # noqa: E402
from eztorch_sce.training.classify_module import ClassifyModule  # noqa: E402
from eztorch_sce.training.config import TrainerConfig  # noqa: E402
from eztorch_sce.training.device import prepared, with_strides_of_weights  # noqa: E402
from eztorch_sce.training.pretrain_module import PretrainModule  # noqa: E402
from eztorch_sce.types import InputSpec  # noqa: E402

ON_GPU = TrainerConfig(accelerator="gpu", devices=1, num_nodes=1, precision="bf16-mixed")


def views_of(*sizes: int) -> Views:
    return Views([ViewConfig(size=size) for size in sizes])


def pretraining(name: str, *sizes: int, **settings: Any) -> PretrainModule:
    """Return a module without values that trains a backbone by SCE."""
    with torch.device("meta"):
        config = MomentumContrastConfig(queue_size=64, **settings)
        method = MomentumContrast(choices("backbone")[name]().build(), SCELoss(), config)
    return PretrainModule(method, views_of(*sizes), SGDConfig(), ScheduleConfig(), batch_size=8)


def frames(num_frames: int) -> torch.Tensor:
    """Return frames on the fake GPU."""
    return torch.zeros(4, 3, num_frames, 72, 72, dtype=torch.uint8).pin_memory().to(CUDA, non_blocking=True)


def lost_formats(network: nn.Module, views: Views, num_frames: int) -> list[str]:
    """Return what is not channels last from the frames to the features or the loss."""
    with fake_gpu.fake_gpu():
        on_fake_gpu(network)
        clips = views(frames(num_frames))
        assert all(view.dtype == torch.bfloat16 and is_channels_last(view) for view in clips)
        with fake_gpu.autocast(torch.bfloat16), Formats() as formats:
            network(clips if isinstance(network, MomentumContrast) else clips[0])
        assert formats.num_convolutions > 0
    return list(formats.lost)


@pytest.mark.parametrize("name", choices("backbone"))
def test_every_backbone_computes_with_channels_last(name: str) -> None:
    with torch.device("meta"):
        backbone = choices("backbone")[name]().build()
    module = ClassifyModule(Classifier(backbone, 2), views_of(64), SGDConfig(), ScheduleConfig(), batch_size=8)
    with prepared(module, ON_GPU):
        assert lost_formats(module.classifier, module.augmentation, num_frames=2 if backbone.takes_clips else 1) == []


@pytest.mark.parametrize("name", ["resnet18", "r3d18"])
@pytest.mark.parametrize("settings", [{"bn_splits": 2}, {"shuffle_bn": True}, {}])
def test_methods_keep_channels_last_in_several_processes(name: str, settings: dict[str, Any]) -> None:
    with fake_processes(8):
        module = pretraining(name, 64, 64, 48, 48, **settings)
        if not settings:
            sync_batch_norms(module)
        with prepared(module, ON_GPU):
            assert (
                lost_formats(
                    cast(nn.Module, module.method), module.augmentation, num_frames=1 if name == "resnet18" else 2
                )
                == []
            )


def test_a_lost_format_is_found() -> None:
    """A flattened map loses its format, and so does a copy that is made contiguous."""

    class Flattening(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3)

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            maps: torch.Tensor = self.second(self.first(images).contiguous())
            return maps.mean(dim=(2, 3))

    network = as_backbone(Flattening(), num_frames=1, size=64)
    module = ClassifyModule(Classifier(network, 2), views_of(64), SGDConfig(), ScheduleConfig(), batch_size=8)
    with prepared(module, ON_GPU):
        lost = lost_formats(network, module.augmentation, num_frames=1)
    assert [line.split(" at ")[0] for line in lost] == [
        "output of aten.clone.default (4, 8, 62, 62)",
        "input of a convolution (4, 8, 62, 62)",
    ]


def test_networks_without_convolutions_get_contiguous_views() -> None:
    network = as_backbone(nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, 4)), num_frames=1, size=8)
    module = ClassifyModule(Classifier(network, 2), views_of(8), SGDConfig(), ScheduleConfig(), batch_size=8)
    with prepared(module, ON_GPU):
        assert (module.augmentation.channels_last, module.augmentation.dtype) == (False, torch.bfloat16)


def test_a_cpu_changes_neither_formats_nor_global_settings() -> None:
    module = pretraining("resnet18", 64)
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.benchmark
    with prepared(module, TrainerConfig(accelerator="cpu", precision="bf16-mixed")):
        assert (module.augmentation.channels_last, module.augmentation.dtype) == (False, torch.float32)
        assert all(weight.is_contiguous() for weight in module.parameters())
        assert (torch.get_float32_matmul_precision(), torch.backends.cudnn.benchmark) == before


@pytest.mark.parametrize("tf32", [True, False])
def test_settings_of_the_gpu_last_as_long_as_the_training(tf32: bool) -> None:
    cudnn = torch.backends.cudnn

    def current() -> tuple[str, bool, bool]:
        return torch.get_float32_matmul_precision(), cudnn.allow_tf32, cudnn.benchmark

    before = current()
    with prepared(pretraining("resnet18", 64), TrainerConfig(accelerator="gpu", tf32=tf32)):
        assert current() == ("high" if tf32 else "highest", tf32, True)
    assert current() == before


def test_files_and_optimizers_have_the_strides_of_any_device(tmp_path: Path) -> None:
    """A checkpoint of a GPU continues on a CPU, and the other way round; fused optimizers need equal strides."""
    config = choices("backbone")["resnet18"]()
    backbone = config.build()
    module = ClassifyModule(Classifier(backbone, 2), views_of(64), SGDConfig(), ScheduleConfig(), batch_size=8)
    optimizer = AdamWConfig().build(module.parameters(), 0.1)
    for weight in module.parameters():
        weight.grad = torch.ones_like(weight)
    optimizer.step()
    moments = optimizer.state[backbone.conv1.weight]["exp_avg"].clone()
    with prepared(module, ON_GPU):
        assert not backbone.conv1.weight.is_contiguous()
        with_strides_of_weights(optimizer)
        restored = optimizer.state[backbone.conv1.weight]["exp_avg"]
        assert restored.stride() == backbone.conv1.weight.stride()
        assert torch.equal(restored, moments)
        save_weights(tmp_path / "backbone.safetensors", backbone, config, InputSpec(), None, [])
    saved = load_weights(str(tmp_path)).state
    assert all(value.is_contiguous() for value in saved.values())
