"""Tests of tar shards, on disk and behind a URL."""

import http.server
import io
import tarfile
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from eztorch_sce.augment.view import ViewConfig
from eztorch_sce.config.compose import compose
from eztorch_sce.data.config import DataConfig
from eztorch_sce.data.datamodule import TrainingData
from eztorch_sce.data.decoders.image import ImageDecoder, load_image
from eztorch_sce.data.decoders.pyav.decoder import PyAVConfig
from eztorch_sce.data.sources.folder import from_folder
from eztorch_sce.data.sources.layouts import open_splits
from eztorch_sce.data.sources.manifest import Manifest
from eztorch_sce.data.sources.shards import from_shards
from eztorch_sce.data.sources.splits import Location
from eztorch_sce.errors import ConfigError, MediaError
from eztorch_sce.types import Batch, ClipSpan, InputSpec

SPEC = InputSpec(num_frames=1, size=16)
VIEWS = [ViewConfig(size=16), ViewConfig(size=16)]


def add(archive: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(data)
    archive.addfile(member, io.BytesIO(data))


def image(number: int) -> bytes:
    pixels = np.random.default_rng(number).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).resize((70, 50)).save(buffer, "JPEG")
    return buffer.getvalue()


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    """A folder of two shards with three labeled images each, and a folder of the same images as files."""
    (tmp_path / "files").mkdir()
    for shard in range(2):
        with tarfile.open(tmp_path / f"train-{shard:03d}.tar", "w") as archive:
            for number in range(3 * shard, 3 * shard + 3):
                add(archive, f"{number:04d}.jpg", image(number))
                add(archive, f"{number:04d}.cls", str(10 * (number % 2)).encode())
                add(archive, f"{number:04d}.json", b"{}")
                (tmp_path / "files" / f"{number:04d}.jpg").write_bytes(image(number))
    return tmp_path


def epoch_of(manifest: Manifest, workers: int = 0) -> list[Batch]:
    config = DataConfig(root="x", batch_size=2, num_workers=workers)
    return list(TrainingData(config, manifest, VIEWS, SPEC, seed=0).train_dataloader())


def test_samples_are_records_labeled_by_their_cls_member(shards: Path) -> None:
    for pattern in (shards, shards / "*.tar", shards / "train-{000..001}.tar"):
        manifest = from_shards(str(pattern))
        assert [record.label for record in manifest.records] == [0, 1, 0, 1, 0, 1]
        assert manifest.classes == ["0", "10"]
        assert {record.kind for record in manifest.records} == {"image"}


@pytest.mark.parametrize("workers", [0, 2])
def test_shards_and_files_give_the_same_batches(shards: Path, workers: int) -> None:
    packed, loose = epoch_of(from_shards(str(shards)), workers), epoch_of(from_folder(shards / "files"))
    for one, other in zip(packed, loose, strict=True):
        assert torch.equal(one.record, other.record)
        assert all(torch.equal(a, b) for a, b in zip(one.frames, other.frames, strict=True))


def test_a_clip_in_a_shard_equals_the_clip_in_a_file(numbered_video: Path, tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        add(archive, "first/0.txt", b"not media, so ignored")
        add(archive, "first/1.mp4", numbered_video.read_bytes())
    (record,) = from_shards(str(tmp_path)).records
    assert (record.kind, record.label) == ("video", None)
    decoder, spans = PyAVConfig().build(), [ClipSpan(1.0, 3.0)]
    assert decoder.probe(record.path) == decoder.probe(str(numbered_video))
    (packed,), (loose,) = decoder.read(record.path, spans, 4), decoder.read(str(numbered_video), spans, 4)
    assert torch.equal(packed.frames, loose.frames)


class _Ranges(http.server.SimpleHTTPRequestHandler):
    """Serves byte ranges of files, as object stores do, and records their sizes."""

    sizes: list[int]

    def do_GET(self) -> None:
        data = (Path(self.directory) / self.path.lstrip("/")).read_bytes()
        first, last = 0, len(data) - 1
        if requested := self.headers.get("Range"):
            begin, _, end = requested.removeprefix("bytes=").partition("-")
            first, last = int(begin), min(int(end or last), last)
        self.send_response(206 if requested else 200)
        self.send_header("Content-Length", str(last - first + 1))
        self.send_header("Content-Range", f"bytes {first}-{last}/{len(data)}")
        self.send_header("Accept-Ranges", "bytes")
        self.end_headers()
        self.sizes.append(last - first + 1)  # before the response, after which the client may read the list
        self.wfile.write(data[first : last + 1])

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server(shards: Path) -> Iterator[tuple[str, list[int]]]:
    """URL of the folder of shards, and the sizes of the responses so far."""
    sizes: list[int] = []
    handler = partial(type("Handler", (_Ranges,), {"sizes": sizes}), directory=str(shards))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as http_server:
        threading.Thread(target=http_server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{http_server.server_port}", sizes
        http_server.shutdown()


def test_shards_behind_a_url_fetch_only_the_bytes_of_each_image(shards: Path, server: tuple[str, list[int]]) -> None:
    pytest.importorskip("aiohttp", reason="the extra `shards` is not installed")
    url, sizes = server
    splits = open_splits(Location(root=f"{url}/train-{{000..001}}.tar"), "shards")
    local = from_shards(str(shards))
    assert [record.label for record in splits.train.records] == [record.label for record in local.records]
    sizes.clear()
    for remote_record, local_record in zip(splits.train.records, local.records, strict=True):
        assert np.array_equal(load_image(remote_record.path), load_image(local_record.path))
    assert sizes == [len(image(number)) for number in range(6)]
    for one, other in zip(epoch_of(splits.train, workers=2), epoch_of(local), strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one.frames, other.frames, strict=True))


def test_a_range_is_taken_as_typed_or_in_quotes(shards: Path) -> None:
    pattern = f"{shards}/train-{{000..001}}.tar"
    for typed in (pattern, f'"{pattern}"'):
        config = compose("show-views", ["data.layout=shards", f"data.root={typed}"])
        assert len(config.data.open().train.records) == 6


def test_missing_broken_and_half_labeled_shards_are_errors(shards: Path, write_video: Callable[..., Path]) -> None:
    with pytest.raises(ConfigError, match=r"data\.root=.*none.*no shard exists"):
        from_shards(str(shards / "none-*.tar"))
    (shards / "bad.tar").write_bytes(b"x" * 600)
    with pytest.raises(ConfigError, match=r"bad\.tar cannot be read as a tar file"):
        from_shards(str(shards / "bad.tar"))
    with tarfile.open(shards / "half.tar", "w") as archive:
        add(archive, "0.jpg", image(0))
        add(archive, "1.jpg", image(1))
        add(archive, "1.cls", b"cat")
    with pytest.raises(ConfigError, match=r"samples without a label.*label all samples or none"):
        from_shards(str(shards / "half.tar"))
    with pytest.raises(ConfigError, match=r"class '10' is not in the train split"):
        from_shards(str(shards / "train-*.tar"), train_classes=["0"])


@pytest.mark.parametrize("name", ["it's [1] {2} #3", "a::b {0..1}", "x@1+2 ? *", "two\nlines ~"])
def test_shards_in_a_folder_of_any_name_are_read(name: str, shards: Path) -> None:
    folder = shards / name
    folder.mkdir()
    for shard in shards.glob("*.tar"):
        shard.rename(folder / shard.name)
    for pattern in ("train-*.tar", "train-{000..001}.tar", "", "train-00[01].tar"):
        train = open_splits(Location(root=str(folder / pattern)), "shards").train
        assert len(train.records) == 6
        for record in (train.records[0], train.records[5]):
            assert load_image(record.path).shape == (50, 70, 3)


def shard_of(folder: Path, *members: tuple[str, bytes], name: str = "a.tar") -> str:
    """Write a shard and return the address of its folder."""
    folder.mkdir(exist_ok=True)
    with tarfile.open(folder / name, "w") as archive:
        for member, data in members:
            add(archive, member, data)
    return str(folder)


def names(manifest: Manifest) -> list[str]:
    return [record.path.split("#")[1].split("@")[0] for record in manifest.records]


def test_a_sample_with_several_images_is_an_error_until_one_is_chosen(tmp_path: Path) -> None:
    root = shard_of(
        tmp_path / "stereo",
        *((f"{number}.{side}.jpg", image(number)) for number in range(2) for side in ("left", "right")),
        ("0.seg.png", b""),
        ("2.right.jpg", image(2)),
    )
    with pytest.raises(ConfigError, match=r"sample 0 has several.*left\.jpg, right\.jpg, seg\.png.*data\.shard_image="):
        from_shards(root)
    left = from_shards(root, image="left.jpg")
    assert names(left) == ["0.left.jpg", "1.left.jpg"]
    assert left.ignored == {
        ".right.jpg in shards": 3,
        ".seg.png in shards": 1,
        "samples without left.jpg in shards": 1,
    }
    assert names(from_shards(root, image="left.jpg;right.jpg")) == ["0.left.jpg", "1.left.jpg", "2.right.jpg"]
    with pytest.raises(ConfigError, match=r"no member with data\.shard_image=jpg"):
        from_shards(root, image="jpg")


def test_the_settings_of_shards_are_checked_before_anything_is_read() -> None:
    with pytest.raises(ConfigError, match=r"data\.shard_image=jpg is not used by data\.layout=auto"):
        compose("show-views", ["data.root=x", "data.shard_image=jpg"])
    with pytest.raises(ConfigError, match=r"data\.shard_image=cls must be an extension of images or videos"):
        compose("show-views", ["data.root=x", "data.layout=shards", "data.shard_image=cls"])


def test_the_key_ends_at_the_first_dot_of_the_base_name(tmp_path: Path) -> None:
    root = shard_of(tmp_path / "s", ("v1.0/a.jpg", image(0)), ("v1.0/a.CLS", b"3"), ("v1.0/b.x.JPG", image(1)))
    with pytest.raises(ConfigError, match=r"samples without a label: .*v1\.0/b\.x\.JPG"):
        from_shards(root)
    assert names(from_shards(root, label="none")) == ["v1.0/a.jpg", "v1.0/b.x.JPG"]
    root = shard_of(tmp_path / "dots", ("clip.1.jpg", image(0)), ("clip.2.jpg", image(1)))
    with pytest.raises(ConfigError, match=r"sample clip has several.*1\.jpg, 2\.jpg; a key ends at the first dot"):
        from_shards(root)


@pytest.mark.parametrize("key", ["label", "class", "cls", "target"])
def test_labels_are_read_from_json(key: str, tmp_path: Path) -> None:
    numbers = [(f"{n}.json", f'{{"{key}": {n * 7}, "url": "x"}}'.encode()) for n in range(2)]
    images = [(f"{n}.jpg", image(n)) for n in range(2)]
    manifest = from_shards(shard_of(tmp_path / "numbers", *images, *numbers))
    assert (manifest.classes, manifest.records.labels.tolist(), manifest.ignored) == (["0", "7"], [0, 1], {})
    words = [(f"{n}.json", f'{{"{key}": "{word}"}}'.encode()) for n, word in enumerate(["dog", "cat"])]
    manifest = from_shards(shard_of(tmp_path / "words", *images, *words))
    assert (manifest.classes, manifest.records.labels.tolist()) == (["cat", "dog"], [1, 0])
    assert manifest.notes == [f"labels are read from json.{key} of each sample"]


def test_several_labels_are_an_error_with_the_choices_unless_they_agree(tmp_path: Path) -> None:
    members = [("0.jpg", image(0)), ("0.cls", b"4"), ("0.json", b'{"class": "cat", "breed": "tabby"}')]
    root = shard_of(tmp_path / "differ", *members)
    with pytest.raises(
        ConfigError, match=r"cls='4' and json\.class='cat'; choose one: data\.shard_label=cls, data\.shard"
    ):
        from_shards(root)
    assert from_shards(root, label="cls").classes == ["4"]
    assert from_shards(root, label="json.class").classes == ["cat"]
    assert from_shards(root, label="json.breed").classes == ["tabby"]
    assert from_shards(root, label="none").classes == []
    root = shard_of(tmp_path / "agree", ("0.jpg", image(0)), ("0.cls", b"04"), ("0.json", b'{"label": 4}'))
    assert from_shards(root).classes == ["4"]
    root = shard_of(tmp_path / "lists", ("0.jpg", image(0)), ("0.json", b'{"label": [1, 2]}'))
    with pytest.raises(ConfigError, match=r"0\.json: json\.label=\[1, 2\] must be a whole number or a name"):
        from_shards(root)


def test_captions_and_other_members_are_counted_rather_than_taken_for_labels(tmp_path: Path) -> None:
    members = [(f"{number}.{ext}", b"a dog") for number in range(3) for ext in ("txt", "json")]
    root = shard_of(tmp_path / "s", *members, ("0.jpg", image(0)), ("1.jpg", image(1)), ("0.emb.npy", b""))
    manifest = from_shards(root)
    assert (manifest.classes, len(manifest.records)) == ([], 2)
    assert manifest.ignored == {".txt in shards": 3, ".json in shards": 3, ".emb.npy in shards": 1}
    assert from_shards(root, label="txt").classes == ["a dog"]


def test_a_duplicate_key_is_an_error_that_names_both_shards(tmp_path: Path) -> None:
    shard_of(tmp_path / "s", ("0.jpg", image(0)), name="a.tar")
    root = shard_of(tmp_path / "s", ("0.jpg", image(1)), ("1.jpg", image(1)), name="b.tar")
    with pytest.raises(ConfigError, match=r"two samples have the key 0: .*a\.tar and .*b\.tar"):
        from_shards(root)


def test_a_member_written_twice_is_an_error(tmp_path: Path) -> None:
    root = shard_of(tmp_path / "s", ("0.jpg", image(0)), ("1.jpg", image(1)), ("./0.jpg", image(2)))
    with pytest.raises(
        ConfigError,
        match=r"^- data\.root=[^(]*a\.tar has two members named 0\.jpg; unpacking",
    ):
        from_shards(root)


def test_leftovers_hidden_files_and_links_are_counted(tmp_path: Path) -> None:
    root = shard_of(
        tmp_path / "s",
        ("0.jpg", image(0)),
        ("._0.jpg", b"\0\5\x16\7"),
        ("__MACOSX/a/0.jpg", b""),
        ("PaxHeaders.7/0.jpg", b""),
        ("a/.DS_Store", b""),
        ("a/.hidden.jpg", b""),
        ("README", b""),
    )
    with tarfile.open(tmp_path / "s" / "a.tar", "a") as archive:
        link = tarfile.TarInfo("1.jpg")
        link.type, link.linkname = tarfile.LNKTYPE, "0.jpg"
        archive.addfile(link)
    manifest = from_shards(root)
    assert names(manifest) == ["0.jpg"]
    assert manifest.ignored == {
        "system leftovers in shards": 3,
        "hidden in shards": 2,
        "without suffix in shards": 1,
        "links and special files in shards": 1,
    }


def test_a_folder_with_the_shards_of_several_splits_is_an_error_with_the_choices(tmp_path: Path) -> None:
    root = tmp_path / "s"
    for number, name in enumerate(("imagenet-train-0.tar", "imagenet-train-1.tar", "imagenet-validation-0.tar")):
        shard_of(root, (f"{number}.jpg", image(number)), name=name)
    message = rf"several splits \(2 train, 1 validation\); set 'data\.root={root}/\*train\*\.tar' 'data\.test_root="
    with pytest.raises(ConfigError, match=message):
        from_shards(str(root))
    assert len(from_shards(f"{root}/*train*.tar").records) == 2
    assert len(from_shards(f"{root}/*.tar").records) == 3
    (tmp_path / "t").mkdir()
    (root).rename(tmp_path / "t" / "train")
    with pytest.raises(ConfigError, match=r"holds shards only in train; set data\.root to the folder of one split"):
        from_shards(str(tmp_path / "t"))


def test_a_gap_in_a_range_of_shards_is_an_error(tmp_path: Path) -> None:
    for number in (0, 2):
        shard_of(tmp_path, (f"{number}.jpg", image(number)), name=f"{number:03d}.tar")
    with pytest.raises(ConfigError, match=r"1 shards do not exist: .*001\.tar"):
        from_shards(f"{tmp_path}/{{000..002}}.tar")


def test_compressed_shards_are_named(tmp_path: Path) -> None:
    (tmp_path / "a.tar.gz").write_bytes(b"\x1f\x8b")
    with pytest.raises(ConfigError, match=r"holds only compressed shards, such as a\.tar\.gz"):
        from_shards(str(tmp_path))


def test_tar_files_joined_by_cat_are_an_error(tmp_path: Path) -> None:
    shard_of(tmp_path / "s", ("0.jpg", image(0)), name="a.tar")
    root = shard_of(tmp_path / "s", ("1.jpg", image(1)), name="b.tar")
    both = (tmp_path / "s" / "a.tar").read_bytes() + (tmp_path / "s" / "b.tar").read_bytes()
    (tmp_path / "s" / "b.tar").unlink()
    (tmp_path / "s" / "a.tar").write_bytes(both)
    with pytest.raises(ConfigError, match=r"^- data\.root=[^(]*a\.tar is several tar files in one"):
        from_shards(root)


def test_numeric_labels_of_both_splits_must_agree(tmp_path: Path) -> None:
    images = [(f"{number}.jpg", image(number)) for number in range(3)]
    train = shard_of(tmp_path / "train", *images, *((f"{number}.cls", b"%d" % number) for number in range(3)))
    test = shard_of(tmp_path / "test", *images, *((f"{number}.cls", b"%d" % (number + 1)) for number in range(3)))
    with pytest.raises(ConfigError, match="has the labels 1 to 3, but the train split has 0 to 2"):
        open_splits(Location(root=train, test_root=test), "shards")


@pytest.mark.parametrize("suffix", ["jfif", "jpe", "JPEG", "webp", "avif"])
def test_rare_suffixes_are_images_in_shards(suffix: str, tmp_path: Path) -> None:
    (record,) = from_shards(shard_of(tmp_path / "s", (f"0.{suffix}", image(0)))).records
    assert record.kind == "image"
    assert load_image(record.path).shape == (50, 70, 3)


def test_a_truncated_shard_raises_media_error(shards: Path) -> None:
    records = from_shards(str(shards / "train-000.tar")).records
    file = shards / "train-000.tar"
    file.write_bytes(file.read_bytes()[:700])
    with pytest.raises(MediaError, match="ends early"):
        ImageDecoder().read(records[0].path, [ClipSpan(0, 0)], 1)
    file.unlink()
    with pytest.raises(MediaError, match="cannot be read from its shard"):
        load_image(records[0].path)
