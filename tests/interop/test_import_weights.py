"""Tests of the import itself: nothing is loaded in part, unless it is allowed by name."""

import re
from collections.abc import Callable
from functools import cache

import pytest
import torch
from foreign_files import assert_accounted_for, cheap_state, container, outputs_of, prefixed
from formula import filled_state
from torch import Tensor
from torchvision.models import get_model

from eztorch_sce.errors import ConfigError
from eztorch_sce.interop import accounting
from eztorch_sce.interop.import_weights import Choices, Imported, import_container
from eztorch_sce.interop.inflation import inflated

State = dict[str, Tensor]


@cache
def shapes(name: str) -> dict[str, torch.Size]:
    with torch.device("meta"):
        network = get_model(name)
    return {key: value.shape for key, value in network.state_dict().items()}


def state_of(name: str = "resnet18") -> State:
    return cheap_state(shapes(name))


def imported(state: State, **choices: object) -> Imported:
    return import_container(container(state), "net.pth", Choices(**choices))  # type: ignore[arg-type]


def without(state: State, pattern: str) -> State:
    return {name: tensor for name, tensor in state.items() if not re.search(pattern, name)}


def renamed(state: State, pattern: str, replacement: str) -> State:
    return {re.sub(pattern, replacement, name): tensor for name, tensor in state.items()}


def changed(state: State, name: str, change: Callable[[Tensor], Tensor]) -> State:
    return state | {name: change(state[name].clone())}


def with_nan(tensor: Tensor) -> Tensor:
    tensor.view(-1)[3] = torch.nan
    return tensor


PARTIAL: dict[str, tuple[Callable[[], State], list[str]]] = {
    "a stage is missing": (lambda: without(state_of(), r"^layer4\."), ["are missing: layer4.0.conv1.weight"]),
    "one tensor is missing": (
        lambda: without(state_of(), r"^layer3\.1\.bn2\.running_var$"),
        ["1 are missing: layer3.1.bn2.running_var"],
    ),
    "all statistics of batch norm are missing": (
        lambda: without(state_of(), "running"),
        ["40 are missing: bn1.running_mean, bn1.running_var"],
    ),
    "one name is misspelled": (
        lambda: renamed(state_of(), r"^layer2\.0\.conv1", "layer2.0.convl"),
        ["1 are missing: layer2.0.conv1.weight", "1 are unexpected: layer2.0.convl.weight"],
    ),
    "half of the names have a prefix": (
        lambda: renamed(state_of(), r"^layer([34])", r"module.layer\1"),
        ["are missing: layer3.0.conv1.weight", "are unexpected: module.layer3.0.conv1.weight"],
    ),
    "it has a block more": (
        lambda: state_of() | renamed(state_of(), r"^layer4\.1\.", "layer4.2."),
        ["10 are unexpected: layer4.2.conv1.weight"],
    ),
    "its last stage is wider": (
        lambda: (
            state_of() | {name: torch.cat([value] * 2) for name, value in state_of().items() if "layer4.1.c" in name}
        ),
        ["layer4.1.conv1.weight has the shape (1024, 512, 3, 3) instead of (512, 512, 3, 3)"],
    ),
    "it has modules that ours lacks": (
        lambda: state_of() | {"layer1.0.se.fc.weight": torch.ones(4, 64), "conv1.bias": torch.ones(64)},
        ["2 are unexpected: layer1.0.se.fc.weight, conv1.bias"],
    ),
    "one shape differs": (
        lambda: state_of() | {"layer4.1.bn2.weight": torch.ones(256)},
        ["1 do not fit: layer4.1.bn2.weight has the shape (256,) instead of (512,)"],
    ),
    "numbers are NaN": (
        lambda: changed(state_of(), "layer1.0.conv1.weight", with_nan),
        ["1 do not fit: layer1.0.conv1.weight holds numbers that are NaN or infinite"],
    ),
    "it is quantized": (
        lambda: changed(state_of(), "layer1.0.conv2.weight", lambda tensor: tensor.to(torch.int8)),
        ["layer1.0.conv2.weight holds int8 numbers, as of a quantized network"],
    ),
    "a variance is negative": (
        lambda: changed(state_of(), "bn1.running_var", lambda tensor: -tensor),
        ["1 do not fit: bn1.running_var holds negative variances"],
    ),
    "it holds two networks of one name": (
        lambda: state_of() | prefixed("module.", without(state_of(), r"^fc\.")),
        ["100 are unexpected: module.conv1.weight"],
    ),
    "another network holds it": (
        lambda: prefixed("eye.", without(state_of(), r"^fc\.")) | {"arm.head.weight": torch.ones(2)},
        ["1 are unexpected: arm.head.weight"],
    ),
}


@pytest.mark.parametrize("case", PARTIAL)
def test_a_partial_load_is_refused_with_the_tensors_named(case: str) -> None:
    make, expected = PARTIAL[case]
    with pytest.raises(ConfigError) as caught:
        imported(make())
    for words in expected:
        assert words in str(caught.value)
    assert "eztorch-sce checkpoint import net.pth OUT allow=[" in str(caught.value)


def test_what_is_allowed_by_name_is_taken_as_it_is() -> None:
    state = without(state_of(), r"^layer4\.1\.bn2\.") | {"rpn.head.weight": torch.ones(2)}
    taken = imported(state, allow=["rpn", "layer4.1.bn2"])
    assert_accounted_for(taken, state)
    allowed = {(row.theirs or row.ours): row.note for row in taken.rows if row.status == accounting.ALLOWED}
    assert allowed.pop("rpn.head.weight") == "unexpected, as allowed"
    assert set(allowed) == {f"layer4.1.bn2.{name}" for name in ("weight", "bias", "running_mean", "running_var")}
    assert all(note.endswith("as allowed: initialized at random") for note in allowed.values())
    assert torch.equal(taken.state["layer4.1.bn2.running_var"], torch.ones(512))
    with pytest.raises(ConfigError, match=r"1 are unexpected: rpn.head.weight"):
        imported(state, allow=["layer4.1.bn2"])
    with pytest.raises(ConfigError, match=r"allow=\[layer5\] names no tensor of net.pth; did you mean layer"):
        imported(state, allow=["rpn", "layer4", "layer5"])


def test_a_classifier_of_other_classes_is_taken_or_missing_without_ado() -> None:
    taken = imported(state_of())
    assert taken.head is not None
    assert taken.head["weight"].shape == (1000, 512)
    assert imported(without(state_of(), r"^fc\.")).head is None


def test_numbers_of_half_precision_are_taken_in_float32() -> None:
    half = {name: tensor.to(torch.bfloat16) if tensor.shape else tensor for name, tensor in state_of().items()}
    taken = imported(half)
    assert {tensor.dtype for tensor in taken.state.values()} == {torch.float32, torch.int64}


@pytest.mark.parametrize(
    "wrapper", ["state_dict.model.", "model_state.module.", "_orig_mod.", "net.network.", "my_model.visual."]
)
def test_a_network_is_found_under_any_wrapper(wrapper: str) -> None:
    taken = imported(prefixed(wrapper, state_of()))
    assert taken.config == imported(state_of()).config
    assert taken.head is not None


@pytest.mark.parametrize("inner", ["_fsdp_wrapped_module", "_checkpoint_wrapped_module", "_orig_mod"])
def test_names_that_wrapped_layers_put_between_are_left_out(inner: str) -> None:
    taken = imported(renamed(state_of(), r"^(layer\d\.\d)\.", rf"\1.{inner}."))
    assert not accounting.problems(taken.rows)


def test_of_several_unknown_networks_the_user_names_one() -> None:
    state = prefixed("eye.", state_of()) | prefixed("ear.", {name: 2 * value for name, value in state_of().items()})
    with pytest.raises(ConfigError, match=r"net.pth holds 2 networks, eye, ear: name the one to take \(encoder=eye\)"):
        imported(state)
    taken = imported(state, encoder="ear")
    assert taken.state["conv1.weight"].max() == pytest.approx(0.02)
    assert_accounted_for(taken, state)
    with pytest.raises(ConfigError, match=r"encoder=eyes: net.pth has no such encoder; did you mean eye"):
        imported(state, encoder="eyes")


def test_what_is_no_network_is_said_to_be_none() -> None:
    with pytest.raises(ConfigError, match=r"net.pth holds 2 tensors \(a, b\) that are not those of a network we"):
        imported({"a": torch.ones(2), "b": torch.ones(2)})
    with pytest.raises(ConfigError, match=r"net.pth holds no tensors: give a file with the weights of a network"):
        imported({})
    with pytest.raises(ConfigError, match="format=torchvison is not known; did you mean torchvision"):
        imported(state_of(), format="torchvison")
    with pytest.raises(ConfigError, match="backbone=resnet19 is not known; did you mean resnet18"):
        imported(state_of(), backbone="resnet19")


def test_image_weights_are_inflated_on_request() -> None:
    filled = filled_state({name: tuple(shape) for name, shape in shapes("resnet18").items()})
    image, video = imported(filled), imported(filled, backbone="r3d18", inflate="center")
    assert_accounted_for(video, filled)
    assert accounting.summary(video.rows) == "20 inflated, 102 renamed"  # the convolutions, and the rest
    assert video.spec.num_frames == 8
    frame = torch.rand(1, 3, 1, 64, 64)
    # At the middle of its kernel, a convolution gives every frame what it gives an image.
    torch.testing.assert_close(outputs_of(video, frame.expand(-1, -1, 3, -1, -1)), outputs_of(image, frame[:, :, 0]))
    with pytest.raises(ConfigError, match=r"backbone=r3d18: net.pth holds resnet18, a network for images: add inflate"):
        imported(filled, backbone="r3d18")
    with pytest.raises(
        ConfigError, match=r"inflate=center needs a video network: add backbone=.*, one of r3d18, r3d50"
    ):
        imported(filled, inflate="center")
    with pytest.raises(ConfigError, match="inflate=mean must be one of repeat, center"):
        imported(filled, backbone="r3d18", inflate="mean")


def test_a_repeated_kernel_gives_equal_frames_what_it_gives_an_image() -> None:
    weight, shape = torch.randn(4, 3, 3, 3), torch.Size((4, 3, 5, 3, 3))
    video = inflated(weight, shape, "repeat")
    assert video is not None
    assert video.shape == shape
    torch.testing.assert_close(video.sum(dim=2), weight)
    assert inflated(weight, torch.Size((4, 3, 5, 1, 1)), "repeat") is None


def test_a_stem_of_another_kernel_is_not_inflated() -> None:
    small = state_of() | {"conv1.weight": torch.ones(64, 3, 3, 3)}
    with pytest.raises(ConfigError, match=r"resnet18 with small_input=True.* which backbone=r3d18 cannot express"):
        imported(small, backbone="r3d18", inflate="repeat")
