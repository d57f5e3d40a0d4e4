"""Tests of the layouts of video data sets."""

import json
from pathlib import Path

import pytest
from data_sets import class_names, labels, open_layout, touch, write

from eztorch_sce.errors import ConfigError

# The class numbers do not follow the order of the names, and the templates, unlike the labels, have brackets.
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


UCF = {
    "classInd.txt": "1 ApplyEyeMakeup\r\n2 Archery\r\n",
    "trainlist01.txt": "ApplyEyeMakeup/v_ApplyEyeMakeup_g08_c01.avi 1\r\nArchery/v_Archery_g08_c01.avi 2\r\n",
    "testlist01.txt": "Archery/v_Archery_g01_c01.avi\r\n",
}


UCF_FILES = ("ApplyEyeMakeup/v_ApplyEyeMakeup_g08_c01", "Archery/v_Archery_g08_c01", "Archery/v_Archery_g01_c01")


@pytest.mark.parametrize("lists", ["", "annotations", "ucfTrainTestlist", "../ucfTrainTestlist", "../far"])
@pytest.mark.parametrize(
    "place", ["{}.avi", "UCF-101/{}.avi", "{}.mp4", "{}/00001.jpg", "flat"], ids=lambda place: place.replace("/", "-")
)
def test_ucf101_is_found_in_any_folder_as_videos_or_frames(tmp_path: Path, lists: str, place: str) -> None:
    root = tmp_path / "root"
    names = [f"{Path(name).name}.avi" for name in UCF_FILES] if place == "flat" else map(place.format, UCF_FILES)
    touch(root, *names)
    for name, text in UCF.items():
        write(root / lists / name, text)
    splits = open_layout("ucf101", root, annotations=root / lists) if "far" in lists else open_layout("ucf101", root)
    assert labels(splits) == [{"v_ApplyEyeMakeup_g08_c01": 0, "v_Archery_g08_c01": 1}, {"v_Archery_g01_c01": 1}]
    assert splits.train.classes == ["ApplyEyeMakeup", "Archery"]
    assert {record.kind for record in splits.train.records} == {"frames" if "jpg" in place else "video"}


def test_missing_lists_and_files_of_ucf101_are_reported(tmp_path: Path) -> None:
    touch(tmp_path, f"{UCF_FILES[0]}.avi")
    with pytest.raises(
        ConfigError, match=r"data\.annotations=null: classInd\.txt, trainlist01\.txt.*data\.annotations"
    ):
        open_layout("ucf101", tmp_path)
    for name, text in UCF.items():
        write(tmp_path / name, text)
    with pytest.raises(ConfigError, match=r"1 of 2 .*v_Archery_g08_c01 (.|\n)*1 of 1 .*v_Archery_g01_c01"):
        open_layout("ucf101", tmp_path)
    with pytest.raises(ConfigError, match=r"data\.split=4"):
        open_layout("ucf101", tmp_path, split=4)


def test_hmdb51_marks_train_with_1_test_with_2_and_unused_with_0(tmp_path: Path) -> None:
    name = "#20_Rhythm[_NEW_]!_(x)&;~@+_climb_u_nm_np1_fr_goo_0"
    touch(tmp_path, f"climb/{name}.avi", "climb/b.avi", "climb_stairs/c.avi", "climb_stairs/d.avi")
    write(tmp_path / "annotations" / "climb_test_split2.txt", f"{name}.avi 1 \nb.avi 2 \n")
    write(tmp_path / "annotations" / "climb_stairs_test_split2.txt", "c.avi 1 \nd.avi 0 \n")
    splits = open_layout("hmdb51", tmp_path, split=2)
    assert labels(splits) == [{name: 0, "c": 1}, {"b": 0}]
    assert splits.train.classes == ["climb", "climb_stairs"]


def test_a_list_in_another_format_is_reported(tmp_path: Path) -> None:
    write(tmp_path / "climb_test_split1.txt", "a.avi 1\nb.avi 3\n")
    with pytest.raises(ConfigError, match=r"climb_test_split1\.txt: lines not in the publisher's format: b\.avi 3"):
        open_layout("hmdb51", tmp_path)


KINETICS = "label,youtube_id,time_start,time_end,split,is_cc\n{}"


def test_kinetics_files_are_found_in_any_folder_and_missing_ones_counted(tmp_path: Path) -> None:
    touch(tmp_path, "train/air_drumming/-a_000044_000054.mp4", "train/replacement/b.mkv", "val/air drumming/c.mp4")
    rows = 'abseiling,b,1,11,train,0\n"air drumming",-a,44,54,train,0\nabseiling,gone,0,10,train,0\n'
    write(tmp_path / "annotations" / "train.csv", KINETICS.format(rows))
    write(tmp_path / "annotations" / "val.csv", KINETICS.format("air drumming,c,5,15,val,0\n"))
    splits = open_layout("kinetics400", tmp_path, annotations=tmp_path / "annotations")
    assert labels(splits) == [{"b": 0, "-a_000044_000054": 1}, {"c": 1}]
    assert "1 of 3 are not on disk" in splits.train.source


def test_kinetics_without_any_file_is_an_error(tmp_path: Path) -> None:
    touch(tmp_path, "train/abseiling/other.mp4")
    listed = write(tmp_path / "train.csv", KINETICS.format("abseiling,b,1,11,train,0\n"))
    with pytest.raises(ConfigError, match="1 of 1 files do not exist"):
        open_layout("kinetics400", tmp_path, list=listed)


def test_kinetics_opens_plain_lists_and_folders(tmp_path: Path) -> None:
    touch(tmp_path, "train/abseiling/a.mp4", "train/archery/b.mp4", "val/archery/c.mp4")
    assert labels(open_layout("kinetics400", tmp_path)) == [{"a": 0, "b": 1}, {"c": 1}]
    write(tmp_path / "train.txt", "train/abseiling/a.mp4 0\ntrain/archery/b.mp4 1\ntrain/archery/gone.mp4 1\n")
    write(tmp_path / "val.txt", "val/archery/c.mp4 1\n")
    splits = open_layout("kinetics400", tmp_path)
    assert labels(splits) == [{"a": 0, "b": 1}, {"c": 1}]
    assert "1 of 3" in splits.train.source


def test_several_lists_of_a_split_are_ambiguous(tmp_path: Path) -> None:
    touch(tmp_path, "k400_train.csv", "k600_train.csv")
    with pytest.raises(ConfigError, match=r"several train lists: k400_train\.csv, k600_train\.csv; set data\.list"):
        open_layout("kinetics400", tmp_path, annotations=tmp_path)


@pytest.mark.real_data
def test_ucf101_has_its_published_sizes(tmp_path: Path, shared: Path) -> None:
    lists = shared / "data/annotations/ucf101"
    lines = [line for name in ("train", "test") for line in (lists / f"{name}list01.txt").read_text().splitlines()]
    touch(tmp_path, *(line.split()[0] for line in lines))
    sizes = []
    for split in (1, 2, 3):
        train, test = open_layout("ucf101", tmp_path, split=split, annotations=lists)[:2]
        assert test is not None
        assert len(train.classes) == 101
        assert all(Path(r.path).parent.name == train.classes[r.label or 0] for r in [*train.records, *test.records])
        sizes.append((len(train.records), len(test.records)))
    assert sizes == [(9537, 3783), (9586, 3734), (9624, 3696)]


@pytest.mark.real_data
def test_hmdb51_has_its_published_sizes(tmp_path: Path, shared: Path) -> None:
    lists = shared / "data/annotations/hmdb51"
    for file in lists.glob("*_test_split1.txt"):
        action = file.name.removesuffix("_test_split1.txt")
        touch(tmp_path, *(f"{action}/{line.split()[0]}" for line in file.read_text().splitlines() if line.strip()))
    for split in (1, 2, 3):
        train, test = open_layout("hmdb51", tmp_path, split=split, annotations=lists)[:2]
        assert test is not None
        assert (len(train.classes), len(train.records), len(test.records)) == (51, 3570, 1530)
        assert {sum(record.label == label for record in train.records) for label in range(51)} == {70}


def write_ssv2(folder: Path, form: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for split, content in SSV2.items():
        (folder / form.format(split)).write_text(json.dumps(content))
    return folder


@pytest.mark.parametrize("form", ["something-something-v2-{}.json", "{}.json"])
@pytest.mark.parametrize("place", [".", "labels", "../labels", "../far"])
def test_something_something_opens_both_forms_of_its_lists(tmp_path: Path, form: str, place: str) -> None:
    root = touch(tmp_path / "root", "20bn-something-something-v2/78687.webm", "20bn-something-something-v2/12.webm")
    touch(root, "20bn-something-something-v2/4.webm", "20bn-something-something-v2/77.webm")
    lists = write_ssv2(root / place, form)
    splits = open_layout("ssv2", root, annotations=lists if "far" in place else None)
    names = ["Approaching something with your camera", "Holding something next to something"]
    assert splits.train.classes == names
    assert class_names(splits) == [{"78687": names[1], "4": names[0]}, {"12": names[0]}]


def test_errors_in_the_something_something_lists_are_reported(tmp_path: Path) -> None:
    root = touch(tmp_path, "78687.webm", "4.webm")
    with pytest.raises(
        ConfigError, match=r"data\.annotations=null: something-something-v2-\{labels,train,validation\}\.json or "
    ):
        open_layout("ssv2", root)
    write_ssv2(root, "{}.json")
    with pytest.raises(ConfigError, match=r"1 of 1 files do not exist .*: 12 \(test split of"):
        open_layout("ssv2", root)
    touch(root, "12.webm")
    for text, message in (
        ("[{]", "is not JSON"),
        ("{}", "contains a dict, but the publisher's contains a list"),
        ('[{"id": "4"}]', "entries without id or template"),
        ('[{"id": "4", "template": "Dropping [something]"}]', "class 'Dropping something' is not in the train split"),
    ):
        (root / "train.json").write_text(text)
        with pytest.raises(ConfigError, match=message):
            open_layout("ssv2", root)


def test_kinetics_200_is_kinetics_400_with_a_list_of_classes(tmp_path: Path) -> None:
    classes = ("air_drumming", "archery", "yoga")
    root = touch(
        tmp_path / "k400", *(f"{split}/{name}/{split}_{name}.mp4" for split in ("train", "val") for name in classes)
    )
    (tmp_path / "k200.txt").write_text('yoga\n"air drumming"\n')  # as the publisher's CSV spells it
    splits = open_layout("kinetics200", root, annotations=tmp_path / "k200.txt")
    assert splits.train.classes == ["air_drumming", "yoga"]
    assert class_names(splits) == [
        {"train_air_drumming": "air_drumming", "train_yoga": "yoga"},
        {"val_air_drumming": "air_drumming", "val_yoga": "yoga"},
    ]


@pytest.mark.parametrize(
    "header",
    [
        "label,youtube_id,time_start,time_end,split,is_cc",  # Kinetics-400 and 600
        "label,youtube_id,time_start,time_end,split",  # Kinetics-700
    ],
)
def test_kinetics_csv_files_of_every_year_are_read(tmp_path: Path, header: str) -> None:
    root = touch(tmp_path / "root", "train/a_000001_000011.mp4", "train/b_000001_000011.mp4", "val/c_000001_000011.mp4")
    rows = ["archery,{},1,11,{}", '"air drumming",{},1,11,{}']
    train = [rows[0].format("a", "train"), rows[1].format("b", "train"), rows[0].format("gone", "train")]
    for name, lines in (("train", train), ("validate", [rows[1].format("c", "val")])):
        (tmp_path / f"{name}.csv").write_text("\n".join([header, *lines]) + "\n")
    train_list, test_list = tmp_path / "train.csv", tmp_path / "validate.csv"
    by_lists = open_layout("kinetics400", root, list=train_list, test_list=test_list)
    for splits in (open_layout("kinetics400", root, annotations=tmp_path), by_lists):
        train_names, test_names = class_names(splits)
        assert train_names == {"a_000001_000011": "archery", "b_000001_000011": "air drumming"}
        assert test_names == {"c_000001_000011": "air drumming"}
        assert splits.train.missing == [("gone_000001_000011", 1)]
    keep = tmp_path / "keep.txt"
    keep.write_text("air drumming\n")
    kept = open_layout("kinetics400", root, annotations=keep, list=train_list, test_list=test_list)
    assert class_names(kept) == [{"b_000001_000011": "air drumming"}, {"c_000001_000011": "air drumming"}]
    assert kept.train.missing == []


@pytest.mark.real_data
@pytest.mark.parametrize(("year", "num_classes"), [(400, 400), (600, 600), (700, 700)])
def test_kinetics_folders_have_the_published_classes(tmp_path: Path, shared: Path, year: int, num_classes: int) -> None:
    names = (shared / f"data/annotations/kinetics/label_map_k{year}.txt").read_text().splitlines()
    files = (f"{split}/{name}/{split}{number}.mp4" for split in ("train", "val") for number, name in enumerate(names))
    splits = open_layout(f"kinetics{year}", touch(tmp_path / "root", *files))
    assert len(splits.train.classes) == num_classes
    (tmp_path / "keep.txt").write_text("\n".join(names[:200]))
    kept = open_layout("kinetics200", tmp_path / "root", annotations=tmp_path / "keep.txt")
    assert [len(split.records) for split in kept[:2] if split] == [200, 200]


@pytest.mark.real_data
def test_the_published_csv_of_kinetics_400_is_read(tmp_path: Path, shared: Path) -> None:
    folder = shared / "data/annotations/kinetics"
    train_list, test_list = folder / "tinykinetics400_tiny_train.csv", folder / "kinetics-400_val.csv"
    touch(tmp_path, "train/abseiling/_4YTwq0-73Y_000044_000054.mp4", "val/abseiling/0wR5jVB-WPk_000417_000427.mp4")
    splits = open_layout("kinetics400", tmp_path, list=train_list, test_list=test_list)
    assert class_names(splits) == [
        {"_4YTwq0-73Y_000044_000054": "abseiling"},
        {"0wR5jVB-WPk_000417_000427": "abseiling"},
    ]
    assert len(splits.train.classes) == 400
    assert splits.test is not None
    assert splits.test.missing is not None
    assert len(splits.test.missing) == 19905
