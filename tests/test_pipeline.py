"""End-to-end tests: the installed command on real MP4 files, in real processes."""

import csv
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import command_line
import pytest
import torch
from PIL import Image

from eztorch_sce.curation.synthetic import MovingShapes, write_moving_shapes
from eztorch_sce.models.weights import load_weights
from eztorch_sce.optim.sgd import SGDConfig
from eztorch_sce.training.checkpoint_files import progress_of

COMMAND = [str(Path(sys.executable).with_name("eztorch-sce"))]
TINY = [
    "backbone=r2plus1d_small", "backbone.width=4", "backbone.num_blocks=1", "views.*.size=32", "data.num_frames=4",
    "data.clip_s=0.5", "data.batch_size=8", "data.num_workers=1", "method.queue_size=32", "optimizer=sgd",
    "trainer.max_epochs=2", "schedule.warmup_epochs=0", "run.log_every_n_steps=2",
]  # fmt: skip
ONE_VIEW = ["test.num_clips=1", "test.num_crops=1", "data.num_workers=0"]

Here = Callable[..., str]


def run(*words: object, ok: bool = True) -> subprocess.CompletedProcess[str]:
    done = subprocess.run([*COMMAND, *map(str, words)], capture_output=True, text=True, timeout=300)
    assert (done.returncode == 0) == ok, done.stdout + done.stderr
    return done


@pytest.fixture
def here(capsys: pytest.CaptureFixture[str]) -> Here:
    """Return a function that runs a command in this process, which saves seconds, and returns what it prints."""

    def run_here(*words: object, ok: bool = True) -> str:
        code, out, err = command_line.run(capsys, *map(str, words))
        assert (code == 0) == ok, out + err
        return out + err

    return run_here


def refusal(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    """Return what a command prints that refuses its settings, and check its status."""
    code, _, err = command_line.run(capsys, *map(str, words))
    assert code == 2
    return err


def report(run_dir: Path) -> dict[str, dict[str, Any]]:
    content: dict[str, dict[str, Any]] = json.loads((run_dir / "report.json").read_text())
    return content


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("videos")
    write_moving_shapes(folder, MovingShapes(16, 8, size=32, num_scenes=1), num_processes=1)
    return folder


@pytest.fixture(scope="module")
def pretrained(videos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run_dir = tmp_path_factory.mktemp("runs") / "pretrain"
    done = run("pretrain", f"data.root={videos}", f"run.dir={run_dir}", "views=motion", *TINY)
    assert "views/s" in done.stderr
    assert "data wait" in done.stderr
    return run_dir


def test_a_run_directory_contains_settings_versions_and_results(pretrained: Path) -> None:
    names = {path.name for path in pretrained.iterdir()}
    assert {
        "config.yaml",
        "versions.json",
        "metrics.csv",
        "tensorboard",
        "checkpoints",
        "history.json",
        "backbone.safetensors",
        "report.json",
    } <= names
    with (pretrained / "metrics.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert [row["step"] for row in rows] == ["1", "3"]
    assert all(float(row["loss"]) > 0 and float(row["views_per_s"]) > 0 for row in rows)
    peak = SGDConfig().lr * 8 / 256
    assert [float(row["lr"]) / peak for row in rows] == pytest.approx([0.8536, 0.1464], rel=1e-3)  # cosine, steps 1, 3
    assert report(pretrained)["protocol"]["records"] == 16  # only train/, not test/
    weights = load_weights(str(pretrained))
    assert (weights.spec.input, weights.spec.num_frames, weights.spec.size) == ("difference", 4, 32)


def test_the_same_seed_gives_the_same_weights_with_any_workers(pretrained: Path, videos: Path, tmp_path: Path) -> None:
    run("pretrain", f"data.root={videos}", f"run.dir={tmp_path / 'again'}", "views=motion", *TINY, "data.num_workers=0")
    first, again = (load_weights(str(folder)).state for folder in (pretrained, tmp_path / "again"))
    assert all(torch.equal(first[key], again[key]) for key in first)


def test_every_evaluation_runs_on_extracted_features(
    pretrained: Path, videos: Path, tmp_path: Path, here: Here
) -> None:
    extracted = tmp_path / "features"
    here("extract", f"weights={pretrained}", f"data.root={videos}", f"run.dir={extracted}", *ONE_VIEW)
    settings = {"svm": ["folds=2"], "few-shot": ["shots=2", "queries=1", "episodes=10"]}  # two records per class
    metrics = {"knn": "knn_top1", "linear": "linear_top1", "retrieve": "mAP", "svm": "svm_mAP"}
    metrics["few-shot"] = "few_shot_top1"
    commands = [
        [name, f"features={extracted}", f"run.dir={tmp_path / name}", *settings.get(name, [])] for name in metrics
    ]
    in_one_process = (
        "import json, sys; from eztorch_sce.cli import main\n"
        "for words in json.loads(sys.argv[1]): main(words)\n"
        "assert 'pytorch_lightning' not in sys.modules"  # whose import takes most of the time of these commands
    )
    subprocess.run([sys.executable, "-c", in_one_process, json.dumps(commands)], check=True, timeout=300)
    for name, metric in metrics.items():
        written = report(tmp_path / name)
        assert 0 <= written["metrics"][metric] <= 1
        assert written["protocol"]["weights"]["sha256"] == load_weights(str(pretrained)).sha256
        assert written["protocol"]["clips"] == 1
    here("knn", f"weights={pretrained}", f"data.root={videos}", f"run.dir={tmp_path / 'direct'}", *ONE_VIEW)
    assert report(tmp_path / "direct")["metrics"] == report(tmp_path / "knn")["metrics"]
    listed = json.loads((pretrained / "evaluations.json").read_text())
    evaluations = [*metrics, "direct"]
    assert [(pretrained / path).resolve() for path in listed[-6:]] == [tmp_path / name for name in evaluations]


def test_a_classifier_file_reproduces_the_test_accuracy(
    pretrained: Path, videos: Path, tmp_path: Path, here: Here
) -> None:
    shared = [f"data.root={videos}", "data.num_workers=0", "test.num_clips=2", "test.num_crops=3", "data.batch_size=8"]
    here(
        "finetune", f"weights={pretrained}", f"run.dir={tmp_path / 'tuned'}", *shared, "trainer.max_epochs=1",
        "views.0.flip=0",
    )  # fmt: skip
    here("test", f"weights={tmp_path / 'tuned'}", f"run.dir={tmp_path / 'tested'}", *shared)
    tuned, tested = report(tmp_path / "tuned")["metrics"], report(tmp_path / "tested")["metrics"]
    assert tuned["test_top1"] == tested["test_top1"]
    of_tuned, of_tested = ((tmp_path / name / "predictions.csv").read_text() for name in ("tuned", "tested"))
    assert of_tuned == of_tested
    sample = torch.load(tmp_path / "tested/sample.pt", weights_only=True)
    assert sample["split"].unique().tolist() == [1]  # the train split is not looked at
    assert json.loads((tmp_path / "tuned/evaluations.json").read_text()) == ["../tested"]


def test_images_are_pretrained_and_evaluated_like_videos(tmp_path: Path, here: Here) -> None:
    for number in range(12):
        (tmp_path / f"data/{'ab'[number % 2]}").mkdir(parents=True, exist_ok=True)
        image = torch.randint(0, 255, (20, 24, 3), generator=torch.Generator().manual_seed(number), dtype=torch.uint8)
        Image.fromarray(image.numpy()).save(tmp_path / f"data/{'ab'[number % 2]}/{number}.png")
    root = f"data.root={tmp_path / 'data'}"
    done = here(
        "pretrain", root, f"run.dir={tmp_path / 'run'}", "recipe=cifar10_resnet18", "data.layout=auto",
        "data.batch_size=6", "data.num_workers=0", "method.queue_size=16", "run.save_every_n_epochs=1",
        "method.bn_splits=2", "trainer.max_epochs=1",
    )  # fmt: skip
    warning = "note: schedule.warmup_epochs=5 is longer than trainer.max_epochs=1: the learning rate does not reach"
    assert done.count(warning) == 1
    weights = f"weights={tmp_path / 'run/backbone-epoch-0001.safetensors'}"
    here("knn", weights, root, f"run.dir={tmp_path / 'knn'}", *ONE_VIEW)
    assert report(tmp_path / "knn")["protocol"]["input"]["num_frames"] == 1


def test_training_skips_lists_and_limits_unreadable_files(
    pretrained: Path, videos: Path, tmp_path: Path, here: Here
) -> None:
    listed = tmp_path / "list.csv"
    readable = sorted((videos / "train").rglob("*.mp4"))
    (tmp_path / "broken.mp4").write_bytes(readable[0].read_bytes()[:300])
    listed.write_text(
        "\n".join(["path,label", *(f"{p},{p.parent.name}" for p in readable), f"{tmp_path}/broken.mp4,up"])
    )
    words = ["pretrain", f"data.list={listed}", "data.pretrain_on=all", "views=motion", *TINY]
    stopped = here(*words, f"run.dir={tmp_path / 'strict'}", ok=False)
    assert "broken.mp4" in stopped
    assert "data.max_unreadable=0.05" in stopped
    here(*words, f"run.dir={tmp_path / 'lax'}", "data.max_unreadable=0.1")
    with (tmp_path / "lax/unreadable.csv").open() as stream:
        assert [row["path"] for row in csv.DictReader(stream)] == [str(tmp_path / "broken.mp4")]
    evaluation = here(
        "knn",
        f"weights={pretrained}",
        f"data.list={listed}",
        f"run.dir={tmp_path / 'knn'}",
        *ONE_VIEW,
        ok=False,
    )
    assert "broken.mp4" in evaluation
    assert "Traceback" not in evaluation


@pytest.mark.parametrize("command", [pytest.param("pretrain", marks=pytest.mark.long), "finetune"])
def test_two_processes_survive_a_batch_that_one_of_them_cannot_read(command: str, videos: Path, tmp_path: Path) -> None:
    lists = {split: tmp_path / f"{split}.csv" for split in ("train", "test")}
    for split, file in lists.items():
        readable = sorted((videos / split).rglob("*.mp4"))
        file.write_text("\n".join(["path,label", *(f"{path},{path.parent.name}" for path in readable)]))
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"no video")
    lists["train"].write_text(lists["train"].read_text() + f"\n{broken},down")
    others = ["views=motion", *TINY] if command == "pretrain" else [*TINY[:3], *TINY[4:7], "views.0.size=32"]
    words = [*others, f"data.list={lists['train']}", f"data.test_list={lists['test']}", "data.max_unreadable=0.1"]
    words += ["trainer.devices=2", "trainer.accelerator=cpu", "trainer.max_epochs=3", "data.num_workers=0"]
    run(command, *words, "data.batch_size=4", f"run.dir={tmp_path / 'run'}")  # two samples per process
    with (tmp_path / "run/unreadable.csv").open() as stream:
        assert {row["path"] for row in csv.DictReader(stream)} == {str(broken)}
    progress = progress_of(tmp_path / "run")
    assert progress is not None
    assert progress.step == 3 * (17 // 4)


def test_an_image_backbone_on_videos_is_rejected_before_the_run_directory_is_created(
    videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [f"data.root={videos}", f"run.dir={tmp_path / 'x'}", *TINY[3:], "backbone=resnet18"]
    assert "data.num_frames=1" in refusal(capsys, "pretrain", *words)
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize("words", [["data.root=/nowhere"], ["data.list=/nowhere.csv"], ["data.root={empty}"]])
def test_missing_data_is_named(words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "empty").mkdir()
    words = [word.format(empty=tmp_path / "empty") for word in words]
    assert words[0].split("=")[1] in refusal(capsys, "pretrain", *words, f"run.dir={tmp_path / 'x'}")


def test_hydra_flags_and_sweeps_work(videos: Path, tmp_path: Path) -> None:
    shown = run("pretrain", f"data.root={videos}", "--cfg", "job", "loss.temperature=0.3")
    assert "temperature: 0.3" in shown.stdout
    words = [f"data.root={videos}", "views=motion", *TINY, "trainer.max_epochs=1", f"run.dir={tmp_path / 'sweep'}"]
    run("pretrain", "-m", "seed=1,2", *words)
    assert {p.parent.name for p in (tmp_path / "sweep").glob("*/report.json")} == {"0", "1"}


def test_tools_run_the_same_commands(tmp_path: Path) -> None:
    tool = Path(__file__).parents[1] / "tools/pretrain.py"
    done = subprocess.run([sys.executable, str(tool), "data.rot=x"], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 2
    assert "did you mean data.root?" in done.stderr


def test_env_and_recipes_print_their_tables() -> None:
    assert "decoder pyav" in run("env").stdout
    assert "cifar10_resnet18" in run("recipes").stdout
    assert "target_temperature: 0.07" in run("recipes", "imagenet_resnet50_100ep").stdout
    assert "did you mean k400_r3d50?" in run("recipes", "k400_r3d5x", ok=False).stderr
    assert "usage" in run().stdout
    assert "did you mean pretrain?" in run("pretrian", ok=False).stderr


def test_the_demo_runs_at_toy_size(write_video: Callable[..., Path], tmp_path: Path) -> None:
    done = run("demo", f"run.dir={tmp_path / 'demo'}", "num_train=64", "num_test=16", "max_epochs=1")
    assert "pretrained" in done.stdout
    page = tmp_path / "demo/report.html"
    assert f"page: {page}" in done.stdout
    assert "image-" in page.read_text()  # thumbnails of the videos
    assert {"untrained_knn_top1", "pretrained_knn_top1"} <= set(report(tmp_path / "demo")["metrics"])
