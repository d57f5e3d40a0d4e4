"""Tests that run the code blocks of the documentation, page by page, on small data."""

import shutil
from pathlib import Path
from typing import Any

import pytest
from checkout import ROOT
from documents import blocks_of, run_block

from eztorch_sce import MovingShapes, write_moving_shapes

pytestmark = [
    pytest.mark.xdist_group("documents"),  # the project is made once, in one worker
    pytest.mark.usefixtures("own_registrations"),
    pytest.mark.filterwarnings("ignore:.*treespec.*:FutureWarning"),  # of torch's own exporter
    pytest.mark.filterwarnings("ignore::DeprecationWarning:ray.data.context"),  # of Ray's own settings
]

FIRST = ROOT / "docs" / "start" / "own-videos.md"
PAGES = [
    page for page in [ROOT / "README.md", *sorted((ROOT / "docs").glob("**/*.md"))] if page != FIRST and blocks_of(page)
]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with small videos in class folders, those of a small demo, and the examples."""
    folder = tmp_path_factory.mktemp("project")
    shapes = MovingShapes(num_train=24, num_test=8, size=32, fps=8, num_scenes=1, scene_frames=8)
    write_moving_shapes(folder / "runs" / "demo-1" / "videos", shapes)
    shutil.copytree(folder / "runs" / "demo-1" / "videos" / "train", folder / "videos")
    for example in (ROOT / "examples").glob("*.py"):
        (folder / example.name).write_bytes(example.read_bytes())
    return folder


@pytest.fixture(scope="module")
def started(project: Path) -> Path:
    """Return the project after the commands of the first page, whose run directories the other pages use."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(project)
        _run_page(FIRST)
    return project


def _run_page(page: Path) -> None:
    variables: dict[str, Any] = {}
    for block in blocks_of(page):
        run_block(block, variables)


def test_the_commands_of_the_first_page_train_and_evaluate(started: Path) -> None:
    assert (started / "runs" / "mine" / "backbone.safetensors").is_file()
    assert (started / "runs" / "tuned" / "classifier.safetensors").is_file()


@pytest.mark.usefixtures("without_shape_checks")
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_code_of_the_page_runs(page: Path, started: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(started)
    _run_page(page)
