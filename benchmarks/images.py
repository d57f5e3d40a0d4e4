"""Image loading speed, from the file to two crops of 224 pixels, compared with torchvision on one core in one run.

    python benchmarks/images.py IMAGES --json benchmarks/results/images.json

IMAGES is a folder of JPEG files. They are read unchanged, and as photographs: enlarged to 2000 pixels, with added
grain, at quality 90. Each reader returns the same two random crops as uint8 tensors (`views=image`: 0.2 to 1 of the
area):

torchvision, PIL: ImageFolder with its default loader and RandomResizedCrop on the Pillow image, as in its examples.
torchvision, decode_jpeg: the same with `torchvision.io.decode_jpeg`, if its compiled operators load.
Pillow: decoding alone.

A rate is the number of files over the sum of their median times. The order of the readers is shuffled every round.
"""

import argparse
import json
import platform
import random
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from common import cpu_name
from PIL import Image

from eztorch_sce.augment.policies import policy
from eztorch_sce.data.dataset import TrainingClips
from eztorch_sce.data.decoders.image import ImageDecoder
from eztorch_sce.data.sources.folder import from_folder
from eztorch_sce.types import InputSpec, Sample

SIZE, LONG_SIDE = 224, 2000

Reader = Callable[[int, int], object]  # takes the numbers of the round and of the file


def ours(root: Path) -> Reader:
    clips = TrainingClips(from_folder(root), policy("image"), InputSpec(num_frames=1), ImageDecoder(), 0, canvas=None)

    def read(number: int, place: int) -> object:
        sample = clips[number, place]
        assert isinstance(sample, Sample), sample
        return sample

    return read


def image_folder(root: Path) -> Reader:
    import torchvision.transforms.v2 as tv
    from torchvision.datasets import ImageFolder

    crop = tv.Compose([tv.RandomResizedCrop(SIZE, scale=(0.2, 1.0)), tv.PILToTensor()])
    folder = ImageFolder(str(root), transform=lambda image: (crop(image), crop(image)))
    return lambda number, place: folder[place]


def image_folder_decode_jpeg(root: Path) -> Reader:
    import torchvision.transforms.v2 as tv
    from torchvision.datasets import ImageFolder
    from torchvision.io import ImageReadMode, decode_jpeg, read_file

    crop = tv.RandomResizedCrop(SIZE, scale=(0.2, 1.0), antialias=True)
    folder = ImageFolder(
        str(root),
        transform=lambda image: (crop(image), crop(image)),
        loader=lambda path: decode_jpeg(read_file(path), mode=ImageReadMode.RGB),
    )
    folder[0]  # raises if the operators do not load
    return lambda number, place: folder[place]


def decoding_alone(root: Path) -> Reader:
    paths = sorted(root.rglob("*.jpg"))
    return lambda number, place: np.asarray(Image.open(paths[place]).convert("RGB"))


READERS = {
    ("file to two crops", "eztorch_sce"): ours,
    ("file to two crops", "torchvision, PIL"): image_folder,
    ("file to two crops", "torchvision, decode_jpeg"): image_folder_decode_jpeg,
    ("decoding alone", "pillow"): decoding_alone,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", type=Path)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    sources = sorted(path for path in options.images.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg"))
    assert sources, f"no JPEG file below {options.images}"
    rows: list[dict[str, object]] = []
    with tempfile.TemporaryDirectory() as folder:
        for kind, write in (("as they are", copy), (f"as photographs of {LONG_SIDE} pixels", enlarge)):
            root = Path(folder) / kind
            (root / "class").mkdir(parents=True)
            for number, path in enumerate(sources):
                write(path, root / "class" / f"{number:04d}.jpg")
            for (what, who), rate in measure(root, len(sources), options.rounds).items():
                rows.append({"what": f"{what}, {kind}", "who": who, "value": rate, "unit": "images/s"})
    report(rows, len(sources), options.json)


def copy(source: Path, target: Path) -> None:
    target.write_bytes(source.read_bytes())


def enlarge(source: Path, target: Path) -> None:
    """Write an image as a camera might have taken it: enlarged, with grain in place of the missing detail."""
    with Image.open(source) as opened:
        image = opened.convert("RGB")
    factor = LONG_SIDE / max(image.size)
    width, height = (round(edge * factor) for edge in image.size)
    grain = np.random.default_rng(0).normal(0, 4, (height, width, 1))
    pixels = np.asarray(image.resize((width, height), Image.Resampling.LANCZOS)) + grain
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(target, "JPEG", quality=90)


def measure(root: Path, count: int, rounds: int) -> dict[tuple[str, str], float]:
    """Return the rate of each reader that works on this machine."""
    readers = {}
    for key, make in READERS.items():
        try:
            readers[key] = make(root)
        except RuntimeError as error:  # operators that do not load
            print(f"{key[1]}: not measured, {str(error).splitlines()[0]}")
    seconds: dict[tuple[str, str], list[list[float]]] = {key: [[] for _ in range(count)] for key in readers}
    order = random.Random(0)
    for number in range(rounds):
        for place in range(count):
            for key in order.sample(list(readers), len(readers)):
                started = time.perf_counter()
                readers[key](number, place)
                seconds[key][place].append(time.perf_counter() - started)
    return {key: round(count / sum(map(statistics.median, times)), 1) for key, times in seconds.items()}


def report(rows: list[dict[str, object]], count: int, file: Path | None) -> None:
    for row in rows:
        same = [other for other in rows if other["what"] == row["what"]]
        own = float(str(same[0]["value"]))  # eztorch_sce comes first
        ratio = "" if row["who"] == "pillow" else f"   eztorch_sce is {own / float(str(row['value'])):5.2f}x"
        print(f"{row['what']:48s} {row['who']:26s} {row['value']:8}/s{ratio}")
    if file:
        versions = {"python": platform.python_version(), "processor": cpu_name()}
        versions |= {"threads": "1", "files": str(count)}
        versions |= {name: version(name) for name in ("eztorch-sce", "torch", "torchvision", "pillow", "simplejpeg")}
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps({"versions": versions, "rows": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
