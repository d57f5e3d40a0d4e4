"""Tests of commands and functions on data that are not files: arrays, HDF5, and data sets of other packages."""

import csv
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from own_sources import Arrays, Broken, changed, noise
from PIL import Image

import eztorch_sce as sce
from eztorch_sce.cli import main
from eztorch_sce.config.compose import compose
from eztorch_sce.data.sources.source import Source
from eztorch_sce.errors import ConfigError, MediaError, SourceError
from eztorch_sce.models.weights import load_weights

DATA = sce.DataConfig(batch_size=4, num_workers=0, num_frames=1)
ONE_CROP = sce.EvaluationViewsConfig(num_clips=1, num_crops=1)
IMAGES = noise(20, 3, 20, 24)

PLUGIN = '''
from dataclasses import dataclass
import numpy as np
from eztorch_sce import register, setting

class Noise:
    def __init__(self, path, bad):
        self.path, self.bad = path, bad
    def __len__(self):
        return 12
    def read(self, index):
        if index == self.bad:
            return {}["frames"]  # a mistake
        return np.full((3, 16, 16), 20 * index, np.uint8)
    def label(self, index):
        return index % 2
    def name(self, index):
        return f"{self.path}/{index}"

@register("source", "tests_noise")
@dataclass
class NoiseConfig:
    """Images for a test."""
    path: str = setting("x", help="Start of the names.")
    bad: int = setting(-1, help="Record that cannot be read.")
    def build(self, split):
        return Noise(self.path, self.bad) if split == "train" else None
'''


def config(run_dir: Path, **settings: Any) -> sce.PretrainConfig:
    made = sce.PretrainConfig(
        data=replace(DATA, **settings),
        views="small_image",
        backbone=sce.SmallR2Plus1DConfig(width=4, num_blocks=1),
        optimizer="sgd",
        trainer=sce.TrainerConfig(max_epochs=1, accelerator="cpu"),
        run=sce.RunConfig(dir=str(run_dir)),
    )
    made.views = [replace(view, size=16) for view in made.views]
    made.method.queue_size = 8
    made.schedule.warmup_epochs = 0
    return made


def extraction(run_dir: Path, weights: Path) -> sce.ExtractConfig:
    return sce.ExtractConfig(
        data=DATA, weights=str(weights), test=ONE_CROP, accelerator="cpu", run=sce.RunConfig(dir=str(run_dir))
    )


def test_images_in_memory_train_and_evaluate_bit_for_bit_as_their_files(tmp_path: Path) -> None:
    lines = ["path,label"]
    for number, pixels in enumerate(IMAGES):
        Image.fromarray(pixels.transpose(1, 2, 0)).save(tmp_path / f"r{number:03d}.png")
        lines.append(f"r{number:03d}.png,{number % 2}")
    (tmp_path / "list.csv").write_text("\n".join(lines))
    source = Arrays(IMAGES)
    file_config = config(tmp_path / "files", list=str(tmp_path / "list.csv"))
    sce.pretrain(file_config)
    sce.pretrain(config(tmp_path / "memory"), data=source)
    first, second = (load_weights(str(tmp_path / name)).state for name in ("files", "memory"))
    assert all(torch.equal(first[name], second[name]) for name in first)
    for_files = replace(extraction(tmp_path / "of-files", tmp_path / "files"), data=file_config.data)
    sce.extract(for_files)
    sce.extract(extraction(tmp_path / "of-memory", tmp_path / "memory"), data=source)
    banks = [sce.FeatureBank.load(tmp_path / name / "features_test.pt") for name in ("of-files", "of-memory")]
    assert torch.equal(banks[0].features, banks[1].features)
    assert [Path(path).stem for path in banks[0].paths] == banks[1].paths
    assert "object: own_sources.Arrays" in (tmp_path / "memory" / "config.yaml").read_text()


def test_a_training_lists_unreadable_records_by_name_and_an_evaluation_stops(tmp_path: Path) -> None:
    broken = Broken(IMAGES, OSError("disk is gone"), [2, 3])
    report = sce.pretrain(config(tmp_path / "run", max_unreadable=0.5, pretrain_on="all"), data=broken)
    with (tmp_path / "run" / "unreadable.csv").open() as stream:
        assert sorted(map(tuple, csv.reader(stream))) == [
            ("path", "reason"), ("r002", "disk is gone"), ("r003", "disk is gone"),
        ]  # fmt: skip
    assert report.metrics["unreadable"] == 2
    with pytest.raises(MediaError, match=r"r00[23]: .*Evaluation requires every record"):
        sce.extract(extraction(tmp_path / "features", tmp_path / "run"), data=broken)
    for settings in ({"on_error": "raise"}, {"max_unreadable": 0.01}):
        with pytest.raises(MediaError, match=r"r00[23]: disk is gone"):
            sce.pretrain(config(tmp_path / str(settings), pretrain_on="all", **settings), data=broken)


def test_a_bug_in_a_worker_process_names_the_record_and_the_line(tmp_path: Path) -> None:
    broken = Broken(IMAGES, KeyError("frames"), [5])
    with pytest.raises(SourceError) as caught:
        sce.pretrain(config(tmp_path / "run", num_workers=1, pretrain_on="all"), data=broken)
    assert caught.value.summary.startswith("own_sources.Broken.read(5) raised KeyError: 'frames' (record r005), at ")
    assert caught.value.summary.endswith("raise self.error")


def test_weights_refuse_to_be_tested_on_records_that_they_were_trained_on(tmp_path: Path) -> None:
    training = sce.FinetuneConfig(
        data=DATA,
        backbone=sce.SmallR2Plus1DConfig(width=4, num_blocks=1),
        test=ONE_CROP,
        trainer=sce.TrainerConfig(max_epochs=1, accelerator="cpu"),
        run=sce.RunConfig(dir=str(tmp_path / "tuned")),
    )
    sce.finetune(training, data=Arrays(IMAGES[:12]), test_data=Arrays(IMAGES[12:]))
    testing = sce.ClassifierTestConfig(data=DATA, weights=str(tmp_path / "tuned"), test=ONE_CROP, accelerator="cpu")
    testing.run = sce.RunConfig(dir=str(tmp_path / "again"))
    report = sce.test(testing, data=Arrays(IMAGES[:12]), test_data=Arrays(IMAGES[12:]))
    assert report.protocol["seen_in_pretraining"]["seen"] == 0
    leaking = Arrays(noise(4, 3, 20, 24, seed=1), "other")
    with pytest.raises(ConfigError, match="already contains a finished run of Python objects"):
        sce.test(testing, data=leaking, test_data=Arrays(IMAGES[:4]))
    testing.run = sce.RunConfig(dir=str(tmp_path / "leaking"))
    with pytest.raises(ConfigError, match="was trained with the labels of 4 of the 4 test records"):
        sce.test(testing, data=leaking, test_data=Arrays(IMAGES[:4]))


@pytest.mark.usefixtures("own_registrations")
def test_a_registered_source_is_chosen_on_the_command_line_and_in_a_file(tmp_path: Path) -> None:
    (tmp_path / "parts.py").write_text(PLUGIN)
    plugin = f"plugins={tmp_path / 'parts.py'}"
    words = [plugin, "data.source=tests_noise", "data.source.path=a b,c=${x}", f"run.dir={tmp_path / 'views'}"]
    main(["show-views", *words, "data.num_workers=0"])
    text = (tmp_path / "views" / "config.yaml").read_text()
    assert "name: tests_noise\n    path: a b,c=" in text
    again = compose("show-views", [f"config={tmp_path / 'views'}"])
    assert again.data.source.path == "a b,c=${x}"
    assert again.data.source == compose("show-views", words).data.source


@pytest.mark.usefixtures("own_registrations")
@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["data.source=tests_nois"], "data.source=tests_nois must be one of .*did you mean tests_noise?"),
        (["data.source=tests_noise", "data.source.pth=x"], "did you mean data.source.path?"),
        (["data.source=tests_noise", "data.root=x"], "data.root=x is about files and not used with a source"),
        (["data.source=tests_noise", "data.source.bad=0"], r"Noise.read.0. raised KeyError: 'frames' \(record x/0\)"),
    ],
)
def test_mistakes_with_a_source_on_the_command_line_are_told(
    words: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "parts.py").write_text(PLUGIN)
    with pytest.raises(SystemExit):
        main(["show-views", f"plugins={tmp_path / 'parts.py'}", f"run.dir={tmp_path / 'run'}", *words])
    assert re.search(message, capsys.readouterr().err)


class LazyHDF5(Arrays):
    """Frames in an HDF5 file that is opened at the first use."""

    file: Any = None

    def __init__(self, path: Path) -> None:
        self.path, self.prefix = path, "r"

    @property
    def frames(self) -> Any:  # type: ignore[override]
        import h5py

        self.file = self.file or h5py.File(self.path)
        return self.file["frames"]


class OfTorchvision(Arrays):
    """Images of a torchvision data set."""

    def __init__(self, data_set: Any) -> None:
        super().__init__(data_set)

    def read(self, index: int) -> Any:
        return np.asarray(self.frames[index][0]).transpose(2, 0, 1)

    def label(self, index: int) -> Any:
        return self.frames[index][1]


def hdf5(folder: Path) -> Source:
    import h5py

    with h5py.File(folder / "frames.h5", "w") as file:
        file["frames"] = np.stack(IMAGES)
    return LazyHDF5(folder / "frames.h5")


def torchvision(folder: Path) -> Source:
    from torchvision.datasets import FakeData

    return OfTorchvision(FakeData(size=20, image_size=(3, 20, 24), num_classes=2))


def memory_map(folder: Path) -> Source:
    np.save(folder / "frames.npy", np.stack(IMAGES))
    return Arrays(np.load(folder / "frames.npy", mmap_mode="r"))


def tensors(folder: Path) -> Source:
    frames = torch.from_numpy(np.stack(IMAGES))
    return changed(frames=frames, read=lambda index: frames[index])


@pytest.mark.parametrize("make", [hdf5, torchvision, memory_map, tensors])
def test_data_of_other_packages_are_adapted_in_a_few_lines(make: Callable[[Path], Source], tmp_path: Path) -> None:
    loader = sce.training_loader(replace(DATA, num_workers=1).with_source(make(tmp_path)), "small_image")
    batches = list(loader)
    assert len(batches) == 4
    assert not any(batch.failures for batch in batches)
