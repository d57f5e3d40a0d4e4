"""Settings of the data: where they are and how clips are loaded from them."""

import gc
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from eztorch_sce.cores import num_usable_cores
from eztorch_sce.data.decoders.base import Decoder
from eztorch_sce.data.sources.layouts import LAYOUTS, open_splits
from eztorch_sce.data.sources.manifest import Manifest, draw_share, holdout, keep_listed, without_unusable
from eztorch_sce.data.sources.splits import Splits
from eztorch_sce.errors import ConfigError
from eztorch_sce.registry import choices

CHOICE = "decoder.json"  # beside the data: what `data bench` found fastest


@dataclass
class DataConfig:
    """The data set, and how clips come from it.

    Attributes:
        root: A folder of videos, images or frame folders, in sub-folders by class or not; with layout=shards a
            folder, glob, numbered range or URL of tar files.
        list: A CSV (path, label if any) or lines `path label`; paths are relative to `root`, or to the list's folder.
        test_root, test_list: The same for the test part. With none given, and no val or test folder under `root`, a
            share of the labeled records is held out.
        layout: How the files lie; "auto" looks.
        annotations: Folder of the publisher's lists of UCF101, HMDB51, Kinetics, Something-Something; null looks in and
            beside `root`. With imagenet100 and Kinetics a text file: the classes to keep, one a line.
        split: Which of the official splits.
        test_fraction: Share of each class held out where there is no test part.
        train_share: Share of each class of the training part that labels are used of, drawn by the seed of the run.
        train_subset: A published list of the files of the training part that labels are used of, a name a line.
        num_frames, clip_s: Frames and seconds of a clip; null is what the weights were trained with, else 8 and 2.56.
        frame_stride: Frames of the video from one frame of a clip to the next, in place of `clip_s`.
        near_power: null draws the clips of the views independently; a number draws the distance of two clips with a
            density of (1 - distance / longest) ** near_power: above 1, near clips are likelier than by chance.
        decoder: What decodes videos; "auto" is what `eztorch-sce data bench` found fastest on these files.
        batch_size: Samples per optimizer step, over all devices and accumulated steps.
        num_workers: Decoding processes per device; null is one per core, at most 16.
        on_error: "skip" leaves an unreadable file out of training, counts and lists it; "raise" stops. Evaluation
            always stops.
        max_unreadable: Share of the records that may be unreadable before training stops.
        canvas: null crops in the workers; a number sends square images of that size to the device, which crops.
    """

    root: str | None = None
    list: str | None = None
    test_root: str | None = None
    test_list: str | None = None
    layout: str = "auto"
    annotations: str | None = None
    split: int = 1
    test_fraction: float = 0.2
    train_share: float | None = None
    train_subset: str | None = None
    num_frames: int | None = None
    clip_s: float | None = None
    frame_stride: int | None = None
    near_power: float | None = None
    decoder: str = "pyav"
    batch_size: int = 64
    num_workers: int | None = None
    on_error: str = "skip"
    max_unreadable: float = 0.05
    canvas: int | None = None

    def problems(self, prefix: str) -> Sequence[str]:
        """Name each setting that cannot be."""
        found = []
        allowed = {
            "layout": sorted(LAYOUTS),
            "decoder": ["auto", *choices("decoder")],
            "on_error": ["skip", "raise"],
        }
        for name, values in allowed.items():
            if getattr(self, name) not in values:
                found.append(f"{prefix}.{name}={getattr(self, name)} must be one of {', '.join(values)}")
        for name in ("batch_size", "num_frames", "split", "canvas", "clip_s", "frame_stride"):
            if (value := getattr(self, name)) is not None and value <= 0:
                found.append(f"{prefix}.{name}={value} must be greater than 0")
        if self.num_workers is not None and self.num_workers < 0:
            found.append(f"{prefix}.num_workers={self.num_workers} must be 0 (no worker) or more")
        if self.near_power is not None and self.near_power < 0:
            found.append(f"{prefix}.near_power={self.near_power} must be 0 or more")
        for name in ("test_fraction", "max_unreadable"):
            if not 0 <= getattr(self, name) < 1:
                found.append(f"{prefix}.{name}={getattr(self, name)} must be at least 0 and below 1")
        if self.train_share is not None and not 0 < self.train_share <= 1:
            found.append(f"{prefix}.train_share={self.train_share} must be above 0 and at most 1, as in 0.01")
        if self.train_share is not None and self.train_subset is not None:
            both = f"{prefix}.train_share={self.train_share} and {prefix}.train_subset={self.train_subset}"
            found.append(f"{both}: give one of them")
        if self.frame_stride is not None and self.clip_s is not None:
            found.append(
                f"{prefix}.frame_stride={self.frame_stride} and {prefix}.clip_s={self.clip_s}: give one of them"
            )
        if self.root is None and self.list is None:
            found.append(f"{prefix}.root is not set: give a folder ({prefix}.root=...) or a list ({prefix}.list=...)")
        return found

    def open(self) -> Splits:
        """Find the records of the train and test parts.

        With `on_error=skip` the training part is without what `data doctor` found unusable.

        Raises:
            ConfigError: If files or folders are missing, the decoder cannot be used, or a part of the labels is asked
                for where none are used; it names them and what to do.
        """
        given = {"train_share": self.train_share, "train_subset": self.train_subset}
        if chosen := [f"data.{name}={value}" for name, value in given.items() if value is not None]:
            cure = "means nothing where no labels are used, it is for linear, finetune, knn, retrieve: take it out"
            raise ConfigError([f"{setting} {cure}" for setting in chosen])
        return self._open()

    def _open(self) -> Splits:
        self.build_decoder()  # what cannot load is said now, not by the first worker
        with _without_collector():
            splits = open_splits(
                self.root, self.list, self.test_root, self.test_list, self.layout, self.annotations, self.split
            )
            if self.on_error == "raise":
                return splits
            return splits._replace(train=without_unusable(splits.train, self.folder()))

    def folder(self) -> Path:
        """Return the folder that the training data lie below."""
        return Path(os.path.expanduser(self.root)) if self.root else Path(os.path.expanduser(self.list or "")).parent

    def open_with_test(self, seed: int) -> tuple[Manifest, Manifest]:
        """Find the train and test parts of labeled data.

        Without a test part, `test_fraction` of each class is held out; then `train_share` or `train_subset` says what
        of the training part is kept.

        Raises:
            ConfigError: As `open`, or if `train_subset` names what is not in the training part.
        """
        train, test = self._open()
        if test is None:
            train, test = holdout(train, self.test_fraction, seed)
        if self.train_share is not None:
            train = draw_share(train, self.train_share, seed)
        if self.train_subset is not None:
            train = keep_listed(train, Path(self.train_subset))
        return train, test

    def build_decoder(self) -> Decoder:
        """Return the video decoder."""
        return choices("decoder")[self.decoder_name()]().build()

    def decoder_name(self) -> str:
        """Return what `decoder` stands for.

        Raises:
            ConfigError: If it is "auto", and nothing was measured.
        """
        if self.decoder != "auto":
            return self.decoder
        file = self.folder() / CHOICE
        if not file.is_file():
            cure = f"run `eztorch-sce data bench {self.folder()}`, or set data.decoder=pyav"
            raise ConfigError([f"data.decoder=auto: {file} is not there, so nobody measured which is fastest; {cure}"])
        name = json.loads(file.read_text())["decoder"]
        if name not in choices("decoder"):
            raise ConfigError([f"data.decoder=auto: {file} names {name!r}; run `eztorch-sce data bench` again"])
        return str(name)

    def workers(self) -> int:
        """Return the number of decoding processes."""
        if self.num_workers is not None:
            return self.num_workers
        import torch

        return min(16, max(1, num_usable_cores() // max(1, torch.cuda.device_count())))


@contextmanager
def _without_collector() -> Iterator[None]:
    """Make many records in a sixth of the time: the collector would look through all of them at every few thousand."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
