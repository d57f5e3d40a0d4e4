"""Tests of the settings that are chosen from the data."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf
from PIL import Image

from eztorch_sce import api
from eztorch_sce.config.compose import compose, settings_of
from eztorch_sce.config.fit import Choice, fit_finetuning, fit_to_data, fit_to_survey
from eztorch_sce.config.recipes import recipes
from eztorch_sce.config.schema import FinetuneConfig, PretrainConfig, validate
from eztorch_sce.data.config import DataConfig
from eztorch_sce.data.sources.manifest import Manifest
from eztorch_sce.data.sources.records import Records
from eztorch_sce.data.survey import Survey
from eztorch_sce.errors import ConfigError
from eztorch_sce.evaluation.linear import LinearConfig
from eztorch_sce.models.backbones.base import as_backbone
from eztorch_sce.registry import name_of
from eztorch_sce.training.config import TrainerConfig

CPU = "trainer.accelerator=cpu"
GIB = 2**30


def write_images(folder: Path, count: int, size: tuple[int, int]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        Image.new("RGB", size, (number % 256, 0, 0)).save(folder / f"{number}.png")
    return folder


def fitted(*overrides: str) -> tuple[Any, list[Choice]]:
    config = validate(compose("pretrain", [CPU, *overrides]))
    return fit_to_data(config, config.data.open_for_pretraining(config.seed).train)


def on_gpus(devices: int = 1, **changes: Any) -> PretrainConfig:
    trainer = TrainerConfig(accelerator="gpu", devices=devices, num_nodes=1, precision="32-true", sync_batchnorm=True)
    return PretrainConfig(data=DataConfig(root="x"), trainer=trainer, **changes)


def settings(run_dir: Path) -> dict[str, Any]:
    content: Any = OmegaConf.to_container(OmegaConf.load(run_dir / "config.yaml"))
    return dict(content)


def open_settings(config: PretrainConfig) -> list[str]:
    method: Any = config.method
    values = {
        "views": config.views or None,
        "backbone": config.backbone,
        "optimizer": config.optimizer,
        "data.num_frames": config.data.num_frames,
        "data.clip_s": config.data.clip_s if (config.data.num_frames or 2) > 1 else 0,
        "data.batch_size": config.data.batch_size,
        "trainer.max_epochs": config.trainer.max_epochs,
        "method.queue_size": method.queue_size,
        "method.momentum": method.momentum,
        "schedule.warmup_epochs": config.schedule.warmup_epochs,
    }
    return [name for name, value in values.items() if value is None]


def test_small_images_get_a_resnet_for_small_images_and_a_queue_shorter_than_the_data(tmp_path: Path) -> None:
    config, choices = fitted(f"data.root={write_images(tmp_path / 'images', 400, (32, 32))}")
    assert (name_of(config.backbone), config.backbone.small_input) == ("resnet18", True)
    assert [(view.size, view.stats, view.temporal_difference) for view in config.views] == [(32, "image", 0)] * 2
    assert config.data.num_frames == 1
    assert (config.data.batch_size, config.method.queue_size) == (32, 96)  # a quarter of 400, in whole batches
    assert 300 <= config.trainer.max_epochs * (400 // 32) <= 500
    assert 0.89 < config.method.momentum < 0.95
    assert open_settings(config) == []
    assert "backbone=resnet18 backbone.small_input=true: images of 32 px" in map(str, choices)
    assert "method.queue_size=96: a quarter of 400 records, rounded to whole batches" in map(str, choices)


def test_images_get_a_resnet_and_image_views(tmp_path: Path) -> None:
    config, _ = fitted(f"data.root={write_images(tmp_path / 'images', 20, (300, 200))}")
    assert (name_of(config.backbone), config.backbone.small_input) == ("resnet18", False)
    assert [(view.size, view.stats, view.input) for view in config.views] == [(96, "image", "rgb")] * 2
    assert (config.data.batch_size, config.method.queue_size) == (8, 8)


def test_short_videos_get_clips_no_longer_than_themselves(write_video: Callable[..., Path], tmp_path: Path) -> None:
    for number in range(4):
        write_video(tmp_path / "videos" / f"{number}.mp4", num_frames=15)  # half a second
    config, choices = fitted(f"data.root={tmp_path / 'videos'}")
    assert (config.data.clip_s, config.data.num_frames) == (0.5, 8)
    assert as_backbone(config.backbone.build()).takes_clips
    assert config.data.batch_size == 2
    assert "data.clip_s=0.5: videos of 0.5 s, taken whole" in map(str, choices)


def test_frame_folders_are_videos_and_few_frames_stay_few(tmp_path: Path) -> None:
    for number in range(40):
        write_images(tmp_path / "frames" / "class" / f"{number}", 5, (80, 64))
    config, _ = fitted(f"data.root={tmp_path / 'frames'}")
    assert (config.data.clip_s, config.data.num_frames) == (0.2, 4)
    assert config.views[0].input == "difference"  # with so few videos, appearance alone would tell them apart
    assert as_backbone(config.backbone.build()).takes_clips
    assert (config.data.batch_size, config.method.queue_size) == (8, 8)


def test_long_videos_get_the_clips_of_the_papers_and_many_videos_color_views() -> None:
    config, _ = fit_to_survey(on_gpus(), Survey("video", 100_000, 240, 10.0, 25.0), None)
    assert (config.data.clip_s, config.data.num_frames, name_of(config.backbone)) == (2.56, 8, "r3d18")
    assert config.views[0].input == "rgb"
    few, _ = fit_to_survey(on_gpus(), Survey("video", 1_000, 240, 4.0, 25.0), None)
    assert (few.data.clip_s, few.data.num_frames, few.views[0].input) == (4.0, 16, "difference")


def test_what_is_set_by_hand_stays_and_the_rest_follows(tmp_path: Path) -> None:
    root = f"data.root={write_images(tmp_path / 'images', 40, (32, 32))}"
    config, choices = fitted(root, "backbone=resnet50", "data.batch_size=10", "views.*.flip=0", "optimizer.lr=0.5")
    assert (name_of(config.backbone), config.data.batch_size, config.optimizer.lr) == ("resnet50", 10, 0.5)
    assert [(view.size, view.flip) for view in config.views] == [(32, 0)] * 2
    assert config.method.queue_size == 10
    assert config.adjust == {}
    assert not any(choice.settings.startswith(("backbone", "data.batch_size")) for choice in choices)
    large, _ = fitted(root, "views=image")  # the network follows the size of the views
    assert not large.backbone.small_input


def test_an_image_backbone_on_videos_takes_single_frames(write_video: Callable[..., Path], tmp_path: Path) -> None:
    write_video(tmp_path / "videos" / "1.mp4")
    write_video(tmp_path / "videos" / "2.mp4")
    config, _ = fitted(f"data.root={tmp_path / 'videos'}", "backbone=resnet18")
    assert (config.data.num_frames, config.views[0].input) == (1, "rgb")


def test_the_same_choices_are_made_in_python(tmp_path: Path) -> None:
    root = str(write_images(tmp_path / "images", 40, (32, 32)))
    plain = validate(PretrainConfig(data=DataConfig(root=root), trainer=TrainerConfig(accelerator="cpu")))
    assert settings_of(fit_to_data(plain, plain.data.open().train)[0]) == settings_of(fitted(f"data.root={root}")[0])


@pytest.mark.parametrize("name", [name for name, header in recipes().items() if header["command"] == "pretrain"])
def test_a_recipe_leaves_nothing_open(name: str) -> None:
    config = validate(compose("pretrain", ["data.root=x", f"recipe={name}", "trainer.devices=1", CPU]))
    assert fit_to_data(config, Manifest(Records.of([]), [], "nothing")) == (config, [])


def test_a_batch_fits_into_the_memory_of_the_device_and_divides_among_devices() -> None:
    images = Survey("image", 100_000, 64)
    batches = [
        fit_to_survey(on_gpus(devices), images, memory)[0].data.samples_per_step
        for devices, memory in ((1, 80 * GIB), (1, 4 * GIB), (4, 4 * GIB))
    ]
    assert batches[0] == 256
    assert 8 <= batches[1] < 256
    assert batches[2] == pytest.approx(4 * batches[1], abs=64)
    assert batches[2] % 4 == 0


def test_large_data_get_the_longest_published_queue_and_many_steps() -> None:
    config, _ = fit_to_survey(on_gpus(8), Survey("image", 1_281_167, 375), None)
    assert (config.method.queue_size, config.method.momentum) == (65536, 0.99)
    assert (config.trainer.max_epochs, name_of(config.optimizer)) == (200, "sgd")
    assert config.schedule.warmup_epochs == 5


def test_a_loss_without_negatives_gets_no_queue(tmp_path: Path) -> None:
    config, _ = fitted(f"data.root={write_images(tmp_path / 'images', 20, (32, 32))}", "loss=cosine")
    assert config.method.queue_size == 0


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["views.*.flip=2"], r"views\.\*\.flip=2 must be between 0 and 1"),
        (["views.*.flp=0"], r"views\.\*\.flp is not a setting of any view; did you mean views\.\*\.flip"),
        (["views.0.flip=0"], r"views\.0\.flip needs named views, such as views=image; views\.\*\.flip applies"),
        (["optimizer.lrr=1"], r"optimizer\.lrr is not a setting of any optimizer; did you mean optimizer\.lr"),
        (["views.*.flp=0", "seeed=1"], r"views\.\*\.flp is not"),
    ],
)
def test_a_setting_of_an_open_choice_is_checked(overrides: list[str], expected: str) -> None:
    with pytest.raises(ConfigError, match=expected):
        compose("pretrain", ["data.root=x", *overrides])


def test_a_setting_that_the_choice_does_not_have_is_an_error(tmp_path: Path) -> None:
    root = write_images(tmp_path / "images", 20, (32, 32))
    with pytest.raises(ConfigError, match=r"backbone\.width is not a setting of resnet18, which fits these data"):
        fitted(f"data.root={root}", "backbone.width=8")


def test_one_record_cannot_be_compared(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="needs at least 2"):
        fitted(f"data.root={write_images(tmp_path / 'images', 1, (32, 32))}")


def test_a_run_writes_what_it_chose_and_a_resumed_run_keeps_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = write_images(tmp_path / "images", 20, (40, 40))
    small = ["backbone=r2plus1d_small", "backbone.width=2", "backbone.num_blocks=1", "method.projector.hidden_dim=8"]
    words = [f"data.root={root}", f"run.dir={tmp_path / 'run'}", CPU, "data.num_workers=0", *small]
    words += ["method.predictor=null", "optimizer.weight_decay=0.1"]
    report = api.pretrain(compose("pretrain", [*words, "trainer.max_epochs=1"]))
    saved = settings(tmp_path / "run")
    assert saved["optimizer"]["weight_decay"] == 0.1
    assert (saved["data"]["batch_size"], saved["method"]["queue_size"], saved["views"][0]["size"]) == (8, 8, 32)
    printed = capsys.readouterr().err.split()
    assert all(word in printed for choice in report.protocol["chosen"] for word in choice.split())

    api.pretrain(compose("pretrain", [*words, "trainer.max_epochs=2"]))
    resumed = settings(tmp_path / "run")
    assert [resumed[name] for name in ("views", "optimizer", "method")] == [
        saved[name] for name in ("views", "optimizer", "method")
    ]
    assert (resumed["data"]["batch_size"], resumed["trainer"]["max_epochs"]) == (8, 2)


def test_show_views_shows_the_views_of_pretraining(tmp_path: Path) -> None:
    root = write_images(tmp_path / "images", 20, (32, 32))
    api.show_views(compose("show-views", [f"data.root={root}", f"run.dir={tmp_path / 'shown'}", "views.*.flip=0"]))
    shown = settings(tmp_path / "shown")
    config, _ = fitted(f"data.root={root}", "views.*.flip=0")
    assert shown["views"] == settings_of(config)["views"]


def test_a_plan_says_what_it_assumes() -> None:
    small = ["backbone=r2plus1d_small", "backbone.width=2", "backbone.num_blocks=1"]
    planned = api.plan(compose("plan", ["data.layout=cifar10", "device=cpu", *small]))
    assert "views: images, 32 + 32 px; 32 samples per step" in planned.title
    assert "Chosen for files like those of cifar10, since it was not set: views=small_image" in planned.assumptions[0]


def test_fine_tuning_from_scratch_fits_the_data(tmp_path: Path) -> None:
    root = write_images(tmp_path / "images" / "a", 40, (32, 32)).parent
    config = compose("finetune", [f"data.root={root}", "backbone=resnet18", CPU])
    config = fit_finetuning(validate(config), config.data.open().train)
    assert isinstance(config, FinetuneConfig)
    assert (config.views[0].size, config.data.batch_size) == (32, 10)


def test_the_defaults_of_other_commands_stay() -> None:
    assert LinearConfig(weights="w", data=DataConfig(root="x")).probe().batch_size == 64
    assert replace(TrainerConfig(), max_epochs=None).epochs == 200


@pytest.mark.real_data
@pytest.mark.parametrize(
    ("where", "backbone", "size", "clip", "batch_size", "queue_size"),
    [
        ("data.root={0}/pictures", "resnet18", 96, (1, None), 8, 8),
        (
            "data.list={0}/gestures/train.csv data.test_list={0}/gestures/test.csv",
            "r2plus1d_small",
            64,
            (16, 3.22),
            18,
            36,
        ),
        ("data.root={0}/kinetics", "r2plus1d_small", 64, (8, 2.56), 4, 4),
    ],
)
def test_real_data_get_settings_of_their_kind(
    where: str, backbone: str, size: int, clip: tuple[int, float | None], batch_size: int, queue_size: int, shared: Path
) -> None:
    config, _ = fitted(*where.format(shared / "data").split(" "))
    assert (name_of(config.backbone), config.views[0].size) == (backbone, size)
    assert (config.data.num_frames, config.data.clip_s) == clip
    assert (config.data.batch_size, config.method.queue_size) == (batch_size, queue_size)
