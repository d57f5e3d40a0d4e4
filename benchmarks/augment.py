"""Augmentation speed, from uint8 to two normalized views, compared with other libraries on one core in one run.

    python benchmarks/augment.py --json benchmarks/results/augment.json

The views are SCE's, `views=image` and `views=kinetics_baseline_112`, without the crop, which the other libraries do in
the workers. Each library draws new parameters for every sample, receives the layout it needs, and returns float32:

torchaug: a SequentialTransform of its random transforms, as its authors run the recipe; the batch is split into one
    chunk per sample. Its requirements pin old versions of torch: pip install --no-deps torchaug
kornia: its augmentations in nn.Sequential, or in VideoSequential for clips.
torchvision: transforms.v2 on one sample at a time, on uint8 until the end, as its documentation advises.
torch: a plain copy to float32, as a lower bound on the time.
eztorch_sce, compiled: on a GPU, the same views after `Views.compile()`.
ResNet-50: on a GPU, a training step on two views of 256 images in bfloat16, to which the views should add little.
host time: batches/s that the host alone can give to a GPU: two views of 512 images, drawn and launched. The frames have
    2 x 2 pixels, so that the kernels take hardly any time, on a CPU too.

What is not installed or does not run is left out, with a note. A rate is the number of samples (two views each) over
the median time of the rounds. The order is shuffled every round.
"""

import argparse
import json
import platform
import random
import statistics
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import NamedTuple

import torch
from common import cpu_name
from torch import Tensor, nn

from eztorch_sce.augment.draws import BLUR_SIGMA
from eztorch_sce.augment.ops import blur_kernel_size
from eztorch_sce.augment.policies import policy
from eztorch_sce.augment.statistics import STATISTICS
from eztorch_sce.augment.view import ViewConfig
from eztorch_sce.augment.views import Views
from eztorch_sce.types import Batch

Contender = Callable[[int], Sequence[Tensor]]  # takes the number of the round and returns the two views


def ours(clips: Tensor, views: list[ViewConfig]) -> Contender:
    augment = Views(views).to(clips.device)
    return lambda round_number: augment(batch_of(clips, views, round_number)).views


def ours_compiled(clips: Tensor, views: list[ViewConfig]) -> Contender:
    augment = Views(views).to(clips.device)
    augment.compile()
    return lambda round_number: augment(batch_of(clips, views, round_number)).views


def ours_on_host(clips: Tensor, views: list[ViewConfig]) -> Contender:
    augment = Views(views).to(clips.device)
    # Not `augment(batch)`: on a CPU, this also takes the form for GPUs.
    return lambda number: augment.on_device(augment.works(batch_of(clips, views, number)), torch.float32, False)


def batch_of(clips: Tensor, views: list[ViewConfig], round_number: int) -> Batch:
    """Return clips as a batch of a loader, whose views are drawn anew every round."""
    records, ones = torch.arange(len(clips)), torch.ones(len(clips))
    return Batch([clips] * len(views), records, records, torch.full_like(records, round_number), ones, [])


def torchaug(clips: Tensor, views: list[ViewConfig]) -> Contender:
    import torchaug.transforms as ta

    def sequence(view: ViewConfig) -> nn.Module:
        assert view.size is not None
        transforms = [
            ta.ToDtype(torch.float32, scale=True),
            ta.RandomColorJitter(view.brightness, view.contrast, view.saturation, view.hue, p=view.jitter_p),
            ta.RandomGrayscale(p=view.gray),
            ta.RandomGaussianBlur(blur_kernel_size(view.size), BLUR_SIGMA, p=view.blur),
            ta.RandomSolarize(0.5, p=view.solarize),
            ta.RandomHorizontalFlip(p=view.flip),
            ta.Normalize(*STATISTICS[str(view.stats)]),
        ]
        module: nn.Module = ta.SequentialTransform(transforms).to(clips.device)
        return module

    frames = frames_first(clips)
    modules = [sequence(view) for view in views]
    return lambda _: [module(frames) for module in modules]


def kornia(clips: Tensor, views: list[ViewConfig]) -> Contender:
    import kornia.augmentation as ka

    def sequence(view: ViewConfig) -> nn.Module:
        assert view.size is not None
        kernel = (blur_kernel_size(view.size),) * 2
        transforms = [
            ka.ColorJitter(view.brightness, view.contrast, view.saturation, view.hue, p=view.jitter_p),
            ka.RandomGrayscale(p=view.gray),
            ka.RandomGaussianBlur(kernel, BLUR_SIGMA, p=view.blur),
            ka.RandomSolarize(thresholds=(0.5, 0.5), additions=(0.0, 0.0), p=view.solarize),
            ka.RandomHorizontalFlip(p=view.flip),
            ka.Normalize(*(torch.tensor(values) for values in STATISTICS[str(view.stats)])),
        ]
        module: nn.Module = nn.Sequential(*transforms) if clips.shape[2] == 1 else ka.VideoSequential(*transforms)
        return module.to(clips.device)

    frames = frames_first(clips)
    modules = [sequence(view) for view in views]
    return lambda _: [module(frames / 255) for module in modules]


def torchvision(clips: Tensor, views: list[ViewConfig]) -> Contender:
    import torchvision.transforms.v2 as tv

    def sequence(view: ViewConfig) -> Callable[[Tensor], Tensor]:
        assert view.size is not None
        jitter = tv.ColorJitter(view.brightness, view.contrast, view.saturation, view.hue)
        blur = tv.GaussianBlur(blur_kernel_size(view.size), BLUR_SIGMA)
        transforms = [
            tv.RandomApply([jitter], p=view.jitter_p),
            tv.RandomGrayscale(p=view.gray),
            tv.RandomApply([blur], p=view.blur),
            tv.RandomSolarize(128, p=view.solarize),
            tv.RandomHorizontalFlip(p=view.flip),
            tv.ToDtype(torch.float32, scale=True),
            tv.Normalize(*STATISTICS[str(view.stats)]),
        ]
        transform: Callable[[Tensor], Tensor] = tv.Compose(transforms)
        return transform

    frames = frames_first(clips)
    functions = [sequence(view) for view in views]
    return lambda _: [torch.stack([function(sample) for sample in frames]) for function in functions]


def plain_copy(clips: Tensor, views: list[ViewConfig]) -> Contender:
    return lambda _: [clips.float() for _ in views]


def resnet50(clips: Tensor, views: list[ViewConfig]) -> Contender:
    import torchvision.models

    network = torchvision.models.resnet50().to(clips.device, memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(network.parameters(), lr=1e-3, momentum=0.9)
    images = [clips.squeeze(2) / 255 for _ in views]

    def step(_: int) -> Sequence[Tensor]:
        optimizer.zero_grad()
        for image in images:
            with torch.autocast(clips.device.type, torch.bfloat16):
                loss = network(image).square().mean()
            loss.backward()
        optimizer.step()
        return images

    return step


def frames_first(clips: Tensor) -> Tensor:
    """Convert (B, C, T, H, W) to (B, T, C, H, W), or to (B, C, H, W) for images."""
    return clips.squeeze(2) if clips.shape[2] == 1 else clips.transpose(1, 2).contiguous()


OURS = "eztorch_sce"
CONTENDERS = {
    OURS: ours,
    "torchaug": torchaug,
    "kornia": kornia,
    "torchvision": torchvision,
    "torch": plain_copy,
}
ON_A_GPU = {OURS: ours, "eztorch_sce, compiled": ours_compiled} | CONTENDERS
BESIDE_A_STEP = {OURS: ours, "eztorch_sce, compiled": ours_compiled, "ResNet-50": resnet50}


class Job(NamedTuple):
    """One comparison: each contender creates the two views of a batch of this shape (B, C, T, S, S)."""

    what: str
    unit: str
    shape: tuple[int, int, int, int, int]
    policy: str
    contenders: Mapping[str, Callable[[Tensor, list[ViewConfig]], Contender]]


def jobs_on(device: torch.device) -> list[Job]:
    """Return the comparisons to make on a device."""
    on_a_gpu = device.type == "cuda"
    contenders = ON_A_GPU if on_a_gpu else CONTENDERS
    images, clips = (256, 64) if on_a_gpu else (32, 4)
    jobs = [
        Job(f"two views of {images} images 224 x 224", "images/s", (images, 3, 1, 224, 224), "image", contenders),
        Job(
            f"two views of {clips} clips 8 x 112 x 112",
            "clips/s",
            (clips, 3, 8, 112, 112),
            "kinetics_baseline_112",
            contenders,
        ),
        Job("host time of two views of 512 images", "batches/s", (512, 3, 1, 2, 2), "image", {OURS: ours_on_host}),
    ]
    if on_a_gpu:
        jobs.append(Job("beside a training step", "images/s", (256, 3, 1, 224, 224), "image", BESIDE_A_STEP))
    return jobs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    device = torch.device(options.device)
    generator = torch.Generator().manual_seed(0)
    rows: list[dict[str, object]] = []
    for job in jobs_on(device):
        size = job.shape[-1]
        coarse = torch.rand(*job.shape[:3], max(1, size // 8), max(1, size // 8), generator=generator)
        smooth = nn.functional.interpolate(coarse.flatten(1, 2), size=(size, size), mode="bilinear").view(job.shape)
        clips = (smooth * 255).round().byte().to(device)
        views = [replace(view, size=size) for view in policy(job.policy)]
        assert all(view.temporal_difference == 0 for view in views)  # no other library has it
        for who, seconds in measure(built(job, clips, views), options.rounds, device).items():
            rate = round((1 if job.unit == "batches/s" else job.shape[0]) / seconds, 2)
            rows.append({"what": job.what, "who": who, "value": rate, "unit": job.unit})
        report(rows, job, options.json, device)


def built(job: Job, clips: Tensor, views: list[ViewConfig]) -> dict[str, Contender]:
    """Return the contenders of a job that are installed and run here."""
    contenders = {}
    for who, build in job.contenders.items():
        try:
            contender = build(clips, views)
            contender(0)  # libraries compile or fail at the first call
        except (ImportError, RuntimeError) as error:
            if who == OURS:
                raise
            print(f"{job.what}: left out {who}: {error}")
        else:
            contenders[who] = contender
    return contenders


def measure(contenders: dict[str, Contender], rounds: int, device: torch.device) -> dict[str, float]:
    """Return the median seconds of each contender, without the first round."""
    seconds: dict[str, list[float]] = {who: [] for who in contenders}
    order = random.Random(0)
    for number in range(rounds + 1):
        for who in order.sample(list(contenders), len(contenders)):
            if device.type == "cuda":
                torch.cuda.synchronize()
            started = time.perf_counter()
            contenders[who](number)
            if device.type == "cuda":
                torch.cuda.synchronize()
            seconds[who].append(time.perf_counter() - started)
    return {who: statistics.median(times[1:]) for who, times in seconds.items()}


def report(rows: list[dict[str, object]], job: Job, file: Path | None, device: torch.device) -> None:
    """Print the rates of a job, and write those of all jobs so far."""
    rates = {str(row["who"]): float(str(row["value"])) for row in rows if row["what"] == job.what}
    for who, rate in rates.items():
        print(f"{job.what:40s} {who:21s} {rate:10.1f}/s   {OURS} is {rates[OURS] / rate:6.2f}x", flush=True)
    if file:
        versions = {"python": platform.python_version(), "processor": processor(device), "threads": "1"}
        for package in ("eztorch-sce", "torch", "torchvision", "torchaug", "kornia"):
            try:
                versions[package] = version(package)
            except PackageNotFoundError:
                versions[package] = "not installed"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps({"versions": versions, "rows": rows}, indent=2) + "\n")


def processor(device: torch.device) -> str:
    if device.type == "cuda":
        return str(torch.cuda.get_device_name(device))
    return cpu_name()


if __name__ == "__main__":
    main()
