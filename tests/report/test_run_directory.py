"""Tests of run directories: which run a command starts, goes on with or refuses, and which process creates them."""

import csv
import json
import os
import shutil
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from image_files import write_two_classes

from eztorch_sce.cli import main
from eztorch_sce.config.compose import compose
from eztorch_sce.config.saved import saved_settings
from eztorch_sce.config.schema import PretrainConfig, validate
from eztorch_sce.errors import ConfigError
from eztorch_sce.locks import FolderLock
from eztorch_sce.models.weights import load_weights
from eztorch_sce.report import run_directory
from eztorch_sce.report.run_changes import batch_norm_note
from eztorch_sce.report.run_decision import AGAIN, FINISHED, GOING_ON, NEW, Decision
from eztorch_sce.report.run_directory import open_run, planned_run_dir, write_by_class
from eztorch_sce.report.unfinished import ago
from eztorch_sce.training.config import TrainerConfig

pytestmark = pytest.mark.xdist_group("run_directory")
SETTINGS = [
    "backbone=r2plus1d_small", "backbone.width=2", "backbone.num_blocks=1", "views=small_image", "views.*.size=16",
    "data.batch_size=6", "data.num_workers=0", "data.pretrain_on=all", "method.queue_size=12", "optimizer=sgd",
    "method.projector.hidden_dim=8", "method.predictor=null", "trainer.accelerator=cpu", "schedule.warmup_epochs=0",
]  # fmt: skip


@pytest.fixture(autouse=True)
def no_directories_of_other_tests(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("EZTORCH_SCE_RUN_DIRS", raising=False)
    monkeypatch.setattr(run_directory, "_opened", [])


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with images, and the run of two epochs on them."""
    folder = tmp_path_factory.mktemp("trained")
    write_two_classes(folder / "images")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        main(["pretrain", "data.root=images", "run.dir=run", *SETTINGS, "trainer.max_epochs=2"])
    return folder


@pytest.fixture
def folder(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a copy of that folder, to work in; its run has another place than when it started."""
    shutil.copytree(trained, tmp_path / "copy")
    monkeypatch.chdir(tmp_path / "copy")
    return tmp_path / "copy"


def decided(*words: str, epochs: int = 2, command: str = "pretrain") -> Decision:
    settings = [*SETTINGS, f"trainer.max_epochs={epochs}"] if command == "pretrain" else []
    return decision_on(compose(command, ["data.root=images", "run.dir=run", *settings, *words]), command)


def decision_on(config: Any, command: str = "pretrain") -> Decision:
    return planned_run_dir(command, validate(config))[1]


def refusal(*words: str, epochs: int = 2, command: str = "pretrain") -> str:
    with pytest.raises(ConfigError) as error:
        decided(*words, epochs=epochs, command=command)
    return str(error.value)


def unfinished(run_dir: Path) -> None:
    """Make a run one that was killed in its last epoch."""
    (run_dir / "report.json").unlink()
    (run_dir / "backbone.safetensors").unlink()


def config_of(run_dir: Path | None) -> PretrainConfig:
    config = PretrainConfig()
    config.run.dir = None if run_dir is None else str(run_dir)
    return config


def become_second_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Set the variables of a process that Lightning starts, which repeats the commands of the first from the start."""
    for name, value in {"WORLD_SIZE": "2", "LOCAL_RANK": "1", "NODE_RANK": "0"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(run_directory, "_opened", [])


def test_a_process_that_repeats_the_commands_gets_the_same_directories(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    configs = [("extract", config_of(None)), ("extract", config_of(None)), ("pretrain", config_of(tmp_path / "run"))]
    configs[-1][1].trainer = TrainerConfig(devices=2, num_nodes=1)
    directories = [open_run(command, config) for command, config in configs]
    assert [path.name for path in directories] == ["extract-1", "extract-2", "run"]
    assert (tmp_path / "run/config.yaml").read_text().startswith("# eztorch-sce pretrain\n")
    become_second_process(monkeypatch)
    assert [open_run(command, config) for command, config in configs] == directories


def test_a_process_on_another_machine_needs_the_directory(monkeypatch: pytest.MonkeyPatch) -> None:
    become_second_process(monkeypatch)
    with pytest.raises(ConfigError, match=r"processes on several machines need a common directory"):
        open_run("pretrain", config_of(None))


def test_one_process_takes_the_next_free_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert [str(open_run("knn", config_of(None))) for _ in range(2)] == ["runs/knn-1", "runs/knn-2"]


def test_a_longer_training_goes_on_and_tells_its_sessions(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["pretrain", "data.root=images", "run.dir=run", *SETTINGS, "trainer.max_epochs=3"]
    main(words)
    printed = capsys.readouterr().err
    assert "going on with run from step 4 of 6 (epoch 3 of 3), saved " in printed
    assert "  trainer.max_epochs  2       3" in printed
    history, report = (json.loads(Path("run", name).read_text()) for name in ("history.json", "report.json"))
    first, second = history["sessions"]
    assert (first["from_step"], first["changes"], second["from_step"]) == (0, [], 4)
    assert second["changes"] == [{"setting": "trainer.max_epochs", "before": "2", "now": "3"}]
    assert report["sessions"] == 2
    assert report["seconds"] == pytest.approx(first["seconds"] + second["seconds"], abs=2)
    assert saved_settings(Path("run/config.yaml"))["trainer"]["max_epochs"] == 3
    rows = Path("run/metrics.csv").read_text().splitlines()[1:]
    before = {file: file.read_bytes() for file in Path("run").rglob("*") if file.is_file()}
    main(words)
    assert "run holds a finished run of these settings" in capsys.readouterr().err
    assert {file: file.read_bytes() for file in Path("run").rglob("*") if file.is_file()} == before
    assert len(rows) == len({row.split(",")[0] for row in rows})


def test_settings_that_make_another_run_are_refused_at_once_with_the_way_to_start_it(folder: Path) -> None:
    unfinished(folder / "run")
    message = refusal(
        "loss.temperature=0.2", "seed=5", "data.num_workers=1", "views.*.flip=0.25", "method.queue_size=6"
    )
    for text in ("loss.temperature=0.2, but the run in run has 0.1", "seed=5, but the run in run has 0"):
        assert text in message
    assert "views.*.flip=0.25" in message
    assert "num_workers=1, but" not in message
    assert "to start a new one: eztorch-sce pretrain config=run" in message
    assert "loss=infonce, but the run in run has sce\n- this would be another run" in refusal("loss=infonce")
    assert "views=6 views, but the run in run has 2 views" in refusal("views=image_multicrop")


def test_settings_that_may_change_are_taken(folder: Path) -> None:
    unfinished(folder / "run")
    may_change = {
        "trainer.max_epochs": "9", "trainer.compile": "true", "trainer.precision": "bf16-mixed", "data.prefetch": "3",
        "data.num_workers": "1", "data.timeout_s": "50", "run.log_every_n_steps": "3", "run.keep": "5",
        "data.decoder": "decord",
    }  # fmt: skip
    decision = decided(*(f"{name}={value}" for name, value in may_change.items()))
    assert decision.kind == GOING_ON
    assert {change.setting: change.now for change in decision.changes} == may_change
    assert {change.kind for change in decision.changes} == {"taken"}


def test_what_was_chosen_from_the_data_is_kept(folder: Path) -> None:
    unfinished(folder / "run")
    open_words = ["data.root=images", "run.dir=run", "data.pretrain_on=all", "data.num_workers=0", "seed=0"]
    open_words += ["method.projector.hidden_dim=8", "method.predictor=null", "trainer.accelerator=cpu"]
    decision = decision_on(compose("pretrain", open_words))
    assert (decision.kind, decision.changes) == (GOING_ON, ())
    config = decision.config
    assert (config.data.batch_size, config.trainer.max_epochs, config.backbone.width) == (6, 2, 2)


def test_other_records_are_refused_with_numbers_and_the_same_elsewhere_are_not(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    unfinished(folder / "run")
    words = ["pretrain", "run.dir=run", *SETTINGS, "trainer.max_epochs=3"]
    shutil.copy("images/a/0.png", "images/a/20.png")
    with pytest.raises(SystemExit):
        main([*words, "data.root=images"])
    assert "data.root=images has 13 records; the run started with 12" in capsys.readouterr().err
    Path("images/a/0.png").unlink()
    with pytest.raises(SystemExit):
        main([*words, "data.root=images"])
    assert "12 records, as many as the run started with, but of other names" in capsys.readouterr().err
    shutil.move("images/a/20.png", "images/a/0.png")
    shutil.copytree("images", "moved")
    write_two_classes(folder / "moved")
    for file in (folder / "moved").rglob("*.png"):
        shutil.copy(folder / "images/a/2.png", file)
    capsys.readouterr()
    with pytest.raises(SystemExit):
        main([*words, "data.root=moved"])
    assert "12 records of the same names as those of the run, but other content" in capsys.readouterr().err
    write_two_classes(folder / "moved")
    main([*words, "data.root=moved"])
    assert [each["setting"] for each in json.loads(Path("run/history.json").read_text())["sessions"][-1]["changes"]]


def test_a_run_without_a_checkpoint_starts_again_with_any_settings(folder: Path) -> None:
    unfinished(folder / "run")
    shutil.rmtree("run/checkpoints")
    assert decided("loss.temperature=0.3", "seed=4").kind == AGAIN
    Path("run/config.yaml").write_text("# eztorch-sce pretrain\nloss: [")
    assert decided().kind == AGAIN
    Path("run/backbone-epoch-0010.safetensors").touch()
    assert "holds weights (backbone-epoch-0010.safetensors) but no checkpoint to go on from" in refusal()


def test_what_was_left_behind_is_removed_when_a_run_starts_again(folder: Path) -> None:
    unfinished(folder / "run")
    shutil.rmtree("run/checkpoints")
    Path("run/notes.txt").write_text("mine")
    main(["pretrain", "data.root=images", "run.dir=run", *SETTINGS, "trainer.max_epochs=1", "seed=3"])
    rows = Path("run/metrics.csv").read_text().splitlines()[1:]
    assert [row.split(",")[0] for row in rows] == ["1"]
    sessions = json.loads(Path("run/history.json").read_text())["sessions"]
    assert [session["from_step"] for session in sessions] == [0, 0]
    assert saved_settings(Path("run/config.yaml"))["seed"] == 3
    assert Path("run/notes.txt").read_text() == "mine"


@pytest.mark.parametrize(
    ("damage", "expected"),
    [
        ("rm config.yaml", "holds a run (checkpoints, history.json) without its config.yaml: copy config.yaml back"),
        ("damage config.yaml", "config.yaml is damaged, so it is not known whether the settings are still the same"),
        ("other command", "already contains a run of finetune: choose another directory"),
        (
            "last.ckpt",
            "holds the last.ckpt of an earlier version, which cannot go on: start a new run with `config=run",
        ),
    ],
)
def test_a_directory_that_cannot_be_used_is_explained(folder: Path, damage: str, expected: str) -> None:
    unfinished(folder / "run")
    file = Path("run/config.yaml")
    if damage == "rm config.yaml":
        file.unlink()
    elif damage == "damage config.yaml":
        file.write_bytes(file.read_bytes()[:200] + b"\x00\xff{[")
    elif damage == "other command":
        file.write_text("# eztorch-sce finetune\n" + file.read_text().partition("\n")[2])
    else:
        shutil.rmtree("run/checkpoints")
        Path("run/last.ckpt").touch()
    before = {each: each.read_bytes() for each in Path("run").rglob("*") if each.is_file()}
    assert expected in refusal()
    assert {each: each.read_bytes() for each in Path("run").rglob("*") if each.is_file()} == before


def test_a_directory_with_other_files_is_refused_and_one_with_a_log_is_not(folder: Path) -> None:
    Path("new").mkdir()
    Path("new/slurm-12.out").touch()
    assert decided("run.dir=new").kind == NEW
    Path("new/paper.tex").touch()
    assert "run.dir=new holds other files (paper.tex): choose a new or empty directory" in refusal("run.dir=new")
    assert "run.dir=new/paper.tex/run cannot be created because" in refusal("run.dir=new/paper.tex/run")


def test_a_finished_run_of_other_data_or_settings_is_refused(folder: Path) -> None:
    assert decided().kind == FINISHED
    assert decided(epochs=1).kind == FINISHED
    assert decided(f"data.root={history_folder()}/images").kind == FINISHED  # the same place
    shutil.copytree("images", "others")
    assert "data.root=others, but the run in run has images" in refusal("data.root=others")
    shutil.rmtree("run/checkpoints")
    assert "has no checkpoint that a longer training could go on from" in refusal(epochs=3)


def test_weights_of_an_unfinished_run_say_how_far_it_is_and_how_it_goes_on(folder: Path) -> None:
    unfinished(folder / "run")
    with pytest.raises(ConfigError) as error:
        load_weights("run")
    message = str(error.value)
    assert "its training has not finished; it is at step 4 of 4 (epoch 2 of 2), saved " in message
    assert "pretrain data.root=images backbone=r2plus1d_small" in message.partition("; to go on: ")[2]
    assert message.endswith("run.dir=" + str(folder / "run") + f" (in {history_folder()})")
    lock = FolderLock(Path("run"))
    lock.sign()
    with pytest.raises(ConfigError, match=rf"its training is running \(process {os.getpid()} on "):
        load_weights("run")
    lock.release()


def history_folder() -> str:
    folder: str = json.loads(Path("run/history.json").read_text())["sessions"][-1]["folder"]
    return folder


def test_a_clock_that_was_set_back_gives_a_time_instead_of_an_age() -> None:
    assert ago(time.time() - 60) == "60 s ago"
    assert ago(2e10) == "at 2603-10-11 11:33 UTC"


def test_a_damaged_history_is_told_and_written_anew(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("run/history.json").write_text('{"sessions": [{"start')
    main(["pretrain", "data.root=images", "run.dir=run", *SETTINGS, "trainer.max_epochs=3"])
    assert "run/history.json is damaged: the earlier sessions of the run are not known" in capsys.readouterr().err
    assert [each["end"] for each in json.loads(Path("run/history.json").read_text())["sessions"]] == ["finished"]


def test_a_new_run_starts_from_the_backbone_of_an_old_one(folder: Path) -> None:
    words = ["pretrain", "data.root=images", "config=run", "weights=run", "loss.temperature=0.3", "run.dir=new"]
    main([*words, "trainer.max_epochs=1", "optimizer.lr=1e-9"])
    old, new = load_weights("run"), load_weights("new")
    for name, values in old.state.items():
        if values.is_floating_point() and "running" not in name:
            torch.testing.assert_close(new.state[name], values, atol=1e-5, rtol=0)
    assert new.provenance is not None
    assert [each.num_records for each in new.provenance.chain()] == [12, 12]
    assert json.loads(Path("new/report.json").read_text())["protocol"]["started_from"]["sha256"] == old.sha256


def test_an_evaluation_that_is_finished_says_so(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["knn", "weights=run", "data.root=images", "data.num_workers=0", "run.dir=knn", "k=2"]
    main(words)
    first = capsys.readouterr()
    assert "knn_top1" in first.out
    main(words)
    again = capsys.readouterr()
    assert (again.out, "knn holds a finished run of these settings" in again.err) == ("", True)
    with pytest.raises(SystemExit):
        main([*words, "k=1"])
    assert "k=1, but the run in knn has 2" in capsys.readouterr().err
    shutil.copy("run/backbone.safetensors", "run/backbone-epoch-0001.safetensors")
    Path("knn/report.json").unlink()  # as if it had been killed
    main([*words, "k=1"])
    once_more = capsys.readouterr()
    assert "starting again: the run in knn ended before it had finished" in once_more.err
    assert "knn_top1" in once_more.out


def test_metrics_by_class_are_written_as_csv(tmp_path: Path) -> None:
    write_by_class(tmp_path, {"up": {"queries": 2, "AP": 0.5}, "down": {"queries": 3, "AP": 0.25}})
    with (tmp_path / "by_class.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert rows == [{"class": "up", "queries": "2", "AP": "0.5"}, {"class": "down", "queries": "3", "AP": "0.25"}]


@pytest.mark.parametrize(
    ("words", "samples"),
    [
        (["trainer.accumulate=2"], 3),
        (["trainer.devices=3", "trainer.sync_batchnorm=false"], 2),
        (["trainer.devices=3"], None),  # synchronized
        (["trainer.max_epochs=4"], None),
    ],
)
def test_going_on_with_other_batch_statistics_is_said(
    words: list[str], samples: int | None, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("eztorch_sce.machine.can_be_repeated", lambda: True)  # workers of pytest cannot
    (folder / "run/report.json").unlink()
    decision = decided(*words)
    notes = batch_norm_note(decision.changes, decision.config)
    expected = f"batch norm now takes its statistics over {samples} samples instead of 6"
    assert len(notes) == (samples is not None)
    assert all(expected in note for note in notes)
