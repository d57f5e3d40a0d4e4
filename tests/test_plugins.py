"""Tests of plugins: where they are named, what they add, and how their mistakes are told."""

import multiprocessing
import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from command_line import run

from eztorch_sce import plugins, registry
from eztorch_sce.config.compose import compose, to_yaml
from eztorch_sce.errors import ConfigError
from eztorch_sce.registry import choices
from eztorch_sce.types import FeatureBank

pytestmark = pytest.mark.usefixtures("own_registrations")

HEAD = """
from dataclasses import dataclass
from eztorch_sce.registry import register
"""
LOSS = """
@register("loss", "{0}")
@dataclass
class {1}:
    "A loss of mine."
    margin: float = 0.5
    def build(self): return abs
"""
MY_LOSS = HEAD + LOSS.format("my_loss", "MyLossConfig")
MY_EVALUATION = """
from dataclasses import dataclass
from eztorch_sce.evaluation.base import EvaluationConfig, Scores
from eztorch_sce.registry import register
from eztorch_sce.settings import setting

@register("evaluation", "my-eval")
@dataclass
class MyEvaluationConfig(EvaluationConfig):
    scale: float = setting(1.0, above=0, help="Scale of mine.")

    def evaluate(self, train, test, device):
        return Scores({"my_metric": self.scale * len(train.labels)})
"""


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], Path]:
    """Return a function that writes a file below the current folder, which no other test shares."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["eztorch-sce"])
    monkeypatch.delenv(plugins.VARIABLE, raising=False)

    def write(name: str, text: str) -> Path:
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        return file

    return write


Write = Callable[[str, str], Path]


# What plugins add --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "words", ["plugins=./parts.py", "plugins=parts.py", "plugins=[./parts.py]", '+plugins="parts.py"']
)
def test_a_file_adds_choices_and_is_recorded(words: str, write: Write) -> None:
    write("parts.py", MY_LOSS)
    config = compose("pretrain", ["data.root=.", words, "loss=my_loss", "loss.margin=2"])
    assert config.loss == choices("loss")["my_loss"](margin=2)
    assert "plugins:\n- ./parts.py\n" in to_yaml(config) or "plugins:\n- parts.py\n" in to_yaml(config)


def test_several_plugins_are_files_and_modules(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    write("parts.py", MY_LOSS)
    write("plugin_of_two/more.py", HEAD + LOSS.format("other", "OtherConfig"))
    monkeypatch.syspath_prepend(os.getcwd())
    config = compose("pretrain", ["data.root=.", "plugins=plugin_of_two.more,./parts.py", "loss=other"])
    assert config.plugins == ["plugin_of_two.more", "./parts.py"]
    assert {"my_loss", "other"} <= choices("loss").keys()


def test_the_environment_names_plugins_for_every_command(
    write: Write, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write("parts.py", MY_LOSS)
    write("evaluations.py", MY_EVALUATION)
    monkeypatch.setenv(plugins.VARIABLE, "./parts.py, ./evaluations.py")
    assert "my-eval      MyEvaluationConfig (of the plugin ./evaluations.py)." in run(capsys, "--help")[1]
    assert compose("pretrain", ["data.root=.", "loss=my_loss"]).plugins == ["./parts.py", "./evaluations.py"]


def test_config_yaml_of_a_run_names_its_plugins_again(write: Write) -> None:
    write("parts.py", MY_LOSS)
    write("run/config.yaml", "# eztorch-sce pretrain\nplugins: [./parts.py]\n")
    assert plugins_of(["config=run"]) == ["./parts.py"]
    assert "my_loss" in choices("loss")


def plugins_of(words: list[str]) -> list[str]:
    from eztorch_sce.config.plugin_words import with_plugins

    return plugins.names_in(with_plugins(words)[-1].removeprefix("plugins="))


def test_help_explains_the_choices_of_plugins(write: Write, capsys: pytest.CaptureFixture[str]) -> None:
    write("parts.py", MY_LOSS)
    _, out, _ = run(capsys, "pretrain", "--help", "my_loss", "plugins=./parts.py")
    assert out == "loss=my_loss: A loss of mine (of the plugin ./parts.py).\n  loss.margin=0.5\n"
    write(
        "sources.py",
        HEAD + LOSS.format("noise", "NoiseConfig").replace("loss", "source").replace("self", "self, split"),
    )
    assert run(capsys, "knn", "--help", "noise", "plugins=./sources.py")[1].endswith("\n  data.source.margin=0.5\n")
    _, out, _ = run(capsys, "pretrain", "plugins=./parts.py", "--help", "all")
    assert "(cosine, infonce, my_loss, ntxent," in " ".join(out.split())


def test_views_of_a_plugin_are_a_policy(write: Write, capsys: pytest.CaptureFixture[str]) -> None:
    lines = ["from eztorch_sce.augment.view import ViewConfig", "from eztorch_sce.registry import register"]
    lines += ['@register("views", "mine")', "def mine(): return [ViewConfig(size=64), ViewConfig(size=32, flip=0.3)]"]
    write("parts.py", "\n".join(lines))
    config = compose("pretrain", ["data.root=.", "plugins=./parts.py", "views=mine", "views.*.blur=0.5"])
    assert [(view.size, view.flip, view.blur) for view in config.views] == [(64, 0, 0.5), (32, 0.3, 0.5)]
    assert "linear_video, mine, moco_v2," in " ".join(run(capsys, "pretrain", "--help")[1].split())
    with pytest.raises(ConfigError, match="did you mean mine"):
        compose("pretrain", ["data.root=.", "views=min"])


def write_features(folder: Path) -> None:
    for split, count in (("train", 6), ("test", 4)):
        labels = torch.arange(count) % 2
        FeatureBank(torch.eye(2)[labels], labels, [""] * count, ["a", "b"]).save(folder / f"features_{split}.pt")


def test_an_evaluation_of_a_plugin_is_a_command(
    write: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write("parts.py", MY_EVALUATION)
    write_features(tmp_path)
    words = ["my-eval", "plugins=./parts.py", "features=.", "accelerator=cpu"]
    assert "scale=1" in run(capsys, *words, "--help")[1]
    code, out, err = run(capsys, *words, "scale=2", "run.dir=run")
    assert (code, "my_metric │    12" in out) == (0, True), err
    assert run(capsys, *words, "scle=2")[2].endswith("- scle is not a setting of my-eval; did you mean scale?\n")


def test_the_example_of_an_evaluation_is_a_command(
    write: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_features(tmp_path)
    example = Path(__file__).resolve().parents[1] / "examples/own_evaluation.py"
    code, out, err = run(
        capsys, "centroid", f"plugins={example}", "features=.", "accelerator=cpu", "norm=1", "run.dir=run"
    )
    assert (code, "centroid_top1 │ 1.000 [1.00, 1.00]" in out) == (0, True), err


def test_an_evaluation_of_a_plugin_runs_in_sweeps(
    write: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write("parts.py", MY_EVALUATION)
    write_features(tmp_path)
    words = ["my-eval", "plugins=./parts.py", "features=.", "accelerator=cpu"]
    code, _, err = run(capsys, *words, "-m", "scale=1,2", "run.dir=sweep")
    assert code == 0, err
    assert [(tmp_path / f"sweep/{number}/report.json").is_file() for number in (0, 1)] == [True, True]
    code, out, _ = run(capsys, *words, "--cfg", "job")
    assert (code, "scale: 1.0" in out) == (0, True)


def test_an_object_of_a_file_reaches_a_worker_process(write: Write) -> None:
    write("beside.py", "WIDTH = 3")
    write("parts.py", HEAD + "import beside\n@dataclass\nclass Cell:\n    width: int = beside.WIDTH\n")
    plugins.load(["./parts.py"])
    module = sys.modules[plugins._module_of(Path("parts.py"))]
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.apply(repr, [module.Cell()]) == "Cell(width=3)"


# Mistakes ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("x = 1\nx / 0\n", "plugins=./parts.py: ./parts.py:2: ZeroDivisionError: division by zero"),
        ("def f(:\n", "plugins=./parts.py: ./parts.py:1: SyntaxError: invalid syntax"),
        ("import no_such_package\n", "./parts.py:1: ModuleNotFoundError: No module named 'no_such_package'"),
        ("import sys\nsys.exit(3)\n", "plugins=./parts.py: ./parts.py:2: SystemExit: 3"),
        ("from .other import x\n", "./parts.py:1: a relative import needs a package: write `from other import x`"),
        (
            MY_LOSS + HEAD + "@dataclass\n@register('loss', 'b')\nclass B:\n    def build(self): return abs",
            "above @dat",
        ),
        (MY_LOSS + "@register('loss', 'b')\n@dataclass\nclass B:\n    width: int = 1", "B has no method build(self)"),
        (HEAD + LOSS.format("sce", "MyLossConfig"), "loss=sce is taken by SCEConfig of this package: register MyLoss"),
        (
            HEAD + "@register('views', 'v')\ndef v(): return [64, 32]",
            "plugins=./parts.py: views=v: v of ./parts.py ",
        ),
        (
            HEAD + "@register('views', 'v')\ndef v(): return list(3)",
            "./parts.py:5: TypeError: 'int' object is not",
        ),
        (HEAD + LOSS.format("a", "A") + LOSS.format("a", "B"), "loss=a is registered twice: A of ./parts.py and B of"),
    ],
)
def test_a_mistake_in_a_plugin_is_told_with_its_line_and_leaves_nothing(
    source: str, message: str, write: Write, capsys: pytest.CaptureFixture[str]
) -> None:
    write("parts.py", source)
    code, _, err = run(capsys, "pretrain", "--help", "plugins=./parts.py")
    assert (code, err.count("\n")) == (2, 2)
    assert message in err
    assert not registry.added_choices()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("./prats.py", "plugins=./prats.py does not exist; did you mean ./parts.py?"),
        ("parts", "plugins=parts: there is no module parts; for the file in this folder write plugins=./parts.py"),
        ("package.parts", "package on the path of Python; write plugins=./package/parts.py, or install the package"),
        ("./package", "plugins=./package is a folder: name its file, such as ./package/parts.py"),
        (
            "prats",
            "plugins=prats: there is no module prats: it is neither installed nor on PYTHONPATH; did you ",
        ),
        ("os.pth", "plugins=os.pth: os has no module pth"),
        ("my parts", "plugins=my parts is neither a module, such as my_package.parts, nor a file, such as ./parts.py"),
    ],
)
def test_a_plugin_that_is_not_there_is_told(name: str, message: str, write: Write) -> None:
    write("parts.py", MY_LOSS)
    write("package/parts.py", MY_LOSS)
    with pytest.raises(ConfigError) as caught:
        plugins.load([name])
    assert message in str(caught.value)


def test_a_plugin_that_is_repaired_loads_in_the_same_session(write: Write) -> None:
    write("package_to_repair/__init__.py", "")
    write("package_to_repair/losses.py", MY_LOSS)
    write("package_to_repair/parts.py", "from package_to_repair.losses import MyLossConfig\n1 / 0")
    sys.path.append(os.getcwd())
    with pytest.raises(ConfigError, match=r"package_to_repair/parts\.py:2: ZeroDivisionError"):
        plugins.load(["package_to_repair.parts"])
    assert "my_loss" not in choices("loss")
    write("package_to_repair/parts.py", "from package_to_repair.losses import MyLossConfig  # repaired")
    plugins.load(["package_to_repair.parts"])
    assert "my_loss" in choices("loss")


def test_a_plugin_that_registers_nothing_is_told_to_whoever_misses_a_choice(write: Write) -> None:
    write("parts.py", "x = 1")
    with pytest.raises(ConfigError, match=r"loss=mine must be one of .*; plugins=\./parts\.py registers nothing"):
        compose("pretrain", ["data.root=.", "plugins=./parts.py", "loss=mine"])


def test_a_choice_that_is_near_none_may_be_of_a_plugin() -> None:
    with pytest.raises(ConfigError, match=r"sce; if a plugin registers wholly_new, name it with plugins=\.\.\."):
        compose("pretrain", ["data.root=.", "loss=wholly_new"])


# Installed packages ------------------------------------------------------------------------------


@pytest.fixture
def install(write: Write, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], None]:
    """Return a function that writes a module, and declares it as an entry point of a package of this name."""
    monkeypatch.setattr(plugins, "_installed", None)  # as in a new process

    def install(module: str, source: str) -> None:
        monkeypatch.syspath_prepend(os.getcwd())
        write(f"{module}.py", source)
        write(f"{module}-1.0.dist-info/METADATA", f"Metadata-Version: 2.1\nName: {module}-package\nVersion: 1.0\n")
        write(f"{module}-1.0.dist-info/entry_points.txt", f"[eztorch_sce.plugins]\nany_name = {module}\n")

    return install


def test_an_installed_package_adds_choices_by_itself(
    install: Callable[[str, str], None], capsys: pytest.CaptureFixture[str]
) -> None:
    install("installed_parts", MY_LOSS)
    _, out, err = run(capsys, "pretrain", "--help", "my_loss")
    assert (out.splitlines()[0], err) == ("loss=my_loss: A loss of mine (of the plugin installed_parts).", "")


def test_an_installed_package_that_fails_is_a_warning_and_the_others_load(
    install: Callable[[str, str], None], capsys: pytest.CaptureFixture[str]
) -> None:
    install("broken_parts", HEAD + LOSS.format("lost", "LostConfig") + "1 / 0")
    install("working_parts", HEAD + LOSS.format("other", "OtherConfig"))
    code, _, err = run(capsys, "--help")
    reason = "the plugin broken_parts of broken_parts-package is not loaded: ./broken_parts.py:11: ZeroDivisionError"
    assert (code, err) == (0, f"eztorch-sce: warning: {reason}: division by zero\n")
    assert set(registry.added_choices()["loss"]) == {"other"}
    _, _, err = run(capsys, "pretrain", "data.root=.", "loss=lost")
    assert f"loss=lost must be one of cosine, infonce, ntxent, other, ressl, sce; {reason}" in err
