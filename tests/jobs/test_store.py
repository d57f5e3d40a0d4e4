"""Tests of job folders behind URLs: the same results, and errors that name the URL and the cure."""

import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from toy_job import CountLetters, records_of, write_files

from eztorch_sce.errors import ConfigError
from eztorch_sce.jobs import store as store_module
from eztorch_sce.jobs.driver import run_job
from eztorch_sce.jobs.job import Job
from eztorch_sce.jobs.runners.local import LocalRunner
from eztorch_sce.jobs.store import Store
from eztorch_sce.jobs.worker import work_on


class Unsteady(MemoryFileSystem):  # type: ignore[misc]
    """A file system whose network fails as many times as `errors` says."""

    protocol = "unsteady"
    errors: ClassVar[list[Exception]] = []

    def cat_file(self, path: str, start: int | None = None, end: int | None = None, **options: object) -> bytes:
        if self.errors:
            raise self.errors.pop()
        content: bytes = super().cat_file(path, start, end, **options)
        return content


@pytest.fixture
def unsteady(monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    fsspec.register_implementation("unsteady", Unsteady, clobber=True)
    monkeypatch.setattr(store_module, "_WAITS_S", (0.01, 0.01))
    store = Store("unsteady://bucket/job")
    store.write("file", b"content")
    yield store
    Unsteady.errors.clear()


def test_a_network_that_fails_twice_is_tried_again(unsteady: Store) -> None:
    Unsteady.errors += [TimeoutError(), RuntimeError("slow down")]
    assert unsteady.read("file") == b"content"
    assert Unsteady.errors == []


def test_errors_of_a_network_name_the_url_and_the_reason(unsteady: Store) -> None:
    Unsteady.errors += [RuntimeError("no route")] * 3
    with pytest.raises(ConnectionError, match=r"unsteady://bucket/job/file cannot be reached \(no route\)"):
        unsteady.read("file")
    Unsteady.errors[:] = [PermissionError("Access Denied")]
    with pytest.raises(
        PermissionError, match=r"no permission for unsteady://.*/file \(Access Denied\): check the cred"
    ):
        unsteady.read("file")
    with pytest.raises(FileNotFoundError):
        unsteady.read("other")


def test_urls_without_a_plug_in_name_the_command_that_installs_it() -> None:
    with pytest.raises(ConfigError, match=r"quux://bucket: .*such URLs begin with s3://, gs:// or https://"):
        Store("quux://bucket")
    if importlib.util.find_spec("gcsfs") is not None:
        pytest.skip("gcsfs is installed")
    with pytest.raises(ConfigError, match=r"^- gs://bucket/job: .*run pip install gcsfs$"):
        Store("gs://bucket/job")


@pytest.mark.parametrize("protocol", ["memory", "file"])
def test_a_job_behind_a_url_has_the_results_of_one_in_a_folder(tmp_path: Path, protocol: str) -> None:
    files, work = write_files(tmp_path / "files", 40), CountLetters("a")
    url = f"file://{tmp_path}/job" if protocol == "file" else f"memory://{tmp_path.name}/job"
    job = Job.create(url, work, records_of(files), per_shard=10)
    assert work_on(url, [0, 2], None) == {}
    assert job.pending() == [1, 3]
    merged = run_job(job, work, LocalRunner(), None)
    local = run_job(Job.create(tmp_path / "local", work, records_of(files), per_shard=10), work, LocalRunner(), None)
    assert merged.table.equals(local.table)
    assert merged.failures == local.failures
