"""Tests of held-out test splits."""

import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from data_sets import labeled, touch, write

from eztorch_sce.data.config import DataConfig
from eztorch_sce.data.sources.groups import merge
from eztorch_sce.data.sources.holdout import holdout
from eztorch_sce.data.sources.manifest import Manifest
from eztorch_sce.data.sources.splits import Draw, Splits
from eztorch_sce.errors import ConfigError


def held_out(manifest: Manifest, fraction: float, seed: int, groups: list[int] | None = None) -> Splits:
    codes = None if groups is None else np.array(groups)
    return holdout(Splits(manifest, None), Draw(fraction, seed), codes)


def test_holdout_takes_a_fraction_of_each_class_and_loses_no_record() -> None:
    whole = labeled({"many": 100, "pair": 2, "sole": 1})
    splits = held_out(whole, fraction=0.2, seed=3)
    train, test = splits.train, splits.labeled_test
    assert sorted([*train.records, *test.records]) == sorted(whole.records)
    assert Counter(record.label for record in test.records) == {0: 20, 1: 1}
    assert train.classes == test.classes == whole.classes
    assert splits.origin == str(Draw(0.2, 3))
    assert splits.notes == ("1 class is only in train, too small to be divided: sole",)
    assert held_out(whole, fraction=0.2, seed=3) == splits
    assert held_out(whole, fraction=0.2, seed=4) != splits


def test_the_draw_without_groups_is_that_of_earlier_versions() -> None:
    test = held_out(labeled({"a": 12, "b": 6}), fraction=0.3, seed=5).labeled_test
    assert [record.path for record in test.records] == [
        f"/data/{name}.mp4" for name in ("a/5", "a/7", "a/8", "a/10", "b/1", "b/3")
    ]


def test_holdout_of_a_class_does_not_depend_on_the_others() -> None:
    alone, together = labeled({"a": 30, "b": 30}), labeled({"a": 30, "aa": 10, "b": 30})
    held = [{record.path for record in held_out(each, 0.3, seed=0).labeled_test.records} for each in (alone, together)]
    assert held[0] == {path for path in held[1] if "/aa/" not in path}


def test_holdout_needs_a_class_with_two_files() -> None:
    with pytest.raises(ConfigError, match="no class has two files"):
        held_out(labeled({"a": 1, "b": 1}), fraction=0.5, seed=0)
    with pytest.raises(ConfigError, match=r"data\.test_fraction=1"):
        held_out(labeled({"a": 5}), fraction=1, seed=0)


@pytest.mark.parametrize("seed", range(5))
def test_a_group_is_never_divided_and_classes_keep_their_fraction(seed: int) -> None:
    whole = labeled({"a": 60, "b": 40, "c": 2})
    groups = [index // 4 for index in range(60)] + [100 + index // 5 for index in range(40)] + [200, 201]
    splits = held_out(whole, 0.25, seed, groups)
    group_of = dict(zip(whole.records.paths(), groups, strict=True))
    in_train, in_test = ({group_of[path] for path in split.records.paths()} for split in splits[:2] if split)
    assert not in_train & in_test
    counts = Counter(record.label for record in splits.labeled_test.records)
    assert counts == {0: 16, 1: 10, 2: 1}


@pytest.mark.parametrize("seed", range(5))
def test_groups_with_several_classes_are_held_out_whole(seed: int) -> None:
    whole = labeled({"a": 50, "b": 50})
    groups = [index % 10 for index in range(50)] * 2
    test = held_out(whole, 0.2, seed, groups).labeled_test
    assert Counter(record.label for record in test.records) == {0: 10, 1: 10}
    names = [Counter(int(Path(path).stem) % 10 for path in test.records.paths())]
    assert [set(counts.values()) for counts in names] == [{10}]


def test_a_class_in_one_group_is_used_for_training() -> None:
    splits = held_out(labeled({"a": 4, "b": 4}), 0.5, 0, [1, 1, 1, 1, 2, 2, 3, 3])
    assert set(splits.labeled_test.records.labels.tolist()) == {1}
    with pytest.raises(ConfigError, match="no class has two groups"):
        held_out(labeled({"a": 4, "b": 4}), 0.5, 0, [1, 1, 1, 1, 2, 2, 2, 2])


def test_merged_groups_divide_neither() -> None:
    merged = merge(np.array([7, 7, 8, 9, 5]), np.array([1, 2, 2, 3, 4])).tolist()
    assert merged[0] == merged[1] == merged[2]
    assert len(set(merged)) == 3


def clips(root: Path) -> Path:
    names = [f"v_{name}_g{group:02d}_c{clip}.mp4" for name in "ab" for group in range(5) for clip in range(4)]
    return touch(root / "g99", *(f"{name.split('_')[1]}/{name}" for name in names))


def test_clips_of_one_source_video_are_held_out_together(tmp_path: Path) -> None:
    config = DataConfig(root=str(clips(tmp_path)), group=r"_(g\d+)_")
    splits = config.open_with_test(seed=0)
    groups = [
        {match[1] for path in split.records.paths() if (match := re.search(r"_(g\d+)_", path))}
        for split in (splits.train, splits.labeled_test)
    ]
    assert [len(each) for each in groups] == [4, 1]
    assert not groups[0] & groups[1]
    assert splits.origin == r"0.2 of each class held out, seed 0, grouped by _(g\d+)_"


@pytest.mark.parametrize(
    ("group", "expected"),
    [
        ("subject", r"does not match 40 of 40 paths, and is no column of a list: a/v_a_g00_c0\.mp4"),
        ("_g0[0-3]_", "does not match 8 of 40 paths"),
        (".mp4", "puts all 40 records into one group"),
        ("g99", "does not match 40 of 40 paths"),  # only the part below data.root counts
        ("(", "not a valid regular expression"),
    ],
)
def test_a_group_that_names_nothing_or_everything_is_an_error(group: str, expected: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=expected):
        DataConfig(root=str(clips(tmp_path)), group=group).open_with_test(seed=0)


def test_a_column_of_a_list_names_the_groups(tmp_path: Path) -> None:
    rows = [f"{number}.mp4,{'ab'[number % 2]},subject {number // 4}" for number in range(20)]
    touch(tmp_path, *(f"{number}.mp4" for number in range(20)))
    listed = write(tmp_path / "list.csv", "\n".join(["path,label,subject", *rows]))
    splits = DataConfig(list=str(listed), group="subject").open_with_test(seed=1)
    numbers = [int(Path(path).stem) for path in splits.labeled_test.records.paths()]
    assert len(numbers) == 4
    assert len({number // 4 for number in numbers}) == 1


def test_a_group_in_both_of_two_given_splits_is_an_error(tmp_path: Path) -> None:
    names = [f"v_{name}_g{group}.mp4" for name in "ab" for group in range(3)]
    root = touch(tmp_path, *(f"train/{name[2]}/{name}" for name in names), "val/a/v_a_g2_2.mp4", "val/b/v_b_g7.mp4")
    with pytest.raises(ConfigError, match=r"puts 1 of 2 test records .* groups of train .*val/a/v_a_g2_2\.mp4 with"):
        DataConfig(root=str(root), group=r"_(g\d+)").open_with_test(seed=0)
