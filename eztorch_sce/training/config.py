"""Settings of a training: run directory, epochs, devices and precision, resolved for a machine."""

from dataclasses import dataclass, replace
from importlib.util import find_spec

from eztorch_sce import signals
from eztorch_sce.launch import Launch
from eztorch_sce.machine import BF16_CAPABILITY, Machine
from eztorch_sce.settings import PathSetting, Settings, setting, show

_EXTRAS = {"wandb": ["wandb"], "mlflow": ["mlflow", "sqlalchemy", "alembic"]}  # packages of loggers


@dataclass
class RunConfig(Settings):
    """The run directory, and how often a run writes to it."""

    RESUMABLE = True

    dir: PathSetting = setting(None, is_path=True, help="Run directory; null means the next free runs/<command>-<n>.")
    save_every_minutes: float = setting(
        30.0, above=0, help="Minutes between two checkpoints. Saving takes less than a second of a training's time."
    )
    save_every_n_steps: int | None = setting(
        None, at_least=1, help="Optimizer steps between two further checkpoints; null saves by the clock only."
    )
    keep: int = setting(2, at_least=1, help="Number of checkpoints that are kept; older ones are removed.")
    on_save_error: str = setting(
        "stop",
        choices=("stop", "continue"),
        help="If a checkpoint cannot be written, for lack of space for instance: stop, or train on without saving. The "
        "checkpoint before it stays.",
    )
    log_every_n_steps: int = setting(10, at_least=1, help="Optimizer steps between two rows of metrics.csv.")
    loggers: list[str] = setting(
        ["csv", "tensorboard"],
        choices=("csv", "tensorboard", *_EXTRAS),
        help="Where metrics are logged. Reports and `watch` draw their curves from csv, which is metrics.csv. wandb is "
        "offline without WANDB_MODE=online, and mlflow keeps a file in the run directory without MLFLOW_TRACKING_URI.",
    )
    save_every_n_epochs: int | None = setting(
        None, at_least=1, help="Epochs between two intermediate backbone files; null writes only the final one."
    )
    grace_s: float = setting(
        signals.GRACE_S,
        above=0,
        help="Seconds from a signal such as SIGTERM to the end of the process, saved or not. SLURM and Kubernetes send "
        "SIGKILL after 30 s.",
    )

    def conflicts(self, prefix: str) -> list[str]:
        """Return one message per logger whose packages are not installed."""
        messages = []
        for name in filter(_EXTRAS.__contains__, self.loggers):
            if missing := [package for package in _EXTRAS[name] if not _is_installed(package)]:
                others = [each for each in self.loggers if each != name]
                messages.append(
                    f"{prefix}.loggers={show(self.loggers)}: {name} needs {' and '.join(missing)}: "
                    f"pip install 'eztorch-sce[{name}]', or set {prefix}.loggers={show(others)}"
                )
        return messages


def _is_installed(package: str) -> bool:
    """Return whether a package can be imported; a folder of its name, such as `wandb/` of runs, is none."""
    spec = find_spec(package)
    return spec is not None and spec.origin is not None


@dataclass
class TrainerConfig(Settings):
    """Epochs, devices and precision of a training."""

    RESUMABLE = True

    max_epochs: int | None = setting(
        None, at_least=1, help="Number of passes over the training data; null chooses from the data, or is 200."
    )
    accelerator: str = setting(
        "auto", choices=("auto", "gpu", "cpu"), help="Hardware; auto uses GPUs if there are any."
    )
    devices: int | None = setting(
        None,
        at_least=1,
        help="Processes per machine; null is the number started by torchrun or srun, else one per GPU, or one.",
    )
    num_nodes: int | None = setting(
        None, at_least=1, help="Number of machines; null means the number used by torchrun or srun, otherwise 1."
    )
    strategy: str = setting(
        "auto",
        choices=("auto", "ddp", "fsdp"),
        help="What several processes keep: ddp, a copy of the networks in each; fsdp, a shard of each weight, gradient "
        "and optimizer state, for backbones that are too large otherwise, with the same results; auto is ddp. A single "
        "process keeps everything.",
    )
    precision: str | None = setting(
        None,
        choices=("32-true", "16-mixed", "bf16-mixed"),
        help="Precision of the networks; null is bf16-mixed on GPUs that have it, else 32-true.",
    )
    tf32: bool = setting(
        True,
        help="Compute float32 products of the networks in TF32 on GPUs that have it. Losses and augmentation never "
        "use it.",
    )
    compile: bool = setting(
        False, help="Compile networks and augmentation with torch.compile: a slow start, then faster steps."
    )
    checkpointing: bool = setting(
        False,
        help="Keep only the input of each block of the backbone, and compute the block again in the backward pass: "
        "less memory, about a third more time.",
    )
    benchmark: bool | None = setting(
        None,
        help="On GPUs, let cuDNN try its algorithms for every new shape of the input and use the fastest; null means "
        "true, except with trainer.deterministic.",
    )
    deterministic: bool = setting(
        False,
        help="Use deterministic algorithms only, so that two runs on the same hardware give the same bits; on GPUs "
        "slower. Operations that have none are named in the report.",
    )
    on_nonfinite: str = setting(
        "stop",
        choices=("stop", "skip"),
        help="What to do if the loss or a gradient of a step is NaN or infinite: stop the training (on GPUs, the loss "
        "is read in the steps that are logged), or skip the step (on GPUs, the host then waits for each step).",
    )
    max_skipped: int = setting(
        10, at_least=1, help="Number of steps that on_nonfinite=skip leaves out before the training stops."
    )
    accumulate: int = setting(
        1, at_least=1, help="Number of batches accumulated per optimizer step, into which data.batch_size is divided."
    )
    sync_batchnorm: bool | None = setting(
        None,
        help="Compute batch norm statistics over all processes; null means true, except with method.shuffle_bn or "
        "method.bn_splits, which rely on separate statistics.",
    )

    def on(self, machine: Machine) -> "TrainerConfig":
        """Return a copy with every setting that depends on the machine resolved."""
        on_gpu = self.accelerator != "cpu" and machine.num_gpus > 0
        devices, num_nodes = (machine.num_gpus if on_gpu and not machine.is_interactive else 1), 1
        if machine.launch is not None:
            world_size, per_node = machine.launch.world_size, machine.launch.per_node
            if per_node is None:
                per_node = world_size // (self.num_nodes or 1)
            devices, num_nodes = max(1, per_node), max(1, world_size // max(1, per_node))
        devices = devices if self.devices is None else self.devices
        num_nodes = num_nodes if self.num_nodes is None else self.num_nodes
        return replace(
            self,
            accelerator="gpu" if on_gpu else "cpu",
            devices=devices,
            num_nodes=num_nodes,
            precision=self.precision or ("bf16-mixed" if on_gpu and machine.has_bf16 else "32-true"),
            benchmark=not self.deterministic if self.benchmark is None else self.benchmark,
            sync_batchnorm=self.sync_batchnorm is not False,
        )

    @property
    def epochs(self) -> int:
        """`max_epochs`, or 200, as in most published trainings, if it is null."""
        return 200 if self.max_epochs is None else self.max_epochs

    @property
    def world_size(self) -> int | None:
        """Number of processes on all machines; None if it depends on the machine."""
        return None if self.devices is None or self.num_nodes is None else self.devices * self.num_nodes

    @property
    def is_sharded(self) -> bool:
        """Whether the networks are sharded over processes."""
        return self.strategy == "fsdp" and self.world_size != 1

    def conflicts(self, prefix: str) -> list[str]:
        """Return one message per setting that `strategy=fsdp` or `deterministic` does not support."""
        messages = []
        if self.deterministic and self.benchmark:
            messages.append(
                f"{prefix}.benchmark=true may choose other algorithms in each run, which {prefix}.deterministic=true "
                f"excludes: set {prefix}.benchmark=null or {prefix}.deterministic=false"
            )
        if self.strategy != "fsdp":
            return messages
        if self.compile:
            messages.append(
                f"{prefix}.compile=true is not supported with {prefix}.strategy=fsdp, which gathers weights block by "
                f"block: use {prefix}.compile=false, or {prefix}.strategy=ddp"
            )
        if self.precision == "16-mixed":
            messages.append(
                f"{prefix}.precision=16-mixed is not supported with {prefix}.strategy=fsdp: use {prefix}.precision="
                f"bf16-mixed or 32-true, or {prefix}.strategy=ddp"
            )
        return messages

    def conflicts_on(self, machine: Machine) -> list[str]:
        """Return one message per setting that the machine does not support; all settings must have valid types."""
        here = self.on(machine)
        messages = here._unsupported_on(machine)
        if self.accelerator == "gpu" and machine.num_gpus == 0:
            messages.append("trainer.accelerator=gpu but torch finds no GPU: use trainer.accelerator=cpu")
        if machine.launch is not None and (message := self._disagreement(here, machine.launch)):
            messages.append(message)
        elif machine.launch is None and machine.is_interactive and here.world_size != 1:
            messages.append(
                f"trainer.devices={here.devices} starts this script again for each process, which an interactive "
                "session cannot: use trainer.devices=1, or write a script and run torchrun --nproc-per-node "
                f"{here.devices} SCRIPT"
            )
        elif here.accelerator == "gpu" and here.devices is not None and here.devices > machine.num_gpus:
            noun = "GPU" if machine.num_gpus == 1 else "GPUs"
            messages.append(
                f"trainer.devices={here.devices} but this machine has {machine.num_gpus} {noun}: "
                f"use trainer.devices={machine.num_gpus} or fewer"
            )
        return messages

    def _unsupported_on(self, machine: Machine) -> list[str]:
        """Return one message per kind of computation that the machine is not capable of; accelerator is resolved."""
        messages = []
        on_gpu = self.accelerator == "gpu"
        if self.precision == "16-mixed" and not on_gpu:
            messages.append(
                "trainer.precision=16-mixed requires a GPU: use trainer.precision=32-true, or bf16-mixed on CPUs that "
                "have it"
            )
        if self.precision == "bf16-mixed" and on_gpu and not machine.has_bf16:
            needed, found = (".".join(map(str, numbers)) for numbers in (BF16_CAPABILITY, machine.capability))
            messages.append(
                f"trainer.precision=bf16-mixed requires GPUs of compute capability {needed} or higher, and these have "
                f"{found}: use trainer.precision=16-mixed"
            )
        missing = machine.missing.on_gpu if on_gpu else machine.missing.on_cpu
        if self.compile and missing is not None:
            messages.append(f"trainer.compile=true requires {missing}, or use trainer.compile=false")
        return messages

    def _disagreement(self, here: "TrainerConfig", launch: Launch) -> str | None:
        """Return a message if the settings disagree with the launched processes, else None."""
        started = launch.started
        if launch.launcher == "srun" and launch.per_node is None:
            return f"{started} without saying how many per machine: use srun --ntasks-per-node=..."
        if launch.per_node is not None and launch.world_size % launch.per_node:
            return f"{started}, which is not a multiple of the number per machine: start the same number on each"
        if here.world_size == launch.world_size and launch.per_node in (None, here.devices):
            return None
        noun = "process" if here.devices == 1 else "processes"
        machines = "one machine" if here.num_nodes == 1 else f"each of {here.num_nodes} machines"
        return (
            f"trainer.devices={here.devices} and trainer.num_nodes={here.num_nodes}, but {started}: leave both "
            f"settings out, or launch {here.devices} {noun} on {machines}"
        )
