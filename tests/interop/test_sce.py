"""Tests of the import of checkpoints of the public SCE code, and of what a pretraining goes on from."""

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from command_line import run
from foreign_files import assert_accounted_for, container, outputs_of, prefixed, recorded
from formula import filled_state
from image_files import write_noisy_classes
from omegaconf import OmegaConf
from torch import Tensor
from torchvision.models import get_model

from eztorch_sce import registry
from eztorch_sce.augment.statistics import STATISTICS
from eztorch_sce.errors import ConfigError
from eztorch_sce.interop.containers import read_container
from eztorch_sce.interop.import_weights import Choices, import_container, import_file
from eztorch_sce.methods.going_on import go_on_with
from eztorch_sce.methods.momentum_contrast import MomentumContrastConfig
from eztorch_sce.models.heads import PredictorConfig, ProjectorConfig
from eztorch_sce.models.weights import load_weights

pytestmark = pytest.mark.xdist_group("sce_import")

DIM, QUEUE = 32, 16


def head(widths: list[int], last_norm: bool) -> dict[str, tuple[int, ...]]:
    """Return the shapes of a head of the public code: linear layers with batch norm and ReLU between."""
    shapes: dict[str, tuple[int, ...]] = {}
    for layer, (num_in, num_out) in enumerate(pairwise(widths)):
        is_last = layer == len(widths) - 2
        shapes[f"layers.{3 * layer}.weight"] = (num_out, num_in)
        norm = f"layers.{3 * layer + 1}"
        if not is_last:
            shapes |= {f"{norm}.weight": (num_out,), f"{norm}.bias": (num_out,)}
        if not is_last or last_norm:
            shapes |= {f"{norm}.running_mean": (num_out,), f"{norm}.running_var": (num_out,)}
            shapes |= {f"{norm}.num_batches_tracked": ()}
    return shapes


def pretraining(trunk: dict[str, Tensor], width: int) -> dict[str, Any]:
    """Return a checkpoint as Lightning writes it for the public code."""
    projector, predictor = head([width, 48, DIM], last_norm=True), head([DIM, 24, DIM], last_norm=False)
    state = prefixed("trunk.", trunk)
    state |= filled_state(prefixed("projector.", projector)) | filled_state(prefixed("predictor.", predictor))  # type: ignore[arg-type]
    state |= {f"momentum_{name}": 0.5 * tensor for name, tensor in state.items() if not name.startswith("predictor")}
    state |= {"queue": torch.nn.functional.normalize(torch.randn(DIM, QUEUE), dim=0), "queue_ptr": torch.tensor([6])}
    state |= {"train_transform.0.p": torch.tensor(0.5), "val_transform.weights": torch.ones(3)}
    transform = {"mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6]}
    settings = OmegaConf.create({"trunk": {"name": "resnet18"}, "val_transform": transform})
    optimizer = {"state": {0: {"momentum_buffer": torch.ones(3)}}, "param_groups": [{"lr": 0.1}]}
    others = {"epoch": 3, "global_step": 7, "pytorch-lightning_version": "1.6.0", "optimizer_states": [optimizer]}
    return {"state_dict": state, "hyper_parameters": settings, "lr_schedulers": [{"last_epoch": 3}], **others}


@pytest.fixture(scope="module")
def trunk() -> dict[str, Tensor]:
    """Return the weights of the recorded ResNet-18 for small images, from torchvision's names."""
    shapes = {name: tuple(value.shape) for name, value in get_model("resnet18").state_dict().items()}
    shapes["conv1.weight"] = (64, 3, 3, 3)
    return filled_state({name: shape for name, shape in shapes.items() if not name.startswith("fc.")})


@pytest.fixture(scope="module")
def checkpoint(trunk: dict[str, Tensor], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("public") / "epoch=3.ckpt"
    torch.save(pretraining(trunk, 512), path)
    return path


def test_a_pretraining_is_taken_with_all_that_goes_on(checkpoint: Path) -> None:
    content = read_container(checkpoint)
    imported = import_container(content, str(checkpoint))
    assert imported.found.format.name == "sce"
    assert_accounted_for(imported, content.tensors)
    inputs, expected = recorded("resnet18_small_input_no_fc")
    torch.testing.assert_close(outputs_of(imported, inputs), expected, rtol=1e-4, atol=1e-4)
    assert STATISTICS[imported.spec.stats] == ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))  # as its settings say
    assert torch.equal(imported.method["queue.keys"], content.tensors["state_dict.queue"].T)
    assert imported.method["queue.position"] == 6
    half = {name.partition(".backbone.")[2]: value for name, value in imported.method.items() if ".backbone." in name}
    assert half.keys() == imported.state.keys()
    assert torch.equal(half["conv1.weight"], 0.5 * imported.state["conv1.weight"])
    ignored = {row.theirs: row.note for row in imported.rows if row.status == "ignored"}
    assert ignored == {
        "state_dict.train_transform.0.p": "buffer of an augmentation",
        "state_dict.val_transform.weights": "buffer of an augmentation",
        "optimizer_states.0.state.0.momentum_buffer": "state of an optimizer",
    }


def test_the_momentum_encoder_is_taken_by_name_and_alone(checkpoint: Path) -> None:
    imported = import_file(str(checkpoint), Choices(encoder="momentum"))
    online = import_file(str(checkpoint))
    assert torch.equal(imported.state["conv1.weight"], 0.5 * online.state["conv1.weight"])
    assert not imported.method


def test_a_momentum_encoder_that_is_not_whole_is_refused(checkpoint: Path) -> None:
    content = read_container(checkpoint)
    lacking = dict(content.tensors)
    del lacking["state_dict.momentum_trunk.layer4.1.bn2.bias"]
    missing = r"1 are missing: momentum_encoder\.encoder\.backbone\.layer4\.1\.bn2\.bias;"
    with pytest.raises(ConfigError, match=missing):
        import_container(container(lacking), "cut.ckpt")
    taken = import_container(container(lacking), "cut.ckpt", Choices(allow=["momentum_encoder"]))
    assert "its encoder momentum is not whole, and left out" in taken.notes
    assert_accounted_for(taken, lacking)
    assert {name.partition(".")[0] for name in taken.method} == {"online", "momentum_encoder", "queue"}
    assert not any(".backbone." in name for name in taken.method)


def test_heads_and_queues_of_damaged_numbers_are_not_taken(checkpoint: Path) -> None:
    damaged = dict(read_container(checkpoint).tensors)
    damaged["state_dict.queue"] = torch.full((DIM, QUEUE), torch.inf)
    with pytest.raises(ConfigError, match=r"1 do not fit: state_dict\.queue holds numbers that are NaN or infinite"):
        import_container(container(damaged), "bad.ckpt")
    assert "queue.keys" not in import_container(container(damaged), "bad.ckpt", Choices(allow=["queue"])).method


CASES = {  # our network, its settings, what the public code has before its names, and the classes of its classifier
    "r3d18_no_fc": ("r3d18", "model.", 0),
    "r3d50_slow_no_fc": ("r3d50", "model.", 0),
    "r2plus1d_50_head400": ("r2plus1d_50", "", 400),
    "x3d_s_head400": ("x3d_s", "", 400),
    "x3d_xs_head10": ("x3d_xs", "", 10),
}


@pytest.mark.parametrize(
    "case", [case if case == "r3d18_no_fc" else pytest.param(case, marks=pytest.mark.long) for case in CASES]
)
@pytest.mark.parametrize("wrapper", ["state_dict.trunk.", ""], ids=["trained", "released"])
def test_video_networks_compute_what_the_public_code_computes(case: str, wrapper: str) -> None:
    name, prefix, num_classes = CASES[case]
    with torch.device("meta"):
        backbone = registry.choices("backbone")[name]().build()
    shapes = {prefix + key: tuple(value.shape) for key, value in backbone.state_dict().items()}
    if num_classes:
        shapes |= {"blocks.5.proj.weight": (num_classes, backbone.num_features), "blocks.5.proj.bias": (num_classes,)}
    tensors = prefixed(wrapper, filled_state(shapes))
    imported = import_container(container(tensors), case)
    assert_accounted_for(imported, tensors)
    inputs, expected = recorded(case)
    largest = expected.abs().max().item()
    torch.testing.assert_close(outputs_of(imported, inputs), expected, rtol=1e-4, atol=1e-5 * largest)


@pytest.mark.parametrize("name", ["classifier.layers.0", "classifier.layers.1", "classifier.proj", "trunk.fc"])
def test_the_classifier_of_a_fine_tuning_is_taken(trunk: dict[str, Tensor], name: str) -> None:
    tensors = prefixed("state_dict.", prefixed("trunk.", trunk) | filled_state({f"{name}.weight": (7, 512)}))
    tensors[f"state_dict.{name}.bias"] = torch.arange(7.0)
    imported = import_container(container(tensors), "tuned.ckpt")
    assert_accounted_for(imported, tensors)
    assert imported.head is not None
    assert torch.equal(imported.head["bias"], torch.arange(7.0))


@pytest.mark.parametrize("others", [{"layers.3.weight": (7, 512), "layers.3.bias": (7,)}, {"bn.running_mean": (512,)}])
def test_a_classifier_that_is_not_linear_is_refused(trunk: dict[str, Tensor], others: dict[str, Any]) -> None:
    name = "layers.0" if "bn.running_mean" not in others else "proj"
    shapes = {f"{name}.weight": (512, 512), f"{name}.bias": (512,), **others}
    tensors = prefixed("trunk.", trunk) | prefixed("classifier.", filled_state(shapes))
    with pytest.raises(ConfigError, match=rf"{len(shapes)} are unexpected: classifier\.{name}\.weight"):
        import_container(container(tensors), "tuned.ckpt")


def method(**settings: Any) -> Any:
    config = MomentumContrastConfig(
        projector=ProjectorConfig(hidden_dim=48, num_hidden=1, output_dim=DIM), **{"queue_size": QUEUE, **settings}
    )
    network = registry.choices("backbone")["resnet18"](small_input=True).build()
    return config.build(network, registry.choices("loss")["sce"]().build())


def test_a_pretraining_goes_on_with_its_heads_momentum_encoder_and_queue(checkpoint: Path) -> None:
    state = import_file(str(checkpoint)).method
    trained = method(predictor=PredictorConfig(hidden_dim=24))
    going_on = go_on_with(trained, state)
    assert (going_on.taken, going_on.left_out) == (["projector", "predictor", "momentum encoder", "queue"], {})
    own = trained.state_dict()
    assert all(torch.equal(own[name], tensor) for name, tensor in state.items())
    assert own.keys() - state.keys() == {name for name in own if name.startswith("online.backbone.")}


def test_what_does_not_fit_a_method_is_left_out_with_the_setting_to_change(checkpoint: Path) -> None:
    state = import_file(str(checkpoint)).method
    trained = method(queue_size=8, predictor=None)
    assert go_on_with(trained, state).left_out == {
        "predictor": "the method has none; set method.predictor.hidden_dim=24",
        "queue": "set method.queue_size=16 to take it along",
    }
    half = trained.state_dict()["momentum_encoder.encoder.projector.0.weight"]
    assert torch.equal(half, 0.5 * state["online.projector.0.weight"])
    loss = registry.choices("loss")["sce"]().build()
    small = registry.choices("backbone")["r2plus1d_small"](width=4, num_blocks=1).build()
    wider = MomentumContrastConfig().build(small, loss)
    going_on = go_on_with(wider, state)
    assert going_on.taken == []
    assert going_on.left_out["projector"].startswith("set method.projector.hidden_dim=48 method.projector.num_hidden=1")
    long_keys = state | {"queue.keys": 2 * state["queue.keys"]}
    reason = "its keys are no unit vectors, as the loss expects them"
    assert go_on_with(method(predictor=None), long_keys).left_out["queue"] == reason
    assert going_on.left_out["queue"] == "it belongs to the momentum encoder, which is left out"


def test_a_head_that_no_setting_makes_is_left_out(checkpoint: Path) -> None:
    state = import_file(str(checkpoint)).method | {"online.projector.0.bias": torch.zeros(48)}
    going_on = go_on_with(method(predictor=PredictorConfig(hidden_dim=24)), state)
    reason = "it has other layers than the settings can express (online.projector.0.bias)"
    assert going_on.left_out["projector"] == reason
    assert not going_on.taken


def test_a_momentum_encoder_that_a_file_lacks_starts_as_a_copy(checkpoint: Path) -> None:
    state = {name: value for name, value in import_file(str(checkpoint)).method.items() if "momentum" not in name}
    trained = method(predictor=None)
    going_on = go_on_with(trained, state)
    assert going_on.taken == ["projector"]
    own = trained.state_dict()
    assert all(
        torch.equal(own[f"momentum_encoder.encoder.{name.removeprefix('online.')}"], value)
        for name, value in own.items()
        if name.startswith("online.")
    )


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    write_noisy_classes(folder, {"train": 8, "test": 4}, size=16)
    return folder


def words_of(command: str, checkpoint: Path, images: Path, run_dir: Path) -> list[str]:
    training = ["trainer.accelerator=cpu", "trainer.max_epochs=1", "data.batch_size=4", "schedule.warmup_epochs=0"]
    heads = ["method.projector.hidden_dim=48", "method.projector.num_hidden=1", "method.projector.output_dim=32"]
    heads += ["method.predictor.hidden_dim=24"]
    own = {
        "pretrain": [*training, *heads, "views=image", "views.*.size=8", "optimizer=sgd"],
        "finetune": [*training, "views.*.size=8", "test.num_crops=1"],
        "retrieve": ["accelerator=cpu", "test.num_crops=1"],
    }
    others = [f"weights={checkpoint}", f"data.root={images}", "data.num_workers=0", f"run.dir={run_dir}"]
    return [command, *own[command], *others]


@pytest.mark.long
def test_one_command_goes_on_with_a_public_pretraining(
    checkpoint: Path, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, err = run(capsys, *words_of("pretrain", checkpoint, images, tmp_path / "run"))
    assert code == 0, err
    assert "goes on with its projector, predictor, momentum encoder, queue; the optimizer and the schedule" in err
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    started = report["protocol"]["started_from"]
    assert started["imported"]["format"] == "sce"
    assert "was trained with the statistics mean_0.1_0.2_0.3" in err
    assert "but the views have image: views.*.stats=null takes the former" in err
    assert started["goes_on_with"] == ["projector", "predictor", "momentum encoder", "queue"]
    provenance = load_weights(str(tmp_path / "run")).provenance
    assert provenance is not None
    assert [each.source for each in provenance.chain()][1:] == ["public SCE code"]


@pytest.mark.long
@pytest.mark.parametrize("command", ["finetune", "retrieve"])
def test_one_command_evaluates_a_public_checkpoint(
    command: str, checkpoint: Path, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = run(capsys, *words_of(command, checkpoint, images, tmp_path / "run"))
    assert code == 0, err
    assert "test records seen in pretraining: unknown (trained by other code)" in out
    card = json.loads((tmp_path / "run" / "report.json").read_text())["protocol"]["weights"]
    assert card["imported"]["encoder"] == "online"
    assert card["sha256"] == load_weights(str(checkpoint)).sha256


@pytest.mark.long
@pytest.mark.parametrize("num_classes", [2, 3])
def test_a_public_classifier_is_tested_on_data_with_as_many_classes(
    num_classes: int, trunk: dict[str, Tensor], images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    state = prefixed("trunk.", trunk) | {"classifier.proj.weight": torch.zeros(num_classes, 512)}
    state["classifier.proj.bias"] = torch.arange(0.0, -num_classes, -1)  # it always answers the first class
    torch.save({"state_dict": state}, tmp_path / "tuned.ckpt")
    settings = ["data.num_workers=0", "accelerator=cpu", "test.num_crops=1", f"run.dir={tmp_path / 'run'}"]
    code, _, err = run(capsys, "test", f"weights={tmp_path / 'tuned.ckpt'}", f"data.root={images}", *settings)
    if num_classes == 3:
        assert code == 2
        assert "classifies 3 classes, but" in " ".join(err.split())
        assert not (tmp_path / "run").exists()
        return
    assert code == 0, err
    assert "does not name its classes: its outputs are assumed to be a, b, in the order of the data" in " ".join(
        err.split()
    )
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    assert report["metrics"]["test_top1"] == 0.5
