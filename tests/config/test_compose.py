"""Tests of composition: overrides become a validated config, and mistakes become messages, all at once."""

from dataclasses import dataclass, fields

import pytest

from eztorch_sce import registry
from eztorch_sce.config.compose import commands, compose, to_yaml
from eztorch_sce.config.recipes import recipes
from eztorch_sce.config.renamed import RENAMED_KEYS
from eztorch_sce.config.schema import PretrainConfig, validate
from eztorch_sce.errors import ConfigError
from eztorch_sce.losses.sce import SCEConfig
from eztorch_sce.models.backbones.resnet2d import ResNet18Config
from eztorch_sce.optim.sgd import SGDConfig

REQUIRED = {
    "pretrain": ["data.root=."],
    "plan": [],
    "show-views": ["data.root=."],
    "demo": [],
    "study": ["data.root=."],
    "finetune": ["data.root=.", "weights=w.pt"],
}


def required(command: str) -> list[str]:
    return REQUIRED.get(command, ["data.root=.", "weights=w.pt"])


def messages(command: str, *overrides: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        compose(command, overrides)
    return caught.value.problems


@pytest.mark.parametrize("command", commands())
def test_a_command_starts_from_the_defaults_of_its_dataclass(command: str) -> None:
    composed, plain = compose(command, required(command)), commands()[command]()
    for item in fields(plain):
        if item.name not in ("data", "weights", "trainer"):  # the trainer is resolved for the machine
            assert getattr(composed, item.name) == getattr(plain, item.name), item.name


@pytest.mark.parametrize("name", recipes())
def test_every_recipe_has_a_complete_header(name: str) -> None:
    header = recipes()[name]
    assert {"command", "source", "expected", "hardware"} <= set(header)
    assert header["command"] in commands()


def test_groups_and_keys_set_their_values() -> None:
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
    assert (config.trainer.max_epochs, config.data.root, config.seed) == (3, "x", 7)


def test_an_override_sets_one_view_or_all_of_them() -> None:
    config = compose("pretrain", ["data.root=x", "views=image_multicrop", "views.*.flip=0", "views.5.size=64"])
    assert [view.flip for view in config.views] == [0] * 6
    assert [view.size for view in config.views] == [224, 224, 192, 160, 128, 64]


def test_a_star_in_another_override_is_kept() -> None:
    config = compose("pretrain", ["data.root=shards/train-*.tar", "views=kinetics", "views.*.flip=0"])
    assert config.data.root == "shards/train-*.tar"
    assert [view.flip for view in config.views] == [0, 0]


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("trainer.max_epoch=3", "trainer.max_epoch is not a setting of pretrain; did you mean trainer.max_epochs?"),
        ("root=x", "did you mean data.root?"),
        ("zzz=1", "zzz is not a setting of pretrain; `eztorch-sce pretrain --help` lists them"),
        ("optimizer=sgd optimizer.betas=[0.9,0.9]", "is not a setting of pretrain; optimizer=adamw has it"),
        ("backbone=resnet81", "; did you mean resnet18?"),
        (
            "recipe=cifar",
            "recipe=cifar is neither a recipe nor a file such as ./my.yaml; recipes with cifar are",
        ),
        ("recipe=cifar10_linear", "recipe=cifar10_linear is a recipe of `eztorch-sce linear`, not of pretrain"),
        ("views=kinetic", "did you mean kinetics?"),
        ("trainer.max_epochs=many", "trainer.max_epochs=many must be a whole number"),
        ("data.decoder=ffmpeg", "data.decoder=ffmpeg must be one of auto, decord, pyav, torchcodec"),
        ("loss.temperature=0", "loss.temperature=0"),
        ("views=image views.1.blur=2", "views.1.blur=2 must be between 0 and 1"),
        ("views=image views.*.size=x", "views.0.size=x must be a whole number"),
        ("method.momentum=2", "method.momentum=2"),
        ("data.batch_size=1", "data.batch_size=1"),
        ("data.batch_size=2.5", "data.batch_size=2.5 must be a whole number, at least 1"),
        ("views=image views.1.scale=0.5", "views.1.scale=0.5 must be a list of numbers"),
        ("nonsense", "nonsense must be of the form key=value"),
        ("seed=0,1", "add -m to run each one"),
        ("data.decoder=it's", "quote special characters: 'data.decoder=\"it'\"'\"'s\"'"),
    ],
)
def test_an_error_message_contains_the_cure(override: str, expected: str) -> None:
    assert any(expected in message for message in messages("pretrain", "data.root=x", *override.split(" ")))


def test_a_quoted_value_may_have_special_characters() -> None:
    assert compose("pretrain", ['data.root="a,b=c (d)"']).data.root == "a,b=c (d)"


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["method.queue_size=0"], "method.queue_size=0 and method.batch_keys=false"),
        (["method.bn_splits=8", "data.batch_size=8"], r"method\.bn_splits=8 leaves fewer than 2 samples"),
        (["loss=infonce", "loss.weight=0"], r"loss\.weight=0 must be greater than 0"),
        (["ramps=[{setting:loss.positive_weight,start:1,over:0}]"], r"ramps\.0\.over=0 must be greater than 0"),
        (["ramps=[{setting:loss.positive_weight,start:2}]"], r"ramps\.0\.start=2 must be between 0 and 1, like loss"),
        (
            ["ramps=[{setting:loss.positive_weight}]"],
            r"ramps\.0\.start=null must be a number: the value of loss\.positive_weight",
        ),
        (["ramps=[{setting:loss.positiv_weight,start:1}]"], r"must be one of .*; did you mean loss\.positive_weight"),
        (
            ["ramps=[{setting:method.queue_size,start:1}]"],
            r"setting=method\.queue_size must be one of .*method\.momentum",
        ),
        (["ramps=[{setting:method.momentum,start:1},{setting:method.momentum,start:0}]"], "must not be repeated"),
        (["loss.implementation=dense"], r"loss\.implementation.*there is one implementation"),
        (["loss.positive_weight_ramp.start=1"], r"is now ramps=\[{setting:loss\.positive_weight,start:1}\]"),
    ],
)
def test_an_inconsistent_objective_is_rejected(overrides: list[str], expected: str) -> None:
    with pytest.raises(ConfigError, match=expected):
        compose("pretrain", ["data.root=.", *overrides])


def test_a_loss_without_negatives_needs_no_queue() -> None:
    config = compose("pretrain", ["data.root=.", "loss=cosine", "method.queue_size=0"])
    assert not config.method.has_negatives


def test_a_mistyped_key_does_not_hide_an_invalid_value() -> None:
    wrong = ["trainer.max_epoch=3", "optimizer.lr=-1", "loss=scee", "views=image", "views.0.size=0"]
    assert sorted(messages("pretrain", "data.root=x", *wrong)) == [
        "loss=scee must be one of cosine, infonce, ntxent, ressl, sce; did you mean sce?",
        "optimizer.lr=-1 must be greater than 0",
        "trainer.max_epoch is not a setting of pretrain; did you mean trainer.max_epochs?",
        "views.0.size=0 must be at least 2",
    ]


def test_missing_settings_are_reported_with_the_invalid_ones() -> None:
    reported = messages("pretrain", "loss.temperature=-1", "data.on_error=ignore")
    paths = [message.split()[0].split("=")[0] for message in reported]
    assert sorted(paths) == ["data.on_error", "data.root", "loss.temperature"]


def test_a_mistyped_key_is_not_also_reported_as_missing() -> None:
    assert len(messages("pretrain", "data.roto=x")) == 1


def test_a_renamed_key_is_reported_with_its_new_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(RENAMED_KEYS, "loss.tau", "loss.tau is now loss.temperature")
    monkeypatch.setitem(RENAMED_KEYS, "old.", "old.* is now data.*")
    assert messages("pretrain", "data.root=x", "loss.tau=1") == ["loss.tau is now loss.temperature"]
    assert messages("pretrain", "data.root=x", "old.split=1") == ["old.* is now data.*"]


def test_a_config_created_in_python_is_validated_too() -> None:
    config = PretrainConfig(loss=SCEConfig(temperature=0.2))
    config.data.root = "x"
    validate(config)
    config.loss.temperature = 0
    with pytest.raises(ConfigError, match=r"loss\.temperature=0 must be greater than 0"):
        validate(config)


def test_a_value_of_the_wrong_type_set_in_python_is_reported() -> None:
    config = PretrainConfig(optimizer=SGDConfig(lr="x"))  # type: ignore[arg-type]
    config.data.root = "x"
    with pytest.raises(ConfigError) as caught:
        validate(config)
    assert caught.value.problems == ["optimizer.lr=x must be a number, greater than 0"]


def test_the_saved_config_names_its_choices() -> None:
    assert "name: r3d18" in to_yaml(compose("pretrain", ["data.root=x", "backbone=r3d18"]))


def test_a_method_with_its_own_loss_drops_that_of_a_recipe_and_rejects_one_that_is_typed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    @dataclass
    class OwnConfig:
        has_own_loss = True

        def build(self, backbone: object, loss: None) -> None: ...

    registry.choices("method")
    monkeypatch.setitem(registry._CHOICES["method"], "own", OwnConfig)
    monkeypatch.setitem(registry._PLACES, OwnConfig, ("method", "own"))
    words = ["data.root=x", "recipe=cifar10_moco_v2", "method=own"]
    assert compose("pretrain", words).loss is None
    assert compose("pretrain", [*words, "loss=null"]).loss is None
    rejected = "has no effect: method=own has its own loss; leave loss out, or set it to null"
    assert messages("pretrain", *words, "loss=infonce") == [f"loss=infonce {rejected}"]
    assert messages("pretrain", "loss=sce", "data.rot=y", *words)[0] == f"loss=sce {rejected}"
    assert messages("pretrain", *words, "loss.temperature=0.3") == [f"loss=infonce {rejected}"]
