"""Tests of what a command starts from: recipes, files of the user, and the settings of a run."""

import csv
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from eztorch_sce import ConfigError, DataConfig, PretrainConfig, SCEConfig, recipe
from eztorch_sce.api import pretrain
from eztorch_sce.config.compose import commands, compose, to_yaml
from eztorch_sce.config.resumed import resumed
from eztorch_sce.losses.infonce import InfoNCEConfig
from eztorch_sce.methods.momentum_contrast import MomentumContrastConfig
from eztorch_sce.models.backbones.resnet2d import ResNet18Config
from eztorch_sce.models.backbones.resnet3d import R3D18Config
from eztorch_sce.optim.adamw import AdamWConfig
from eztorch_sce.optim.sgd import SGDConfig

DATA = "data.root=."


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the current folder, which is empty."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(name: str, text: str) -> str:
    Path(name).write_text(text, encoding="utf-8")
    return name


def write_images(folder: Path, count: int) -> None:
    folder.mkdir()
    noise = np.random.default_rng(0)
    for number in range(count):
        Image.fromarray(noise.integers(0, 255, (32, 32, 3), dtype=np.uint8)).save(folder / f"{number}.png")


def untimed(file: str) -> list[dict[str, str]]:
    """Return the rows of a table of metrics without those that depend on the machine."""
    with open(file, newline="") as stream:
        machine = ("views_per_s", "data_wait", "host_memory_gib")
        return [{k: v for k, v in row.items() if k not in machine} for row in csv.DictReader(stream)]


def problems(command: str, *words: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        compose(command, words)
    return caught.value.problems


def problem_of(name: str, *words: str, **settings: object) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        recipe(name, *words, **settings)
    return caught.value.problems


def test_another_backbone_than_the_recipes_starts_from_its_own_defaults(capsys: pytest.CaptureFixture[str]) -> None:
    config = compose("pretrain", [DATA, "recipe=cifar10_resnet18", "backbone=r3d18"])
    assert config.backbone == R3D18Config()
    assert config.method.queue_size == 4096
    assert config.recipe == "cifar10_resnet18"
    said = "recipe=cifar10_resnet18: backbone=r3d18 replaces resnet18; left out: backbone.small_input=true\n"
    assert capsys.readouterr().err == said


def test_the_backbone_of_the_recipe_keeps_its_settings(capsys: pytest.CaptureFixture[str]) -> None:
    config = compose("pretrain", [DATA, "recipe=cifar10_resnet18", "backbone=resnet18"])
    assert config.backbone == ResNet18Config(small_input=True)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("recipe=cifar10_resnet18 method=simclr loss=ntxent", "method=simclr replaces momentum_contrast; left out: "),
        (
            "recipe=cifar10_moco_v3 loss=cosine",
            "loss=cosine replaces infonce; left out: loss.temperature=0.2 loss.weight",
        ),
        ("recipe=cifar10_resnet18 optimizer=adamw", "optimizer=adamw replaces sgd; left out: optimizer.lr=0.06 "),
        ("recipe=demo views=motion", "views=motion replaces 2 views of its own"),
        ("recipe=cifar10_resnet18 backbone=null", "backbone=null replaces resnet18; left out: backbone.small_input"),
    ],
)
def test_what_another_choice_leaves_out_is_said(words: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    compose("pretrain", [DATA, *words.split()])
    assert said in capsys.readouterr().err


def test_a_setting_of_the_replaced_backbone_is_answered_with_those_that_have_it() -> None:
    words = [DATA, "recipe=cifar10_resnet18", "backbone=r3d18", "backbone.small_input=true"]
    assert "backbone=resnet18 or backbone=resnet34" in problems("pretrain", *words)[0]


def test_what_does_not_fit_the_other_choice_is_said_in_words() -> None:
    (message,) = problems(
        "pretrain", DATA, "recipe=cifar10_byol", "loss=sce", "method=momentum_contrast", "method.queue_size=0"
    )
    assert message.startswith("loss=sce needs negatives, but method.queue_size=0 and method.batch_keys=false give none")


def test_null_leaves_a_choice_open() -> None:
    assert compose("pretrain", [DATA, "optimizer=null", "views=null"]).optimizer is None


@pytest.mark.parametrize(
    "text",
    [
        "backbone: {name: resnet18, small_input: true}\nloss: infonce\ndata: {batch_size: 32}\nviews: cifar\n",
        "# @package _global_\n# command: pretrain\ndefaults:\n  - override /backbone: resnet18\n"
        "  - override /loss: infonce\n  - override /views: cifar\n\nbackbone:\n  small_input: true\n"
        "data:\n  batch_size: 32\n",
        "defaults: [cifar10_resnet18, override /loss: infonce]\ndata: {batch_size: 32}\n",
    ],
    ids=["by name", "as Hydra does", "from a recipe"],
)
def test_a_file_of_the_user_is_a_recipe_in_three_forms(text: str, folder: Path) -> None:
    config = compose("pretrain", [DATA, f"recipe={write('my.yaml', text)}", "seed=3"])
    assert config.backbone == ResNet18Config(small_input=True)
    assert config.loss == InfoNCEConfig()
    assert (len(config.views), config.data.batch_size, config.seed, config.recipe) == (2, 32, 3, "my.yaml")


def test_a_file_starts_from_another_file_beside_it(folder: Path) -> None:
    (folder / "a b, c").mkdir()
    write("a b, c/base.yaml", "seed: 5\noptimizer: {name: sgd, lr: 0.5}\n")
    path = write("a b, c/my.yml", "defaults: [./base.yaml]\noptimizer: adamw\n")
    config = compose("pretrain", [DATA, f"recipe={path}"])
    assert (config.seed, config.optimizer) == (5, AdamWConfig())


def test_settings_of_a_choice_that_a_file_leaves_open_apply_to_what_is_chosen(folder: Path) -> None:
    write("my.yaml", "optimizer: {weight_decay: 0.5}\n")
    assert compose("pretrain", [DATA, "recipe=my.yaml"]).adjust == {"optimizer": {"weight_decay": 0.5}}
    assert compose("pretrain", [DATA, "recipe=my.yaml", "optimizer=sgd"]).optimizer == SGDConfig(weight_decay=0.5)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("data: {batch_sise: 3}", "data.batch_sise is not a setting; did you mean data.batch_size?"),
        (
            "optimizer: {name: sgd, betas: [0, 1]}",
            "optimizer.betas is not a setting of optimizer=sgd; optimizer=adamw has",
        ),
        ("optimizer: {lr: -1}", "optimizer.lr=-1 must be greater than 0"),
        ("optimizer: {speed: 1}", "optimizer.speed is not a setting of any optimizer"),
        ("trainer: {max_epochs: many}", "trainer.max_epochs=many must be a whole number"),
        ("trainer: 3", "trainer=3 must be settings by name: max_epochs"),
        ("backbone: resnet-50", "backbone=resnet-50 must be one of"),
        ("views: [{size: 32}, {sise: 32}]", "views.1.sise is not a setting; did you mean views.1.size?"),
        ("loss: {implementation: dense}", "loss.implementation is no longer a setting"),
        ("defaults: [cifar10_resnet81]", "defaults: cifar10_resnet81 is not a recipe; did you mean cifar10_resnet18?"),
        ("defaults: [override /backbon: r3d18]", "defaults: backbon is not a choice; did you mean backbone?"),
        ("defaults: [./my.yaml]", "defaults: ./my.yaml starts from this file itself"),
        ("loss: {object: my.Loss}", "loss was the object my.Loss, which a file cannot hold: pass it again in Python"),
        ("- 3", "holds a list: write settings by name"),
    ],
)
def test_a_mistake_in_a_file_names_the_file_and_the_key(text: str, expected: str, folder: Path) -> None:
    (message,) = problems("pretrain", DATA, f"recipe={write('my.yaml', text)}")
    assert message.startswith(("recipe=my.yaml, line 1: ", "recipe=my.yaml: defaults: ", "recipe=my.yaml holds"))
    assert expected in message


def test_a_syntax_error_names_the_line(folder: Path) -> None:
    write("my.yaml", "data:\n  batch_size: 3\n bad: 2\n")
    assert problems("pretrain", DATA, "recipe=my.yaml")[0].startswith("recipe=my.yaml, line 3: ")


def test_all_mistakes_of_a_file_come_at_once(folder: Path) -> None:
    write("my.yaml", "data: {batch_sise: 3}\nloss: moco\ntrainer: {max_epochs: 0}\n")
    messages = problems("pretrain", DATA, "recipe=my.yaml")
    assert [message.split(": ")[0] for message in messages] == [f"recipe=my.yaml, line {line}" for line in (2, 1, 3)]


def test_a_mistake_in_a_file_that_another_file_starts_from_names_the_first(folder: Path) -> None:
    write("base.yaml", "seed: 1\ntrainer: {max_epochs: 0}\n")
    write("my.yaml", "defaults: [./base.yaml]\nseed: 2\n")
    (message,) = problems("pretrain", DATA, "recipe=my.yaml")
    assert message.startswith("recipe=base.yaml, line 2: trainer.max_epochs=0 ")


def test_a_conflict_says_where_both_settings_come_from(folder: Path) -> None:
    write("my.yaml", "defaults: [cifar10_resnet18]\nmethod:\n  bn_splits: 300\n")
    (message,) = problems("pretrain", DATA, "recipe=my.yaml", "trainer.devices=1")
    assert "method.bn_splits=300 is set in recipe=my.yaml, line 3" in message
    assert "data.batch_size=256 is set in recipe=cifar10_resnet18, line 16" in message
    (message,) = problems("pretrain", DATA, "recipe=my.yaml", "trainer.devices=1", "data.batch_size=512")
    assert message.endswith(" (method.bn_splits=300 is set in recipe=my.yaml, line 3)")  # what was typed is known


def test_a_conflict_with_a_default_says_so() -> None:
    (message,) = problems("pretrain", DATA, "method.queue_size=0", "loss=infonce")
    assert "method.batch_keys=false is the default of method=momentum_contrast" in message


def test_a_value_changed_in_python_is_not_said_to_be_from_the_recipe() -> None:
    config = recipe("cifar10_resnet18", data={"root": "missing", "layout": "folder"})
    config.method.bn_splits = 300
    with pytest.raises(ConfigError, match=r"bn_splits=300 .*\(data.batch_size=256 is set in recipe=cifar10_resnet18"):
        pretrain(config)
    config.data.batch_size = 128
    with pytest.raises(ConfigError) as error:
        pretrain(config)
    assert "is set in" not in str(error.value)


@pytest.mark.parametrize(
    ("command", "words", "expected"),
    [
        ("pretrain", "recipe=mi.yaml", "recipe=mi.yaml does not exist; did you mean my.yaml?"),
        ("pretrain", "recipe=my", "to start from the file, write recipe=./my.yaml"),
        ("pretrain", "recipe=./", "recipe=./ is a folder; config=./ starts from the config.yaml of a run"),
        ("pretrain", "config=.", "config=. has no config.yaml: give the directory of a run"),
        (
            "pretrain",
            "config=run.yaml",
            "config=run.yaml holds the settings of a run of `eztorch-sce knn`, not of pretrain",
        ),
        ("pretrain", "recipe=demo config=my.yaml", "recipe and config both say what to start from: remove one"),
        (
            "pretrain",
            "recipe=cifar10",
            "recipe=cifar10 is neither a recipe nor a file such as ./my.yaml; recipes with cifar10 are",
        ),
        (
            "pretrain",
            "recipe=moco",
            "recipes with moco are cifar10_moco_v2, cifar10_moco_v3, k400_moco_v2",
        ),
    ],
)
def test_a_start_that_does_not_exist_is_answered_with_what_does(
    command: str, words: str, expected: str, folder: Path
) -> None:
    write("my.yaml", "seed: 1")
    write("run.yaml", "# eztorch-sce knn\nseed: 1\n")
    assert expected in problems(command, DATA, *words.split())[0]


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("method=moco", "here, moco is method=momentum_contrast with loss=infonce"),
        ("method=MoCo-v3", "here, MoCo-v3 is method=momentum_predict with loss=infonce"),
        ("method=byol", "here, byol is method=momentum_predict with loss=cosine"),
        ("loss=simclr", "here, simclr is loss=ntxent with method=simclr"),
        ("loss=NT-Xent", "did you mean ntxent?"),
        ("loss=infoNCE", "did you mean infonce?"),
        ("optimizer=adam", "here, adam is optimizer=adamw"),
        ("views=imagenet", "here, imagenet is views=image"),
        ("backbone=resnet_18", "did you mean resnet18?"),
        ("backbone=ResNet-50", "did you mean resnet50?"),
        ("backbone=r2plus1d18", "did you mean r2plus1d_18?"),
    ],
)
def test_a_choice_is_found_by_the_name_that_it_has_elsewhere(word: str, expected: str) -> None:
    assert expected in problems("pretrain", DATA, word)[0]
    group, name = word.split("=")
    with pytest.raises(ConfigError, match=expected.replace("?", r"\?")):
        setattr(PretrainConfig(), group, name)


def test_a_recipe_in_python_takes_values_of_python(folder: Path) -> None:
    config = recipe(
        "cifar10_resnet18",
        "data.split=2",
        backbone="r3d18",
        loss=SCEConfig(temperature=0.3),
        data={"root": Path("/x, y/${seed}"), "clip_s": None},
        trainer={"max_epochs": 3},
        **{"run.dir": "a=b"},
    )
    assert (config.backbone, config.loss) == (R3D18Config(), SCEConfig(temperature=0.3))
    assert (config.data.root, config.data.split, config.data.batch_size) == ("/x, y/${seed}", 2, 256)
    assert (config.trainer.max_epochs, config.run.dir, config.recipe) == (3, "a=b", "cifar10_resnet18")


def test_an_object_that_replaces_settings_of_a_recipe_says_what_is_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    config = recipe("cifar10_resnet18", data=DataConfig(root="x", layout="cifar10"))
    assert config.data == DataConfig(root="x", layout="cifar10")
    assert "data=DataConfig(...) replaces its settings; left out: data.num_frames=1 data.b" in capsys.readouterr().err


def test_mistakes_in_python_name_the_setting_and_the_nearest(folder: Path) -> None:
    label = 'recipe("cifar10_resnet18"): '
    assert problem_of("cifar10_resnet18", sed=3, data={"batch_sise": 3}, trainer={"max_epochs": "x"}) == [
        f"{label}sed is not a setting; did you mean seed?",
        f"{label}data.batch_sise is not a setting; did you mean data.batch_size?",
        f"{label}trainer.max_epochs=x must be a whole number, at least 1, or null",
    ]
    assert problem_of("cifar10_resnet18", "dta.root=x")[0].endswith("did you mean data.root?")
    assert "adam is optimizer=adamw" in problem_of("cifar10_resnet18", optimizer="adam")[0]
    assert "optimizer=SGDConfig is a class" in problem_of("cifar10_resnet18", optimizer=SGDConfig)[0]
    assert problem_of("cifar10_resnet81")[0].endswith("did you mean cifar10_resnet18?")


def test_a_recipe_cannot_be_a_setting_of_an_existing_config() -> None:
    with pytest.raises(ConfigError, match=r'use recipe\("cifar10_resnet18", \.\.\.\) from eztorch_sce'):
        PretrainConfig(recipe="cifar10_resnet18")
    with pytest.raises(ConfigError, match=r'PretrainConfig\.load\("runs/1"\)'):
        PretrainConfig().config = "runs/1"


@pytest.mark.parametrize("command", commands())
def test_the_config_of_a_command_is_loaded_as_it_was_written(command: str, folder: Path) -> None:
    config = commands()[command]()
    config.run.log_every_n_steps = 3
    texts = "a'b\" ${seed} {c}: [d] # \\ \n ü日😀"
    if hasattr(config, "data"):
        config.data.root = texts
    write("config.yaml", f"# eztorch-sce {command}\n{to_yaml(config)}")
    assert type(config).load(folder) == config


def test_a_run_is_repeated_from_its_directory(folder: Path) -> None:
    write_images(folder / "images", 16)
    words = ["data.root=images", "data.num_workers=0", "data.batch_size=8", "trainer.max_epochs=1", "run.dir=first"]
    words += ["backbone=r2plus1d_small", "backbone.width=4", "run.log_every_n_steps=1", "loss=infonce", "seed=5"]
    words += ["method.projector.hidden_dim=16", "method.predictor.hidden_dim=16"]
    pretrain(compose("pretrain", words))
    again = compose("pretrain", ["config=first"])
    assert again.run.dir is None
    again.run.dir = "second"
    pretrain(again)
    assert untimed("first/metrics.csv") == untimed("second/metrics.csv")
    changed = compose("pretrain", ["config=first/config.yaml", "loss=sce", "loss.temperature=0.3", "seed=6"])
    assert (changed.loss, changed.seed, changed.backbone) == (SCEConfig(temperature=0.3), 6, again.backbone)
    assert changed.config == "first/config.yaml"
    reopened = resumed("pretrain", compose("pretrain", ["data.root=images"]), Path("first"))
    assert (reopened.backbone, reopened.views) == (again.backbone, again.views)


def test_a_loss_of_python_is_passed_again(folder: Path) -> None:
    write("config.yaml", "# eztorch-sce pretrain\nloss: {object: my.Loss}\nseed: 4\n")
    with pytest.raises(ConfigError, match=r"loss was the object my\.Loss"):
        PretrainConfig.load(folder)
    config = recipe("./config.yaml", loss=SCEConfig(temperature=0.4))
    assert (config.loss, config.seed) == (SCEConfig(temperature=0.4), 4)


def test_the_last_of_two_values_counts() -> None:
    config = compose("pretrain", [DATA, "seed=1", "seed=2", "recipe=demo", "recipe=cifar10_resnet18"])
    assert (config.seed, config.recipe, type(config.method)) == (2, "cifar10_resnet18", MomentumContrastConfig)
