"""Tests of trees and lists that mix videos, images and frames."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from data_sets import open_layout, summary, touch, write
from PIL import Image
from torch import Tensor

from eztorch_sce.curation.doctor import diagnose
from eztorch_sce.curation.prepare import prepare
from eztorch_sce.curation.settings import PrepareConfig
from eztorch_sce.data.decoders.frames import FramesDecoder
from eztorch_sce.data.sources.folder import from_folder
from eztorch_sce.data.sources.layouts import open_splits
from eztorch_sce.data.sources.media_kinds import ANY, MediaChoice
from eztorch_sce.data.sources.splits import Location
from eztorch_sce.errors import ConfigError
from eztorch_sce.types import ClipSpan

VIDEO, IMAGE, FRAMES = (MediaChoice(kind) for kind in ("video", "image", "frames"))


def _frames(folder: str, name: str = "{:04d}.jpg", numbers: range = range(1, 6)) -> list[str]:
    return [f"{folder}/{name.format(number)}" for number in numbers]


def opening_fails(root: Path, choice: MediaChoice = ANY) -> str:
    """Return the message of the error that opening a folder raises."""
    with pytest.raises(ConfigError) as caught:
        from_folder(root, choice=choice)
    return str(caught.value)


@pytest.fixture
def thumbnails(tmp_path: Path) -> Path:
    """Return a tree of two classes with a thumbnail beside each video."""
    return touch(tmp_path, *(f"{name}/1{suffix}" for name in ("run", "swim") for suffix in (".mp4", ".jpg")))


def test_videos_with_thumbnails_are_an_error_with_the_choices(thumbnails: Path) -> None:
    message = opening_fails(thumbnails)
    assert "mixes 2 videos (2 .mp4; run/1.mp4) with 2 images (2 .jpg; run/1.jpg)" in message
    assert all(f"data.kind={kind}" in message for kind in ("video", "image", "frames"))


def test_the_kind_chooses_and_the_rest_is_counted(thumbnails: Path) -> None:
    videos, images = from_folder(thumbnails, choice=VIDEO), from_folder(thumbnails, choice=IMAGE)
    assert summary(videos, thumbnails) == [("run/1.mp4", 0, "video"), ("swim/1.mp4", 1, "video")]
    assert videos.ignored == {".jpg beside videos": 2}
    assert summary(images, thumbnails) == [("run/1.jpg", 0, "image"), ("swim/1.jpg", 1, "image")]
    assert images.ignored == {".mp4 beside images": 2}


def test_the_kind_applies_to_the_test_split(tmp_path: Path) -> None:
    touch(tmp_path, "train/run/a.mp4", "train/swim/b.mp4", "val/run/c.mp4", "val/swim/d.mp4", "val/swim/d.png")
    with pytest.raises(ConfigError, match=r"data\.test_root=.*mixes 2 videos"):
        open_layout("auto", tmp_path)
    splits = open_splits(Location(str(tmp_path), kind="video"), "auto")
    assert splits.test is not None
    assert splits.test.ignored == {".png beside videos": 1}


def test_a_test_split_of_another_kind_is_an_error(tmp_path: Path) -> None:
    touch(tmp_path, "train/run/a.mp4", "train/swim/b.mp4", "val/run/c.jpg", "val/swim/d.jpg")
    with pytest.raises(ConfigError, match=r"train split has videos .* test split has images"):
        open_layout("auto", tmp_path)


def test_a_kind_that_the_folder_lacks_is_an_error(thumbnails: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"contains no video, only 2 x \.jpg, but data\.kind=video"):
        from_folder(touch(tmp_path / "images", "a.jpg", "b.jpg"), choice=VIDEO)


def test_a_known_layout_reads_its_kind_and_refuses_the_setting(tmp_path: Path) -> None:
    touch(tmp_path, *(f"{split}/{wnid}/{split}.JPEG" for split in ("train", "val") for wnid in ("n1", "n2")))
    touch(tmp_path, "train/n1/movie.mp4", "train/stray.JPEG")
    train = open_layout("imagenet", tmp_path).train
    assert train.classes == ["n1", "n2"]
    assert train.ignored == {".mp4 beside images": 1, ".jpeg beside the class folders": 1}
    with pytest.raises(ConfigError, match=r"data\.kind=video is not used by data\.layout=imagenet"):
        open_splits(Location(str(tmp_path), kind="video"), "imagenet")


def test_a_list_that_mixes_images_and_videos_is_an_error_with_the_choices(thumbnails: Path) -> None:
    file = write(thumbnails / "list.csv", "path,label\nrun/1.mp4,a\nswim/1.mp4,b\nrun/1.jpg,a\n")
    with pytest.raises(ConfigError, match=r"list\.csv names 2 videos and 1 images; set data\.kind=video or"):
        open_layout("auto", list=file)
    train = open_splits(Location(list=str(file), kind="video"), "auto").train
    assert summary(train, thumbnails) == [("run/1.mp4", 0, "video"), ("swim/1.mp4", 1, "video")]
    assert train.ignored == {".jpg beside videos": 1}


def test_files_that_are_no_media_are_counted_by_suffix(tmp_path: Path) -> None:
    touch(tmp_path, "run/a.mp4", "swim/b.mp4", "run/notes.txt", "run/more.TXT", "swim/LICENSE", "swim/data.csv")
    touch(tmp_path, ".DS_Store", "@eaDir/run/thumb.jpg", "run/._a.mp4", "run/c.mp4.part", "run/.secret.mp4")
    touch(tmp_path, "__MACOSX/run/a.mp4", "$RECYCLE.BIN/d.mp4", "Thumbs.db", "lost+found/e.mp4", ".git/f.jpg")
    manifest = from_folder(tmp_path)
    assert summary(manifest, tmp_path) == [("run/a.mp4", 0, "video"), ("swim/b.mp4", 1, "video")]
    assert manifest.ignored == {".txt": 2, "without suffix": 1, ".csv": 1, "system leftovers": 9, "hidden": 1}


def test_many_suffixes_are_summed_up(tmp_path: Path) -> None:
    touch(tmp_path, "a.mp4", *(f"b.{number:03d}" for number in range(20)))
    ignored = from_folder(tmp_path).ignored
    assert (len(ignored), sum(ignored.values()), ignored["other suffixes"]) == (9, 20, 12)


def test_numbered_images_in_class_folders_are_images_and_the_notes_say_so(tmp_path: Path) -> None:
    touch(tmp_path, *_frames("train/cat"), *_frames("train/dog"), *_frames("test/cat"), *_frames("test/dog"))
    splits = open_layout("auto", tmp_path)
    assert splits.train.records.num_by_kind() == {"image": 10}
    assert splits.train.notes == ["numbered images in 2 folders read as images (data.kind=frames reads videos)"]
    assert open_layout("folder", tmp_path).train.records.num_by_kind() == {"image": 20}


def test_class_folders_of_numbered_images_may_be_videos(tmp_path: Path) -> None:
    touch(tmp_path, *_frames("a"), *_frames("b"))
    manifest = from_folder(tmp_path, choice=FRAMES)
    assert summary(manifest, tmp_path) == [("a", None, "frames"), ("b", None, "frames")]
    labeled = from_folder(touch(tmp_path / "tree", *_frames("run/v1", "x{}.png"), *_frames("swim/v2")), choice=FRAMES)
    assert summary(labeled, tmp_path / "tree") == [("run/v1", 0, "frames"), ("swim/v2", 1, "frames")]


def test_frames_with_a_cover_are_never_taken_for_images(tmp_path: Path) -> None:
    touch(tmp_path, *_frames("run/a"), "run/a/cover.jpg", *_frames("swim/b"), "swim/b/cover.jpg")
    assert "[0-9]*.jpg (5), cover.jpg (1)" in opening_fails(tmp_path)
    manifest = from_folder(tmp_path, choice=MediaChoice(frames_pattern="0*.jpg"))
    assert manifest.records.num_by_kind() == {"frames": 2}
    assert manifest.ignored == {"images other than 0*.jpg": 2}


def test_numbered_images_of_unusual_names_are_images_and_the_notes_say_so(tmp_path: Path) -> None:
    touch(tmp_path, *_frames("run/a", "a_take{}.jpg"), *_frames("swim/b", "b_take{}.jpg"))
    manifest = from_folder(tmp_path)
    assert manifest.records.num_by_kind() == {"image": 10}
    assert manifest.notes == ["numbered images in 2 folders read as images (data.kind=frames reads videos)"]


def test_an_images_folder_in_each_class_holds_images(tmp_path: Path) -> None:
    touch(tmp_path, *_frames("cat/images"), *_frames("dog/images"))
    assert from_folder(tmp_path).records.num_by_kind() == {"image": 10}


@pytest.mark.parametrize(
    "numbers", [range(0, 50, 5), range(7, 12), [1, 2, 3, 7, 8, 9], [1, 3], [1, 2, 50, 51, 52, 53, 200]]
)
def test_gaps_and_subsampled_numbers_keep_a_sequence(tmp_path: Path, numbers: list[int]) -> None:
    touch(tmp_path, *(f"run/a/frame_{number}.jpg" for number in numbers), *_frames("swim/b", "frame_{}.jpg"))
    manifest = from_folder(tmp_path)
    assert summary(manifest, tmp_path) == [("run/a", 0, "frames"), ("swim/b", 1, "frames")]
    assert manifest.notes == ["2 folders of numbered images read as videos (data.kind=image reads images)"]


def test_scattered_numbers_alone_are_images(tmp_path: Path) -> None:
    touch(tmp_path, *(f"{pet}/photos/{number}.jpg" for pet in ("cat", "dog") for number in (5, 812, 10444, 99871)))
    touch(tmp_path, *(f"{pet}/more/{number}.jpg" for pet in ("cat", "dog") for number in (5, 812, 10444, 99871)))
    assert from_folder(tmp_path).records.num_by_kind() == {"image": 16}


def test_trees_in_which_some_folders_look_like_frames_are_an_error_with_the_choices(tmp_path: Path) -> None:
    touch(tmp_path, *_frames("run/a"), "swim/b/sunset.jpg", "swim/b/beach.jpg")
    with pytest.raises(ConfigError, match=r"1 folder holds.*swim/b are not numbered.*kind=image.*kind=frames.*list"):
        from_folder(tmp_path)
    assert from_folder(tmp_path, choice=IMAGE).records.num_by_kind() == {"image": 7}
    assert from_folder(tmp_path, choice=FRAMES).records.num_by_kind() == {"frames": 2}


@pytest.mark.parametrize(
    ("names", "pattern"),
    [
        (("img_{:05d}.jpg", "flow_x_{:05d}.jpg", "flow_y_{:05d}.jpg"), "img_*.jpg"),
        (("left_{}.png", "right_{}.png"), "left_*.png"),
        (("{:04d}.jpg", "{:04d}_flow.jpg"), "[0-9][0-9][0-9][0-9].jpg"),
        (("{:04d}.jpg", "{:04d}.png"), "*.png"),
        (("cam0_{}.jpg", "cam1_{}.jpg"), "cam0_*.jpg"),
    ],
)
@pytest.mark.parametrize("depth", ["run/v1", "swim/v2"])
def test_several_sequences_in_a_folder_are_told_apart_by_a_pattern(
    tmp_path: Path, names: tuple[str, ...], pattern: str, depth: str
) -> None:
    touch(tmp_path, *_frames("swim/v2", names[0]), *_frames("run/v1", names[0]))
    touch(tmp_path, *(file for name in names[1:] for file in _frames(depth, name)))
    message = opening_fails(tmp_path, FRAMES)
    assert "several image sequences" in message
    assert message.count(" (5)") == len(names)
    manifest = from_folder(tmp_path, choice=MediaChoice(frames_pattern=pattern))
    expected = [("run/v1", 0), ("swim/v2", 1)] if pattern != "*.png" else [(depth, None)]
    assert [(path.removesuffix(f"/{pattern}"), label) for path, label, _ in summary(manifest, tmp_path)] == expected


@pytest.mark.parametrize("folder", ["v1", "run/v1"])
def test_synchronized_sequences_are_never_taken_for_images(tmp_path: Path, folder: str) -> None:
    touch(tmp_path, *_frames(folder, "img_{}.jpg"), *_frames(folder, "flow_x_{}.jpg"))
    message = opening_fails(tmp_path)
    assert "flow_x_*.jpg (5), img_*.jpg (5)" in message
    assert "'data.frames_pattern=img_*.jpg', or set data.kind=image" in message
    assert from_folder(tmp_path, choice=IMAGE).records.num_by_kind() == {"image": 10}


def test_a_pattern_that_matches_several_sequences_or_none_is_an_error(tmp_path: Path) -> None:
    touch(tmp_path, *(name for axis in "xy" for name in _frames("run/v", f"flow_{axis}_{{}}.jpg")), "swim/w/img_1.jpg")
    with pytest.raises(ConfigError, match="several image sequences"):
        from_folder(tmp_path, choice=MediaChoice(frames_pattern="flow_*.jpg"))
    with pytest.raises(ConfigError, match=r"frames_pattern=rgb_\*\.jpg matches no image"):
        from_folder(tmp_path, choice=MediaChoice(frames_pattern="rgb_*.jpg"))


def test_the_decoder_reads_the_chosen_sequence_in_numeric_order(
    tmp_path: Path, numbered_image: Callable[[int], np.ndarray], numbers_shown: Callable[[Tensor], list[int]]
) -> None:
    folder = tmp_path / "run" / "v"
    folder.mkdir(parents=True)
    for number in (0, 5, 10, 15, 100):
        Image.fromarray(numbered_image(number)).save(folder / f"img_{number}.png")
        Image.fromarray(numbered_image(number + 500)).save(folder / f"flow_{number}.png")
    (folder / "img_x.txt").touch()
    (folder / "._img_0.png").touch()
    for pattern, shift in (("img_*.png", 0), ("flow_*.png", 500)):
        manifest = from_folder(tmp_path, choice=MediaChoice(frames_pattern=pattern))
        [clip] = FramesDecoder(fps=1).read(manifest.records[0].path, [ClipSpan(0.0, 5.0)], 5)
        assert numbers_shown(clip.frames) == [number + shift for number in (0, 5, 10, 15, 100)]


def test_a_listed_frame_folder_with_several_sequences_needs_a_pattern(tmp_path: Path) -> None:
    touch(tmp_path, *_frames("v", "img_{}.jpg"), *_frames("v", "flow_{}.jpg"), *_frames("w", "img_{}.jpg"))
    file = write(tmp_path / "list.csv", "path,label\nv,0\nw,1\n")
    with pytest.raises(ConfigError, match=r"several image sequences.*img_\*\.jpg \(5\).*data\.frames_pattern"):
        open_layout("auto", list=file)
    for _ in range(2):
        train = open_splits(Location(list=str(file), frames_pattern="img_*.jpg"), "auto").train
        assert summary(train, tmp_path) == [("v/img_*.jpg", 0, "frames"), ("w/img_*.jpg", 1, "frames")]
        diagnose(tmp_path)


def test_the_frames_that_prepare_wrote_are_videos_in_a_flat_folder_too(
    tmp_path: Path, write_video: Callable[..., Path]
) -> None:
    for name in ("a.mp4", "b.mp4"):
        write_video(tmp_path / "videos" / name, num_frames=4)
    prepare(tmp_path / "videos", tmp_path / "copies", PrepareConfig(to="frames", workers=1))
    manifest = from_folder(tmp_path / "copies")
    assert summary(manifest, tmp_path / "copies") == [("a", None, "frames"), ("b", None, "frames")]
    diagnose(tmp_path / "copies")
    assert from_folder(tmp_path / "copies").records == manifest.records


def test_published_lists_take_videos_before_frames_unless_told_otherwise(tmp_path: Path) -> None:
    lists = tmp_path / "ucfTrainTestlist"
    write(lists / "classInd.txt", "1 Run\n2 Swim\n")
    write(lists / "trainlist01.txt", "Run/v_Run_g01_c01.avi 1\nSwim/v_Swim_g01_c01.avi 2\n")
    write(lists / "testlist01.txt", "Run/v_Run_g02_c01.avi\n")
    names = ("Run/v_Run_g01_c01", "Swim/v_Swim_g01_c01", "Run/v_Run_g02_c01")
    root = touch(tmp_path / "data", *(f"{name}.avi" for name in names))
    touch(
        root / "jpegs",
        *(f"{name}/{kind}_{number}.jpg" for name in names for kind in ("img", "flow") for number in "123"),
    )
    videos = open_layout("ucf101", root, annotations=lists)
    assert videos.train.records.num_by_kind() == {"video": 2}
    assert videos.train.ignored == {"frame folders beside videos": 3}
    location = Location(str(root), annotations=str(lists), kind="frames")
    with pytest.raises(ConfigError, match="several image sequences"):
        open_splits(location, "ucf101")
    frames = open_splits(location._replace(frames_pattern="img_*.jpg"), "ucf101").train
    assert summary(frames, root)[0] == ("jpegs/Run/v_Run_g01_c01/img_*.jpg", 0, "frames")
    diagnose(root)
    assert open_layout("ucf101", root, annotations=lists).train.records == videos.train.records


@pytest.mark.parametrize("tree", ["thumbnails", "frames", "sequences", "images", "partly frames"])
def test_a_table_of_the_doctor_does_not_change_what_files_are(tmp_path: Path, tree: str) -> None:
    names = {
        "thumbnails": ["run/1.mp4", "run/1.jpg", "swim/2.mp4"],
        "frames": [*_frames("run/v"), *_frames("swim/w")],
        "sequences": [*_frames("run/v", "img_{}.jpg"), *_frames("run/v", "flow_{}.jpg"), *_frames("swim/w")],
        "images": [*_frames("run"), *_frames("swim")],
        "partly frames": [*_frames("run/v"), "swim/a/b.jpg"],
    }
    touch(tmp_path, *names[tree], "run/notes.txt", "Thumbs.db")

    def opened(choice: MediaChoice) -> object:
        try:
            manifest = from_folder(tmp_path, choice=choice)
        except ConfigError as error:
            return str(error)
        notes = [note for note in manifest.notes if "read as images" not in note]  # needs all names
        return summary(manifest, tmp_path), manifest.classes, manifest.ignored, notes

    choices = [ANY, VIDEO, IMAGE, FRAMES, MediaChoice(frames_pattern="img_*.jpg")]
    before = list(map(opened, choices))
    diagnose(tmp_path)
    assert list(map(opened, choices)) == before
