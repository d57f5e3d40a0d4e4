from collections.abc import Callable
from pathlib import Path

import pytest

from eztorch_sce.data.sources.layouts import LAYOUTS, open_splits
from eztorch_sce.data.sources.splits import Location, Splits
from eztorch_sce.errors import ConfigError

SHARED = Path(__file__).resolve().parents[2].parent / "shared" / "data"


def make(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def write(file: Path, text: str) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    return file


def opened(layout: str, root: Path | None = None, split: int = 1, **places: Path) -> Splits:
    location = Location(root=str(root) if root else None, split=split)
    return open_splits(location._replace(**{name: str(path) for name, path in places.items()}), layout)


def labels(splits: Splits) -> tuple[dict[str, int | None], dict[str, int | None]]:
    assert splits.test is not None
    train, test = ({Path(r.path).stem: r.label for r in part.records} for part in splits)
    return train, test


@pytest.mark.parametrize("folder", ["val", "valid", "validation", "test", "Test"])
def test_auto_finds_the_parts_below_the_root(tmp_path: Path, folder: str) -> None:
    make(tmp_path, "train/run/a.mp4", "train/swim/b.mp4", f"{folder}/swim/c.mp4", "meta/readme.txt")
    assert labels(opened("auto", tmp_path)) == ({"a": 0, "b": 1}, {"c": 1})


def test_auto_takes_a_lone_train_folder_and_a_plain_tree(tmp_path: Path) -> None:
    lone = opened("auto", make(tmp_path / "lone", "train/run/a.mp4", "train/swim/b.mp4"))
    plain = opened("auto", make(tmp_path / "plain", "train/a.mp4", "bus/b.mp4"))  # vehicles, not parts
    assert (lone.train.classes, lone.test) == (["run", "swim"], None)
    assert (plain.train.classes, plain.test) == (["bus", "train"], None)


def test_lists_share_the_root_and_the_classes(tmp_path: Path) -> None:
    make(tmp_path / "videos", "a.mp4", "b.mp4", "c.mp4")
    train = write(tmp_path / "train.csv", "path,label\na.mp4,swim\nb.mp4,run\n")
    test = write(tmp_path / "test.csv", "path,label\nc.mp4,swim\n")
    for layout in ("auto", "list"):
        splits = opened(layout, tmp_path / "videos", list=train, test_list=test)
        assert labels(splits) == ({"a": 1, "b": 0}, {"c": 1})


def test_a_folder_may_be_tested_on_another(tmp_path: Path) -> None:
    make(tmp_path, "here/run/a.mp4", "here/swim/b.mp4", "there/swim/c.mp4")
    assert labels(opened("folder", tmp_path / "here", test_root=tmp_path / "there"))[1] == {"c": 1}


def test_problems_of_both_parts_come_together(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        opened("auto", tmp_path / "no_train", test_root=tmp_path / "no_test")
    assert len(caught.value.problems) == 2
    assert "data.root=" in caught.value.problems[0]
    assert "data.test_root=" in caught.value.problems[1]


def test_a_file_in_both_parts_is_refused(tmp_path: Path) -> None:
    make(tmp_path, "a.mp4", "b.mp4")
    listed = write(tmp_path / "list.txt", "a.mp4 0\nb.mp4 1\n")
    with pytest.raises(ConfigError, match="2 files are in train"):
        opened("list", list=listed, test_list=listed)


def test_unknown_layout_names_the_nearest_and_all() -> None:
    with pytest.raises(ConfigError, match="did you mean ucf101") as caught:
        opened("ucf-101", Path("anywhere"))
    assert all(name in str(caught.value) for name in LAYOUTS)


def test_settings_that_are_missing_or_mean_nothing_are_all_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        opened("ucf101", list=tmp_path / "list.txt", test_root=tmp_path)
    assert [problem.split()[0].split("=")[0] for problem in caught.value.problems] == [
        "data.root",
        "data.list",
        "data.test_root",
    ]
    with pytest.raises(ConfigError, match=r"data\.root is not set"):
        opened("auto")


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
def test_ucf101_in_every_place_and_form(tmp_path: Path, lists: str, place: str) -> None:
    root = tmp_path / "root"
    names = [f"{Path(name).name}.avi" for name in UCF_FILES] if place == "flat" else map(place.format, UCF_FILES)
    make(root, *names)
    for name, text in UCF.items():
        write(root / lists / name, text)
    splits = opened("ucf101", root, annotations=root / lists) if "far" in lists else opened("ucf101", root)
    train, test = labels(splits)
    assert (train, test) == ({"v_ApplyEyeMakeup_g08_c01": 0, "v_Archery_g08_c01": 1}, {"v_Archery_g01_c01": 1})
    assert splits.train.classes == ["ApplyEyeMakeup", "Archery"]
    assert {record.kind for record in splits.train.records} == {"frames" if "jpg" in place else "video"}


def test_ucf101_says_what_is_not_there(tmp_path: Path) -> None:
    make(tmp_path, f"{UCF_FILES[0]}.avi")
    with pytest.raises(
        ConfigError, match=r"data\.annotations=null: classInd\.txt, trainlist01\.txt.*data\.annotations"
    ):
        opened("ucf101", tmp_path)
    for name, text in UCF.items():
        write(tmp_path / name, text)
    with pytest.raises(ConfigError, match=r"1 of 2 .*v_Archery_g08_c01 (.|\n)*1 of 1 .*v_Archery_g01_c01"):
        opened("ucf101", tmp_path)
    with pytest.raises(ConfigError, match=r"data\.split=4"):
        opened("ucf101", tmp_path, split=4)


def test_hmdb51_reads_1_as_train_2_as_test_and_leaves_0(tmp_path: Path) -> None:
    odd = "#20_Rhythm[_NEW_]!_(x)&;~@+_climb_u_nm_np1_fr_goo_0"
    make(tmp_path, f"climb/{odd}.avi", "climb/b.avi", "climb_stairs/c.avi", "climb_stairs/d.avi")
    write(tmp_path / "annotations" / "climb_test_split2.txt", f"{odd}.avi 1 \nb.avi 2 \n")
    write(tmp_path / "annotations" / "climb_stairs_test_split2.txt", "c.avi 1 \nd.avi 0 \n")
    splits = opened("hmdb51", tmp_path, split=2)
    assert labels(splits) == ({odd: 0, "c": 1}, {"b": 0})
    assert splits.train.classes == ["climb", "climb_stairs"]


def test_a_list_that_is_not_as_published_is_named(tmp_path: Path) -> None:
    write(tmp_path / "climb_test_split1.txt", "a.avi 1\nb.avi 3\n")
    with pytest.raises(
        ConfigError, match=r"climb_test_split1\.txt: 1 lines are not in the publisher's format: b\.avi 3"
    ):
        opened("hmdb51", tmp_path)


KINETICS = "label,youtube_id,time_start,time_end,split,is_cc\n{}"


def test_kinetics_finds_ids_in_any_folder_and_counts_the_missing(tmp_path: Path) -> None:
    make(tmp_path, "train/air_drumming/-a_000044_000054.mp4", "train/replacement/b.mkv", "val/air drumming/c.mp4")
    rows = 'abseiling,b,1,11,train,0\n"air drumming",-a,44,54,train,0\nabseiling,gone,0,10,train,0\n'
    write(tmp_path / "annotations" / "train.csv", KINETICS.format(rows))
    write(tmp_path / "annotations" / "val.csv", KINETICS.format("air drumming,c,5,15,val,0\n"))
    splits = opened("kinetics400", tmp_path, annotations=tmp_path / "annotations")
    assert labels(splits) == ({"b": 0, "-a_000044_000054": 1}, {"c": 1})
    assert "1 of 3 are not on disk" in splits.train.source


def test_kinetics_of_which_nothing_is_there(tmp_path: Path) -> None:
    make(tmp_path, "train/abseiling/other.mp4")
    listed = write(tmp_path / "train.csv", KINETICS.format("abseiling,b,1,11,train,0\n"))
    with pytest.raises(ConfigError, match="1 of 1 files do not exist"):
        opened("kinetics400", tmp_path, list=listed)


def test_kinetics_by_plain_lists_and_by_folders(tmp_path: Path) -> None:
    make(tmp_path, "train/abseiling/a.mp4", "train/archery/b.mp4", "val/archery/c.mp4")
    assert labels(opened("kinetics400", tmp_path)) == ({"a": 0, "b": 1}, {"c": 1})
    write(tmp_path / "train.txt", "train/abseiling/a.mp4 0\ntrain/archery/b.mp4 1\ntrain/archery/gone.mp4 1\n")
    write(tmp_path / "val.txt", "val/archery/c.mp4 1\n")
    splits = opened("kinetics400", tmp_path)
    assert labels(splits) == ({"a": 0, "b": 1}, {"c": 1})
    assert "1 of 3" in splits.train.source


def test_several_lists_of_a_part_are_asked_about(tmp_path: Path) -> None:
    make(tmp_path, "k400_train.csv", "k600_train.csv")
    with pytest.raises(ConfigError, match=r"several train lists: k400_train\.csv, k600_train\.csv; set data\.list"):
        opened("kinetics400", tmp_path, annotations=tmp_path)


@pytest.fixture
def published() -> Callable[[str], Path]:
    def find(name: str) -> Path:
        if not (SHARED / name).is_dir():
            pytest.skip(f"{name} is not on this machine")
        return SHARED / name

    return find


@pytest.mark.real_data
def test_ucf101_has_its_published_sizes(tmp_path: Path, published: Callable[[str], Path]) -> None:
    lists = published("annotations/ucf101")
    lines = [line for name in ("train", "test") for line in (lists / f"{name}list01.txt").read_text().splitlines()]
    make(tmp_path, *(line.split()[0] for line in lines))
    sizes = []
    for split in (1, 2, 3):
        train, test = opened("ucf101", tmp_path, split=split, annotations=lists)
        assert test is not None
        assert len(train.classes) == 101
        assert all(Path(r.path).parent.name == train.classes[r.label or 0] for r in train.records + test.records)
        sizes.append((len(train.records), len(test.records)))
    assert sizes == [(9537, 3783), (9586, 3734), (9624, 3696)]


@pytest.mark.real_data
def test_hmdb51_has_its_published_sizes(tmp_path: Path, published: Callable[[str], Path]) -> None:
    lists = published("annotations/hmdb51")
    for file in lists.glob("*_test_split1.txt"):
        action = file.name.removesuffix("_test_split1.txt")
        make(tmp_path, *(f"{action}/{line.split()[0]}" for line in file.read_text().splitlines() if line.strip()))
    for split in (1, 2, 3):
        train, test = opened("hmdb51", tmp_path, split=split, annotations=lists)
        assert test is not None
        assert (len(train.classes), len(train.records), len(test.records)) == (51, 3570, 1530)
        assert {sum(record.label == label for record in train.records) for label in range(51)} == {70}


@pytest.mark.real_data
def test_gestures_by_their_lists(published: Callable[[str], Path]) -> None:
    folder = published("gestures")
    train, test = opened("auto", list=folder / "train.csv", test_list=folder / "test.csv")
    assert test is not None
    assert (len(train.records), len(test.records), len(train.classes)) == (148, 69, 10)
    assert all(Path(r.path).parent.name == train.classes[r.label or 0] for r in train.records + test.records)
