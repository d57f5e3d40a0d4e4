"""Tests of commands and scripts that run in several processes, started by torchrun or by Lightning."""

import csv
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from image_files import write_noisy_classes

from eztorch_sce.cli import main
from eztorch_sce.models.weights import load_weights
from eztorch_sce.training.checkpoint_files import load_newest

pytestmark = pytest.mark.xdist_group("launched")  # fixtures take long: once, in one worker

TOOLS = Path(__file__).resolve().parents[2] / "tools"
NETWORK = ["backbone=r2plus1d_small", "backbone.width=4", "backbone.num_blocks=1", "views.0.size=32"]
SETTINGS = ["trainer.accelerator=cpu", "trainer.max_epochs=2", "data.batch_size=8", "data.num_workers=0"]


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of 16 training and 8 test images of two classes."""
    folder = tmp_path_factory.mktemp("images")
    write_noisy_classes(folder, {"train": 16, "test": 8}, size=40)
    return folder


@pytest.fixture(scope="module")
def weights(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the run directory of a pretraining in one process."""
    run_dir = tmp_path_factory.mktemp("runs") / "one"
    finish(in_one_process("pretrain", *pretraining(images, run_dir)))
    return run_dir


def pretraining(images: Path, run_dir: Path) -> list[str]:
    # Without norms: batch statistics of half a batch differ from those of the whole batch.
    norms = ["backbone.norm=false", "method.projector.num_hidden=0", "method.predictor=null"]
    heads = ["method.projector.hidden_dim=16", "method.projector.output_dim=8", "method.projector.output_norm=false"]
    others = ["views=image", "views.*.size=32", "method.queue_size=32", "optimizer=sgd", "schedule.warmup_epochs=0"]
    return [*NETWORK[:3], *others, *norms, *heads, *SETTINGS, f"data.root={images}", f"run.dir={run_dir}"]


def in_one_process(command: str, *words: str) -> list[str]:
    return [sys.executable, str(TOOLS / f"{command}.py"), *words]


def in_two_processes(command: str, *words: str) -> list[str]:
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    return [*launcher, *in_one_process(command, *words)[1:]]


def finish(words: list[str], folder: Path | None = None, ok: bool = True) -> str:
    result = subprocess.run(words, capture_output=True, text=True, timeout=300, cwd=folder)
    assert (result.returncode == 0) == ok, result.stdout + result.stderr
    return result.stdout + result.stderr


def world_sizes(run_dir: Path) -> list[str]:
    lines = (run_dir / "config.yaml").read_text().splitlines()
    return [line.strip() for line in lines if line.strip().startswith(("devices:", "num_nodes:"))]


@pytest.mark.slow
def test_two_processes_train_the_same_network_as_one(weights: Path, images: Path, tmp_path: Path) -> None:
    words = [word for word in pretraining(images, tmp_path) if not word.startswith("run.dir=")]
    printed = finish(in_two_processes("pretrain", *words), tmp_path)
    assert printed.count("written to runs/pretrain-1") == 1
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["pretrain-1"]  # one run directory
    two = tmp_path / "runs/pretrain-1"
    assert world_sizes(two) == ["devices: 2", "num_nodes: 1"]
    expected, state = (load_weights(str(run_dir)).state for run_dir in (weights, two))
    for name, value in state.items():
        torch.testing.assert_close(value, expected[name], rtol=1e-3, atol=1e-5)
    _, checkpoint = load_newest(two) or (None, {})
    assert checkpoint["progress"]["step"] == 2 * 16 // 8
    assert int(checkpoint["state_dict"]["method.queue.position"]) == 2 * 2 * 16 % 32  # keys of both processes


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "metric"),
    [("finetune", "test_top1"), pytest.param("linear", "linear_top1", marks=pytest.mark.long)],
)
def test_two_processes_write_one_report(command: str, metric: str, weights: Path, images: Path, tmp_path: Path) -> None:
    views = ["views=linear_image"] if command == "linear" else ["views=linear_image", "schedule.warmup_epochs=0"]
    words = [*views, *SETTINGS, f"weights={weights}", f"data.root={images}", f"run.dir={tmp_path / 'run'}"]
    printed = finish(in_two_processes(command, *words, "test.num_crops=1"))
    assert printed.count("written to") == 1
    assert world_sizes(tmp_path / "run") == ["devices: 2", "num_nodes: 1"]
    written = json.loads((tmp_path / "run/report.json").read_text())
    assert 0 <= written["metrics"][metric] <= 1
    with (tmp_path / "run/predictions.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [int(row["index"]) for row in rows] == list(range(8))  # each record once, in order
    assert [Path(row["record"]).parent.name for row in rows] == [row["label"] for row in rows]
    accuracy = sum(row["label"] == row["prediction"] for row in rows) / 8
    assert written["metrics"][metric] == pytest.approx(accuracy)


SCRIPT = """
import sys
from eztorch_sce import api
from eztorch_sce.config.compose import compose
weights, data, *words = sys.argv[1:]
settings = [f"weights={weights}", data, "data.num_workers=0", "accelerator=cpu", "test.num_crops=1"]
extracted = api.extract(compose("extract", [*settings, "untrained=true"]))
before = api.knn(compose("knn", [f"features={extracted.run_dir}"]))
trained = api.pretrain(compose("pretrain", words))
after = api.knn(compose("knn", [f"weights={trained.run_dir}", *settings[1:]]))
runs = [extracted, before, trained, after]
print(*(f"{run.run_dir}={list(run.metrics.values())[0]:.6f}" for run in runs), flush=True)
"""


@pytest.mark.long
def test_a_script_repeated_by_lightning_gets_the_same_directories_and_numbers(
    weights: Path, images: Path, tmp_path: Path
) -> None:
    (tmp_path / "script.py").write_text(SCRIPT)
    words = [word for word in pretraining(images, tmp_path) if not word.startswith("run.dir=")]
    command = [sys.executable, "script.py", str(weights), f"data.root={images}", *words, "trainer.devices=2"]
    printed = finish(command, tmp_path)
    results = re.findall(r"runs/([a-z]+-\d)=(\d\.\d{6}|\d+\.\d{6})", printed)  # both processes may print on one line
    assert len(results) == 2 * 4
    assert len(set(results)) == 4
    directories = ["extract-1", "knn-1", "knn-2", "pretrain-1"]
    assert sorted(path.name for path in (tmp_path / "runs").iterdir()) == directories


@pytest.mark.slow
def test_an_error_of_one_process_ends_all_and_is_printed_once(images: Path, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "import os, sys\nfrom eztorch_sce.cli import main\n"
        "main([*sys.argv[1:], *(['data.root=nowhere'] if os.environ['RANK'] == '1' else [])])\n"
    )
    launcher = in_two_processes("pretrain")[:-1]
    printed = finish([*launcher, str(script), "pretrain", *pretraining(images, tmp_path / "run")], tmp_path, ok=False)
    assert printed.count("invalid configuration") == 1
    assert "- process 1: data.root=" in printed
    assert not (tmp_path / "run").exists()


@pytest.fixture
def first_of_two(monkeypatch: pytest.MonkeyPatch) -> None:
    """Set the environment variables of the first of two processes started by torchrun."""
    for name, value in {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "RANK": "0", "LOCAL_RANK": "0"}.items():
        monkeypatch.setenv(name, value)


@pytest.mark.usefixtures("first_of_two")
def test_settings_that_disagree_with_torchrun_stop_the_command(
    images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main(["pretrain", *pretraining(images, tmp_path / "run"), "trainer.devices=4"])
    printed = capsys.readouterr().err
    assert "trainer.devices=4 and trainer.num_nodes=1, but torchrun started 2 processes (WORLD_SIZE=2" in printed
    assert not (tmp_path / "run").exists()
