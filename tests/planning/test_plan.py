"""Comparison of plans with independent counters, real training steps and a published training."""

import json
import subprocess
import sys
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from eztorch_sce import api, registry
from eztorch_sce.cli import main
from eztorch_sce.config.compose import compose
from eztorch_sce.config.schema import PlanConfig
from eztorch_sce.errors import ConfigError
from eztorch_sce.methods.momentum_contrast import MomentumContrastConfig
from eztorch_sce.models.backbones.base import Backbone, as_backbone
from eztorch_sce.models.backbones.small import SmallR2Plus1DConfig
from eztorch_sce.models.heads import ProjectorConfig
from eztorch_sce.planning import devices
from eztorch_sce.planning.assumptions import to_markdown
from eztorch_sce.planning.cost import network_cost
from eztorch_sce.planning.devices import Measurement
from eztorch_sce.planning.plan import Plan
from eztorch_sce.settings import chosen
from eztorch_sce.training.config import TrainerConfig

TOY = ["backbone=resnet18", "views=image", "views.*.size=64", "data.num_frames=1", "data.batch_size=64"]
TOY += ["method.projector.hidden_dim=64", "method.predictor.hidden_dim=64", "method.queue_size=512"]
TOY += ["trainer.precision=32-true"]
TINY = ["backbone=r2plus1d_small", "backbone.width=4", "backbone.num_blocks=1", "views.*.size=32", *TOY[3:]]
IMAGENET = ["recipe=imagenet_resnet50_100ep"]
KINETICS = ["recipe=k400_r3d50"]


def plan(*overrides: str) -> Plan:
    return api.plan(compose("plan", overrides))


@pytest.fixture(scope="module")
def tiny() -> Plan:
    return plan(*TINY)


@pytest.mark.parametrize(
    ("recipe", "shape", "millions"), [(KINETICS, (8, 112, 112), 31.63), (IMAGENET, (1, 224, 224), 23.51)]
)
def test_flops_and_parameters_match_fvcore(recipe: list[str], shape: tuple[int, ...], millions: float) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from fvcore.nn import FlopCountAnalysis, parameter_count
    config = compose("plan", [*recipe, f"views.*.size={shape[-1]}", "devices=16"])
    backbone = config.backbone.build().eval()
    counted = FlopCountAnalysis(backbone, torch.zeros(1, 3, *shape)).unsupported_ops_warnings(False)
    planned = api.plan(config)
    assert planned.view_flops == pytest.approx(2 * counted.total(), rel=0.01)  # fvcore counts multiply-adds, and norms
    assert planned.parameters["backbone"] == parameter_count(backbone)[""]
    assert planned.parameters["backbone"] / 1e6 == pytest.approx(millions, abs=0.005)
    # Two views through the online and two through the momentum backbone; backward costs twice the online forward.
    forward, backward = map(sum, zip(*planned.flops.values(), strict=True))
    assert (forward, backward) == pytest.approx((4 * planned.view_flops, 4 * planned.view_flops), rel=0.02)


def test_a_step_on_fake_tensors_costs_the_flops_of_a_real_step() -> None:
    config = compose("plan", [*TOY, "method.queue_size=65536"])
    method = config.method.build(as_backbone(config.backbone.build()), config.loss.build())
    views = [torch.randn(4, 3, 1, 64, 64) for _ in range(2)]
    with FlopCounterMode(display=False) as forward:
        output = method(views)
    with FlopCounterMode(display=False) as backward:
        output.loss.backward()
    planned = api.plan(config)
    planned_flops = [4 * sum(each) for each in zip(*planned.flops.values(), strict=True)]
    in_place = 4 * 2 * 65536 * 256 * 4  # torch does not count addmm_: 2 queries, 2 keys
    assert planned_flops == [forward.get_total_flops() + in_place, backward.get_total_flops()]
    assert planned.parameters["momentum copies"] == sum(p.numel() for p in method.momentum_encoder.parameters())
    assert sum(planned.parameters.values()) == sum(p.numel() for p in method.parameters())


PEAK_OF_RUNS = """
import json, os, sys
import torch
from torch.profiler import ProfilerActivity, profile
from eztorch_sce import api
from eztorch_sce.config.compose import compose

torch.set_num_threads(1)
folder, *words = sys.argv[1:]
for precision in ("32-true", "bf16-mixed"):
    if (child := os.fork()) == 0:
        config = compose("pretrain", [*words, f"run.dir={folder}/{precision}", f"trainer.precision={precision}"])
        with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
            api.pretrain(config)
        recorded.export_chrome_trace(f"{folder}/{precision}.json")
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
"""


@pytest.mark.long
def test_the_sum_of_the_components_is_the_peak_memory_of_a_run(tmp_path: Path) -> None:
    """Measured in fresh processes: everything in torch's allocator, from decoded images to temporaries of operators."""
    from PIL import Image

    (tmp_path / "images").mkdir()
    for number in range(128):
        Image.effect_noise((72, 72), 64).convert("RGB").save(tmp_path / "images" / f"{number}.png")
    shared = [*TOY[:-1], "optimizer=sgd", "trainer.max_epochs=1"]
    local = [f"data.root={tmp_path}/images", "data.num_workers=0", "trainer.accelerator=cpu"]
    command = [sys.executable, "-c", PEAK_OF_RUNS, str(tmp_path), *shared, *local]
    subprocess.run(command, check=True, capture_output=True)

    for precision in ("32-true", "bf16-mixed"):
        trace = json.loads((tmp_path / f"{precision}.json").read_text())
        changes = [event for event in trace["traceEvents"] if event["name"] == "[memory]"]
        held = peak = 0
        for event in sorted(changes, key=lambda event: event["ts"]):
            held += event["args"]["Bytes"]
            peak = max(peak, held)
        planned = plan(*shared, f"trainer.precision={precision}", "device=cpu")
        assert max(planned.memory, key=lambda name: planned.memory[name].at(64)) == "activations kept"
        assert planned.memory_at(64) == pytest.approx(peak, rel=0.15)


@pytest.mark.parametrize("overrides", [["device=A100-80G", "devices=8"], ["device=V100-16G", "devices=8"]])
@pytest.mark.parametrize("precision", ["32-true", "16-mixed"])
def test_the_largest_batch_fits_and_one_more_does_not(overrides: list[str], precision: str) -> None:
    planned = plan(*IMAGENET, "backbone=resnet18", *overrides, f"trainer.precision={precision}")
    assert planned.memory_at(planned.largest_batch) <= planned.usable < planned.memory_at(planned.largest_batch + 1)
    assert ("does NOT fit" in planned.verdict()[0]) == (planned.batch > planned.largest_batch)


def test_memory_components_match_hand_counts(tiny: Plan) -> None:
    trainable = 4 * (sum(tiny.parameters.values()) - tiny.parameters["momentum copies"])
    assert tiny.memory["gradients"].at(64) == trainable
    assert tiny.memory["optimizer state"].at(64) == trainable  # SGD with momentum
    assert tiny.memory["queue"].at(64) == 512 * 256 * 4 + 8  # keys and the position
    assert tiny.memory["views, float"].at(64) == 4 * tiny.memory["views, uint8"].at(64) == 64 * 2 * 3 * 32 * 32 * 4
    adamw = plan(*TINY, "optimizer=adamw").memory["optimizer state"].at(64)
    assert (adamw, plan(*TINY, "optimizer.momentum=0").memory["optimizer state"].at(64)) == (2 * trainable, 0)
    half = plan(*TINY, "trainer.precision=16-mixed").memory["activations kept"].per_sample
    assert 0.5 < half / tiny.memory["activations kept"].per_sample < 0.6  # some activations stay in float32


def test_shards_are_a_part_of_what_copies_keep(tiny: Plan) -> None:
    eight = plan(*TINY, "devices=8", "trainer.strategy=fsdp")
    for name in ("gradients", "optimizer state", "momentum encoder"):
        assert eight.memory[name].fixed == tiny.memory[name].fixed / 8
    assert eight.memory["weights"] == tiny.memory["weights"]  # whole in evaluations
    trainable = 4 * sum(count for name, count in eight.parameters.items() if name != "momentum copies")
    assert eight.network["gradients"] == 2 * 7 / 8 * trainable  # after the backward pass of each of two views
    assert eight.network["weights"] == (2 * 2 + 2) * 7 / 8 * trainable  # and as many for the keys


def test_network_traffic_matches_hand_counts() -> None:
    alone, eight = plan(*TINY), plan(*TINY, "devices=8", "method.batch_keys=true")
    assert set(alone.network.values()) == {0}
    trainable = sum(count for name, count in eight.parameters.items() if name != "momentum copies")
    assert eight.network["gradients"] == 2 * 7 / 8 * 4 * trainable
    assert eight.network["keys"] == 7 * 8 * 2 * 256 * 4  # to 7 other devices: 8 samples, 2 views
    assert eight.memory["gradients"].fixed == 2 * alone.memory["gradients"].fixed
    accumulated = plan(*TINY, "devices=4", "trainer.accumulate=2")
    assert accumulated.batch == eight.batch == 8
    assert accumulated.network["keys"] == 2 * 3 * 8 * 2 * 256 * 4
    # A batch norm of C channels gathers 2 C + 1 numbers forward and sums 2 C backward.
    backbone = SmallR2Plus1DConfig(width=4, num_blocks=1).build()
    norms = [module.num_features for module in backbone.modules() if isinstance(module, torch.nn.BatchNorm3d)]
    gathered = sum(4 * 4 * (2 * channels + 1) * 7 for channels in [*norms, 64, 64, 256])  # 2 views, both encoders
    gathered += 4 * 2 * (2 * 64 + 1) * 7  # the predictor
    summed = sum(4 * 2 * 2 * channels * 2 * 7 / 8 for channels in [*norms, 64, 64, 256, 64])
    assert eight.network["batch norm"] == pytest.approx(gathered + summed)


def test_time_matches_a_published_training() -> None:
    """MoCo on ImageNet, ResNet-50, 200 epochs: 53 hours on 8 V100s in float32, according to the authors' README."""
    moco = ["backbone=resnet50", "views=moco_v2", "loss=infonce", "method.queue_size=65536", "method.symmetric=false"]
    moco += ["method.predictor=null", "method.projector.num_hidden=1", "method.projector.output_dim=128"]
    moco += ["method.shuffle_bn=true", "trainer.sync_batchnorm=false", "data.batch_size=256", "num_records=1281167"]
    planned = plan(*moco, "trainer.max_epochs=200", "devices=8", "device=V100-32G")
    assert planned.total_s is not None
    assert planned.total_s / 3600 == pytest.approx(53, rel=0.25)


def test_a_measurement_takes_precedence_over_the_estimate(monkeypatch: pytest.MonkeyPatch) -> None:
    measured = plan(*TINY, "num_records=1000", "throughput=256", "trainer.max_epochs=3")
    assert (measured.step_s, measured.epoch_s, measured.total_s) == (0.5, 7.5, 22.5)  # 2 x 64 clips; 15 full batches
    workload = "r2plus1d_small, 2 views of 32 px, batch 16, queue 65536, cuda, float32"
    measurement = Measurement("NVIDIA A100-SXM4-80GB", workload, 100.0, "benchmarks/results/step.json")
    monkeypatch.setattr(devices, "load_measurements", lambda: [measurement])
    two_devices = plan(*TINY, "devices=2")
    assert two_devices.step_s == 64 / 200
    assert "NVIDIA A100-SXM4-80GB" in " ".join(two_devices.assumptions)
    for other in ("device=A100-40G", "trainer.precision=16-mixed", "views.*.size=48"):
        assert "not measured" in " ".join(plan(*TINY, other).assumptions)


def test_the_number_of_records_is_the_published_count_or_unknown(tiny: Plan) -> None:
    assert any("1281167" in line for line in plan(*TINY, "data.layout=imagenet").assumptions)
    assert tiny.total_s is None
    assert any("num_records=..." in line for line in tiny.assumptions)


def test_a_plan_is_in_the_precision_that_the_device_would_use() -> None:
    unset = TINY[:-1]
    assert plan(*unset, "device=A100-80G").title.endswith("bf16-mixed")
    assert plan(*unset, "device=V100-16G").title.endswith("32-true")
    with pytest.raises(ConfigError, match=r"trainer\.precision=bf16-mixed requires GPUs of compute capability 8\.0"):
        plan(*unset, "device=V100-16G", "trainer.precision=bf16-mixed")


@pytest.mark.parametrize("name", ["r2plus1d_18", "r3d18", "x3d_s"])
def test_backbones_run_on_fake_tensors(name: str) -> None:
    config = PlanConfig(backbone=registry.choices("backbone")[name](), trainer=TrainerConfig(precision="32-true"))
    with torch.device("meta"):
        num_frames = 4 if as_backbone(chosen(config.backbone).build()).takes_clips else 1
    assert network_cost(config, [(3, num_frames, 64, 64)] * 2, 4).measured_on == "tensors without values"


@pytest.mark.parametrize("name", registry.choices("method"))
def test_every_method_has_a_plan(name: str) -> None:
    heads = [text for text in TINY if "queue" not in text and (name != "simclr" or "predictor" not in text)]
    loss = "ntxent" if name == "simclr" else "sce"
    planned = plan(*heads, f"method={name}", f"loss={loss}", "devices=4")
    assert planned.flops["online encoder"].backward == pytest.approx(
        2 * planned.flops["online encoder"].forward, rel=0.2
    )
    assert ("momentum encoder" in planned.flops) == (name != "simclr")
    assert planned.flops["loss"].forward > 0


class _ValueDependent(Backbone):
    def __init__(self) -> None:
        super().__init__("value_dependent", num_features=8)
        self.linear = torch.nn.Linear(3, 8)

    def features(self, clips: Tensor) -> Tensor:
        x = clips.mean(dim=(2, 3, 4))
        features: Tensor = self.linear(x if x.sum().item() < 1 else -x)
        return features


@dataclass
class _ValueDependentConfig:
    def build(self) -> Backbone:
        return _ValueDependent()


@dataclass
class NeedsNegativesConfig:
    """A loss that cannot be called without negatives."""

    def build(self) -> Any:
        return lambda query, key, negatives: (query @ negatives.T).logsumexp(dim=1).mean()


def test_a_loss_that_does_not_fit_the_method_is_refused_as_by_pretrain() -> None:
    config = PlanConfig(backbone="resnet18", method="simclr", loss=NeedsNegativesConfig(), num_records=100)
    with pytest.raises(ConfigError, match="needs negatives, and the method has no queue"):
        api.plan(config)


def test_a_network_that_depends_on_values_runs_on_a_few_real_samples() -> None:
    method = MomentumContrastConfig(ProjectorConfig(hidden_dim=16, output_dim=8), queue_size=32)
    trainer = TrainerConfig(precision="32-true")
    config: Any = PlanConfig(backbone=_ValueDependentConfig(), method=method, trainer=trainer)
    cost = network_cost(config, [(3, 1, 16, 16)] * 2, 1024)
    assert cost.measured_on == "2 and 4 real samples"
    assert cost.view_flops == 2 * 3 * 8


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["device=A100"], "device=A100 must be one of A100-80G, A100-40G, "),
        (
            ["data.batch_size=100", "devices=8"],
            "must be a multiple of trainer.devices x num_nodes x accumulate = 8",
        ),
        (["devices=0"], "devices=0 must be at least 1"),
        (["utilization=1.5"], "utilization=1.5 must be greater than 0 and at most 1"),
        (["backbone=resnet18", "data.num_frames=8"], "takes single images"),
        (["data.decoder=ffmpeg"], "data.decoder=ffmpeg must be one of"),
    ],
)
def test_invalid_settings_of_a_plan_are_reported(overrides: list[str], words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        plan(*overrides)
    assert words in str(caught.value)


def test_the_command_prints_the_plan_in_80_columns(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    main(["plan", *TINY, "devices=4", "device=RTX-3090"])
    printed = capsys.readouterr().out
    for words in (
        "4 x RTX-3090",
        "predictor",
        "activations kept",
        "queue",
        "batch norm",
        "The largest batch that fits",
    ):
        assert words in printed
    assert max(map(len, printed.splitlines())) <= 80


def test_a_plan_says_when_the_device_waits_for_the_host_and_what_helps(tiny: Plan) -> None:
    small = plan(*TINY, "device=H100-80G")
    assert small.time.is_bound_by_host
    assert small.step_s == small.time.host_s
    compiled = plan(*TINY, "device=H100-80G", "trainer.compile=true")
    assert compiled.step_s < small.step_s
    assert any(f"trainer.compile=true, a step takes {1e3 * compiled.step_s:.0f} ms" in line for line in small.advice)
    assert any("data.num_workers" in line for line in small.advice)
    large = plan(*IMAGENET, "backbone=resnet18", "devices=8", "trainer.precision=bf16-mixed")
    assert not large.time.is_bound_by_host
    assert not any("host" in line for line in large.advice)


def test_launches_are_those_of_the_operators_of_a_step() -> None:
    """A linear layer without norm: its product forward, and the products for its weight and input backward."""
    one, two = (plan(*TINY, f"method.projector.num_hidden={count}").time.launches for count in (1, 2))
    added = two["networks and loss"] - one["networks and loss"]
    # Per pass of the projector: product, norm, its count of batches, ReLU. Two views online and two momentum passes;
    # backward for the online ones: two products, norm, ReLU, and the sums of gradients over the two views.
    assert 4 * 4 + 2 * 4 <= added <= 4 * 4 + 2 * 4 + 6


def test_a_plan_compares_1_8_and_64_devices_with_the_same_batch() -> None:
    planned = plan(*IMAGENET, "backbone=resnet18", "devices=8", "trainer.num_nodes=2")
    assert [scale.num_devices for scale in planned.scales] == [1, 8, 16, 64]
    assert [scale.batch * scale.num_devices for scale in planned.scales] == [planned.batch * 16] * 4
    one, eight, sixteen, many = (scale.time for scale in planned.scales)
    assert one.network_s == 0 < eight.network_s < sixteen.network_s < many.network_s
    assert one.device_s > eight.device_s > sixteen.device_s > many.device_s
    assert sixteen.total_s == planned.time.total_s
    assert "synchronized batch norm" in many.launches
    assert "synchronized batch norm" not in one.launches


def test_compiling_and_checkpointing_need_less_memory() -> None:
    tiny = plan(*TINY, "backbone.num_blocks=3")
    for setting in ("trainer.compile=true", "trainer.checkpointing=true"):
        assert (
            plan(*TINY, "backbone.num_blocks=3", setting).memory["activations kept"].per_sample
            < tiny.memory["activations kept"].per_sample
        )


def test_the_documentation_shows_the_assumptions() -> None:
    page = Path(__file__).parents[2] / "docs" / "how" / "planning.md"
    assert to_markdown() in page.read_text(encoding="utf-8")
