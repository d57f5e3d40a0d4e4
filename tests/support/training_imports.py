"""What a training imports on its way, for programs that import it once and fork processes from there."""

import importlib

_NAMES = (
    "eztorch_sce.api",  # first the package, which repairs torchvision
    "eztorch_sce.cli",
    "eztorch_sce.training.trainer",
    "eztorch_sce.training.pretrain_module",
    "eztorch_sce.training.classify_module",
    "torch._dynamo",  # for the first optimizer
    "tensorboard.summary.writer.event_file_writer",
)


def import_training() -> None:
    """Import what a training would import, since that takes longer than a small training."""
    for name in _NAMES:
        importlib.import_module(name)
