"""Settings of `eztorch-sce report` and `watch`. Nothing heavy is imported here, so that `--help` responds at once."""

from dataclasses import dataclass, field

from eztorch_sce.settings import PathSetting, Settings, setting


@dataclass
class DataPlace(Settings):
    """Where the records are now, to draw their thumbnails."""

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
