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


def test_an_unquoted_range_is_an_error_that_explains_the_quotes(shards: Path) -> None:
    pattern = f"{shards}/train-{{000..001}}.tar"
    with pytest.raises(ConfigError, match="quote special characters"):
        compose("show-views", ["data.layout=shards", f"data.root={pattern}"])
    config = compose("show-views", ["data.layout=shards", f'data.root="{pattern}"'])
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
    with pytest.raises(ConfigError, match=r"samples without \.cls.*label all samples or none"):
        from_shards(str(shards / "half.tar"))
    with pytest.raises(ConfigError, match=r"class '10' is not in the train split"):
        from_shards(str(shards / "train-*.tar"), train_classes=["0"])


def test_a_truncated_shard_raises_media_error(shards: Path) -> None:
    records = from_shards(str(shards / "train-000.tar")).records
    file = shards / "train-000.tar"
    file.write_bytes(file.read_bytes()[:700])
    with pytest.raises(MediaError, match="ends early"):
        ImageDecoder().read(records[0].path, [ClipSpan(0, 0)], 1)
    file.unlink()
    with pytest.raises(MediaError, match="cannot be read from its shard"):
        load_image(records[0].path)
