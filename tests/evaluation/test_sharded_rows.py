"""Tests of features that stay in shards: every evaluation gives the same on them as on files, without holding them."""

import csv
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import numpy as np
import pytest
import torch
from PIL import Image

import eztorch_sce as sce
from eztorch_sce import api
from eztorch_sce.config.compose import compose
from eztorch_sce.errors import ConfigError
from eztorch_sce.evaluation import search, sharded_rows
from eztorch_sce.evaluation.features import read_features
from eztorch_sce.evaluation.sharded_rows import Part, ShardedRows, as_listed, stored_banks
from eztorch_sce.jobs.store import Store
from eztorch_sce.registry import choices

SETTINGS = {
    "knn": ["k=5"],
    "svm": ["costs=[0.1]"],
    "few-shot": ["ways=3", "shots=2", "episodes=10"],
    "linear": ["trainer.max_epochs=3", "lrs=[0.1]"],
}


class Colors(torch.nn.Module):
    """Colors of the four quarters of an image (12), the same whatever the batch."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        height, width = (size // 2 for size in images.shape[-2:])
        quarters = [images[..., :height, :width], images[..., height:, :width]]
        quarters += [images[..., :height, width:], images[..., height:, width:]]
        return torch.cat([quarter[..., 0, 0].flatten(start_dim=1) for quarter in quarters], dim=1)


@pytest.fixture(scope="module")
def extracted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the same features as files (`files`) and in the shards of another folder (`shards`)."""
    folder = tmp_path_factory.mktemp("extracted")
    rng = np.random.default_rng(0)
    for number in range(60):
        place = folder / "images" / ("val" if number % 4 == 0 else "train") / "abc"[number % 3]
        place.mkdir(parents=True, exist_ok=True)
        pixels = rng.integers(0, 256, (32, 32, 3)) // 2 + 40 * (number % 3)
        Image.fromarray(pixels.astype(np.uint8)).save(place / f"{rng.integers(10**9)}.png")
    for name, out in (("files", None), ("shards", str(folder / "out"))):
        config = sce.ExtractConfig(
            data=sce.DataConfig(root=str(folder / "images"), num_workers=0, kind="image"),
            run=sce.RunConfig(dir=str(folder / name)),
            accelerator="cpu",
            out=out,
        )
        config.runner.shard_records = 13
        api.extract(config, backbone=Colors())
    return folder


@pytest.fixture
def no_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no features fit in memory, and search for few queries at once."""
    monkeypatch.setattr(sharded_rows, "total_bytes", lambda: 0)
    monkeypatch.setattr(search, "total_bytes", lambda: 0)
    monkeypatch.setattr(search, "QUERY_CHUNK", 4)


def score(name: str, features: Path | str, run_dir: Path) -> sce.Report:
    overrides = [f"features={features}", f"run.dir={run_dir}", "accelerator=cpu", *SETTINGS.get(name, [])]
    return api.evaluate(compose(name, overrides))


@pytest.mark.usefixtures("no_memory")
@pytest.mark.parametrize("name", choices("evaluation"))
def test_every_evaluation_gives_the_same_on_shards(name: str, extracted: Path, tmp_path: Path) -> None:
    assert isinstance(read_features(str(extracted / "shards"), labeled=True)[0].features, ShardedRows)
    reports = [score(name, extracted / kind, tmp_path / kind) for kind in ("files", "shards")]
    assert reports[0].metrics == pytest.approx(reports[1].metrics, abs=1e-6)
    assert reports[0].intervals.keys() == reports[1].intervals.keys()
    for metric, interval in reports[0].intervals.items():
        assert interval == pytest.approx(reports[1].intervals[metric], abs=1e-6)
    written = sorted(file.name for file in (tmp_path / "files").glob("*.csv"))
    assert written == sorted(file.name for file in (tmp_path / "shards").glob("*.csv"))
    for file in set(written) & {"predictions.csv", "by_record.csv", "confusion.csv"}:
        assert_same_rows(tmp_path / "files" / file, tmp_path / "shards" / file)
    samples = [torch.load(tmp_path / kind / "sample.pt", weights_only=True) for kind in ("files", "shards")]
    assert torch.equal(samples[0]["features"], samples[1]["features"])
    assert samples[0]["paths"] == samples[1]["paths"]


def assert_same_rows(first: Path, second: Path) -> None:
    tables = []
    for file in (first, second):
        with file.open(newline="") as stream:
            tables.append(list(csv.reader(stream)))
    for rows in zip(*tables, strict=True):
        for values in zip(*rows, strict=True):
            assert values[0] == values[1] or float(values[0]) == pytest.approx(float(values[1]), abs=1e-4)


def test_shards_that_fit_are_read_into_memory_in_the_order_of_the_data(extracted: Path) -> None:
    for split, bank in zip(("train", "test"), read_features(str(extracted / "shards"), labeled=True), strict=True):
        expected = sce.FeatureBank.load(extracted / "files" / f"features_{split}.pt")
        assert isinstance(bank.features, torch.Tensor)
        assert torch.equal(bank.features, expected.features)
        assert torch.equal(bank.labels, expected.labels)
        assert list(bank.paths) == expected.paths
        assert bank.places is None


@pytest.mark.usefixtures("no_memory")
def test_the_folder_of_the_shards_can_be_read_without_the_run(extracted: Path) -> None:
    banks = [read_features(str(extracted / name), labeled=True)[1] for name in ("out", "shards")]
    assert banks[0].classes == ["a", "b", "c"]
    assert banks[0].protocol["data_summary"] == banks[1].protocol["data_summary"]
    listed, expected = as_listed(banks[0]), sce.FeatureBank.load(extracted / "files" / "features_test.pt")
    assert torch.equal(listed.features[:], expected.features[:])
    assert listed.paths[3:5] == expected.paths[3:5]


@pytest.fixture
def bucket() -> Iterator[str]:
    """Return the URL of a folder in the memory of this process."""
    import fsspec

    yield "memory://bucket/features"
    fsspec.filesystem("memory").rm("/bucket", recursive=True)


@pytest.mark.usefixtures("no_memory")
def test_features_are_written_to_and_read_from_a_url(extracted: Path, tmp_path: Path, bucket: str) -> None:
    config = sce.ExtractConfig(
        data=sce.DataConfig(root=str(extracted / "images"), num_workers=0, kind="image"),
        run=sce.RunConfig(dir=str(tmp_path / "run")),
        accelerator="cpu",
        out=bucket,
    )
    config.runner.shard_records = 13
    api.extract(config, backbone=Colors())
    assert not list((tmp_path / "run").glob("*.pt"))
    expected = score("retrieve", extracted / "files", tmp_path / "files").metrics
    for features in (tmp_path / "run", bucket):
        report = score("retrieve", features, tmp_path / f"{Path(features).name} scored")
        assert report.metrics == pytest.approx(expected, abs=1e-6)
    rows = read_features(bucket, labeled=True)[0].features
    assert isinstance(rows, ShardedRows)
    assert torch.equal(rows[torch.tensor([17, 2, 17])], rows[:][[17, 2, 17]])
    with pytest.raises(ConfigError, match=r"has no features\.json: give the URL that `extract` wrote to"):
        read_features("memory://bucket/other", labeled=True)


def test_rows_are_indexed_like_a_tensor(tmp_path: Path) -> None:
    expected = torch.arange(40.0).view(10, 4)
    (tmp_path / "a").write_bytes(b"head" + expected[:6].numpy().tobytes())
    (tmp_path / "b").write_bytes(expected[6:].numpy().tobytes())
    rows = ShardedRows(Store(tmp_path), [Part("a", 4, 6), Part("b", 0, 0), Part("b", 0, 4)], 4)
    assert (len(rows), rows.shape, rows.nbytes) == (10, (10, 4), 160)
    for index in (slice(None), slice(4, 8), slice(6, 6), slice(8, 99), slice(0, 10, 3), slice(-3, None)):
        assert torch.equal(rows[index], expected[index])
    for chosen in (torch.tensor([9, 0, 5, 6, 5]), torch.tensor([], dtype=torch.long), torch.arange(10) % 2 == 0):
        assert torch.equal(rows[chosen], expected[chosen])
    rows[2:4].zero_()  # a copy, not the file
    assert torch.equal(rows[:], expected)


def test_a_missing_shard_is_named(extracted: Path, tmp_path: Path) -> None:
    content = json.loads((extracted / "out" / "features.json").read_text())
    content["splits"][0]["parts"][0][0] = "outputs/gone.arrow"
    for name in ("features_train.arrow", "features_test.arrow"):
        (tmp_path / name).write_bytes((extracted / "out" / name).read_bytes())
    (tmp_path / "features.json").write_text(json.dumps(content))
    with pytest.raises(ConfigError, match=r"gone\.arrow is missing or damaged"):
        read_features(str(tmp_path), labeled=True)


def test_svm_says_how_much_memory_it_needs(extracted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("eztorch_sce.evaluation.svm.total_bytes", lambda: 1000)
    with pytest.raises(ConfigError, match=r"svm needs about .* kB of memory for 45 train and 15 test records"):
        score("svm", extracted / "files", tmp_path / "run")


def test_features_of_no_job_are_none(tmp_path: Path) -> None:
    assert stored_banks(str(tmp_path)) is None


LARGE = """
import resource, sys
from eztorch_sce.evaluation import search, sharded_rows
from eztorch_sce import api
from eztorch_sce.config.compose import compose

for module in (search, sharded_rows):
    module.total_bytes = lambda: 64 * 2**20  # a third of the features
name, folder, run_dir, *settings = sys.argv[1:]
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
api.evaluate(compose(name, [f"features={folder}", f"run.dir={run_dir}", "accelerator=cpu", *settings]))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.long
@pytest.mark.parametrize(
    "settings", [["knn"], ["retrieve"], ["linear", "trainer.max_epochs=1"], ["few-shot", "episodes=20"]], ids=str
)
def test_no_evaluation_holds_all_features(settings: list[str], tmp_path: Path) -> None:
    folder, width, counts = tmp_path / "features", 512, (100_000, 400)
    (folder / "outputs").mkdir(parents=True)
    generator = np.random.default_rng(0)
    parts: list[list[Part]] = [[], []]
    for number in range(20):
        rows = [count // 20 for count in counts]
        values = generator.standard_normal((sum(rows), width), np.float32)
        (folder / "outputs" / f"{number}.arrow").write_bytes(values.tobytes())
        parts[0].append(Part(f"outputs/{number}.arrow", 0, rows[0]))
        parts[1].append(Part(f"outputs/{number}.arrow", rows[0] * width * 4, rows[1]))
    banks = []
    for own, count in zip(parts, counts, strict=True):
        features = cast(torch.Tensor, ShardedRows(Store(folder), own, width))  # as type checkers see them
        labels, places = torch.arange(count) % 200, torch.randperm(count)
        banks.append(
            sce.FeatureBank(
                features, labels, ["a"] * count, [f"{label:03d}" for label in range(200)], {}, places=places
            )
        )
    sharded_rows.write_index(Store(folder), parts, width, banks)
    command = [sys.executable, "-c", LARGE, settings[0], str(folder), str(tmp_path / "run"), *settings[1:]]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    kilobytes = int(result.stdout.splitlines()[-1])
    assert kilobytes < 100 * 1024  # the features take 196 MB
