"""Overrides become a checked config; mistakes become sentences, all at once."""

from dataclasses import fields

import pytest

from eztorch_sce import registry
from eztorch_sce.config.compose import COMMANDS, compose, recipes, to_yaml
from eztorch_sce.config.schema import PretrainConfig, validate
from eztorch_sce.errors import ConfigError
from eztorch_sce.losses.sce import SCEConfig
from eztorch_sce.models.backbones.resnet2d import ResNet18Config

NEEDED = {
    "pretrain": ["data.root=."],
    "plan": [],
    "show-views": ["data.root=."],
    "demo": [],
    "finetune": ["data.root=.", "weights=w.pt"],
}


def needed(command: str) -> list[str]:
    return NEEDED.get(command, ["data.root=.", "weights=w.pt"])


@pytest.mark.parametrize("command", COMMANDS)
def test_the_yaml_of_a_command_says_what_its_dataclass_says(command: str) -> None:
    composed, plain = compose(command, needed(command)), COMMANDS[command]()
    for item in fields(plain):
        if item.name not in ("data", "weights"):
            assert getattr(composed, item.name) == getattr(plain, item.name), item.name


@pytest.mark.parametrize("name", recipes())
def test_every_recipe_composes_and_its_header_is_whole(name: str) -> None:
    header = recipes()[name]
    assert {"command", "source", "expected", "hardware"} <= set(header)
    words = ["data.root=."] if "supervised" in name else needed(header["command"])  # from scratch, without weights
    assert isinstance(compose(header["command"], [*words, f"recipe={name}"]), COMMANDS[header["command"]])


def test_groups_and_keys_are_what_people_type() -> None:
    config = compose(
        "pretrain",
        [
            "data.root=x",
            "backbone=resnet18",
            "backbone.small_input=true",
            "loss=infonce",
            "trainer.max_epochs=3",
            "seed=7",
        ],
    )
    assert config.backbone == ResNet18Config(small_input=True)
    assert registry.name_of(config.loss) == "infonce"
    assert (config.trainer.max_epochs, config.data.root) == (3, "x")


def test_one_override_for_all_views_or_for_one() -> None:
    config = compose("pretrain", ["data.root=x", "views=image_multicrop", "views.*.flip=0", "views.5.size=64"])
    assert [view.flip for view in config.views] == [0] * 6
    assert [view.size for view in config.views] == [224, 224, 192, 160, 128, 64]


def problems(command: str, *overrides: str) -> str:
    with pytest.raises(ConfigError) as caught:
        compose(command, overrides)
    return str(caught.value)


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("trainer.max_epoch=3", "did you mean trainer.max_epochs?"),
        ("root=x", "did you mean data.root?"),
        ("backbone=resnet81", "; did you mean resnet18?"),
        ("recipe=cifar", "recipe=cifar must be one of "),
        ("views=kinetic", "did you mean kinetics?"),
        ("trainer.max_epochs=many", "trainer.max_epochs=many"),
        ("data.decoder=ffmpeg", "data.decoder=ffmpeg must be one of auto, decord, pyav, torchcodec"),
        ("loss.temperature=0", "loss.temperature=0.0 must be greater than 0"),
        ("views.1.blur=2", "views.1.blur=2.0: a probability, from 0 (never) to 1 (always)"),
        ("method.momentum=2", "method.momentum=2.0 must be between 0 and 1"),
        ("data.batch_size=1", "data.batch_size=1 is of one optimizer step"),
        ("nonsense", "'nonsense' is not of the form key=value"),
    ],
)
def test_a_mistake_is_named_with_its_cure(override: str, words: str) -> None:
    assert words in problems("pretrain", "data.root=x", override)


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["method.queue_size=0"], "neither queue nor batch_keys"),
        (["method.bn_splits=8", "data.batch_size=8"], "method.bn_splits=8 leaves less than 2 samples"),
        (["method.shuffle_bn=true", "trainer.devices=2"], "set trainer.sync_batchnorm=false"),
        (["trainer.sync_batchnorm=true", "trainer.accelerator=cpu"], "trainer.sync_batchnorm=true needs GPUs"),
        (["loss.implementation=fast"], "loss.implementation=fast must be one of streaming, dense"),
        (["loss.positive_weight_ramp.over=0"], "loss.positive_weight_ramp.over=0.0 must be above 0"),
        (["loss=infonce", "loss.weight=0"], "loss.weight=0.0 must be greater than 0"),
    ],
)
def test_an_objective_that_cannot_be_is_refused(overrides: list[str], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        compose("pretrain", ["data.root=.", *overrides])


def test_a_loss_without_negatives_needs_none() -> None:
    config = compose("pretrain", ["data.root=.", "loss=cosine", "method.queue_size=0"])
    assert not config.method.has_negatives


def test_all_mistakes_come_at_once() -> None:
    said = problems("pretrain", "backbone=resnet81", "loss=sec", "trainer.max_epoch=3", "seed=x", "data.root=x")
    for words in ("resnet81", "did you mean sce?", "trainer.max_epoch ", "seed=x"):
        assert words in said
    said = problems("pretrain", "loss.temperature=-1", "data.on_error=ignore")  # and no data.root
    for words in ("loss.temperature=-1.0", "data.on_error=ignore", "data.root is not set"):
        assert words in said


def test_python_needs_no_yaml_and_checks_the_same() -> None:
    config = PretrainConfig(loss=SCEConfig(temperature=0.2))
    config.data.root = "x"
    validate(config)
    config.loss.temperature = 0
    with pytest.raises(ConfigError, match=r"loss\.temperature=0 must be greater than 0"):
        validate(config)


def test_the_saved_config_names_its_parts() -> None:
    assert "name: r3d18" in to_yaml(compose("pretrain", ["data.root=x", "backbone=r3d18"]))


@pytest.mark.parametrize("word", ["views.0.blur=abc", "data.batch_size=2.5", "views.1.scale=0.5"])
def test_a_value_of_the_wrong_kind_is_named_with_the_kind(word: str) -> None:
    with pytest.raises(ConfigError) as caught:
        compose("pretrain", ["data.root=x", word])
    assert len(caught.value.problems) == 1
    assert caught.value.problems[0].startswith(f"{word}: ")
    assert "Error merging" not in str(caught.value)
