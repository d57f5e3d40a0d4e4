"""`eztorch-sce env`: versions, what is usable here, and what to install for what is not."""

from importlib.util import find_spec

from rich.console import Console
from rich.table import Table

from eztorch_sce.compat import declare_missing_torchvision_operators
from eztorch_sce.report.run_directory import versions

_CODECS = ("h264", "hevc", "vp9", "av1", "mpeg4", "mjpeg")


def environment() -> list[tuple[str, str, str]]:
    """Return rows of (what, "yes" or "no", a remark: what was found, or what to install)."""
    return [*_decoders(), *_codecs(), *_devices(), _torchvision()]


def print_environment() -> None:
    """Print versions and the table of `environment`."""
    console = Console()
    found = Table("package", "version", title="versions", title_justify="left")
    for package, number in versions().items():
        found.add_row(package, number)
    usable = Table("what", "usable", "remark", title="this machine", title_justify="left")
    for row in environment():
        usable.add_row(*row)
    console.print(found)
    console.print(usable)


def _decoders() -> list[tuple[str, str, str]]:
    rows = []
    for module, install in (
        ("av", "pip install av"),
        ("decord", "pip install decord, or eva-decord where it has no wheel"),
        ("torchcodec", "pip install 'eztorch-sce[torchcodec]', and FFmpeg from the system"),
    ):
        rows.append(_try_import(module, install))
    return rows


def _try_import(module: str, install: str) -> tuple[str, str, str]:
    what = f"decoder {'pyav' if module == 'av' else module}"
    if find_spec(module) is None:
        return what, "no", install
    try:
        __import__(module)
    except Exception as error:  # whatever a broken binary raises is the answer
        return what, "no", f"installed, but does not load: {str(error).splitlines()[0]}"
    return what, "yes", ""


def _codecs() -> list[tuple[str, str, str]]:
    import av

    rows = []
    for name in _CODECS:
        usable = name in av.codecs_available
        rows.append((f"codec {name}", "yes" if usable else "no", "" if usable else "a build of av (FFmpeg) with it"))
    return rows


def _devices() -> list[tuple[str, str, str]]:
    import torch

    if torch.cuda.is_available():
        return [("GPU", "yes", ", ".join(torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())))]
    remark = "torch is a CPU build" if torch.version.cuda is None else "none, or its driver is older than torch's CUDA"
    return [("GPU", "no", remark)]


def _torchvision() -> tuple[str, str, str]:
    if declare_missing_torchvision_operators():
        return (
            "torchvision operators",
            "no",
            "its compiled operators do not fit this torch; nothing here uses them (install a matching pair for others)",
        )
    return "torchvision operators", "yes", ""
