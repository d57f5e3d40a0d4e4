"""Test that runs the cells of the notebook in this process, with few videos and epochs."""

import json
from pathlib import Path
from typing import Any

import matplotlib
import pytest
from checkout import ROOT
from IPython.core.interactiveshell import InteractiveShell
from IPython.utils.capture import capture_output

NOTEBOOK = ROOT / "docs" / "start" / "notebook.ipynb"
SMALLER = {
    "NUM_TRAIN, NUM_TEST, EPOCHS = 256, 128, 45": "NUM_TRAIN, NUM_TEST, EPOCHS = 16, 16, 1",
    "num_processes=2": "num_processes=1",
    'trainer={"max_epochs": EPOCHS}': 'trainer={"max_epochs": EPOCHS}, data={"batch_size": 8, "num_workers": 0}',
    "num_clips=4": "num_clips=1",
}


class Shell(InteractiveShell):
    """IPython without a window system: figures go to the captured output, as in a notebook."""

    def enable_gui(self, gui: object = None) -> None:
        """Do nothing: the inline figures need no event loop."""


pytestmark = pytest.mark.xdist_group("documents")  # imports what the tests of the pages import


@pytest.mark.usefixtures("own_registrations")
def test_the_notebook_trains_and_explores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    code = "\0".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
    for full, small in SMALLER.items():
        assert full in code, full
        code = code.replace(full, small)

    shell: Any = Shell.instance()
    backend = matplotlib.get_backend()
    try:
        shell.run_line_magic("matplotlib", "inline")
        with capture_output() as captured:
            for cell in code.split("\0"):
                shell.run_cell(cell, store_history=False).raise_error()
    finally:
        matplotlib.use(backend)
        Shell.clear_instance()
    figures = [output for output in captured.outputs if "image/png" in output.data]
    assert len(figures) == 4  # frames, loss, map, search
    assert "kNN top-1 on 16 test videos" in captured.stdout
