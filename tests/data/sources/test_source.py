"""Tests of data sources: records that are not files of a folder, and the mistakes that one can make."""

import pickle
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from own_sources import Arrays, Broken, changed, noise
from PIL import Image

from eztorch_sce.augment.view import ViewConfig
from eztorch_sce.data.config import DataConfig
from eztorch_sce.data.dataset import Clips, EvaluationClips, EvaluationSampling, TrainingClips
from eztorch_sce.data.sources.manifest import Manifest
from eztorch_sce.data.sources.open_source import PassedSource, open_source
from eztorch_sce.data.sources.provenance import Provenance, num_seen, trained_with_labels
from eztorch_sce.data.sources.source import Frames, Source, SourceConfig
from eztorch_sce.data.survey import survey
from eztorch_sce.errors import ConfigError, MediaError, SourceError
from eztorch_sce.settings import invalid_settings
from eztorch_sce.types import Failure, InputSpec, Sample

DATA = DataConfig(num_workers=0)
SPEC = InputSpec(num_frames=4, clip_s=0.4, size=16)


def opened(train: Source | SourceConfig, test: Source | None = None) -> Manifest:
    return DATA.with_source(train, test).open().train


def training(manifest: Manifest) -> TrainingClips:
    return TrainingClips(manifest, [ViewConfig(size=16), ViewConfig(size=12)], SPEC, DATA.build_decoder(), 0, None)


def evaluation(manifest: Manifest) -> EvaluationClips:
    return EvaluationClips(manifest, SPEC, DATA.build_decoder(), EvaluationSampling(2, 3, short_side=18))


def frames_of(dataset: Clips, index: int) -> list[torch.Tensor]:
    sample = dataset[0, index]
    assert isinstance(sample, Sample), sample
    return sample.frames


def problems(train: Source, test: Source | None = None) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        DATA.with_source(train, test).open()
    return caught.value.problems


def write_images(folder: Path, images: list[np.ndarray]) -> DataConfig:
    lines = ["path,label"]
    for number, pixels in enumerate(images):
        name = f"r{number:03d}.png"
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.ascontiguousarray(pixels.transpose(1, 2, 0)).squeeze()).save(folder / name)
        lines.append(f"{name},{number % 2}")
    (folder / "list.csv").write_text("\n".join(lines))
    return DataConfig(list=str(folder / "list.csv"), num_workers=0)


@pytest.mark.parametrize("make", [training, evaluation])
@pytest.mark.parametrize("shape", [(3, 23, 31), (1, 23, 31)])
def test_images_in_memory_give_the_bits_of_the_same_png_files(
    make: Callable[[Manifest], Clips], shape: tuple[int, ...], tmp_path: Path
) -> None:
    images = noise(4, *shape)
    files, memory = make(write_images(tmp_path, images).open().train), make(opened(Arrays(images)))
    assert files.manifest.records.labels.tolist() == memory.manifest.records.labels.tolist()
    for index in range(4):
        for a, b in zip(frames_of(files, index), frames_of(memory, index), strict=True):
            assert torch.equal(a, b)


@pytest.mark.parametrize("make", [training, evaluation])
def test_videos_in_memory_give_the_bits_of_the_same_frame_folders(
    make: Callable[[Manifest], Clips], tmp_path: Path
) -> None:
    videos = noise(3, 3, 25, 23, 31)
    for number, video in enumerate(videos):
        write_images(tmp_path / f"r{number:03d}", list(video.transpose(1, 0, 2, 3)))
        (tmp_path / f"r{number:03d}" / "list.csv").unlink()
    files, memory = make(DataConfig(root=str(tmp_path), kind="frames").open().train), make(opened(Arrays(videos)))
    assert memory.manifest.records.num_by_kind() == {"video": 3}
    for index in range(3):
        for a, b in zip(frames_of(files, index), frames_of(memory, index), strict=True):
            assert torch.equal(a, b)


@pytest.mark.parametrize(
    "layout",
    [
        lambda x: torch.from_numpy(x),
        lambda x: np.ascontiguousarray(x.transpose(1, 2, 3, 0)).transpose(3, 0, 1, 2),
        lambda x: np.ascontiguousarray(x[::-1, :, ::-1])[::-1, :, ::-1],
        lambda x: np.frombuffer(x.tobytes(), np.uint8).reshape(x.shape),
    ],
    ids=["tensor", "channels last", "negative strides", "read-only"],
)
def test_the_memory_layout_of_frames_does_not_change_a_bit(layout: Callable[[np.ndarray], Frames]) -> None:
    video = noise(1, 3, 20, 24, 20)[0]
    expected = frames_of(training(opened(Arrays([video, video]))), 0)
    source = changed(frames=[video, video], read=lambda index: layout(video))
    for a, b in zip(frames_of(training(opened(source)), 0), expected, strict=True):
        assert torch.equal(a, b)


def test_clips_of_a_video_in_memory_share_its_memory() -> None:
    video = torch.from_numpy(noise(1, 3, 40, 16, 16)[0])
    read = clips_of(opened(changed(frames=[video] * 2, read=lambda index: video, fps=10.0)), 0, num_frames=4)
    assert read.untyped_storage().data_ptr() == video.untyped_storage().data_ptr()


def clips_of(manifest: Manifest, index: int, num_frames: int) -> torch.Tensor:
    from eztorch_sce.data.decoders.by_kind import decoder_of
    from eztorch_sce.types import ClipSpan

    decoder = decoder_of(manifest.records, index, DATA.build_decoder())
    [clip] = decoder.read(manifest.records.path(index), [ClipSpan(0.0, 0.4)], num_frames)
    return clip.frames


@pytest.mark.parametrize(("fps", "shown"), [(None, [1, 3, 6, 8]), (10.0, [0, 1, 2, 3])])
def test_frames_are_chosen_by_the_frame_rate_of_the_source(fps: float | None, shown: list[int]) -> None:
    video = np.arange(20, dtype=np.uint8)[None, :, None, None].repeat(8, axis=2).repeat(8, axis=3)
    source = changed(frames=[video] * 2, read=lambda index: video, fps=fps)
    assert clips_of(opened(source), 0, num_frames=4)[0, :, 0, 0].tolist() == shown
    found = survey(opened(source), DATA.build_decoder())
    assert (found.duration_s, found.fps) == (20 / (fps or 25), fps or 25)


def test_a_source_may_name_files_of_any_size_and_kind_of_image(tmp_path: Path) -> None:
    sizes = [(1, 90), (37, 5), (300, 300), (64, 64)]
    for number, size in enumerate(sizes):
        Image.new("RGB", size, "red").save(tmp_path / f"{number}.{('png', 'jpg', 'webp', 'bmp')[number]}")
    paths = sorted(tmp_path.iterdir())
    data = training(opened(changed(frames=paths, read=lambda index: paths[index])))
    assert data.manifest.records.all_images()
    assert all(frames_of(data, index)[0].shape == (3, 4, 16, 16) for index in range(4))


def test_a_source_may_name_videos_and_frame_folders(numbered_video: Path, tmp_path: Path) -> None:
    write_images(tmp_path / "frames", noise(10, 3, 20, 20))
    paths = [str(numbered_video), str(tmp_path / "frames")]
    data = evaluation(opened(changed(frames=paths, read=lambda index: paths[index])))
    assert data.manifest.records.num_by_kind() == {"video": 2}
    assert [len(frames_of(data, index)) for index in range(2)] == [6, 6]


def test_opening_a_source_reads_names_and_labels_and_a_single_record() -> None:
    reads: list[int] = []
    frames = noise(1, 3, 8, 8)[0]

    def read(index: int) -> np.ndarray:
        reads.append(index)
        return frames

    splits = DATA.with_source(changed(frames=range(3000), read=read)).open_with_test(seed=0)
    assert (len(splits.train.records), len(splits.labeled_test.records), reads) == (2400, 600, [0])


def test_a_split_is_held_out_by_name_as_from_a_list_of_files(tmp_path: Path) -> None:
    images = noise(40, 3, 8, 8)
    of_files = write_images(tmp_path, images).open_with_test(seed=3)
    of_source = DATA.with_source(Arrays(images)).open_with_test(seed=3)
    names = [[Path(path).stem for path in splits.labeled_test.records.paths()] for splits in (of_files, of_source)]
    assert names[0] == names[1]
    assert of_source.origin == "0.2 of each class held out, seed 3"


def test_the_settings_of_splits_apply_to_a_source(tmp_path: Path) -> None:
    source = Arrays(noise(40, 3, 8, 8))
    grouped = DataConfig(group="r0([0-9])", test_fraction=0.5).with_source(source).open_with_test(0)
    assert {path[2] for path in grouped.train.records.paths()}.isdisjoint(
        path[2] for path in grouped.labeled_test.records.paths()
    )
    assert len(DataConfig(train_share=0.5).with_source(source).open_with_test(0).train.records) == 16
    (tmp_path / "names.txt").write_text("r000\nr001\n")
    subset = DataConfig(train_subset=str(tmp_path / "names.txt"))
    assert len(subset.with_source(source, Arrays(noise(4, 3, 8, 8), "t")).open_with_test(0).train.records) == 2


def test_pretraining_on_all_joins_the_records_of_both_sources() -> None:
    train, test = noise(4, 3, 16, 16), noise(2, 3, 16, 16, seed=1)
    data = DataConfig(pretrain_on="all").with_source(Arrays(train), Arrays(test, "t"))
    manifest = data.open_for_pretraining(seed=0).train
    assert [*manifest.records.paths()] == ["r000", "r001", "r002", "r003", "t000", "t001"]
    assert torch.equal(clips_of(manifest, 5, 1)[:, 0], torch.from_numpy(test[1]))
    joined = manifest.records.take([5, 0])  # rows of a table of rows
    assert joined.place_in_source(0) is not None
    assert torch.equal(clips_of(manifest.with_records(joined, ""), 1, 1)[:, 0], torch.from_numpy(train[0]))


@pytest.mark.parametrize(
    ("labels", "classes", "codes"),
    [
        ([0, 1, 0, 1, 0, 1], ["0", "1"], [0, 1, 0, 1, 0, 1]),
        ([7, 10, 2, 7, 10, 2], ["2", "7", "10"], [1, 2, 0, 1, 2, 0]),
        ([np.int64(1), torch.tensor(0), True, 0, 1, 0], ["0", "1"], [1, 0, 1, 0, 1, 0]),
        (["b", "a", np.str_("b"), "a", "b", "a"], ["a", "b"], [1, 0, 1, 0, 1, 0]),
        ([None] * 6, [], [-1] * 6),
        ([None, 0, 1, 0, 1, 0], ["0", "1"], [-1, 0, 1, 0, 1, 0]),
    ],
)
def test_labels_are_numbers_or_names(labels: list[object], classes: list[str], codes: list[int]) -> None:
    manifest = opened(changed(label=lambda index: labels[index]))
    assert (manifest.classes, manifest.records.labels.tolist()) == (classes, codes)


def test_class_names_give_numbers_a_meaning_and_names_an_order() -> None:
    numbers = changed(classes=["cat", "dog", "cow"])
    names = Arrays(noise(2, 3, 8, 8), "t")
    names.label = lambda index: ["dog", "cat"][index]  # type: ignore[method-assign]
    splits = DATA.with_source(numbers, names).open()
    assert (splits.train.classes, splits.labeled_test.records.labels.tolist()) == (["cat", "dog", "cow"], [1, 0])


def test_the_same_names_in_both_splits_may_name_different_records() -> None:
    splits = DATA.with_source(Arrays(noise(4, 3, 8, 8)), Arrays(noise(2, 3, 8, 8, seed=1))).open()
    assert [*splits.labeled_test.records.paths()] == ["test/r000", "test/r001"]
    [message] = problems(Arrays(noise(4, 3, 8, 8)), Arrays(noise(2, 3, 8, 8)))
    assert "2 of its 2 records have the name of a train record, and those compared are equal: r000" in message


def test_records_are_recognized_by_name_and_content_in_a_later_run() -> None:
    train, test = noise(20, 3, 8, 8), noise(10, 3, 8, 8, seed=1)
    splits = DATA.with_source(Arrays(train), Arrays(test)).open()  # the names of both splits begin alike
    content = Provenance.of(splits, labeled=True).to_dict()
    provenance = Provenance.from_dict(content, "weights")
    assert num_seen(splits.labeled_test.records, provenance) == 0
    assert num_seen(splits.train.records, provenance) == 20
    alone = opened(Arrays(test))  # has names of train records, but other contents
    assert num_seen(alone.records, provenance) in (0, None)
    assert not trained_with_labels(alone, provenance)
    assert trained_with_labels(opened(Arrays(train[:5])), provenance) == [f"r{index:03d}" for index in range(5)]


def test_weights_hold_out_again_what_they_held_out_of_a_source() -> None:
    data = DATA.with_source(Arrays(noise(20, 3, 8, 8)))
    first = data.open_with_test(seed=1)
    again = data.open_with_test(seed=2, provenance=Provenance.of(first, labeled=True))
    assert again.labeled_test.records == first.labeled_test.records


@pytest.mark.parametrize("error", [OSError("disk is gone"), ValueError("no frames"), MediaError("x", "is damaged")])
def test_a_record_that_cannot_be_read_is_left_out_with_its_name_and_the_reason(error: Exception) -> None:
    item = training(opened(Broken(noise(4, 3, 16, 16), error, [0, 2])))[0, 2]
    assert isinstance(item, Failure)
    assert (item.record, item.path, item.reason) == (2, "r002", str(error))


def test_any_other_exception_stops_and_names_the_record_and_the_line() -> None:
    data = training(opened(Broken(noise(4, 3, 16, 16), KeyError("frames"), [2])))
    with pytest.raises(SourceError, match=r"Broken\.read\(2\) raised KeyError: 'frames' \(record r002\), at .*sources"):
        data[0, 2]


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (None, "returned None .*raise ValueError"),
        (np.zeros((3, 8, 8), np.float32), r"float32 \(3, 8, 8\).*values from 0 to 255.*astype\(np.uint8\)"),
        (torch.zeros(3, 8, 8), r"float32 \(3, 8, 8\).*to\(torch.uint8\)"),
        (np.zeros((8, 8, 3), np.uint8), r"uint8 \(8, 8, 3\).*transpose\(2, 0, 1\)"),
        (torch.zeros(4, 8, 8, 3, dtype=torch.uint8), r"permute\(3, 0, 1, 2\)"),
        (np.zeros((5, 3, 8, 8), np.uint8), r"transpose\(1, 0, 2, 3\)"),
        (np.zeros((8, 8), np.uint8), r"x\[None\]"),
        (np.zeros((4, 8, 8), np.uint8), r"alpha channel with x\[:3\]"),
        (np.zeros((3, 0, 8), np.uint8), "no pixels"),
        (Image.new("RGB", (8, 8)), r"a PIL image .*transpose\(2, 0, 1\)"),
        (b"jpeg", "encoded bytes .*decode_image"),
        ((np.zeros((3, 8, 8), np.uint8), 1), "a tuple .*the frames alone"),
    ],
)
def test_what_a_source_may_not_return_is_told_with_the_cure_before_training(value: object, words: str) -> None:
    [message] = problems(changed(read=lambda index: value))
    assert re.search(f"Arrays.read.0. {words}" if words.startswith("returned") else words, message), message


@pytest.mark.parametrize(
    ("methods", "words"),
    [
        ({"label": None}, "not a data source; add label"),
        ({"frames": []}, "has no records"),
        ({"name": lambda index: "same"}, r"name\(0\) and name\(1\) both return 'same', and 4 more"),
        ({"name": lambda index: index}, r"name\(0\) returned 0 \(int\)"),
        ({"label": lambda index: -1}, r"label\(0\) returned -1 \(int\), and 5 more.*start at 0"),
        ({"label": lambda index: 1.5}, r"returned 1.5 \(float\)"),
        ({"label": lambda index: [1]}, r"returned \[1\] \(list\)"),
        ({"label": lambda index: index if index else "cat"}, "class number and a class name"),
        ({"label": lambda index: index, "classes": ["a", "b"]}, r"label\(2\) returned 2 .*only 2 names \(0 to 1\)"),
        ({"label": lambda index: "dgo", "classes": ["dog", "cat"]}, "no such name: dog, cat; did you mean dog?"),
        ({"classes": "ab"}, "must be a list of names"),
        ({"classes": ["a", "a"]}, "a twice"),
        ({"kind": "imag"}, "kind='imag' must be 'image' or 'video'; did you mean image?"),
        ({"kind": "video"}, "returned an image .*but the records are videos"),
        ({"fps": 0}, "fps=0 must be a number, greater than 0"),
    ],
)
def test_a_mistake_in_a_source_is_told_before_training(methods: dict[str, object], words: str) -> None:
    [message] = problems(changed(**methods))
    assert re.search(words, message), message


def test_all_mistakes_of_both_splits_are_told_at_once() -> None:
    messages = problems(changed(fps=-1, kind="x"), changed(label=lambda index: -1))
    assert ["(train)" in message for message in messages] == [True, True, False]


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (Arrays, "Arrays (train) is a class: pass an object"),
        ("videos", "is the text 'videos', not the name of a registered source: pass an object, or set data.root"),
        (torch.utils.data.TensorDataset(torch.zeros(2, 3, 8, 8)), "wrap it in a class that has read(self, index)"),
        (None, "the train source is None"),
    ],
)
def test_what_is_no_source_is_told(value: object, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        DATA.with_source(value).open()  # type: ignore[arg-type]
    assert words in str(caught.value)


@dataclass
class TwelveImages:
    """A config of a source that is not registered."""

    def build(self, split: str) -> Source | None:
        return Arrays(noise(12, 3, 8, 8)) if split == "train" else None


def test_a_config_of_a_source_is_passed_in_the_place_of_a_source() -> None:
    assert len(opened(TwelveImages()).records) == 12
    with pytest.raises(ConfigError, match="builds both splits: leave out test_data"):
        DATA.with_source(TwelveImages(), changed())
    with pytest.raises(ConfigError, match=r"set it in the config, as in PretrainConfig\(data=\.\.\.\)"):
        DATA.with_source(DataConfig(root="x"))  # type: ignore[arg-type]


def test_a_source_that_cannot_be_copied_is_read_itself() -> None:
    class Wrapper:
        """Delegates to a source, and never ends when it is asked for attributes before it has one."""

        def __init__(self, source: Source) -> None:
            self.source = source

        def __getattr__(self, name: str) -> object:
            return getattr(self.source, name)

        def __len__(self) -> int:
            return len(self.source)

    wrapper: Any = Wrapper(Arrays(noise(4, 3, 8, 8)))
    assert len(opened(wrapper).records) == 4


def test_an_exception_of_a_name_or_a_label_names_the_line() -> None:
    with pytest.raises(SourceError, match=r"Arrays.label\(3\) raised ZeroDivisionError.*test_source.py, line"):
        DATA.with_source(changed(label=lambda index: 1 // (index - 3))).open()


def test_classes_of_the_test_split_must_be_those_of_the_train_split() -> None:
    test = changed(label=lambda index: 5, name=lambda index: f"t{index}")
    assert "class '5' is not in the train split" in problems(changed(), test)[0]
    videos = Arrays(noise(2, 3, 4, 8, 8), "t")
    [message] = problems(changed(), videos)
    assert re.search(r"Arrays \(train\) has images, but .*Arrays \(test\) has videos; give both the same", message)


def test_a_source_in_the_place_of_its_config_is_told_where_it_belongs() -> None:
    [message] = invalid_settings(DataConfig(source=changed()), "data")  # type: ignore[arg-type]
    assert message.endswith(
        "a dataclass with a build method; pass an object to the function instead, as in pretrain(config, data=...)"
    )


def test_settings_of_files_are_refused_beside_a_source_but_a_recipe_may_have_set_the_layout() -> None:
    assert invalid_settings(DataConfig(layout="cifar10").with_source(changed()), "data") == []
    messages = invalid_settings(DataConfig(root="x", test_list="y", decoder="auto").with_source(changed()), "data")
    assert [message.split("=")[0] for message in messages] == ["data.root", "data.test_list", "data.decoder"]
    with pytest.raises(ConfigError, match=r"data\.decoder=torchcodec has no effect"):
        open_source(PassedSource(changed()), decoder="torchcodec", num_workers=0)


def test_reading_in_the_main_process_opens_no_file_that_workers_would_share() -> None:
    class Lazy(Arrays):
        file: object = None

        def read(self, index: int) -> np.ndarray:
            self.file = self.file or object()
            return super().read(index)

    source = Lazy(noise(4, 3, 8, 8))
    manifest = opened(source)
    survey(manifest, DATA.build_decoder())
    assert source.file is None
    training(manifest)[0, 0]
    assert source.file is not None


def test_a_source_that_cannot_be_sent_to_spawned_workers_is_told_before_training(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    source = changed(read=lambda index: noise(1, 3, 8, 8)[0])  # a lambda cannot be pickled
    monkeypatch.setattr("multiprocessing.get_start_method", lambda allow_none=False: "spawn")
    with pytest.raises(ConfigError, match=r"cannot be sent to the data\.num_workers=2 processes"):
        DataConfig(num_workers=2).with_source(source).open()
    DataConfig(num_workers=0).with_source(source).open()
    restored = pickle.loads(pickle.dumps(opened(Arrays(noise(4, 3, 8, 8)))))
    assert restored.records.path(3) == "r003"
