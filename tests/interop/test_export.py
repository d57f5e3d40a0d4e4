"""Tests of exports to weights files and to the names of other code bases."""

import json
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from small_runs import CLASSES, SMALL, config_of, inputs_and_logits, write_run
from torch import Tensor, nn
from torch.nn import functional as F

from eztorch_sce.compat import import_pytorchvideo_models
from eztorch_sce.errors import ConfigError
from eztorch_sce.interop.export import EXPORTS, export
from eztorch_sce.models.weights import load_backbone, load_weights

pytestmark = pytest.mark.xdist_group("exports")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_run(tmp_path_factory.mktemp("run"), SMALL)


def test_a_weights_file_says_everything_about_the_network(run: str, tmp_path: Path) -> None:
    exported = export(run, str(tmp_path / "small.safetensors"), "eztorch_sce", license="cc-by-nc-4.0")
    assert exported.difference == 0
    assert exported.num_bytes == (tmp_path / "small.safetensors").stat().st_size
    with safe_open(tmp_path / "small.safetensors", "pt") as file:
        metadata = file.metadata()
    about = json.loads(metadata["card"])["about"]
    assert about["license"] == "cc-by-nc-4.0"
    assert about["architecture"]["name"] == "r2plus1d_small"
    assert about["preprocessing"]["shape"] == ["B", 3, 4, 32, 32]
    assert about["preprocessing"]["mean"] == [0.45, 0.45, 0.45]
    assert "stem.0.0.weight" in json.loads(metadata["checksums"])
    before, after = load_weights(run), load_weights(str(tmp_path / "small.safetensors"))
    assert (after.spec, after.classes, after.about) == (before.spec, before.classes, about)
    assert all(torch.equal(tensor, after.state[name]) for name, tensor in before.state.items())


def test_the_card_holds_the_results_of_exactly_these_weights(run: str, tmp_path: Path) -> None:
    folder = Path(write_run(tmp_path / "tuned", SMALL))
    sha256 = load_weights(str(folder)).sha256
    data = {"data": "/home/somebody/gestures/test", "records": 9}
    for name, file_hash in (("knn", sha256), ("knn_of_earlier_weights", "0" * 16)):
        (tmp_path / name).mkdir()
        metrics = {"knn_top1": 0.5, "unreadable": 0.0}
        report = {"command": "knn", "metrics": metrics, "protocol": data | {"weights": {"sha256": file_hash}}}
        (tmp_path / name / "report.json").write_text(json.dumps(report))
    report = {"command": "finetune", "metrics": {"test_top1": 0.75}, "protocol": data | {"recipe": "ucf101"}}
    (folder / "report.json").write_text(json.dumps(report))
    (folder / "evaluations.json").write_text(json.dumps(["../knn", "../knn_of_earlier_weights"]))
    export(str(folder), str(tmp_path / "out.safetensors"), "eztorch_sce")
    about = load_weights(str(tmp_path / "out.safetensors")).about
    assert about["recipe"] == "ucf101"
    assert [(each["command"], each["metrics"]) for each in about["results"]] == [
        ("finetune", {"test_top1": 0.75}),
        ("knn", {"knn_top1": 0.5}),
    ]
    assert {each["data"] for each in about["results"]} == {"gestures/test"}


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("resnet18", {}),
        pytest.param("resnet50", {}, marks=pytest.mark.long),
        pytest.param("r3d_18", {}, marks=pytest.mark.long),
        pytest.param("mc3_18", {}, marks=pytest.mark.long),
        pytest.param("r2plus1d_18", {}, marks=pytest.mark.long),
        pytest.param("s3d", {"pool": "windows"}, marks=pytest.mark.long),
    ],
)
def test_torchvision_takes_its_names(name: str, settings: dict[str, Any], tmp_path: Path) -> None:
    from torchvision.models import get_model

    spec: dict[str, Any] = {"num_frames": 16, "size": 224} if name == "s3d" else {"size": 64}  # it halves them often
    run, out = write_run(tmp_path / "run", config_of(name, **settings), **spec), tmp_path / "out.pth"
    exported = export(run, str(out), "torchvision")
    assert [file.name for file in exported.files] == ["out.pth", "out.card.json"]
    network = get_model(name, num_classes=len(CLASSES)).eval()
    network.load_state_dict(torch.load(out, weights_only=True))
    inputs, expected = inputs_and_logits(run)
    torch.testing.assert_close(network(inputs), expected)
    assert json.loads((tmp_path / "out.card.json").read_text())["preprocessing"]["std"] == [0.225, 0.225, 0.225]
    torch.testing.assert_close(load_backbone(out)(inputs), load_backbone(run)(inputs))


@pytest.mark.long
@pytest.mark.parametrize("name", ["x3d_xs", "r3d50"])
def test_pytorchvideo_takes_its_names(name: str, tmp_path: Path) -> None:
    run, out = write_run(tmp_path / "run", config_of(name), size=64), tmp_path / "out.pyth"
    export(run, str(out), "pytorchvideo")
    same: dict[str, Any] = {"model_num_class": 3, "dropout_rate": 0, "head_activation": None}
    if name == "r3d50":
        kernels = {"stem_conv_kernel_size": (1, 7, 7), "head_pool_kernel_size": (4, 2, 2)}
        network = import_pytorchvideo_models("resnet").create_resnet(model_depth=50, **kernels, **same)
    else:
        sizes = {"input_clip_length": 4, "input_crop_size": 64, "depth_factor": 2.2}
        network = import_pytorchvideo_models("x3d").create_x3d(**sizes, **same, inner_act=nn.SiLU)
    network.load_state_dict(torch.load(out, weights_only=True)["model_state"])
    inputs, expected = inputs_and_logits(run)
    torch.testing.assert_close(network.eval()(inputs), expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(load_backbone(out)(inputs), load_backbone(run)(inputs))


class Named:
    """Convolutions with batch norm by the names of a file, as the code base computes them."""

    def __init__(self, tensors: dict[str, Any]) -> None:
        self.tensors = {name: torch.as_tensor(tensor) for name, tensor in tensors.items()}

    def __call__(self, x: Tensor, conv: str, norm: str, stride: Any = 1, padding: Any = 0) -> Tensor:
        convolve = F.conv2d if x.ndim == 4 else F.conv3d
        parts = ("running_mean", "running_var", "weight", "bias")
        mean, var, weight, bias = (self.tensors[f"{norm}.{part}"] for part in parts)
        x = convolve(x, self.tensors[f"{conv}.weight"], stride=stride, padding=padding)
        return F.batch_norm(x, mean, var, weight, bias, eps=1e-5)


def test_detectron2_takes_its_names(tmp_path: Path) -> None:
    run, out = write_run(tmp_path / "run", config_of("resnet18"), size=64, has_classes=False), tmp_path / "out.pkl"
    exported = export(run, str(out), "detectron2")
    assert "INPUT.FORMAT RGB" in exported.notes[0]
    content = pickle.loads(out.read_bytes())
    assert content["matching_heuristics"] is True  # it finds the network below backbone.bottom_up by this
    run_named = Named(content["model"])
    images = torch.randn(2, 3, 64, 64)
    x = run_named(images, "stem.conv1", "stem.conv1.norm", 2, 3).relu()
    x = F.max_pool2d(x, 3, 2, 1)
    for stage in range(2, 6):
        for block in range(2):
            name, stride = f"res{stage}.{block}", 2 if stage > 2 and block == 0 else 1
            shortcut = run_named(x, f"{name}.shortcut", f"{name}.shortcut.norm", stride) if stride == 2 else x
            branch = run_named(x, f"{name}.conv1", f"{name}.conv1.norm", stride, 1).relu()
            x = (run_named(branch, f"{name}.conv2", f"{name}.conv2.norm", 1, 1) + shortcut).relu()
    torch.testing.assert_close(x.mean(dim=(2, 3)), load_backbone(run)(images).detach(), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(load_backbone(out)(images), load_backbone(run)(images))


@pytest.mark.long
def test_slowfast_takes_its_names(tmp_path: Path) -> None:
    run, out = write_run(tmp_path / "run", config_of("r3d50"), size=64), tmp_path / "out.pyth"
    export(run, str(out), "slowfast")
    tensors = torch.load(out, weights_only=True)["model_state"]
    run_named = Named(tensors)
    clips, expected = inputs_and_logits(run)
    x = run_named(clips, "s1.pathway0_stem.conv", "s1.pathway0_stem.bn", (1, 2, 2), (0, 3, 3)).relu()
    x = F.max_pool3d(x, (1, 3, 3), (1, 2, 2), (0, 1, 1))
    for stage, (depth, kernel) in enumerate(((3, 1), (4, 1), (6, 3), (3, 3)), start=2):
        for block in range(depth):
            name, stride = f"s{stage}.pathway0_res{block}", (1, 2, 2) if stage > 2 and block == 0 else 1
            branch = run_named(x, f"{name}.branch2.a", f"{name}.branch2.a_bn", 1, (kernel // 2, 0, 0)).relu()
            branch = run_named(branch, f"{name}.branch2.b", f"{name}.branch2.b_bn", stride, (0, 1, 1)).relu()
            branch = run_named(branch, f"{name}.branch2.c", f"{name}.branch2.c_bn")
            x = (branch + (run_named(x, f"{name}.branch1", f"{name}.branch1_bn", stride) if block == 0 else x)).relu()
    logits = F.linear(x.mean(dim=(2, 3, 4)), tensors["head.projection.weight"], tensors["head.projection.bias"])
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "settings", "format_name", "words"),
    [
        ("resnet18", {"small_input": True}, "torchvision", "resnet18 has other shapes"),
        pytest.param(
            *("r3d_18", {"dilate_last": True}, "torchvision", "torchvision computes it with dilate_last=false"),
            marks=pytest.mark.long,
        ),
        pytest.param(
            *("s3d", {"pool": "windows"}, "torchvision", r"its s3d does not take inputs \(1, 3, 4, 32, 32\)"),
            marks=pytest.mark.long,
        ),
        ("resnet18", {}, "pytorchvideo", "has no names for the backbone resnet18 with small_input=false"),
        ("r2plus1d_small", {"width": 2}, "detectron2", "it has for resnet50, resnet18, resnet34"),
    ],
)
def test_what_a_code_base_computes_otherwise_is_refused(
    name: str, settings: dict[str, Any], format_name: str, words: str, tmp_path: Path
) -> None:
    run = write_run(tmp_path / "run", config_of(name, **settings))
    out = tmp_path / "out" / f"weights{EXPORTS[format_name].suffixes[0]}"
    out.parent.mkdir()
    with pytest.raises(ConfigError, match=words):
        export(run, str(out), format_name)
    assert list(out.parent.iterdir()) == []


def test_outputs_that_would_destroy_something_are_refused_at_once(run: str, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    for out, format_name, words in (
        (tmp_path / "mine", "huggingface", "is a folder with other files"),
        (tmp_path / "mine" / "notes.txt", "huggingface", "is a file"),
        (tmp_path / "mine", "onnx", "is a folder; format=onnx writes a file"),
        (tmp_path / "network.pt", "onnx", r"must end in .onnx"),
        (tmp_path / "gone" / "a.onnx", "onnx", "is in a folder that does not exist"),
        (Path(run) / "classifier.safetensors", "eztorch_sce", "is where the weights are read from"),
        (Path(run), "huggingface", "is where the weights are read from"),
    ):
        with pytest.raises(ConfigError, match=words):
            export(run, str(out), format_name)
    with pytest.raises(ConfigError, match="did you mean huggingface"):
        export(run, str(tmp_path / "new"), "hugingface")
    with pytest.raises(ConfigError) as caught:
        export(run, str(tmp_path / "a.pt"), "onnx", license="all rights: mine")
    assert len(caught.value.problems) == 2
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]
