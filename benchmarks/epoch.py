"""Training speed from image files to updated weights, beside lightly, on two cores in one run.

    pip install 'eztorch-sce[bench]'
    python benchmarks/epoch.py [IMAGES] --json benchmarks/results/epoch.json

IMAGES is a folder of photographs; without it, JPEG files of 500x375 pixels are drawn. Two things are measured:

epochs: MoCo v2 with a ResNet-18 of torchvision on views of 64 pixels, a projector of 512 and 128 units, and a queue of
    4096 keys. Ours is the loop of examples/own_loop.py, with and without channels_last. lightly's is the loop of its
    documentation (docs.lightly.ai/self-supervised-learning/examples/moco.html).
views: two augmented views of 224 pixels of every file, as the loader hands them to the network.

Both sides see the same files in batches of the same size, use two threads and two worker processes that stay alive
between epochs, and apply the augmentations of MoCo v2. Epochs take turns, in random order; a rate is the number of
images over the median time of an epoch, the first of which is not counted.
"""

import argparse
import copy
import os
import random
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import torch
from common import Row, finish, row
from PIL import Image
from torch import Tensor, nn

import eztorch_sce as sce
from eztorch_sce.compat import declare_missing_torchvision_operators
from eztorch_sce.models.heads import ProjectorConfig
from eztorch_sce.models.memory_format import to_channels_last

CORES = sorted(os.sched_getaffinity(0))[:2]
NUM_WORKERS, BATCH, SIZE, VIEW_SIZE = 2, 64, 64, 224
QUEUE, DIM, TEMPERATURE, MOMENTUM, LEARNING_RATE = 4096, 128, 0.1, 0.99, 0.06
EPOCHS, VIEWS = f"MoCo v2, ResNet-18, {SIZE} px: files to updated weights", f"files to two views of {VIEW_SIZE} px"

Epoch = Callable[[], object]  # runs one epoch


def resnet18() -> nn.Module:
    import torchvision

    torch.manual_seed(0)
    return nn.Sequential(*list(torchvision.models.resnet18().children())[:-1], nn.Flatten())


def our_loader(folder: Path, size: int) -> sce.TrainingLoader:
    data = sce.DataConfig(root=str(folder), batch_size=BATCH, num_workers=NUM_WORKERS)
    return sce.training_loader(data, sce.views("moco_v2", size=size))


def our_training(folder: Path, channels_last: bool) -> Epoch:
    """Return a function that trains for an epoch, as in examples/own_loop.py."""
    loader = our_loader(folder, SIZE)
    projector = ProjectorConfig(num_hidden=1, hidden_dim=512, output_dim=DIM, output_norm=False)
    config = sce.MomentumContrastConfig(projector=projector, queue_size=QUEUE, momentum=MOMENTUM, symmetric=False)
    method = sce.MomentumContrast(resnet18(), sce.InfoNCELoss(temperature=TEMPERATURE), config)
    if channels_last:
        to_channels_last(method)
        loader.augment.channels_last = True
    optimizer = torch.optim.SGD(method.parameters(), lr=LEARNING_RATE)

    def epoch() -> None:
        for batch in loader:
            output = method(loader.augment(batch).views)
            optimizer.zero_grad()
            output.loss.backward()
            optimizer.step()
            method.after_step(progress=0)

    return epoch


def our_views(folder: Path) -> Epoch:
    loader = our_loader(folder, VIEW_SIZE)
    return lambda: check_views(loader.augment(batch).views for batch in loader)


def lightly_loader(folder: Path, size: int) -> "torch.utils.data.DataLoader[object]":
    from lightly.data import LightlyDataset
    from lightly.transforms.moco_transform import MoCoV2Transform

    dataset = LightlyDataset(str(folder), transform=MoCoV2Transform(input_size=size))
    return torch.utils.data.DataLoader(
        dataset, BATCH, shuffle=True, drop_last=True, num_workers=NUM_WORKERS, persistent_workers=True
    )


class LightlyMoCo(nn.Module):
    """A network and its momentum encoder, with the modules of lightly that its example uses."""

    def __init__(self) -> None:
        from lightly.models.modules import MoCoProjectionHead
        from lightly.models.utils import deactivate_requires_grad

        super().__init__()
        self.backbone = resnet18()
        self.projection_head = MoCoProjectionHead(512, 512, DIM)
        self.backbone_momentum = copy.deepcopy(self.backbone)
        self.projection_head_momentum = copy.deepcopy(self.projection_head)
        deactivate_requires_grad(self.backbone_momentum)
        deactivate_requires_grad(self.projection_head_momentum)

    def forward(self, images: Tensor) -> Tensor:
        query: Tensor = self.projection_head(self.backbone(images))
        return query

    def forward_momentum(self, images: Tensor) -> Tensor:
        key: Tensor = self.projection_head_momentum(self.backbone_momentum(images))
        return key.detach()


def lightly_training(folder: Path) -> Epoch:
    from lightly.loss import NTXentLoss
    from lightly.models.utils import update_momentum

    loader = lightly_loader(folder, SIZE)
    model = LightlyMoCo()
    criterion = NTXentLoss(temperature=TEMPERATURE, memory_bank_size=(QUEUE, DIM))
    optimizer = torch.optim.SGD(model.parameters(), lr=LEARNING_RATE)

    def epoch() -> None:
        for batch in loader:
            query_images, key_images = batch[0]
            update_momentum(model.backbone, model.backbone_momentum, m=MOMENTUM)
            update_momentum(model.projection_head, model.projection_head_momentum, m=MOMENTUM)
            query, key = model(query_images), model.forward_momentum(key_images)
            loss = criterion(query, key)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()

    return epoch


def lightly_views(folder: Path) -> Epoch:
    loader = lightly_loader(folder, VIEW_SIZE)
    return lambda: check_views(batch[0] for batch in loader)


def check_views(batches: Iterable[list[Tensor]]) -> None:
    for views in batches:
        shapes = [tuple(view.squeeze(2).shape if view.dim() == 5 else view.shape) for view in views]
        assert shapes == [(BATCH, 3, VIEW_SIZE, VIEW_SIZE)] * 2, shapes
        assert all(view.dtype == torch.float32 for view in views)


def repeat_files(images: Path | None, folder: Path, num_files: int) -> str:
    """Fill a folder with links to images, each as often as needed, or with drawn ones; return what they are."""
    sources = sorted(path for path in images.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg")) if images else []
    assert sources or images is None, f"no JPEG file under {images}"
    folder.mkdir()
    for number in range(num_files):
        path = folder / f"{number:05d}.jpg"
        if sources:
            path.symlink_to(sources[number % len(sources)].resolve())
        else:
            draw_photograph(number).save(path, quality=90)
    if images is None:
        return f"{num_files} drawn"
    return f"{num_files} files, {len(sources)} of them different, of {images.name}"


def draw_photograph(seed: int) -> Image.Image:
    """Return an image with detail at every scale, as photographs have: about 40 kB as JPEG of 500x375."""
    draw, shape = np.random.default_rng(seed), (375, 500)
    image = np.zeros((*shape, 3), np.float32)
    for cells in (3, 8, 24, 72, 216):
        noise = draw.normal(0, 70 / cells**0.5, (cells, cells, 3)).astype(np.float32) + 128 / 5
        planes = [
            Image.fromarray(noise[..., channel]).resize(shape[::-1], Image.Resampling.BICUBIC) for channel in range(3)
        ]
        image += np.stack([np.asarray(plane) for plane in planes], axis=-1)
    return Image.fromarray(image.clip(0, 255).astype(np.uint8))


def measure(contenders: dict[tuple[str, str], Epoch], num_images: int, repeats: int) -> dict[tuple[str, str], float]:
    """Return the images per second of each contender."""
    draw = random.Random(0)
    seconds: dict[tuple[str, str], list[float]] = {key: [] for key in contenders}
    for number in range(repeats + 1):
        for key in draw.sample(list(contenders), len(contenders)):
            started = time.perf_counter()
            contenders[key]()
            if number:
                seconds[key].append(time.perf_counter() - started)
        print(f"round {number} of {repeats}", file=sys.stderr)
    return {key: num_images / statistics.median(times) for key, times in seconds.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", type=Path, nargs="?")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--num-images", type=int, default=512, help="images per epoch, a multiple of the batch of 64")
    options = parser.parse_args()
    os.sched_setaffinity(0, CORES)
    torch.set_num_threads(len(CORES))
    declare_missing_torchvision_operators()
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "images"
        files = repeat_files(options.images, folder, options.num_images)
        contenders = {
            (EPOCHS, "eztorch_sce"): our_training(folder, channels_last=False),
            (EPOCHS, "eztorch_sce, channels_last"): our_training(folder, channels_last=True),
            (EPOCHS, "lightly"): lightly_training(folder),
            (VIEWS, "eztorch_sce"): our_views(folder),
            (VIEWS, "lightly"): lightly_views(folder),
        }
        rates = measure(contenders, options.num_images // BATCH * BATCH, options.repeats)
    rows: list[Row] = [row(what, who, round(rate, 1), "images/s") for (what, who), rate in rates.items()]
    rows += [
        row(f"{what}: ours over lightly", who, round(rate / rates[what, "lightly"], 3), "x")
        for (what, who), rate in rates.items()
        if who != "lightly"
    ]
    finish(
        rows, ["eztorch-sce", "lightly", "torch", "torchvision", "pillow"], options.json, [files, f"{len(CORES)} cores"]
    )


if __name__ == "__main__":
    main()
