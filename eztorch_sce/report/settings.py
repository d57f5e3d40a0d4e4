"""Settings of `eztorch-sce report`, `watch` and `replay`. They import nothing heavy, so `--help` responds at once."""

from dataclasses import dataclass, field

from eztorch_sce.settings import PathSetting, Settings, setting


@dataclass
class DataPlace(Settings):
    """Where the records are now."""

    root: PathSetting = setting(
        None, is_path=True, help="Folder of the data, if they are no longer where the runs read them."
    )


@dataclass
class ReportConfig(Settings):
    """Settings of `report`."""

    out: PathSetting = setting(
        None, is_path=True, help="File to write; null is report.html in the first run directory."
    )
    map: str = setting(
        "pca",
        choices=["pca", "tsne"],
        help="Projection of the map: pca is immediate; tsne adds a map that keeps neighbors together, and needs "
        'scikit-learn (pip install "eztorch-sce[map]").',
    )
    data: DataPlace = field(default_factory=DataPlace)


@dataclass
class WatchConfig(Settings):
    """Settings of `watch`."""

    port: int = setting(0, at_least=0, at_most=65535, help="Port of 127.0.0.1; 0 takes a free one.")


@dataclass
class ReplayConfig(Settings):
    """Settings of `replay`."""

    step: int | None = setting(
        None, at_least=0, help="Number of the step, from 0; null is the latest that the run kept as not finite."
    )
    accelerator: str | None = setting(
        None, choices=("auto", "gpu", "cpu"), help="Hardware; null is that of the run, which gives the same numbers."
    )
    data: DataPlace = field(default_factory=DataPlace)
