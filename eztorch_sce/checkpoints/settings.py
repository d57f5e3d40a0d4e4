"""Settings of `eztorch-sce checkpoint`. They import nothing heavy, so `--help` responds at once."""

from dataclasses import dataclass

from eztorch_sce.config.reference import load
from eztorch_sce.settings import PathSetting, Settings, setting


def import_formats() -> list[str]:
    """Return the names of the formats of other code bases."""
    return list(load().formats["import"])


def export_formats() -> list[str]:
    """Return the names of the formats of exports."""
    return list(load().formats["export"])


@dataclass
class InspectConfig(Settings):
    """Settings of `checkpoint inspect`."""

    table: bool = setting(False, help="Print what became of each tensor, instead of a summary.")
    csv: PathSetting = setting(
        None, is_path=True, help="File to write what became of each tensor to, as comma-separated values."
    )


@dataclass
class ImportConfig(InspectConfig):
    """Settings of `checkpoint import`."""

    format: str | None = setting(None, choices=import_formats, help="Format of FILE; null recognizes it.")
    encoder: str | None = setting(
        None, help="Which of several encoders to take, by the names that inspect shows; null takes the first."
    )
    backbone: str | None = setting(
        None,
        help="Network of this package, such as r3d50, or timm/MODEL for one of timm; null recognizes it. Inflating "
        "needs one for video.",
    )
    allow: list[str] = setting(
        [], help="Tensors or modules that may be missing, unexpected or of another shape, such as [fc]."
    )
    inflate: str | None = setting(
        None,
        choices=["repeat", "center"],
        help="Give 2-D convolutions the frames of a video network: repeat divides them among the frames, center puts "
        "them at the middle one.",
    )


@dataclass
class ExportConfig(Settings):
    """Settings of `checkpoint export`."""

    format: str | None = setting(None, choices=export_formats, help="Format to write; required.")
    license: str | None = setting(
        None, help="Identifier of the license of the weights, such as cc-by-4.0; null keeps the one that they have."
    )
