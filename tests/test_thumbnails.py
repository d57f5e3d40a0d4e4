"""Tests of the images of a report: tile k shows the record of row k of the sample."""

import colorsys
import io
import shutil
import tarfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from eztorch_sce.config.compose import compose, to_yaml
from eztorch_sce.report.media import STRIP_FRAMES, STRIP_PX, TILE_PX, Images, place_of
from eztorch_sce.report.run_files import RunFiles
from eztorch_sce.report.samples import TEST, TRAIN, Sample
from eztorch_sce.run_records import open_records
from eztorch_sce.thumbnails import images_of

COLORS = [tuple(round(255 * x) for x in colorsys.hsv_to_rgb(hue / 10, 1, 0.9)) for hue in range(10)]
BUDGET = 100_000


def plain(color: Sequence[int], size: tuple[int, int] = (48, 40)) -> Image.Image:
    return Image.new("RGB", size, tuple(color))


def run_on(folder: Path, *words: str) -> RunFiles:
    """Return a run of a pretraining that has only written its settings."""
    folder.mkdir()
    config = compose("pretrain", [*words, "data.num_workers=0"])
    (folder / "config.yaml").write_text(f"# eztorch-sce pretrain\n{to_yaml(config)}")
    return RunFiles(folder, folder.name)


def sample_of(run: RunFiles, order: Sequence[int] | None = None) -> Sample:
    """Return all records of a run's data as a sample, in an order."""
    splits = open_records(run).splits
    parts = [split for split in (splits.train, splits.test) if split is not None]
    keys = [(number, row) for number, part in enumerate(parts) for row in range(len(part.records))]
    keys = [keys[place] for place in order] if order is not None else keys
    split, index = np.array(keys, np.int64).T
    segments = [part.records.segments for part in parts]
    of_rows = [each[row] for number, row in keys if (each := segments[number]) is not None]
    return Sample(
        "trained",
        run,
        np.zeros((len(keys), 2), np.float32),
        np.array([parts[number].records.labels[row] for number, row in keys], np.int64),
        [parts[number].records.path(row) for number, row in keys],
        index,
        split,
        parts[0].classes,
        segments=np.stack(of_rows) if of_rows else None,
    )


def tile_colors(images: Images) -> npt.NDArray[np.float64]:
    """Return the mean color of each tile, (N, 3)."""
    atlases = [np.asarray(Image.open(io.BytesIO(atlas)).convert("RGB")) for atlas in images.atlases]
    assert all(max(atlas.shape) <= 4096 for atlas in atlases)
    colors = []
    for tile in range(images.num_tiles):
        atlas, column, row = place_of(tile)
        top, left = row * TILE_PX, column * TILE_PX
        colors.append(atlases[atlas][top : top + TILE_PX, left : left + TILE_PX].mean(axis=(0, 1)))
    return np.array(colors)


def numbers_of(sample: Sample) -> list[int]:
    """Return the number of the color of each record: the name of its file, or of the sample in its shard."""
    return [int(Path(path.rpartition("#")[2]).name.split(".")[0]) for path in sample.paths]


def nearest_color(colors: npt.NDArray[np.float64]) -> list[int]:
    return [int(np.abs(np.array(COLORS) - color).sum(axis=1).argmin()) for color in colors]


@pytest.fixture
def images_by_class(tmp_path: Path) -> Path:
    """Return a folder with train/ and val/ of two classes; the number in a file name is that of its color."""
    for number, color in enumerate(COLORS):
        folder = tmp_path / "data" / ("train" if number < 7 else "val") / "ab"[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        plain(color).save(folder / f"{number}.png")
    return tmp_path / "data"


def test_tile_k_shows_record_k_of_a_sample_in_any_order(tmp_path: Path, images_by_class: Path) -> None:
    run = run_on(tmp_path / "run", f"data.root={images_by_class}")
    sample = sample_of(run, order=[9, 2, 5, 0, 7, 1, 8, 3, 6, 4])
    images = images_of(sample, [], [], BUDGET)
    assert nearest_color(tile_colors(images)) == numbers_of(sample)
    assert not images.unreadable
    assert not images.note


def test_tiles_follow_their_records_when_the_data_change(tmp_path: Path, images_by_class: Path) -> None:
    run = run_on(tmp_path / "run", f"data.root={images_by_class}")
    sample = sample_of(run)
    for number in range(3):  # these shift the rows of all others
        plain((9, 9, 9)).save(images_by_class / "train" / "a" / f"-{number}.png")
    (images_by_class / "train" / "b" / "3.png").write_bytes(b"no image any more")
    (images_by_class / "val" / "a" / "8.png").unlink()
    broken, gone = (next(row for row, path in enumerate(sample.paths) if Path(path).stem == name) for name in "38")

    images = images_of(sample, [], [], BUDGET)
    shown = [row for row in range(len(sample)) if row not in (broken, gone)]
    colors = tile_colors(images)
    assert nearest_color(colors[shown]) == [int(Path(sample.paths[row]).stem) for row in shown]
    assert set(images.unreadable) == {broken, gone}
    assert "not in the data" in images.unreadable[gone]
    assert not images.has_tile(broken)
    assert colors[broken].max() < 10  # empty


def test_data_that_moved_are_found_at_their_new_root(tmp_path: Path, images_by_class: Path) -> None:
    run = run_on(tmp_path / "run", f"data.root={images_by_class}")
    sample = sample_of(run)
    moved = images_by_class.rename(tmp_path / "it's (1), moved")
    assert str(images_by_class) in images_of(sample, [], [], BUDGET).note
    images = images_of(sample, [], [f"data.root={moved}"], BUDGET)
    assert images_of(sample, [], [], BUDGET).atlases == images.atlases  # the place need not be named again
    assert nearest_color(tile_colors(images)) == numbers_of(sample)


def test_images_are_cached_until_what_they_are_made_from_changes(tmp_path: Path, images_by_class: Path) -> None:
    run = run_on(tmp_path / "run", f"data.root={images_by_class}")
    sample = sample_of(run)
    first = images_of(sample, [(TEST, 1)], [], BUDGET)
    images_by_class.rename(tmp_path / "elsewhere")
    again = images_of(sample, [(TEST, 1)], [], BUDGET)
    assert again.atlases == first.atlases
    assert again.strips == first.strips
    assert (again.digests == first.digests).all()
    without_data = images_of(sample, [(TEST, 0)], [], BUDGET)  # another strip, and no data to decode it from
    assert without_data.atlases == first.atlases


@pytest.mark.parametrize("kind", ["videos", "frame folders", "shards"])
def test_every_kind_of_data_has_tiles(tmp_path: Path, write_video: Callable[..., Path], kind: str) -> None:
    root, words = tmp_path / "data", []
    root.mkdir()
    if kind == "shards":
        words = ["data.layout=shards"]
        with tarfile.open(root / "0.tar", "w") as archive:
            for number, color in enumerate(COLORS):
                stream = io.BytesIO()
                plain(color).save(stream, "PNG")
                for suffix, content in (("png", stream.getvalue()), ("cls", str(number % 2).encode())):
                    entry = tarfile.TarInfo(f"{number}.{suffix}")
                    entry.size = len(content)
                    archive.addfile(entry, io.BytesIO(content))
    for number, color in enumerate(COLORS[:4] if kind == "videos" else COLORS if kind == "frame folders" else []):
        if kind == "videos":
            image = np.full((32, 48, 3), color, np.uint8)
            write_video(root / "ab"[number % 2] / f"{number}.mp4", num_frames=10, image=lambda _, image=image: image)
        else:
            folder = root / "ab"[number % 2] / str(number)
            folder.mkdir(parents=True)
            for frame in range(3):
                plain(color).save(folder / f"{frame:03}.jpg")
    run = run_on(tmp_path / "run", f"data.root={root}", *words)
    sample = sample_of(run)
    images = images_of(sample, [(TRAIN, 0)], [], BUDGET)
    assert not images.note
    assert nearest_color(tile_colors(images)) == numbers_of(sample)
    strip = Image.open(io.BytesIO(images.strips[TRAIN, 0]))
    assert strip.size == (STRIP_PX * (1 if kind == "shards" else STRIP_FRAMES), STRIP_PX)


def test_segments_of_one_video_have_tiles_of_their_own(tmp_path: Path, write_video: Callable[..., Path]) -> None:
    def image(frame: int) -> np.ndarray:
        return np.full((32, 48, 3), COLORS[frame // 10], np.uint8)  # a color per second

    write_video(tmp_path / "video.mp4", num_frames=50, fps=10, key_every=5, image=image)
    seconds = [3, 0, 4, 2]
    rows = [f"video.mp4,{second},{second + 1}" for second in seconds]
    (tmp_path / "list.csv").write_text("\n".join(["path,start,end", *rows]) + "\n")
    run = run_on(tmp_path / "run", f"data.list={tmp_path / 'list.csv'}")
    sample = sample_of(run)
    assert nearest_color(tile_colors(images_of(sample, [], [], BUDGET))) == seconds
    shutil.rmtree(run.directory / "report")
    (tmp_path / "list.csv").write_text("\n".join(["path,start,end", *sorted(rows)]) + "\n")
    assert nearest_color(tile_colors(images_of(sample, [], [], BUDGET))) == seconds


def test_strips_stay_in_their_budget(tmp_path: Path, write_video: Callable[..., Path]) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (10, 96, 96, 3), np.uint8)
    for number in range(4):
        write_video(tmp_path / "data" / f"{number}.mp4", num_frames=10, image=lambda frame: noise[frame])
    run = run_on(tmp_path / "run", f"data.root={tmp_path / 'data'}")
    sample, keys = sample_of(run), [(TRAIN, row) for row in range(4)]
    all_strips = images_of(sample, keys, [], 10_000_000).strips
    assert list(all_strips) == keys
    budget = sum(map(len, all_strips.values())) // 6
    few = images_of(sample, keys, [], budget).strips
    assert 0 < sum(map(len, few.values())) <= budget
    assert list(few) == keys[: len(few)]  # the most important first
