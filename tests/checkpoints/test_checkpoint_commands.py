"""Tests of `eztorch-sce checkpoint inspect`, `import` and `export`, run as users run them."""

import csv
import os
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from command_line import run
from torch import Tensor

from eztorch_sce import import_weights, inspect_checkpoint, load_backbone, tensor_file
from eztorch_sce.errors import ConfigError
from eztorch_sce.models.backbones.base import Backbone
from eztorch_sce.models.backbones.resnet2d import ResNet18Config
from eztorch_sce.models.migrations import FORMAT
from eztorch_sce.models.weights import load_weights

pytestmark = pytest.mark.xdist_group("checkpoint_commands")
EARLIER = Path(__file__).parents[1] / "vectors" / "weights_1.pt"


class Files:
    """Files of a ResNet-18 in the layout of torchvision, and the network in them.

    Args:
        folder: Where to write them.
    """

    def __init__(self, folder: Path) -> None:
        torch.manual_seed(0)
        self.folder = folder
        self.backbone: Backbone = ResNet18Config().build().eval()
        state: dict[str, Tensor] = dict(self.backbone.state_dict())
        state |= {"fc.weight": torch.randn(5, 512), "fc.bias": torch.randn(5)}
        self.whole = self.write("whole.pth", state)
        self.without = self.write("without.pth", {k: v for k, v in state.items() if k != "layer2.1.conv2.weight"})
        self.unknown = self.write("unknown.pth", {"weights": torch.zeros(2, 3), "step": 7})
        queries = {f"module.encoder_q.{name}": tensor for name, tensor in self.backbone.state_dict().items()}
        keys = {f"module.encoder_k.{name}": tensor * 2 for name, tensor in self.backbone.state_dict().items()}
        self.moco = self.write("moco.pth.tar", {"epoch": 200, "arch": "resnet18", "state_dict": queries | keys})

    def write(self, name: str, content: Mapping[str, object]) -> str:
        torch.save(content, self.folder / name)
        return str(self.folder / name)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    return Files(tmp_path_factory.mktemp("checkpoints"))


def test_inspect_needs_no_setting(files: Files, capsys: pytest.CaptureFixture[str]) -> None:
    code, printed, _ = run(capsys, "checkpoint", "inspect", files.whole)
    assert code == 0
    for expected in ("torch.save (zip)", "torchvision", "resnet18, 11,176,512 parameters", "224 x 224", "5 classes"):
        assert expected in printed
    assert f"usable      yes: weights={files.whole}" in printed
    assert max(map(len, printed.splitlines())) <= 80 + len(files.whole)


def test_inspect_names_the_encoders_and_what_is_beside_them(files: Files, capsys: pytest.CaptureFixture[str]) -> None:
    code, printed, _ = run(capsys, "checkpoint", "inspect", files.moco)
    assert code == 0
    assert "query (encoder=NAME takes another: key)" in printed
    assert "epoch=200, arch=resnet18" in printed
    assert "of the encoder key, which encoder=key takes" in " ".join(printed.split())


def test_inspect_says_why_a_file_cannot_be_used(files: Files, capsys: pytest.CaptureFixture[str]) -> None:
    code, printed, _ = run(capsys, "checkpoint", "inspect", files.without)
    assert code == 1
    assert "1 are missing: layer2.1.conv2.weight" in " ".join(printed.split())
    code, printed, _ = run(capsys, "checkpoint", "inspect", files.unknown, "table=true")
    assert code == 1
    assert "not recognized" in printed
    assert "2x3" in printed


def test_inspect_refuses_what_is_neither_a_file_nor_a_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    os.mkfifo(tmp_path / "pipe")
    code, _, error = run(capsys, "checkpoint", "inspect", str(tmp_path / "pipe"))
    assert code == 2
    assert "pipe is neither a file nor a folder" in error


def test_inspect_shows_a_file_of_this_package_of_any_version(capsys: pytest.CaptureFixture[str]) -> None:
    code, printed, _ = run(capsys, "checkpoint", "inspect", str(EARLIER))
    assert code == 0
    assert "r2plus1d_small (width=1, num_blocks=1), 854 parameters" in printed
    assert "2 classes (a, b)" in printed


def test_import_writes_a_weights_file_with_the_same_function(files: Files, capsys: pytest.CaptureFixture[str]) -> None:
    out, table = str(files.folder / "whole.safetensors"), files.folder / "whole.csv"
    code, printed, _ = run(capsys, "checkpoint", "import", files.whole, out, f"csv={table}")
    assert code == 0
    assert f"written to {out}" in printed
    backbone = load_backbone(out)
    image = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    assert torch.equal(backbone(image), files.backbone(image))
    weights = load_weights(out)
    assert weights.source is not None
    assert (weights.source["file"], weights.source["format"]) == (files.whole, "torchvision")
    with table.open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert {row["in_the_file"] for row in rows} == torch.load(files.whole, weights_only=True).keys()
    assert {row["here"] for row in rows} >= files.backbone.state_dict().keys()


def test_import_takes_the_encoder_that_is_named(files: Files) -> None:
    inspection = import_weights(files.moco, files.folder / "key.safetensors", encoder="key")
    assert (inspection.encoder, inspection.encoders) == ("key", ["query", "key"])
    expected = 2 * files.backbone.state_dict()["conv1.weight"]
    assert torch.equal(load_backbone(files.folder / "key.safetensors").state_dict()["conv1.weight"], expected)


def test_import_refuses_a_partial_load_and_still_says_what_became_of_each_tensor(
    files: Files, capsys: pytest.CaptureFixture[str]
) -> None:
    out, table = files.folder / "without.safetensors", files.folder / "without.csv"
    code, printed, error = run(capsys, "checkpoint", "import", files.without, str(out), f"csv={table}")
    assert code == 2
    assert "layer2.1.conv2.weight" in error
    assert "missing" in printed
    assert ",layer2.1.conv2.weight,,missing," in table.read_text()
    assert not out.exists()
    code, printed, _ = run(capsys, "checkpoint", "import", files.without, str(out), "allow=[layer2.1.conv2]")
    assert code == 0
    assert "allowed" in printed
    assert out.exists()


def test_import_writes_an_earlier_file_as_one_of_this_version(tmp_path: Path) -> None:
    import_weights(EARLIER, tmp_path / "newest.safetensors")
    assert tensor_file.read_plain(tmp_path / "newest.safetensors")["format"] == FORMAT
    assert load_weights(str(tmp_path / "newest.safetensors")).classes == ["a", "b"]
    with pytest.raises(ConfigError, match="leave out the settings of imports"):
        import_weights(EARLIER, tmp_path / "other.safetensors", backbone="r3d18")


def test_import_overwrites_only_weights_files(files: Files, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "notes.safetensors").write_text("mine")
    for out, expected in {
        tmp_path / "out.pth": "must end in .safetensors, such as",
        tmp_path / "nowhere" / "out.safetensors": "is in a folder that does not exist",
        tmp_path / "notes.safetensors": "exists and is not a weights file",
    }.items():
        code, _, error = run(capsys, "checkpoint", "import", files.whole, str(out))
        assert code == 2
        assert expected in error
    assert (tmp_path / "notes.safetensors").read_text() == "mine"


def test_mistakes_of_import_are_told_at_once(files: Files, capsys: pytest.CaptureFixture[str]) -> None:
    _, _, error = run(
        capsys, "checkpoint", "import", f"{files.whole}x", "out.pth", "format=torchvison", "inflate=never", "alow=[fc]"
    )
    for expected in (
        "did you mean whole.pth?",
        "format=torchvison",
        "inflate=never",
        "did you mean allow?",
        ".pth must",
    ):
        assert expected in error


def test_export_of_an_imported_network_is_compared_with_it(files: Files, capsys: pytest.CaptureFixture[str]) -> None:
    source, out = files.folder / "exported_from.safetensors", str(files.folder / "exported.safetensors")
    import_weights(files.whole, source)
    code, printed, _ = run(capsys, "checkpoint", "export", str(source), out, "format=eztorch_sce", "license=mit")
    assert code == 0
    assert "largest difference 0" in printed
    assert f"written to {out}" in printed
    assert inspect_checkpoint(out).weights is not None
    assert load_weights(out).about["license"] == "mit"
