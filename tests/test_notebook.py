"""Test that runs the notebook of the documentation with few videos and epochs."""

from pathlib import Path
from typing import Any

import nbformat
import pytest
from checkout import ROOT
from nbclient import NotebookClient

NOTEBOOK = ROOT / "docs" / "start" / "notebook.ipynb"
SIZES = "NUM_TRAIN, NUM_TEST, EPOCHS = 256, 128, 45"


@pytest.mark.slow
def test_the_notebook_trains_and_explores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for threads in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        monkeypatch.setenv(threads, "1")
    notebook: Any = nbformat.read(NOTEBOOK, as_version=4)  # type: ignore[no-untyped-call]
    (sizes,) = [cell for cell in notebook.cells if SIZES in cell.source]
    sizes.source = sizes.source.replace(SIZES, "NUM_TRAIN, NUM_TEST, EPOCHS = 64, 16, 1")
    NotebookClient(
        notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}
    ).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    figures = [output for output in outputs if "image/png" in output.get("data", {})]
    assert len(figures) == 4  # frames, loss, map, search
    assert any("kNN top-1 on 16 test videos" in output.get("text", "") for output in outputs)
