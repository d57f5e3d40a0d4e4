"""Tests of devices and processes of a training, on machines described by their GPUs and variables."""

from pathlib import Path

import pytest
import torch.distributed as dist

from eztorch_sce import distributed
from eztorch_sce.config import schema
from eztorch_sce.config.compose import compose
from eztorch_sce.config.schema import PlanConfig, PretrainConfig, validate
from eztorch_sce.data.config import DataConfig
from eztorch_sce.errors import ConfigError
from eztorch_sce.evaluation.linear import LinearConfig
from eztorch_sce.launch import find_launch, is_first_process, local_rank, refuse_several
from eztorch_sce.machine import Machine, Missing
from eztorch_sce.methods.momentum_contrast import MomentumContrastConfig
from eztorch_sce.training.config import TrainerConfig

EIGHT_GPUS = Machine(num_gpus=8)
NO_GPU = Machine(num_gpus=0)
OLD_GPU = Machine(
    1, capability=(7, 0), missing=Missing(on_cpu="a C++ compiler: install g++", on_gpu="Triton: pip install triton")
)


def torchrun(world_size: int, per_node: int) -> dict[str, str]:
    return {"WORLD_SIZE": str(world_size), "LOCAL_WORLD_SIZE": str(per_node), "RANK": "0", "LOCAL_RANK": "0"}


def srun(num_tasks: int, **others: str) -> dict[str, str]:
    return {"SLURM_NTASKS": str(num_tasks), "SLURM_PROCID": "0", "SLURM_LOCALID": "0", **others}


def machine(num_gpus: int, environ: dict[str, str]) -> Machine:
    return Machine(num_gpus, find_launch(environ))


def pretrain_config(batch_size: int, trainer: TrainerConfig, bn_splits: int = 1) -> PretrainConfig:
    return PretrainConfig(
        data=DataConfig(root=".", batch_size=batch_size),
        trainer=trainer,
        method=MomentumContrastConfig(bn_splits=bn_splits),
    )


@pytest.fixture
def eight_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schema, "this_machine", lambda: EIGHT_GPUS)


def test_all_gpus_are_used_unless_devices_is_set() -> None:
    trainer = TrainerConfig().on(EIGHT_GPUS)
    assert (trainer.accelerator, trainer.devices, trainer.num_nodes, trainer.world_size) == ("gpu", 8, 1, 8)
    assert trainer.sync_batchnorm is True
    assert TrainerConfig(devices=2).on(EIGHT_GPUS).world_size == 2


def test_the_precision_is_bf16_on_gpus_that_have_it() -> None:
    assert TrainerConfig().on(EIGHT_GPUS).precision == "bf16-mixed"
    assert TrainerConfig(accelerator="cpu").on(EIGHT_GPUS).precision == "32-true"
    assert TrainerConfig().on(NO_GPU).precision == "32-true"
    assert TrainerConfig().on(OLD_GPU).precision == "32-true"
    assert TrainerConfig(precision="16-mixed").on(EIGHT_GPUS).precision == "16-mixed"


def test_a_mistake_in_each_setting_of_the_hardware_is_reported_at_once() -> None:
    trainer = TrainerConfig(devices=4, precision="bf16-mixed", compile=True)
    settings = [message.split("=")[0] for message in trainer.conflicts_on(OLD_GPU)]
    assert settings == ["trainer.precision", "trainer.compile", "trainer.devices"]


def test_training_on_a_cpu_uses_one_process() -> None:
    for trainer in (TrainerConfig(accelerator="cpu").on(EIGHT_GPUS), TrainerConfig().on(NO_GPU)):
        assert (trainer.accelerator, trainer.world_size, trainer.sync_batchnorm) == ("cpu", 1, True)


@pytest.mark.parametrize(
    ("environ", "devices", "num_nodes"),
    [
        (torchrun(2, per_node=2), 2, 1),
        (torchrun(8, per_node=4), 4, 2),
        (torchrun(1, per_node=1), 1, 1),
        (srun(8, SLURM_NTASKS_PER_NODE="4"), 4, 2),
        (srun(1), 1, 1),
    ],
)
def test_launched_processes_set_devices_and_nodes(environ: dict[str, str], devices: int, num_nodes: int) -> None:
    for num_gpus in (0, 8):
        launched = machine(num_gpus, environ)
        trainer = TrainerConfig().on(launched)
        assert (trainer.devices, trainer.num_nodes) == (devices, num_nodes)
        assert not TrainerConfig().conflicts_on(launched)


@pytest.mark.parametrize("job_name", ["bash", "interactive"])
def test_an_interactive_slurm_shell_is_not_a_launch(job_name: str) -> None:
    environ = srun(8, SLURM_NTASKS_PER_NODE="8", SLURM_JOB_NAME=job_name, SLURM_PROCID="3", SLURM_LOCALID="3")
    assert find_launch(environ) is None
    assert is_first_process(environ)
    assert local_rank(environ) == 0


def test_torchrun_takes_precedence_over_the_slurm_job_it_runs_in() -> None:
    launch = find_launch(torchrun(4, per_node=4) | srun(1))
    assert launch is not None
    assert (launch.launcher, launch.world_size) == ("torchrun", 4)


def test_ranks_come_from_the_launcher() -> None:
    assert local_rank(torchrun(8, per_node=4) | {"RANK": "6", "LOCAL_RANK": "2"}) == 2
    assert not is_first_process(torchrun(8, per_node=4) | {"RANK": "4"})
    assert not is_first_process(srun(2, SLURM_PROCID="1"))
    assert is_first_process(srun(2))
    assert is_first_process({})


@pytest.mark.parametrize(
    ("trainer", "machine_here", "message"),
    [
        (
            TrainerConfig(devices=4),
            machine(0, torchrun(2, per_node=2)),
            "trainer.devices=4 and trainer.num_nodes=1, but torchrun started 2 processes "
            "(WORLD_SIZE=2, LOCAL_WORLD_SIZE=2)",
        ),
        (TrainerConfig(num_nodes=2), machine(0, torchrun(2, per_node=2)), "trainer.num_nodes=2, but torchrun"),
        (TrainerConfig(devices=8), machine(8, srun(1)), "but srun started 1 process (SLURM_NTASKS=1)"),
        (TrainerConfig(), machine(0, srun(4)), "use srun --ntasks-per-node"),
        (TrainerConfig(), machine(0, srun(1, SLURM_NTASKS_PER_NODE="8") | {"SLURM_NTASKS": "12"}), "not a multiple"),
        (TrainerConfig(devices=9), EIGHT_GPUS, "trainer.devices=9 but this machine has 8 GPUs"),
        (TrainerConfig(), machine(2, torchrun(4, per_node=4)), "trainer.devices=4 but this machine has 2 GPUs"),
        (TrainerConfig(accelerator="gpu"), NO_GPU, "trainer.accelerator=gpu but torch finds no GPU"),
        (TrainerConfig(precision="bf16-mixed"), OLD_GPU, "higher, and these have 7.0: use trainer.precision=16-mixed"),
        (TrainerConfig(precision="16-mixed"), NO_GPU, "requires a GPU: use trainer.precision=32-true"),
        (TrainerConfig(compile=True), OLD_GPU, "trainer.compile=true requires Triton: pip install triton, or use"),
        (TrainerConfig(compile=True, accelerator="cpu"), OLD_GPU, "requires a C++ compiler: install g++, or use"),
    ],
)
def test_settings_that_do_not_fit_the_machine_are_reported_in_one_message(
    trainer: TrainerConfig, machine_here: Machine, message: str
) -> None:
    (only,) = trainer.conflicts_on(machine_here)
    assert message in only


def test_mpirun_is_recognized_and_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMPI_COMM_WORLD_SIZE", "2")
    with pytest.raises(ConfigError, match=r"mpirun started 2 processes \(OMPI_COMM_WORLD_SIZE=2\), .* use torchrun"):
        distributed.join()


def test_variables_without_a_place_to_meet_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {"WORLD_SIZE": "2", "RANK": "0"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match="WORLD_SIZE=2 is set, but MASTER_ADDR and MASTER_PORT not"):
        distributed.join()


def test_a_command_for_one_process_refuses_several(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in torchrun(2, per_node=2).items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match="data doctor runs in one process, but torchrun started 2 processes"):
        refuse_several("data doctor")


def test_a_process_group_of_the_users_code_counts_as_a_launch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/meet", rank=0, world_size=1)
    try:
        monkeypatch.setenv("SLURM_NTASKS", "2")  # of the job in which the code runs
        launch = find_launch()
        assert launch is not None
        assert (launch.launcher, launch.world_size) == ("your code", 1)
        assert is_first_process()
    finally:
        dist.destroy_process_group()


def test_a_notebook_trains_in_one_process() -> None:
    notebook = Machine(num_gpus=8, is_interactive=True)
    assert TrainerConfig().on(notebook).devices == 1
    (message,) = TrainerConfig(devices=2).conflicts_on(notebook)
    assert "trainer.devices=2 starts this script again for each process, which an interactive session cannot" in message


def test_processes_started_by_lightning_agree_with_the_settings() -> None:
    children = machine(0, {"WORLD_SIZE": "8", "LOCAL_RANK": "1", "NODE_RANK": "0"})
    trainer = TrainerConfig(devices=4, num_nodes=2)
    assert trainer.on(children) == trainer.on(NO_GPU)
    assert not trainer.conflicts_on(children)


@pytest.mark.usefixtures("eight_gpus")
def test_a_batch_size_that_eight_gpus_do_not_divide_is_rejected() -> None:
    for trainer in (TrainerConfig(), TrainerConfig(devices=8)):
        with pytest.raises(ConfigError, match=r"data\.batch_size=100 .* = 8 x 1 x 1 = 8, .* use data\.batch_size=96"):
            validate(pretrain_config(100, trainer))
    with pytest.raises(ConfigError, match=r"8 x 1 x 3 = 24, .*use data\.batch_size=264 or trainer\.accumulate=2$"):
        validate(pretrain_config(256, TrainerConfig(accumulate=3)))
    with pytest.raises(ConfigError, match=r"use data\.batch_size=248 or trainer\.devices=5$"):
        validate(pretrain_config(250, TrainerConfig()))
    assert validate(pretrain_config(96, TrainerConfig())).trainer.world_size == 8
    assert validate(pretrain_config(100, TrainerConfig(accelerator="cpu"))).trainer.world_size == 1


@pytest.mark.usefixtures("eight_gpus")
def test_synchronized_batch_norm_does_not_silently_replace_split_batch_norm() -> None:
    with pytest.raises(ConfigError, match=r"set trainer\.sync_batchnorm=false"):
        validate(pretrain_config(64, TrainerConfig(sync_batchnorm=True), bn_splits=2))
    for trainer in (TrainerConfig(), TrainerConfig(devices=8), TrainerConfig(sync_batchnorm=False)):
        assert validate(pretrain_config(64, trainer, bn_splits=2)).trainer.sync_batchnorm is False
    with pytest.raises(ConfigError, match=r"method\.bn_splits=2 leaves fewer than 2 samples per split"):
        validate(pretrain_config(16, TrainerConfig(sync_batchnorm=False), bn_splits=2))


@pytest.mark.usefixtures("eight_gpus")
def test_validation_does_not_change_the_config_of_the_user() -> None:
    config = pretrain_config(64, TrainerConfig())
    assert validate(config).trainer.devices == 8
    assert config.trainer == TrainerConfig()
    composed = compose("pretrain", ["data.root=."])
    composed.trainer.accelerator = "cpu"  # as a Python user may do after composing
    assert validate(composed).trainer.world_size == 1


@pytest.mark.usefixtures("eight_gpus")
def test_a_plan_depends_only_on_the_planned_machine() -> None:
    one = validate(PlanConfig(device="A100-80G"))
    assert (one.trainer.devices, one.trainer.num_nodes, one.trainer.sync_batchnorm) == (1, 1, True)
    four = validate(PlanConfig(device="cpu", devices=4))
    assert (four.trainer.world_size, four.trainer.sync_batchnorm) == (4, True)


@pytest.mark.usefixtures("eight_gpus")
def test_linear_evaluation_on_fixed_features_does_not_divide_the_batch() -> None:
    config = LinearConfig(weights="w", data=DataConfig(root=".", batch_size=100))
    assert validate(config).trainer == TrainerConfig(max_epochs=100)


def test_all_invalid_settings_of_a_run_are_reported() -> None:
    config = pretrain_config(64, TrainerConfig(max_epochs=0, accumulate=-1, accelerator="tpu"))
    config.run.log_every_n_steps, config.run.save_every_n_epochs = 0, -1
    with pytest.raises(ConfigError) as caught:
        validate(config)
    assert caught.value.problems == [
        "run.log_every_n_steps=0 must be at least 1",
        "run.save_every_n_epochs=-1 must be at least 1",
        "trainer.max_epochs=0 must be at least 1",
        "trainer.accelerator=tpu must be one of auto, gpu, cpu; did you mean gpu?",
        "trainer.accumulate=-1 must be at least 1",
    ]
