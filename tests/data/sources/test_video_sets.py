import json
from pathlib import Path

import pytest

from eztorch_sce.data.sources.layouts import open_splits
from eztorch_sce.data.sources.splits import Location, Splits
from eztorch_sce.errors import ConfigError


def make(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def opened(layout: str, root: Path, annotations: Path | None = None, **lists: Path) -> Splits:
    location = Location(root=str(root), annotations=str(annotations) if annotations else None)
    return open_splits(location._replace(**{name: str(path) for name, path in lists.items()}), layout)


def named(splits: Splits) -> tuple[dict[str, str], dict[str, str]]:
    """Return the class name of each file, by part."""
    assert splits.test is not None
    train, test = ({Path(r.path).stem: part.classes[r.label] for r in part.records} for part in splits)
    return train, test


# The numbers are not in the order of the names, and the templates have brackets that the labels have not.
SSV2 = {
    "labels": {"Holding something next to something": "1", "Approaching something with your camera": "0"},
    "train": [
        {
            "id": "78687",
            "label": "holding potato next to bottle",
            "template": "Holding [something] next to [something]",
        },
        {"id": "4", "label": "approaching a cup", "template": "Approaching [something] with your camera"},
    ],
    "validation": [{"id": "12", "label": "approaching it", "template": "Approaching [something] with your camera"}],
}


def write_ssv2(folder: Path, form: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for part, content in SSV2.items():
        (folder / form.format(part)).write_text(json.dumps(content))
    return folder


@pytest.mark.parametrize("form", ["something-something-v2-{}.json", "{}.json"])
@pytest.mark.parametrize("place", [".", "labels", "../labels", "../far"])
def test_something_something_in_both_forms_of_its_lists(tmp_path: Path, form: str, place: str) -> None:
    root = make(tmp_path / "root", "20bn-something-something-v2/78687.webm", "20bn-something-something-v2/12.webm")
    make(root, "20bn-something-something-v2/4.webm", "20bn-something-something-v2/77.webm")
    lists = write_ssv2(root / place, form)
    splits = opened("ssv2", root, annotations=lists if "far" in place else None)
    names = ["Approaching something with your camera", "Holding something next to something"]
    assert splits.train.classes == names
    assert named(splits) == ({"78687": names[1], "4": names[0]}, {"12": names[0]})


def test_something_something_says_what_is_not_as_published(tmp_path: Path) -> None:
    root = make(tmp_path, "78687.webm", "4.webm")
    with pytest.raises(
        ConfigError, match=r"data\.annotations=null: something-something-v2-\{labels,train,validation\}\.json or "
    ):
        opened("ssv2", root)
    write_ssv2(root, "{}.json")
    with pytest.raises(ConfigError, match=r"1 of 1 files do not exist .*: 12 \(test split of"):
        opened("ssv2", root)
    make(root, "12.webm")
    for text, said in (
        ("[{]", "is not JSON"),
        ("{}", "contains a dict, but the publisher's contains a list"),
        ('[{"id": "4"}]', "1 entries without id or template"),
        ('[{"id": "4", "template": "Dropping [something]"}]', "class 'Dropping something' is not in the train split"),
    ):
        (root / "train.json").write_text(text)
        with pytest.raises(ConfigError, match=said):
            opened("ssv2", root)


def test_kinetics_200_is_a_tree_of_400_and_a_list_of_classes(tmp_path: Path) -> None:
    classes = ("air_drumming", "archery", "yoga")
    root = make(
        tmp_path / "k400", *(f"{part}/{name}/{part}_{name}.mp4" for part in ("train", "val") for name in classes)
    )
    (tmp_path / "k200.txt").write_text('yoga\n"air drumming"\n')  # as the publisher's CSV spells it
    splits = opened("kinetics200", root, annotations=tmp_path / "k200.txt")
    assert splits.train.classes == ["air_drumming", "yoga"]
    assert named(splits) == (
        {"train_air_drumming": "air_drumming", "train_yoga": "yoga"},
        {"val_air_drumming": "air_drumming", "val_yoga": "yoga"},
    )


@pytest.mark.parametrize(
    "header",
    [
        "label,youtube_id,time_start,time_end,split,is_cc",  # Kinetics-400 and 600
        "label,youtube_id,time_start,time_end,split",  # Kinetics-700
    ],
)
def test_kinetics_lists_of_every_year_with_or_without_a_list_of_classes(tmp_path: Path, header: str) -> None:
    root = make(tmp_path / "root", "train/a_000001_000011.mp4", "train/b_000001_000011.mp4", "val/c_000001_000011.mp4")
    rows = ["archery,{},1,11,{}", '"air drumming",{},1,11,{}']
    train = [rows[0].format("a", "train"), rows[1].format("b", "train"), rows[0].format("gone", "train")]
    for name, lines in (("train", train), ("validate", [rows[1].format("c", "val")])):
        (tmp_path / f"{name}.csv").write_text("\n".join([header, *lines]) + "\n")
    lists = {"list": tmp_path / "train.csv", "test_list": tmp_path / "validate.csv"}
    for splits in (opened("kinetics400", root, annotations=tmp_path), opened("kinetics400", root, **lists)):
        train_names, test_names = named(splits)
        assert train_names == {"a_000001_000011": "archery", "b_000001_000011": "air drumming"}
        assert test_names == {"c_000001_000011": "air drumming"}
        assert splits.train.missing == [("gone_000001_000011", 1)]
    (tmp_path / "keep.txt").write_text("air drumming\n")
    kept = opened("kinetics400", root, annotations=tmp_path / "keep.txt", **lists)
    assert named(kept) == ({"b_000001_000011": "air drumming"}, {"c_000001_000011": "air drumming"})
    assert kept.train.missing == []


@pytest.mark.real_data
@pytest.mark.parametrize(("year", "num_classes"), [(400, 400), (600, 600), (700, 700)])
def test_kinetics_trees_of_the_published_classes(tmp_path: Path, shared: Path, year: int, num_classes: int) -> None:
    names = (shared / f"data/annotations/kinetics/label_map_k{year}.txt").read_text().splitlines()
    files = (f"{part}/{name}/{part}{number}.mp4" for part in ("train", "val") for number, name in enumerate(names))
    splits = opened(f"kinetics{year}", make(tmp_path / "root", *files))
    assert len(splits.train.classes) == num_classes
    (tmp_path / "keep.txt").write_text("\n".join(names[:200]))
    kept = opened("kinetics200", tmp_path / "root", annotations=tmp_path / "keep.txt")
    assert [len(part.records) for part in kept if part] == [200, 200]


@pytest.mark.real_data
def test_the_published_list_of_kinetics_400(tmp_path: Path, shared: Path) -> None:
    folder = shared / "data/annotations/kinetics"
    lists = {
        "list": folder / "tinykinetics400_tiny_train.csv",
        "test_list": folder / "kinetics-400_val.csv",
    }
    make(tmp_path, "train/abseiling/_4YTwq0-73Y_000044_000054.mp4", "val/abseiling/0wR5jVB-WPk_000417_000427.mp4")
    splits = opened("kinetics400", tmp_path, **lists)
    assert named(splits) == ({"_4YTwq0-73Y_000044_000054": "abseiling"}, {"0wR5jVB-WPk_000417_000427": "abseiling"})
    assert len(splits.train.classes) == 400
    assert splits.test is not None
    assert splits.test.missing is not None
    assert len(splits.test.missing) == 19905
