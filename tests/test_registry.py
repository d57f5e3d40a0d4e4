"""Tests of registering choices: what replaces what, and which mistakes are found at once."""

import enum
import importlib
import sys
import typing
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch import nn

from eztorch_sce import registry
from eztorch_sce.augment.policies import POLICIES, policy
from eztorch_sce.augment.view import ViewConfig
from eztorch_sce.choice_checks import COMMANDS
from eztorch_sce.config.compose import commands
from eztorch_sce.config.help import command_names
from eztorch_sce.config.schema import PretrainConfig, validate
from eztorch_sce.data.config import DataConfig
from eztorch_sce.errors import ConfigError
from eztorch_sce.evaluation.base import Scores, checked_scores
from eztorch_sce.evaluation.knn import KnnConfig
from eztorch_sce.models.backbones.base import build_network
from eztorch_sce.registry import choices, name_of, register
from eztorch_sce.settings import setting
from eztorch_sce.types import FeatureBank, Predictions

BANK = FeatureBank(torch.eye(2), torch.tensor([0, 1]), ["a.png", "b.png"], ["a", "b"])

pytestmark = pytest.mark.usefixtures("own_registrations")


class Buildable:
    """What a choice needs besides being a dataclass."""

    def build(self) -> object:
        return object()


def define() -> type:
    @dataclass
    class Mine(Buildable):
        width: int = 4

    return register("backbone", "mine")(Mine)


def test_a_registered_class_is_a_choice() -> None:
    cls = define()
    assert choices("backbone")["mine"] is cls
    assert name_of(cls()) == "mine"


def test_a_class_that_is_defined_again_replaces_the_earlier_one() -> None:
    define()
    again = define()
    assert choices("backbone")["mine"] is again
    assert name_of(again()) == "mine"


def test_an_object_of_a_replaced_class_keeps_its_name() -> None:
    earlier = define()()
    define()
    assert registry.place_of(earlier) == ("backbone", "mine")


def test_two_classes_of_one_file_cannot_have_one_name() -> None:
    define()

    @dataclass
    class Other(Buildable):
        pass

    with pytest.raises(ValueError, match=r"backbone=mine is registered twice: Mine of .* and Other of "):
        register("backbone", "mine")(Other)


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], Any]]:
    """Return a function that writes the source of a module and imports it, again if it exists."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)  # two versions may have one time stamp

    def write(class_name: str, name: str = "reloaded_parts") -> Any:
        lines = ["from dataclasses import dataclass", "from eztorch_sce.registry import register", ""]
        lines += [
            '@register("loss", "mine")',
            "@dataclass",
            f"class {class_name}:",
            "    def build(self): return abs",
            "",
        ]
        (tmp_path / f"{name}.py").write_text("\n".join(lines))
        importlib.invalidate_caches()
        return importlib.reload(sys.modules[name]) if name in sys.modules else importlib.import_module(name)

    yield write
    for name in ("reloaded_parts", "other_parts"):
        sys.modules.pop(name, None)


def test_a_class_that_is_renamed_in_its_module_replaces_the_earlier_one(module: Callable[[str], Any]) -> None:
    module("First")
    reloaded = module("Second")
    assert choices("loss")["mine"] is reloaded.Second


def test_a_class_that_is_renamed_in_a_notebook_replaces_the_earlier_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(sys.modules["__main__"], "__file__", raising=False)  # as in IPython
    source = 'import dataclasses\n@register("loss", "cell")\n@dataclasses.dataclass\nclass {}:\n  def build(self): ...'
    for class_name in ("First", "Second"):
        exec(source.format(class_name), {"__name__": "__main__", "register": register})
    assert choices("loss")["cell"].__name__ == "Second"


def test_two_modules_cannot_register_one_name(module: Callable[..., Any]) -> None:
    module("First")
    with pytest.raises(ConfigError, match="loss=mine is registered twice: First of reloaded_parts and First of other_"):
        module("First", "other_parts")


def test_a_function_that_returns_views_is_a_policy() -> None:
    @register("views", "mine")
    def mine() -> list[ViewConfig]:
        return [ViewConfig(size=64), ViewConfig(size=32)]

    assert [view.size for view in policy("mine")] == [64, 32]
    assert set(choices("views")) == {"mine", *POLICIES}
    with pytest.raises(ConfigError, match=r"views=min must be one of .*; did you mean mine"):
        policy("min")


def test_a_policy_must_return_views() -> None:
    @register("views", "mine")
    def mine() -> list[int]:
        return [64, 32]

    with pytest.raises(ConfigError, match=r"views=mine: mine of .* must return a list of ViewConfig, not \[64, 32\]"):
        policy("mine")


def test_all_commands_that_are_no_evaluations_are_reserved() -> None:
    assert set(COMMANDS) == {*commands(), *command_names()} - {*registry.own_choices("evaluation")}


@pytest.mark.parametrize(
    ("result", "message"),
    [
        (None, "backbone=mine: Mine.build returned None, and must return a torch.nn.Module that maps"),
        ("net", "backbone=mine: Mine.build returned an object of the class str, and must return a torch.nn.Module"),
        (
            nn.Linear,
            "returned the class Linear, and must return a torch.nn.Module that maps",
        ),
    ],
)
def test_a_backbone_config_must_build_a_module(result: object, message: str) -> None:
    config = define()()
    config.build = lambda: result
    with pytest.raises(ConfigError) as caught:
        build_network(config)
    assert message in str(caught.value)


def test_an_optimizer_config_must_build_an_optimizer() -> None:
    @dataclass
    class Mine:
        lr: float = 0.1

        def build(self, parameters: object, lr: float) -> None: ...

    register("optimizer", "mine")(Mine)
    with pytest.raises(ConfigError, match=r"optimizer=mine: Mine\.build returned None, and must return a"):
        validate(PretrainConfig(data=DataConfig(root="."), optimizer="mine"))  # type: ignore[arg-type]


def test_a_decoder_config_must_build_a_decoder() -> None:
    register("decoder", "mine")(type(define()()))
    with pytest.raises(ConfigError, match=r"decoder=mine: Mine\.build returned an object of the class object"):
        DataConfig(root=".", decoder="mine").build_decoder()


@pytest.mark.parametrize(
    ("scores", "message"),
    [
        ({"accuracy": 1.0}, "KnnConfig.evaluate returned an object of the class dict, and must return Scores, as in"),
        (Scores({"top1": torch.zeros(2)}), "KnnConfig.evaluate returned top1=tensor([0., 0.]), which is not a number"),  # type: ignore[dict-item]
    ],
)
def test_an_evaluation_must_return_numbers(scores: object, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        checked_scores(KnnConfig(), scores, BANK, BANK)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("scores", "message"),
    [
        (Scores({"x": 0.5}, by_record={"x": torch.ones(3)}), "by_record['x'] of shape 3, which must be 2: a row per"),
        (Scores({"x": 0.5}, by_record={"x": torch.tensor([0.5, torch.nan])}), "with NaN or infinity for 1 of 2 test"),
        (Scores({"x": 0.5}, by_record={"x": [0, 1]}), "by_record['x'] of the class list, which must be a tensor of 2"),  # type: ignore[dict-item]
        (Scores({"x": 0.9}, by_record={"x": torch.eye(2)[0]}), "mean 0.5, but metrics['x']=0.9: they must agree"),
        (Scores({"x": 0.5}, by_record={"y": torch.eye(2)[0]}), "but metrics has no y: give its mean in metrics"),
        (Scores({}, predictions=(0, 1)), "predictions of the class tuple, which must be Predictions(predicted, score)"),  # type: ignore[arg-type]
        (
            Scores({}, predictions=Predictions(torch.tensor([0, 2]), torch.ones(2))),
            "predictions.predicted, which must hold integers from -1 to 1",
        ),
        (
            Scores({}, predictions=Predictions(torch.tensor([0, 1]), torch.ones(2, 1))),
            "predictions.score of shape 2 x 1, which must be 2",
        ),
        (
            Scores({}, predictions=Predictions(torch.tensor([0, 1]), torch.ones(2), torch.tensor([0, 1]))),
            "predictions.nearest of shape 2, which must be 2 x any",
        ),
    ],
)
def test_what_an_evaluation_says_of_each_record_must_fit_the_records(scores: Scores, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        checked_scores(KnnConfig(), scores, BANK, BANK)
    assert "KnnConfig.evaluate returned " in str(caught.value)
    assert message in str(caught.value)


def test_scores_may_be_scalar_tensors() -> None:
    scores = Scores({"top1": torch.tensor(0.5)})  # type: ignore[dict-item]
    assert checked_scores(KnnConfig(), scores, BANK, BANK).metrics == {"top1": 0.5}


@dataclass
class Good(Buildable):
    """A choice with settings of every kind that works."""

    LIMIT = 3  # a constant
    num_global_views = 2  # part of the contract of methods
    kind: ClassVar[str] = "good"
    width: int = setting(4, at_least=1, help="Width.")
    widths: list[int] = field(default_factory=list)
    color: enum.Enum = enum.Enum("Color", "red").red  # type: ignore[attr-defined]
    table: dict[str, float] = field(default_factory=dict)
    rate: float | None = None


def test_settings_of_every_supported_kind_are_accepted() -> None:
    assert register("loss", "good")(Good) is Good


class NoDataclass(Buildable):
    width: int = 4


@dataclass
class NoBuild:
    width: int = 4


@dataclass
class BuildTakesMore:
    def build(self, width: int) -> object:
        return width


@dataclass
class NoDefault(Buildable):
    width: int


@dataclass
class NoAnnotation(Buildable):
    width = 4


@dataclass
class OutOfRange(Buildable):
    width: int = setting(0, at_least=1, help="Width.")


@dataclass
class WrongType(Buildable):
    width: int = 0.5  # type: ignore[assignment]


@dataclass
class ArbitraryType(Buildable):
    path: Callable[[int], int] = abs


@dataclass
class LiteralType(Buildable):
    kind: typing.Literal["a", "b"] = "a"


@dataclass(frozen=True)
class Frozen(Buildable):
    width: int = 4


@dataclass
class NamedName(Buildable):
    name: str = "x"


@dataclass
class FailingDefault(Buildable):
    width: int = 4

    def __post_init__(self) -> None:
        raise RuntimeError("width is odd")


@pytest.mark.parametrize(
    ("group", "name", "choice", "message"),
    [
        ("losses", "mine", Good, "there is no group losses; did you mean loss?"),
        ("loss", "my loss", Good, "'my loss' cannot be typed as loss=NAME: a name must start with a letter"),
        ("loss", "none", Good, "loss=none means something else on the command line"),
        ("loss", "sce", Good, "loss=sce is taken by SCEConfig of this package: register Good as another name"),
        ("views", "cifar", lambda: [], "views=cifar is taken by views of this package"),
        ("evaluation", "mine", Good, "Good has none of the settings of an evaluation: write class Good(Evaluation"),
        ("loss", "mine", abs, '@register("loss", "mine") expects a dataclass, not the value abs'),
        ("views", "mine", Good, '@register("views", "mine") expects a function that returns a list of views, not the'),
        ("loss", "mine", NoDataclass, "NoDataclass is not a dataclass when it is registered: write @register("),
        ("loss", "mine", NoBuild, "NoBuild has no method build(self)"),
        ("method", "mine", Good, "Good.build(self) -> object must take the arguments of build(self, backbone, loss)"),
        ("loss", "mine", BuildTakesMore, "BuildTakesMore.build(self, width: int) -> object must take the arguments of"),
        ("loss", "mine", NoDefault, "NoDefault.width has no default: every setting needs one, as in width: int = 1"),
        ("loss", "mine", NoAnnotation, "NoAnnotation.width has no annotation, so it is not a setting: write width: in"),
        ("loss", "mine", OutOfRange, "the default width=0 of OutOfRange must be at least 1"),
        ("loss", "mine", WrongType, "the default width=0.5 of WrongType must be a whole number"),
        ("loss", "mine", ArbitraryType, "ArbitraryType.path: collections.abc.Callable[[int], int] cannot be a setting"),
        ("loss", "mine", LiteralType, "write kind: str = setting('a', choices=['a', 'b'], help=...)"),
        ("loss", "mine", Frozen, "Frozen is frozen, so its settings cannot be changed: remove frozen=True"),
        ("loss", "mine", NamedName, "NamedName.name: config.yaml keeps the name of the choice as `name`; rename"),
        ("loss", "mine", FailingDefault, "FailingDefault() fails with its defaults: RuntimeError: width is odd"),
    ],
)
def test_a_mistake_is_named_when_a_choice_is_registered(group: Any, name: str, choice: Any, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        register(group, name)(choice)
    assert message in str(caught.value)
    assert choices("loss").get("mine") is None
