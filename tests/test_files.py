"""Tests of atomic writes: who may read the files, and which names they are written under."""

import os
import secrets
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from eztorch_sce.files import replacing_folder, write_text
from eztorch_sce.tensor_file import write

WRITE_ALL = """
import os, sys
from pathlib import Path
from eztorch_sce.files import replacing_folder, write_text
from eztorch_sce.tensor_file import write
for name in ("027", "002"):
    umask = int(name, 8)
    os.umask(umask)
    folder = Path(sys.argv[1]) / name
    folder.mkdir()
    write_text(folder / "text", "x")
    write(folder / "tensors", {"a": 1})
    with replacing_folder(folder / "folder") as partial:
        write_text(partial / "text", "x")
    assert os.umask(0) == umask
"""


def test_files_and_folders_are_as_open_as_the_umask_says(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-c", WRITE_ALL, str(tmp_path)], check=True)
    for umask, file, folder in (("027", 0o640, 0o750), ("002", 0o664, 0o775)):
        modes = {path.name: path.stat().st_mode & 0o777 for path in (tmp_path / umask).iterdir()}
        assert modes == {"text": file, "tensors": file, "folder": folder}


def test_a_link_at_a_temporary_name_is_not_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "victim").write_text("untouched")
    (tmp_path / "elsewhere").mkdir()
    for name in ("text", "tensors", "missing"):
        target = "absent" if name == "missing" else "victim"
        (tmp_path / f".{name}.00000000.partial").symlink_to(tmp_path / target)
    (tmp_path / ".folder.00000000.partial").symlink_to(tmp_path / "elsewhere")
    names = iter(["00000000", "11111111"] * 4)
    monkeypatch.setattr(secrets, "token_hex", lambda num_bytes: next(names))
    write_text(tmp_path / "text", "new")
    write(tmp_path / "tensors", {"a": torch.ones(1)})
    write_text(tmp_path / "missing", "new")
    with replacing_folder(tmp_path / "folder") as partial:
        (partial / "inside").write_text("new")
    assert (tmp_path / "victim").read_text() == "untouched"
    assert not (tmp_path / "absent").exists()
    assert not list((tmp_path / "elsewhere").iterdir())
    assert (tmp_path / "folder" / "inside").read_text() == "new"
    assert len(list(tmp_path.glob(".*.partial"))) == 4  # the links stay


def test_an_error_leaves_the_old_file_and_no_other(tmp_path: Path) -> None:
    write_text(tmp_path / "a", "old")
    with pytest.raises(UnicodeEncodeError):
        write_text(tmp_path / "a", "no UTF-8: \ud800")
    assert (tmp_path / "a").read_text() == "old"
    assert os.listdir(tmp_path) == ["a"]
