"""Settings and rules that several commands share."""

import importlib
import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

from eztorch_sce.data.clip_sampling import COVERS
from eztorch_sce.data.config import DataConfig
from eztorch_sce.errors import ConfigError
from eztorch_sce.machine import Machine, this_machine
from eztorch_sce.settings import Settings, setting, show
from eztorch_sce.training.config import RunConfig, TrainerConfig

ACCELERATORS = ("auto", "gpu", "cpu")
PRECISION_HELP = (
    "Floating-point precision of the network; null means bf16-mixed on GPUs that have it, otherwise 32-true."
)


C = TypeVar("C", bound="CommandConfig")

_STARTS = {
    "recipe": 'use recipe("{value}", ...) from eztorch_sce, which returns the config of the recipe',
    "config": '{cls}.load("{value}") returns the settings of a run',
}


class Recorded(str):
    """What a config was composed from, as typed: the only values that `recipe` and `config` take."""

    __slots__ = ()


@dataclass
class CommandConfig(Settings):
    """Settings that all commands share."""

    recipe: str | None = setting(
        None,
        help="Published result to start from (`eztorch-sce recipes` lists them), or a YAML file such as ./my.yaml.",
    )
    config: str | None = setting(
        None, is_path=True, help="Run directory, or its config.yaml, to repeat; later settings change it."
    )
    seed: int = setting(0, at_least=0, at_most=2**32 - 1, help="Seed of all random numbers.")
    run: RunConfig = field(default_factory=RunConfig)
    plugins: list[str] = setting(
        [],
        resumable=True,
        help="Modules or files that register choices of your own, such as my_package.parts or ./parts.py.",
    )

    if not TYPE_CHECKING:  # a type checker would accept every name

        def __setattr__(self, name: str, value: object) -> None:
            """Set a setting, except `recipe` and `config`, which change nothing once a config exists."""
            if name in _STARTS and value is not None and not isinstance(value, Recorded):
                cure = _STARTS[name].format(cls=type(self).__name__, value=value)
                raise ConfigError([f"{name}={value} changes nothing in an existing config: {cure}"])
            super().__setattr__(name, value)

    @classmethod
    def load(cls: type[C], path: "str | os.PathLike[str]") -> C:
        """Return the settings of a run, except its directory: all of them, also those that were chosen from the data.

        Args:
            path: Directory of the run, its `config.yaml`, or another file of that form.

        Raises:
            ConfigError: If the file is missing or of another command, or with one message per invalid setting.
        """
        in_python = importlib.import_module("eztorch_sce.config.in_python")  # composes, and so is above this module
        config: C = in_python.load_config(cls, path)
        return config

    def machine(self) -> Machine | None:
        """Return the machine that the command trains on, or None if it does not train."""
        return None


@dataclass
class EvaluationViewsConfig(Settings):
    """Clips and crops to evaluate for each record: clips are spread over time, crops over space."""

    clips: str = setting(
        "even",
        choices=("even", *COVERS),
        help="Placement of clips: even spreads num_clips over the video; half_overlap covers it with clips that each "
        "start halfway through the previous one; cover uses as few clips as possible; whole spreads the frames of one "
        "clip over the entire video.",
    )
    num_clips: int = setting(10, at_least=1, help="Clips per video with clips=even; an image has one.")
    num_crops: int = setting(3, at_least=1, at_most=3, help="Crops per clip: 1 (center) or 3 along the long side.")
    short_side: int | None = setting(
        None, at_least=1, help="Short side in pixels before the crop; null is 8/7 of the crop, such as 256 for 224."
    )

    def conflicts(self, prefix: str) -> list[str]:
        """Return a message if the number of crops is neither 1 nor 3."""
        return [f"{prefix}.num_crops=2 must be 1 (center) or 3"] if self.num_crops == 2 else []


def accelerator_conflicts(accelerator: str) -> list[str]:
    """Return a message if a GPU is set, but there is none."""
    if accelerator == "gpu" and this_machine().num_gpus == 0:
        return ["accelerator=gpu but torch finds no GPU: use accelerator=cpu"]
    return []


def precision_conflicts(precision: str | None, accelerator: str) -> list[str]:
    """Return a message if the hardware of an evaluation does not support the precision."""
    machine = this_machine()
    on_gpu = accelerator != "cpu" and machine.num_gpus > 0
    if precision == "16-mixed" and not on_gpu:
        return ["precision=16-mixed requires a GPU: use precision=32-true"]
    if precision == "bf16-mixed" and on_gpu and not machine.has_bf16:
        return ["precision=bf16-mixed requires GPUs that have bfloat16: use precision=16-mixed or 32-true"]
    return []


def clip_conflicts(data: DataConfig, num_views: int) -> list[str]:
    """Return one message per conflict between the sampling of clips and the number of views."""
    if data.near_power is None or num_views in (0, 2):  # views that are chosen from the data are two
        return []
    return [
        f"data.near_power={show(data.near_power)} requires 2 views, but views has {num_views}: set data.near_power=null"
    ]


def batch_conflicts(data: DataConfig, trainer: TrainerConfig) -> list[str]:
    """Return one message per conflict between the batch and the devices that process it.

    Every forward pass of a device needs the same number of samples, and at least 2 for batch statistics.
    """
    if trainer.world_size is None or data.batch_size is None:
        return []
    num_passes = trainer.world_size * trainer.accumulate
    if num_passes < 1 or _divides(num_passes, data.batch_size):
        return []
    nearest = max(2, round(data.batch_size / num_passes)) * num_passes
    cures = [f"data.batch_size={nearest}"]
    for name in ("accumulate", "devices"):
        number = getattr(trainer, name)
        others = (n for n in range(number - 1, 0, -1) if _divides(num_passes // number * n, data.batch_size))
        cures += [f"trainer.{name}={other}" for other in list(others)[:1]]
    return [
        f"data.batch_size={data.batch_size} is the size of an optimizer step: it must be a multiple of trainer.devices "
        f"x num_nodes x accumulate = {trainer.devices} x {trainer.num_nodes} x {trainer.accumulate} = {num_passes}, "
        f"and at least twice that: use {' or '.join(cures)}"
    ]


def _divides(num_passes: int, batch_size: int) -> bool:
    """Return whether a batch can be divided among forward passes, with at least 2 samples for each."""
    return batch_size % num_passes == 0 and batch_size >= 2 * num_passes
