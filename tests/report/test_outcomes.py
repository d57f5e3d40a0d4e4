"""Tests of what an evaluation leaves in its run directory for each test record."""

import csv
from pathlib import Path

import pytest
import torch

from eztorch_sce.files import open_text
from eztorch_sce.report.outcomes import write_predictions
from eztorch_sce.report.sample import sample_rows, write_sample
from eztorch_sce.types import FeatureBank, Predictions

UGLY = ["a,b", 'say "hi"', "two\nlines", "\r", "Ünïcode 動画", "caf\udce9", "<script>alert(1)</script>", " ", "=1+1"]


def bank(labels: list[int], paths: list[str], classes: list[str]) -> FeatureBank:
    generator = torch.Generator().manual_seed(len(labels))
    return FeatureBank(torch.randn(len(labels), 4, generator=generator), torch.tensor(labels), paths, classes)


def rows_of(file: Path) -> list[list[str]]:
    with open_text(file) as stream:
        return list(csv.reader(stream))


def test_any_name_of_a_file_or_a_class_is_read_back_unchanged(tmp_path: Path) -> None:
    numbers = list(range(len(UGLY)))
    test = bank(numbers, [f"/data/{name}.mp4" for name in UGLY], UGLY)
    train = bank(numbers, [f"/train/{name}" for name in UGLY], UGLY)
    guesses = torch.tensor([*numbers[1:], 0])
    nearest = torch.tensor([[number, 0, 1] for number in numbers])
    write_predictions(tmp_path, Predictions(guesses, torch.linspace(0, 1, len(UGLY)), nearest), train, test)
    header, *rows = rows_of(tmp_path / "predictions.csv")
    assert header[:5] == ["index", "record", "label", "prediction", "score"]
    assert header[5:] == [f"nearest{kind}_{number}" for kind in ("", "_index") for number in (1, 2, 3)]
    assert [row[:4] for row in rows] == [
        [str(number), test.paths[number], UGLY[number], UGLY[guess]] for number, guess in enumerate(guesses.tolist())
    ]
    assert [row[5:7] for row in rows] == [[path, train.paths[0]] for path in train.paths]
    assert [row[8:] for row in rows] == [[str(number), "0", "1"] for number in numbers]
    assert rows_of(tmp_path / "confusion.csv")[0] == ["class", *UGLY]
    assert [row[0] for row in rows_of(tmp_path / "confusion.csv")[1:]] == UGLY


def test_confident_mistakes_come_first(tmp_path: Path) -> None:
    test = bank([0, 0, 1, 1, 1], ["v", "w", "x", "y", "z"], ["cat", "dog"])
    predictions = Predictions(torch.tensor([0, 1, 0, -1, 0]), torch.tensor([0.99, 0.6, 0.9, 0.0, 0.6]))
    write_predictions(tmp_path, predictions, None, test)
    _, *worst = rows_of(tmp_path / "worst.csv")
    assert [row[1:4] for row in worst] == [["x", "dog", "cat"], ["w", "cat", "dog"], ["z", "dog", "cat"]]
    assert rows_of(tmp_path / "confusion.csv") == [["class", "cat", "dog"], ["cat", "1", "1"], ["dog", "2", "0"]]
    assert rows_of(tmp_path / "predictions.csv")[4][2:4] == ["dog", ""]  # no prediction, in no cell of the matrix


def test_the_fifty_worst_are_kept(tmp_path: Path) -> None:
    test = bank([0] * 80, list(map(str, range(80))), ["cat", "dog"])
    write_predictions(tmp_path, Predictions(torch.ones(80, dtype=torch.long), torch.arange(80) / 80), None, test)
    _, *worst = rows_of(tmp_path / "worst.csv")
    assert [row[0] for row in worst] == [str(number) for number in range(79, 29, -1)]


@pytest.mark.parametrize(
    ("num_train", "num_test", "expected"), [(90, 90, (10, 10)), (4, 90, (4, 16)), (90, 3, (17, 3)), (0, 90, (0, 20))]
)
def test_a_sample_takes_half_of_each_split_or_what_there_is(
    num_train: int, num_test: int, expected: tuple[int, int]
) -> None:
    rows = sample_rows([0] * num_train, [0] * num_test, most=20)
    assert (len(rows.train), len(rows.test)) == expected
    for of_split in rows:
        assert (of_split[1:] > of_split[:-1]).all()  # ascending, each once


def test_rare_classes_are_kept_whole_and_frequent_ones_share_the_rest() -> None:
    labels = torch.tensor([0] * 100 + [1] * 3 + [2] * 100)
    rows = sample_rows([], labels.numpy(), most=23)
    assert labels[torch.from_numpy(rows.test)].bincount().tolist() in ([10, 3, 10],)


def test_a_sample_holds_the_features_of_the_rows_it_names(tmp_path: Path) -> None:
    train, test = (bank([0, 1] * 4000, [f"{split}/{n}" for n in range(8000)], ["a", "b"]) for split in "xy")
    train.features, test.features = train.features * 1e6, test.features * 1e6  # beyond float16
    write_sample(tmp_path, train, test)
    sample = torch.load(tmp_path / "sample.pt", weights_only=True)
    assert sample["features"].dtype == torch.float16
    assert sample["split"].bincount().tolist() == sample["labels"].bincount().tolist() == [2500, 2500]
    for row in (0, 1234, 2500, 4999):
        split, index = (train, test)[sample["split"][row]], int(sample["index"][row])
        torch.testing.assert_close(
            sample["features"][row].float() * sample["scale"], split.features[index], rtol=1e-3, atol=1e2
        )
        assert (sample["paths"][row], sample["labels"][row]) == (split.paths[index], split.labels[index])
    write_sample(tmp_path, train, test)
    assert torch.equal(torch.load(tmp_path / "sample.pt", weights_only=True)["index"], sample["index"])


def test_a_sample_of_an_unlabeled_test_split_alone(tmp_path: Path) -> None:
    write_sample(tmp_path, None, bank([-1, -1], ["a", "b"], []))
    sample = torch.load(tmp_path / "sample.pt", weights_only=True)
    assert (sample["paths"], sample["split"].tolist(), sample["classes"]) == (["a", "b"], [1, 1], [])
