"""Tests of subsets of a manifest."""

from collections import Counter
from pathlib import Path

import pytest
from data_sets import labeled, summary, touch, write

from eztorch_sce.data.sources.folder import from_folder
from eztorch_sce.data.sources.manifest import Manifest
from eztorch_sce.data.sources.records import Records
from eztorch_sce.data.sources.subsets import draw_fraction, keep_classes, keep_listed
from eztorch_sce.errors import ConfigError


def test_a_fraction_is_drawn_from_each_class() -> None:
    whole = labeled({"many": 100, "pair": 2, "sole": 1})
    drawn = draw_fraction(whole, fraction=0.1, seed=3)
    assert Counter(record.label for record in drawn.records) == {0: 10, 1: 1, 2: 1}
    assert drawn.classes == whole.classes
    assert list(drawn.records) == [record for record in whole.records if record in drawn.records]  # in the same order
    assert drawn == draw_fraction(whole, fraction=0.1, seed=3)
    assert drawn.records != draw_fraction(whole, fraction=0.1, seed=4).records
    assert draw_fraction(whole, fraction=1, seed=3).records == whole.records
    assert "the fraction 0.1 of each class drawn with seed 3 (12 records)" in drawn.source


def test_a_larger_fraction_contains_the_smaller_one() -> None:
    whole = labeled({"a": 200, "b": 50})
    small, large = ({record.path for record in draw_fraction(whole, fraction, 0).records} for fraction in (0.01, 0.1))
    assert small < large


def test_a_published_subset_names_files_or_ends_of_paths(tmp_path: Path) -> None:
    touch(tmp_path, *(f"train/{name}/{name}_{i}.JPEG" for name in ("n01", "n02") for i in range(3)), "train/n02/x.png")
    train = from_folder(tmp_path / "train")
    for text in ("n02_0.JPEG\nn01_2.JPEG\nn01_2.JPEG\n\n", "n02/n02_0.JPEG\r\nn01/n01_2.JPEG\r\n"):
        kept = keep_listed(train, write(tmp_path / "1percent.txt", text))
        assert summary(kept, tmp_path / "train") == [("n01/n01_2.JPEG", 0, "image"), ("n02/n02_0.JPEG", 1, "image")]
        assert kept.classes == ["n01", "n02"]
        assert f"only the 2 records in {tmp_path}/1percent.txt" in kept.source


def test_names_that_match_no_file_or_several_are_errors(tmp_path: Path) -> None:
    touch(tmp_path, "train/cat/1.png", "train/dog/1.png", "train/dog/2.png")
    train = from_folder(tmp_path / "train")
    with pytest.raises(ConfigError) as caught:
        keep_listed(train, write(tmp_path / "list.txt", "1.png\ngone.png\n2.png\nat/1.png\n"))
    assert len(caught.value.problems) == 2
    assert "2 of 4 names are not in the train split: gone.png, at/1.png" in caught.value.problems[0]
    assert "names that match several files: 1.png" in caught.value.problems[1]
    with pytest.raises(ConfigError, match=r"data\.train_subset=.*nowhere\.txt does not exist"):
        keep_listed(train, tmp_path / "nowhere.txt")
    with pytest.raises(ConfigError, match="lists no files"):
        keep_listed(train, write(tmp_path / "empty.txt", "\n"))


def test_kept_classes_are_relabeled_together_with_their_missing_files() -> None:
    whole = labeled({"a": 1, "b b": 2, "c": 1})
    whole.missing = [("gone_a", 0), ("gone_c", 2)]
    kept = keep_classes(whole, ["c", "b_b"], where="list.txt")
    assert kept.classes == ["b b", "c"]
    assert [record.label for record in kept.records] == [0, 0, 1]
    assert kept.missing == [("gone_c", 1)]
    with pytest.raises(ConfigError, match="no labels"):
        keep_classes(Manifest(Records.of([]), [], "somewhere"), ["a"], where="list.txt")
