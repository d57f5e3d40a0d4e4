"""Tests of settings: declarations, and the messages derived from them."""

import copy
import pickle
from dataclasses import dataclass, field, is_dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from omegaconf import OmegaConf

from eztorch_sce import registry
from eztorch_sce.augment.policies import policy
from eztorch_sce.config.compose import commands, settings_of
from eztorch_sce.config.schema import PretrainConfig
from eztorch_sce.errors import ConfigError
from eztorch_sce.losses.ntxent import NTXentConfig
from eztorch_sce.losses.sce import SCELoss
from eztorch_sce.methods.momentum_contrast import MomentumContrastConfig
from eztorch_sce.optim.lars import LARSConfig
from eztorch_sce.optim.sgd import SGDConfig
from eztorch_sce.settings import Setting, Settings, choice, invalid_settings, problem_with, setting


@dataclass
class InnerConfig:
    rate: float = setting(0.5, above=0, help="Rate.")
    steps: list[float] = setting([1.0], at_least=0, at_most=10, help="Steps.")
    mode: str = setting("fast", choices=lambda: ["fast", "slow"], help="Mode.")

    def conflicts(self, prefix: str) -> list[str]:
        return [f"{prefix}.rate={self.rate} must be below 1 with mode=slow"] if self.mode == "slow" else []


@dataclass
class OuterConfig:
    count: int | None = setting(None, at_least=1, help="Count.")
    use_all: bool = setting(False, help="Whether to use all.")
    first: InnerConfig = field(default_factory=InnerConfig)
    others: list[InnerConfig] = field(default_factory=list)

    def unused_settings(self) -> tuple[str, ...]:
        return ("first",) if self.use_all else ()


def test_the_defaults_are_valid() -> None:
    assert invalid_settings(OuterConfig()) == []


def test_every_invalid_value_is_reported_with_its_path() -> None:
    config = OuterConfig(count=0, first=InnerConfig(rate=-1), others=[InnerConfig(), InnerConfig(mode="quick")])
    assert invalid_settings(config) == [
        "count=0 must be at least 1",
        "first.rate=-1 must be greater than 0",
        "others.1.mode=quick must be one of fast, slow",
    ]


def test_rules_across_settings_are_reported_with_the_invalid_values() -> None:
    config = OuterConfig(count=0, first=InnerConfig(mode="slow", rate=2))
    assert invalid_settings(config) == ["count=0 must be at least 1", "first.rate=2 must be below 1 with mode=slow"]


def test_rules_are_not_applied_to_values_of_the_wrong_type() -> None:
    config = OuterConfig(count="many", first=InnerConfig(mode="slow"))  # type: ignore[arg-type]
    assert invalid_settings(config) == ["count=many must be a whole number, at least 1, or null"]


def test_unused_settings_are_not_checked() -> None:
    assert invalid_settings(OuterConfig(use_all=True, first=InnerConfig(rate=-1, mode="slow"))) == []


def test_instances_do_not_share_a_default_list() -> None:
    InnerConfig().steps.append(-1.0)
    assert InnerConfig().steps == [1.0]


@pytest.mark.parametrize(
    ("value", "hint", "message"),
    [
        (True, int, "x=true must be a whole number, at least 1"),
        (1.5, int, "x=1.5 must be a whole number, at least 1"),
        (3, float, None),
        (float("nan"), float, "x=nan must be at least 1"),
        (float("inf"), float, "x=inf must be at least 1"),
        (None, int | None, None),
        (None, int, "x=null must be a whole number, at least 1"),
        ([1, 0], list[int], "x=[1,0] must be numbers at least 1"),
        ((1, 2), list[int], None),
        ([1, "a"], list[int], "x=[1,a] must be a list of whole numbers, at least 1"),
    ],
)
def test_values_are_checked_against_their_type_and_range(value: object, hint: object, message: str | None) -> None:
    assert problem_with("x", value, Setting(at_least=1), hint) == message


def test_a_number_without_bounds_must_be_finite() -> None:
    assert problem_with("x", float("inf"), Setting(), float) == "x=inf must be finite"


def test_a_mistyped_choice_suggests_the_nearest() -> None:
    message = problem_with("data.on_error", "skipp", Setting(choices=("skip", "raise")), str)
    assert message == "data.on_error=skipp must be one of skip, raise; did you mean skip?"


@dataclass
class OwnOptimizerConfig:
    def build(self) -> None: ...


@dataclass
class TrainingConfig:
    optimizer: object = choice("optimizer", SGDConfig(), help="Optimizer.")
    warmup: object = choice("optimizer", None, help="Optimizer of the warm-up.")


def test_a_choice_accepts_configs_of_its_group_and_dataclasses_of_the_user() -> None:
    assert invalid_settings(TrainingConfig(LARSConfig(), None)) == []
    assert invalid_settings(TrainingConfig(OwnOptimizerConfig())) == []


@pytest.mark.parametrize("value", ["sgd", None, InnerConfig(), SGDConfig])
def test_a_choice_rejects_everything_else(value: object) -> None:
    (message,) = invalid_settings(TrainingConfig(value))
    assert message.startswith("optimizer=")
    assert "must be the config of one of adamw, lars, sgd, or a dataclass with a build method" in message


def settings_classes() -> set[type]:
    """Return every config class of the package: those of the commands, of the choices, and of the configs in them."""
    groups = ("backbone", "decoder", "loss", "method", "optimizer")
    found = {*commands().values(), *(cls for group in groups for cls in registry.choices(group).values())}
    pending = list(found)
    while pending:
        values = vars(pending.pop()()).values()
        inner = {type(item) for value in values for item in (value if isinstance(value, list) else [value])}
        new = {cls for cls in inner if is_dataclass(cls)} - found
        found |= new
        pending += new
    return found


def test_every_config_class_rejects_unknown_attributes() -> None:
    for cls in settings_classes():
        with pytest.raises(AttributeError, match=f"{cls.__name__} has no setting nonsense"):
            cls().nonsense = 1


def test_a_misspelled_setting_names_the_nearest() -> None:
    config = PretrainConfig()
    with pytest.raises(
        AttributeError, match="MomentumContrastConfig has no setting queue_sise; did you mean queue_size"
    ):
        config.method.queue_sise = 3  # type: ignore[attr-defined]
    with pytest.raises(TypeError, match=r"PretrainConfig has no setting seeds; did you mean seed\?"):
        PretrainConfig(seeds=1)  # type: ignore[call-arg]


def test_a_setting_of_an_inner_config_is_named_with_its_path() -> None:
    with pytest.raises(TypeError, match=r"PretrainConfig has no setting batch_size; did you mean data\.batch_size\?"):
        PretrainConfig(batch_size=8)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match=r"no setting epochs; did you mean trainer\.max_epochs\?"):
        PretrainConfig(epochs=8)  # type: ignore[call-arg]


def test_paths_and_numpy_numbers_are_stored_as_text_and_numbers() -> None:
    config = PretrainConfig()
    config.seed, config.loss.temperature = np.int64(3), np.float32(0.5)
    config.data.root = Path("videos")
    assert OmegaConf.to_container(OmegaConf.create(settings_of(config)))["data"]["root"] == "videos"  # type: ignore[index, call-overload]
    assert (type(config.seed), type(config.loss.temperature)) == (int, float)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"loss": SCELoss()}, "; pass an object to the function instead, as in pretrain(config, loss=...)"),
        ({"loss": NTXentConfig}, "loss=NTXentConfig (a class) must be the config of one of"),
        ({"loss": NTXentConfig}, "or a dataclass with a build method: use NTXentConfig()"),
        ({"data": {"root": "videos"}}, "data=dict must be a DataConfig"),
        ({"seed": "3"}, 'seed="3" (text) must be a whole number'),
    ],
)
def test_an_object_of_the_wrong_type_shows_its_type_and_the_cure(values: dict[str, Any], message: str) -> None:
    (first, *_) = invalid_settings(PretrainConfig(**values))
    assert message in first


def test_names_of_choices_become_their_configs() -> None:
    config = PretrainConfig(loss="ntxent")
    assert vars(config)["loss"] == NTXentConfig()
    config.optimizer = "lars"
    config.views = "motion"
    assert vars(config)["optimizer"] == LARSConfig()
    assert config.views == policy("motion")
    assert replace(config, method="momentum_contrast").method == MomentumContrastConfig()


def test_an_unknown_choice_is_an_error_that_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"optimizer=larz must be one of adamw, lars, sgd; did you mean lars\?"):
        PretrainConfig(optimizer="larz")  # type: ignore[arg-type]


@dataclass
class ConfigWithMore(InnerConfig, Settings):
    shared: ClassVar[int] = 1
    extra: int = setting(2, at_least=0, help="More.")

    def __post_init__(self) -> None:
        self._cached = self.extra


class ConfigWithItsOwnInit(ConfigWithMore):
    def __init__(self, width: int) -> None:
        super().__init__(extra=width)


def test_configs_of_users_may_add_settings_private_attributes_and_constructors() -> None:
    config = ConfigWithMore(rate=0.1, extra=4)
    config.extra, config.shared = 5, 3  # type: ignore[misc]
    assert config._cached == 4
    assert ConfigWithItsOwnInit(width=7).extra == 7


def test_configs_can_be_copied_pickled_and_made_by_omegaconf() -> None:
    config = PretrainConfig(loss=NTXentConfig(temperature=0.5))
    assert copy.deepcopy(config) == pickle.loads(pickle.dumps(config)) == config
    structured: Any = OmegaConf.structured(PretrainConfig(**dict.fromkeys(("loss", "method"), "???")))  # type: ignore[arg-type]
    assert OmegaConf.is_missing(structured, "loss")
    structured.loss, structured.method = NTXentConfig(temperature=0.5), MomentumContrastConfig()
    assert OmegaConf.to_object(structured) == config
