"""Tests of weights files: the normalization of the input, in numbers."""

import os
import pickle
import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from eztorch_sce.augment.policies import views
from eztorch_sce.augment.statistics import STATISTICS, register_statistics
from eztorch_sce.augment.view import View
from eztorch_sce.errors import ConfigError, TrainingError
from eztorch_sce.models.backbones.small import SmallR2Plus1DConfig
from eztorch_sce.models.classifier import Classifier
from eztorch_sce.models.weights import load_backbone, load_weights, save_weights
from eztorch_sce.tensor_file import read_plain, write
from eztorch_sce.types import InputSpec

EARLIER = Path(__file__).parents[1] / "vectors" / "weights_1.pt"
"""A classifier of 2 classes, written by `save_weights` when weights files were torch files."""

SMALL = SmallR2Plus1DConfig(width=1, num_blocks=1)


@pytest.fixture
def microscopy() -> Iterator[str]:
    register_statistics("microscopy", mean=[0.1, 0.2, 0.3], std=[0.4, 0.5, 0.6])
    yield "microscopy"
    STATISTICS.pop("microscopy", None)


def save(path: Path, stats: str) -> Path:
    save_weights(path, SMALL.build(), SMALL, InputSpec(stats=stats), None, [])
    return path


def test_weights_hold_the_normalization_in_numbers(tmp_path: Path) -> None:
    content = read_plain(save(tmp_path / "w", "image"))
    assert content["normalization"] == {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}
    assert read_plain(save(tmp_path / "w", "clip"))["normalization"] is None


def test_weights_that_cannot_be_written_name_the_cure(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"cannot be written \(No such file or directory\): make room on the disk"):
        save(tmp_path / "missing" / "w", "image")


def test_weights_bring_the_statistics_of_their_owner(tmp_path: Path, microscopy: str) -> None:
    file = save(tmp_path / "w", microscopy)
    numbers = STATISTICS.pop(microscopy)  # another process
    assert load_weights(str(file)).spec.stats == microscopy
    assert STATISTICS[microscopy] == numbers == ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))


def test_other_programs_load_the_state_dict_by_itself(tmp_path: Path) -> None:
    backbone = SMALL.build()
    save_weights(tmp_path / "backbone.safetensors", backbone, SMALL, InputSpec(), None, [])
    backbone.load_state_dict(load_file(tmp_path / "backbone.safetensors"))
    classifier = Classifier(backbone, 3)
    save_weights(tmp_path / "classifier.safetensors", backbone, SMALL, InputSpec(), classifier, ["a", "b", "c"])
    state = load_file(tmp_path / "classifier.safetensors")
    assert torch.equal(state.pop("head.weight"), classifier.linear.weight)
    assert state.pop("head.bias").shape == (3,)
    backbone.load_state_dict(state)


def test_weights_of_earlier_versions_load(tmp_path: Path) -> None:
    weights = load_weights(str(EARLIER))
    assert (weights.spec, weights.classes) == (InputSpec(), ["a", "b"])
    assert weights.head is not None
    assert weights.head["weight"].shape == (2, SMALL.build().num_features)
    (tmp_path / "classifier.pt").write_bytes(EARLIER.read_bytes())
    backbone = load_backbone(tmp_path)
    assert backbone.state_dict().keys() == weights.state.keys()
    expected = [*weights.state.values()]
    assert all(torch.equal(*pair) for pair in zip(backbone.state_dict().values(), expected, strict=True))
    content = torch.load(EARLIER, weights_only=True)
    del content["normalization"], content["data"]
    torch.save(content, tmp_path / "older.pt")
    assert load_weights(str(tmp_path / "older.pt")).spec.stats == "video"


@pytest.mark.parametrize("version", ["this", "earlier"])
def test_damaged_weights_are_refused_or_harmless(tmp_path: Path, version: str) -> None:
    """Earlier files have bytes without meaning, such as padding; a change there must not change what is loaded."""
    file = save(tmp_path / "w", "image") if version == "this" else EARLIER
    data, expected = file.read_bytes(), load_weights(str(file))
    chosen, num_harmless = random.Random(0), 0
    for case in range(300 if version == "this" else 150):
        damaged = bytearray(data)
        where = chosen.randrange(len(data))
        if case % 10 == 0:
            del damaged[where:]
        elif case % 10 == 1:
            damaged[where : where + 64] = bytes(len(damaged[where : where + 64]))
        else:
            damaged[where] ^= 1 << chosen.randrange(8)
        if damaged == data:
            continue
        (tmp_path / "damaged").write_bytes(damaged)
        try:
            weights = load_weights(str(tmp_path / "damaged"))
        except ConfigError:
            continue
        num_harmless += 1
        for name, tensor in expected.state.items():
            assert torch.equal(weights.state[name], tensor)
        assert replace(weights, state={}, head=None, sha256="", file="") == replace(
            expected, state={}, head=None, sha256="", file=""
        )
    assert num_harmless == 0 if version == "this" else num_harmless < 75


def test_a_checkpoint_is_named_as_one(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").mkdir()
    write(tmp_path / "checkpoints" / "step-0000000004.safetensors", {"progress": {"step": 4}})
    earlier = {"method.online.backbone.conv1.weight": torch.zeros(64, 3, 7, 7)}
    torch.save({"state_dict": earlier, "epoch": 3}, tmp_path / "last.ckpt")
    for name in ("checkpoints/step-0000000004.safetensors", "last.ckpt"):
        with pytest.raises(ConfigError, match="is a checkpoint of a training, which only its own run goes on from"):
            load_weights(str(tmp_path / name))


def test_pickles_that_run_code_are_refused_and_not_executed(tmp_path: Path) -> None:
    class Harm:
        def __reduce__(self) -> tuple[object, ...]:
            return os.mkdir, (str(tmp_path / "harmed"),)

    content = torch.load(EARLIER, weights_only=True)
    torch.save(content | {"classes": [Harm()]}, tmp_path / "zip.pt")
    torch.save(content | {"classes": [Harm()]}, tmp_path / "legacy.pt", _use_new_zipfile_serialization=False)
    (tmp_path / "plain.pt").write_bytes(pickle.dumps(Harm()))
    for name in ("zip.pt", "legacy.pt", "plain.pt"):
        with pytest.raises(ConfigError, match="cannot be read: "):
            load_weights(str(tmp_path / name))
    assert not (tmp_path / "harmed").exists()


def test_own_statistics_normalize_a_view(microscopy: str) -> None:
    view = View(views("motion", size=4, input="rgb", stats=microscopy)[0])
    pixels = view(torch.zeros(1, 3, 1, 4, 4))[0, :, 0, 0, 0]
    torch.testing.assert_close(pixels, torch.tensor([-0.25, -0.4, -0.5]))


def test_statistics_that_cannot_be_are_an_error() -> None:
    with pytest.raises(ConfigError) as error:
        register_statistics("image", mean=[0.5, 0.5], std=[58.4, 57.1, 57.4])
    assert error.value.problems == [
        "the statistics image are published: "
        "choose another name than image, video, cifar10, cifar100, difference, clip",
        "mean=[0.5, 0.5] must be three numbers: red, green and blue",
        "std=[58.4, 57.1, 57.4] must be between 0 and 1, as the pixels are: divide it by 255",
    ]
    with pytest.raises(ConfigError, match=r"stats=microscopi must be one of image, video"):
        views("motion", stats="microscopi")
