"""Tests of choices on command lines with positional arguments, such as `data doctor FOLDER runner=slurm`."""

from dataclasses import dataclass
from itertools import permutations
from typing import Any

import pytest

from eztorch_sce.completion import _of_positional
from eztorch_sce.config.compose import compose
from eztorch_sce.config.help import positional_help
from eztorch_sce.errors import ConfigError
from eztorch_sce.optim.adamw import AdamWConfig
from eztorch_sce.optim.lars import LARSConfig
from eztorch_sce.optim.sgd import SGDConfig
from eztorch_sce.positional import Argument, PositionalCommand, parse
from eztorch_sce.settings import Settings, choice, setting


@dataclass
class StepConfig(Settings):
    """Settings of a command with a choice: any group serves."""

    count: int = setting(1, at_least=1, help="Number of steps.")
    optimizer: Any = choice("optimizer", SGDConfig(lr=0.5), help="Optimizer of the steps.")


COMMAND = PositionalCommand(
    "data step", "Take steps.", (Argument("FOLDER", "Folder."),), StepConfig, ("", "", ""), lambda *_: True
)


def config_of(*words: str) -> StepConfig:
    config: StepConfig = parse(COMMAND, ["folder", *words]).config
    return config


def mistakes(*words: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        parse(COMMAND, ["folder", *words])
    return caught.value.problems


def test_a_choice_and_its_settings_are_taken_in_any_order() -> None:
    words = ["optimizer=adamw", "optimizer.lr=0.25", "count=3", "optimizer.weight_decay=0.5"]
    for order in permutations(words):
        assert config_of(*order) == StepConfig(count=3, optimizer=AdamWConfig(lr=0.25, weight_decay=0.5))
    assert config_of("optimizer=lars").optimizer == LARSConfig()


def test_the_default_keeps_its_own_settings() -> None:
    assert config_of().optimizer == SGDConfig(lr=0.5)
    assert config_of("optimizer=sgd").optimizer == SGDConfig(lr=0.5)
    assert config_of("optimizer.nesterov=true").optimizer == SGDConfig(lr=0.5, nesterov=True)
    config_of("optimizer.lr=3")
    assert StepConfig().optimizer.lr == 0.5


@pytest.mark.parametrize(
    "words",
    [
        ["optimizer=admw"],
        ["optimizer=zzzzzz"],
        ["optimizer=AdamW"],
        ["optimizer=adamw", "optimizer.momentum=0.5"],
        ["optimizer=adamw", "optimizer.weight_dcay=0.5"],
        ["optimizer=lars", "optimizer.lr=fast", "optimizer.momentum=2"],
        ["optimizer.lr=-1", "optimizer=lars"],
        ["optimizer=admw", "optimizer.lr=-1"],
        ["optimizer=zzzzzz", "optimizer.lr=-1"],
    ],
)
def test_mistakes_are_told_as_by_other_commands(words: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        compose("pretrain", ["data.root=.", *words])
    assert mistakes(*words) == [message.replace("pretrain", "data step") for message in caught.value.problems]


def test_all_mistakes_are_told_at_once() -> None:
    assert mistakes("optimizer=sgd", "optimizer=lars", "optimizer=", "cuont=3", "optimizer.xy=1") == [
        "optimizer is set several times (optimizer=sgd, optimizer=lars): keep one of them",
        "optimizer is set several times (optimizer=sgd, optimizer=): keep one of them",
        "cuont is not a setting of data step; its settings are count, optimizer; did you mean count?",
        "optimizer.xy is not a setting of data step; the settings of optimizer=sgd are lr, momentum, weight_decay, "
        "nesterov",
    ]
    assert mistakes("--optimizer", "lars", "--optimizer.lr=3") == [
        "--optimizer lars is now optimizer=lars",
        "--optimizer.lr=3 is now optimizer.lr=3",
    ]
    assert mistakes("optimizer=null")[0].startswith("optimizer=null must be one of adamw, lars, sgd")


def test_help_explains_the_choices() -> None:
    page = positional_help(COMMAND)
    assert "optimizer=sgd" in page
    assert "(adamw, lars, sgd)" in page
    assert "`--help optimizer`" in page
    for text in (positional_help(COMMAND, ["optimizer"]), positional_help(COMMAND, ["all"])):
        assert "optimizer=adamw: " in text
        assert "optimizer.betas" in text
    assert "optimizer.betas" not in page
    assert "optimizer.nesterov" not in positional_help(COMMAND, ["adamw"])
    with pytest.raises(ConfigError, match="--help optimzer: no such group or setting; did you mean optimizer"):
        positional_help(COMMAND, ["optimzer"])


def test_choices_and_their_settings_are_completed() -> None:
    def words(*before: str, current: str) -> set[str]:
        return {each.text for each in _of_positional(COMMAND, ["folder", *before], current)}

    assert {"optimizer=adamw", "optimizer=lars", "optimizer=sgd"} == words(current="optimizer=")
    assert "optimizer.nesterov=" in words(current="optimizer.")
    assert "optimizer.betas=" in words("optimizer=adamw", current="optimizer.")
    assert "optimizer.nesterov=" not in words("optimizer=adamw", current="optimizer.")
    assert {"optimizer.nesterov=true", "optimizer.nesterov=false"} == words(current="optimizer.nesterov=")
