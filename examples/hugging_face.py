"""A Hugging Face data set of images, such as `load_dataset("cifar10", split="train")`: an adapter of a few lines."""

import tempfile
from typing import Any

import datasets
import numpy as np
from eztorch_sce import DataConfig, KnnConfig, PretrainConfig, RunConfig, TrainerConfig, knn, pretrain


class Images:
    """Records of a data set with the columns `image` and `label`."""

    def __init__(self, rows: datasets.Dataset) -> None:
        self.rows, self.labels, self.classes = rows, rows["label"][:], rows.features["label"].names

    def __len__(self) -> int:
        return len(self.rows)

    def read(self, index: int) -> Any:
        return np.asarray(self.rows[index]["image"].convert("RGB")).transpose(2, 0, 1)

    def label(self, index: int) -> int:
        return int(self.labels[index])

    def name(self, index: int) -> str:
        return f"image-{index}"


if __name__ == "__main__":
    pixels = np.random.default_rng(0).integers(0, 100, (32, 32, 32, 3), dtype=np.uint8)
    pixels[::2, :16] += 100  # a class is bright at the top
    columns = datasets.Features(image=datasets.Image(), label=datasets.ClassLabel(names=["bright", "dark"]))
    images = Images(datasets.Dataset.from_dict({"image": list(pixels), "label": [0, 1] * 16}, columns))
    with tempfile.TemporaryDirectory() as tmp:
        data, run = DataConfig(batch_size=8), RunConfig(dir=f"{tmp}/pretrain")
        report = pretrain(PretrainConfig(data=data, trainer=TrainerConfig(max_epochs=1), run=run), data=images)
        print(knn(KnnConfig(weights=str(report.run_dir), run=RunConfig(dir=f"{tmp}/knn")), data=images).metrics)
