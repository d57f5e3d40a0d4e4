"""Tests of `study` as a process: it is killed, goes on, concludes, and refuses other settings."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from eztorch_sce.cli import main
from eztorch_sce.config.compose import compose
from eztorch_sce.config.schema import StudyConfig
from eztorch_sce.curation.synthetic import MovingShapes, write_moving_shapes
from eztorch_sce.report.run_files import RunFiles
from eztorch_sce.report.sections.study import study as section
from eztorch_sce.studies.stages import Study
from eztorch_sce.studies.state import State

pytestmark = pytest.mark.xdist_group("study")
SETTINGS = ("minutes=0.4", "data.num_workers=0", "accelerator=cpu")


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("shapes")
    write_moving_shapes(root, MovingShapes(num_train=32, num_test=24, size=32, num_scenes=1, scene_frames=8))
    return root


def start(folder: Path, run_dir: Path, *words: str) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "eztorch_sce", "study", str(folder), f"run.dir={run_dir}", *SETTINGS, *words]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment)


def content(run_dir: Path) -> dict[str, Any]:
    file = run_dir / "study.json"
    return json.loads(file.read_text()) if file.exists() else {}


@pytest.fixture(scope="module")
def finished(videos: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any], str]:
    """Stop a study in its first pretraining, and continue it; return its directory, its state then, and its output."""
    run_dir = tmp_path_factory.mktemp("runs") / "study"
    process = start(videos, run_dir)
    pretraining = run_dir / "pretrain-motion"
    while process.poll() is None and not (pretraining / "views.json").exists():  # of its first batch
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    process.communicate()
    state = content(run_dir)
    output, _ = start(videos, run_dir).communicate()
    return run_dir, state, output


def test_a_stopped_study_goes_on_from_its_checkpoint_and_keeps_what_was_finished(
    finished: tuple[Path, dict[str, Any], str],
) -> None:
    run_dir, killed, output = finished
    done = {name: stage["took_s"] for name, stage in killed["stages"].items() if stage.get("done")}
    assert {"look at the data", "measure motion", "evaluate untrained motion"} <= done.keys()
    assert "pretrain motion" not in done
    assert "continuing the study" in output
    after = content(run_dir)
    assert {name: after["stages"][name]["took_s"] for name in done} == done
    assert after["spent_s"] > killed["spent_s"]
    history = json.loads((run_dir / "pretrain-motion" / "history.json").read_text())
    assert history["sessions"][-1]["from_step"] > 0


def test_a_study_ends_with_paired_differences_a_conclusion_and_a_page(
    finished: tuple[Path, dict[str, Any], str],
) -> None:
    run_dir = finished[0]
    after = content(run_dir)
    found = after["conclusion"]
    assert found["verdict"] in ("helps", "unknown", "chance", "short")
    assert found["headline"] in " ".join((run_dir / "study.txt").read_text().replace("\n  ", " ").splitlines())
    first = after["comparisons"][0]
    assert (first["first"], first["second"]) == ("motion", "untrained motion")
    metrics = {name: each["metrics"]["knn_top1"] for name, each in after["networks"].items()}
    by_name = {each["metric"]: each for each in first["differences"]}
    assert by_name["knn_top1"]["mean"] == pytest.approx(metrics["motion"] - metrics["untrained motion"])
    assert (run_dir / "report.html").stat().st_size > 10_000
    lines = (run_dir / "study.txt").read_text().splitlines()
    assert max(len(line) for line in lines if not line.startswith("eztorch-sce ")) <= 80  # but the command is one line
    data = section([RunFiles(run_dir, "study")], None)
    assert data is not None
    assert data.data["headline"] == found["headline"]


def test_a_fine_tuning_that_fails_is_noted_and_ends_no_study(
    finished: tuple[Path, dict[str, Any], str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study_dir = shutil.copytree(finished[0], tmp_path / "study")
    (study_dir / "pretrain-motion/backbone.safetensors").unlink()
    shutil.rmtree(study_dir / "motion/finetune", ignore_errors=True)
    state = State(study_dir, content(study_dir) | {"finetune_epochs": 1})
    for name in ("fine-tune motion", "fine-tune untrained motion"):
        state.content["stages"].pop(name, None)
    config = compose("study", [f"data.root={finished[0]}", f"run.dir={study_dir}", *SETTINGS])
    assert isinstance(config, StudyConfig)
    study = Study(config, study_dir, state)
    study.finetune()
    study.conclude()
    failure = state.content["stages"]["fine-tune motion"]["failed"]
    assert "weights=" in failure
    assert f"fine-tune motion failed: {failure}" in capsys.readouterr().err
    assert state.content["conclusion"]["verdict"] in ("helps", "unknown", "chance", "short")


def test_another_time_in_the_same_directory_is_refused(
    finished: tuple[Path, dict[str, Any], str], videos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["study", str(videos), f"run.dir={finished[0]}", *(word.replace("=0.4", "=2") for word in SETTINGS)])
    assert ended.value.code == 2
    assert "minutes=2 was 0.4" in capsys.readouterr().err
