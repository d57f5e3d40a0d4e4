"""The `eztorch-sce checkpoint` commands: their arguments and functions.

Importing this module does not load torch, so that `--help` responds at once.
"""

import shlex
from typing import TYPE_CHECKING

from eztorch_sce.checkpoints.settings import ExportConfig, ImportConfig, InspectConfig, export_formats
from eztorch_sce.errors import ConfigError
from eztorch_sce.positional import Argument, PositionalCommand
from eztorch_sce.printing import print_line
from eztorch_sce.waiting import announced

if TYPE_CHECKING:
    from eztorch_sce.checkpoints.inspection import Inspection


def run_inspect(file: str, config: InspectConfig) -> bool:
    """Print what a file holds; return whether its network can be used."""
    from eztorch_sce.checkpoints.inspection import inspect_checkpoint
    from eztorch_sce.checkpoints.output import print_fact

    with announced(f"reading {file}"):
        inspection = inspect_checkpoint(file)
    _show(inspection, config)
    if inspection.refused:
        print_fact("usable", f"no: {inspection.refused}")
        return False
    print_line(f"usable      yes: weights={shlex.quote(file)}")
    return True


def run_import(file: str, out: str, config: ImportConfig) -> bool:
    """Write the network of a file to a weights file of this package; print what became of each tensor."""
    from eztorch_sce.checkpoints.inspection import opened, write
    from eztorch_sce.interop.import_weights import Choices

    if problems := _import_mistakes(file, out, config):
        raise ConfigError(problems)
    choices = Choices(config.format, config.encoder, config.backbone, tuple(config.allow), config.inflate)
    with announced(f"reading {file}"):
        inspection = opened(file, choices)
    _show(inspection, config)
    if inspection.refused:
        raise ConfigError([inspection.refused])
    with announced(f"writing {out}"):
        write(inspection, out)
    print_line(f"written to {out}; to use it, set weights={shlex.quote(out)}")
    return True


def run_export(run: str, out: str, config: ExportConfig) -> bool:
    """Write the network of a run for other programs; print how that compares with the network."""
    from eztorch_sce.checkpoints.output import print_exported
    from eztorch_sce.interop.export import export

    if config.format is None:
        raise ConfigError(_export_mistakes(run, out, config))
    with announced(f"writing {out}"):
        exported = export(run, out, config.format, license=config.license)
    print_exported(exported, out)
    return True


def _show(inspection: "Inspection", config: InspectConfig) -> None:
    from eztorch_sce.checkpoints.output import print_inspection, write_csv

    print_inspection(inspection, config.table)
    if config.csv:
        write_csv(inspection, config.csv)
        print_line(f"what became of each tensor is in {config.csv}")


def _import_mistakes(file: str, out: str, config: ImportConfig) -> list[str]:
    from eztorch_sce.checkpoints.inspection import problems_of_out

    return problems_of_out(file, out)


def _export_mistakes(run: str, out: str, config: ExportConfig) -> list[str]:
    if config.format is None:
        return [f"format is missing: choose one of {', '.join(export_formats())}"]
    return []


_COMMANDS = (
    PositionalCommand(
        "checkpoint inspect",
        "Show what a checkpoint of any code base holds, and whether its network can be used here.",
        (Argument("FILE", "Checkpoint: a file, a folder or a run directory.", exists=True),),
        InspectConfig,
        (
            "eztorch-sce checkpoint inspect moco_v2_800ep.pth.tar",
            "eztorch-sce checkpoint inspect moco_v2_800ep.pth.tar table=true",
            "eztorch-sce checkpoint inspect runs/mine",
        ),
        run_inspect,
    ),
    PositionalCommand(
        "checkpoint import",
        "Write the network of a checkpoint of another code base to a weights file, with every tensor accounted for.",
        (
            Argument("FILE", "Checkpoint: a file or a folder.", exists=True),
            Argument("OUT", "Weights file to write, which ends in .safetensors."),
        ),
        ImportConfig,
        (
            "eztorch-sce checkpoint import moco_v2_800ep.pth.tar moco.safetensors",
            "eztorch-sce checkpoint import byol.pth byol.safetensors encoder=momentum",
            "eztorch-sce checkpoint import resnet50.pth r3d.safetensors backbone=r3d50 inflate=repeat",
        ),
        run_import,
        mistakes=_import_mistakes,
    ),
    PositionalCommand(
        "checkpoint export",
        "Write the network of a run for other programs, and compare what was written with the network.",
        (
            Argument("RUN", "Run directory, or a file of weights.", exists=True),
            Argument("OUT", "File or folder to write."),
        ),
        ExportConfig,
        (
            "eztorch-sce checkpoint export runs/mine mine.onnx format=onnx",
            "eztorch-sce checkpoint export runs/mine mine-hf format=huggingface license=cc-by-4.0",
            "eztorch-sce checkpoint export runs/mine mine.pth format=torchvision",
        ),
        run_export,
        mistakes=_export_mistakes,
    ),
)
CHECKPOINT_COMMANDS = {command.title.removeprefix("checkpoint "): command for command in _COMMANDS}
