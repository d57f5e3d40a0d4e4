"""`eztorch-sce env`: installed versions and usable decoders, codecs and devices."""

from importlib.util import find_spec
from typing import NamedTuple

from rich.table import Table

from eztorch_sce.errors import first_line
from eztorch_sce.printing import PlainConsole
from eztorch_sce.report.versions import installed_versions

_CODECS = ("h264", "hevc", "vp9", "av1", "mpeg4", "mjpeg")
_DECODERS = (
    ("pyav", "av", "pip install av"),
    ("decord", "decord", "pip install decord, or eva-decord on platforms without a decord wheel"),
    ("torchcodec", "torchcodec", "pip install 'eztorch-sce[torchcodec]', and FFmpeg from the system"),
)


class Capability(NamedTuple):
    """A capability of this machine.

    Attributes:
        name: Name of the capability, such as "codec h264".
        usable: Whether it works on this machine.
        remark: Details if it works, or how to get it if it does not.
    """

    name: str
    usable: bool
    remark: str = ""


def environment() -> list[Capability]:
    """Return the capabilities of this machine."""
    decoders = [_decoder(name, module, install) for name, module, install in _DECODERS]
    return [*decoders, *_codecs(), _gpu(), _torchvision()]


def print_environment() -> None:
    """Print the installed versions and the capabilities of this machine."""
    console = PlainConsole()
    versions = Table("package", "version", title="versions", title_justify="left")
    for package, number in installed_versions().items():
        versions.add_row(package, number)
    machine = Table("capability", "usable", "remark", title="this machine", title_justify="left")
    for name, usable, remark in environment():
        machine.add_row(name, "yes" if usable else "no", remark)
    console.print(versions)
    console.print(machine)


def _decoder(name: str, module: str, install: str) -> Capability:
    name = f"decoder {name}"
    if find_spec(module) is None:
        return Capability(name, False, install)
    try:
        __import__(module)
    except Exception as error:  # a broken binary may raise anything, and the table shows it
        return Capability(name, False, f"installed, but does not load: {first_line(error)}")
    return Capability(name, True)


def _codecs() -> list[Capability]:
    import av

    available = av.codecs_available
    return [
        Capability(f"codec {name}", True)
        if name in available
        else Capability(f"codec {name}", False, "requires a build of av (FFmpeg) with this codec")
        for name in _CODECS
    ]


def _gpu() -> Capability:
    import torch

    if torch.cuda.is_available():
        names = [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]
        return Capability("GPU", True, ", ".join(names))
    if torch.version.cuda is None:
        return Capability("GPU", False, "torch is a CPU build")
    return Capability("GPU", False, "no GPU, or its driver is too old for torch's CUDA version")


def _torchvision() -> Capability:
    from eztorch_sce.compat import declare_missing_torchvision_operators

    if declare_missing_torchvision_operators():
        remark = "its compiled operators do not match this torch; eztorch_sce does not use them"
        return Capability("torchvision operators", False, remark)
    return Capability("torchvision operators", True)
