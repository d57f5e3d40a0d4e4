"""Fixtures of all tests: small h264 videos encoded on the fly, and real videos and images if they are available."""

import gc
import ipaddress
import os
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from types import ModuleType

import jaxtyping
import numpy as np
import pytest
import torch
from beartype import BeartypeConf, beartype
from jaxtyping import install_import_hook
from torch import Tensor

import eztorch_sce  # noqa: F401  # repairs torchvision before a test imports Lightning, which imports it

# While the tests run, check the annotations, including array shapes, of the packages that tensors pass through.
# The hook takes the importable name of the checker.
_CHECKED = [
    "types",
    "augment.ops",
    "augment.view",
    "data.collate",
    "data.dataset",
    "data.decoders",
    "data.shaping",
    "losses",
    "methods",
    "models",
]
_checker = ModuleType("shape_checker")
_checker.check = beartype(conf=BeartypeConf(is_pep484_tower=True))  # type: ignore[attr-defined]  # an int is a float
sys.modules["shape_checker"] = _checker
install_import_hook([f"eztorch_sce.{name}" for name in _CHECKED], "shape_checker.check")

torch.set_num_threads(1)  # tests may run in parallel, one per core, and their networks are small

# Ray would write a token to the home folder. It reads this once per process: a process that has started a cluster with
# a token refuses calls from a cluster without one, and the actors of that cluster die before they start.
os.environ["RAY_AUTH_MODE"] = "disabled"

# `nohup` and jobs in the background of a script ignore these, and so would the commands that tests start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


def pytest_itemcollected(item: pytest.Item) -> None:
    """Make every long test a slow one."""
    if item.get_closest_marker("long") is not None:
        item.add_marker("slow")


def pytest_collection_finish() -> None:
    """Keep the garbage collector from searching modules and collected tests again and again."""
    gc.freeze()


_BITS, _COLUMNS, _BLOCK = 10, 5, 16  # a frame number is two rows of five black or white blocks, 80 x 32 pixels


def _numbered_image(number: int) -> np.ndarray:
    """Return uint8 (32, 80, 3) that shows a number below 1024 in black and white blocks."""
    bits = np.array([number >> bit & 1 for bit in range(_BITS)], np.uint8).reshape(-1, _COLUMNS)
    return np.kron(bits, np.full((_BLOCK, _BLOCK), 255, np.uint8))[..., None].repeat(3, axis=2)


def _numbers_shown(frames: Tensor) -> list[int]:
    blocks = (
        frames.float().mean(dim=0).unfold(1, _BLOCK, _BLOCK).unfold(2, _BLOCK, _BLOCK).mean(dim=(3, 4))
    )  # (T, 2, 5)
    bits = (blocks > 128).flatten(start_dim=1).long()  # (T, 10)
    return (bits * 2 ** torch.arange(_BITS)).sum(dim=1).tolist()


def _write_video(
    path: Path,
    num_frames: int = 120,
    fps: int = 30,
    key_every: int = 24,
    b_frames: int = 2,
    first_pts: int = 0,
    image: Callable[[int], np.ndarray] = _numbered_image,
    audio: bool = False,
) -> Path:
    import av

    path.parent.mkdir(parents=True, exist_ok=True)
    height, width, _ = image(0).shape
    with av.open(str(path), "w") as container:
        options = {"g": str(key_every), "bf": str(b_frames), "crf": "18", "threads": "1", "sc_threshold": "0"}
        stream = container.add_stream("libx264", rate=fps, options=options)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        if audio:
            sound = container.add_stream("aac", rate=16000)
            for start in range(0, 16000 * num_frames // fps - 1023, 1024):
                silence = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
                silence.sample_rate, silence.pts = 16000, start
                container.mux(sound.encode(silence))
            container.mux(sound.encode(None))
        for number in range(num_frames):
            frame = av.VideoFrame.from_ndarray(image(number), format="rgb24")
            frame.pts, frame.time_base = first_pts + number, Fraction(1, fps)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


@pytest.fixture(scope="session")
def write_video() -> Callable[..., Path]:
    """Return a function that writes h264.

    Call it as `write_video(path, num_frames=120, fps=30, key_every=24, b_frames=2, image=..., audio=False)`.
    Frame i shows the number i, which `numbers_shown` reads back, or the image that `image(i)` returns: uint8 (H, W, 3)
    of even size. The suffix of the path determines the container; the path is returned.
    """
    return _write_video


@pytest.fixture(scope="session")
def numbered_image() -> Callable[[int], np.ndarray]:
    """Return a function that draws a number below 1024 as uint8 (32, 80, 3)."""
    return _numbered_image


@pytest.fixture(scope="session")
def numbers_shown() -> Callable[[Tensor], list[int]]:
    """Return a function that reads the frame numbers from decoded frames of `numbered_video`, uint8 (3, T, 32, 80)."""
    return _numbers_shown


@pytest.fixture(scope="session")
def numbered_video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the path of 10 s of h264 at 30 fps, 80 x 32 pixels; frame i shows the number i.

    The video has B-frames, a key frame every 1.6 s, and sound.
    """
    return _write_video(tmp_path_factory.mktemp("videos") / "numbered.mp4", num_frames=300, key_every=48, audio=True)


@pytest.fixture(scope="session")
def shared() -> Path:
    """Return the folder of shared material, whose `data` contains real videos and images."""
    folder = Path(__file__).resolve().parents[2] / "shared"
    if not (folder / "data").is_dir():
        pytest.skip("the real videos and images are missing: they belong next to the checkout, in ../shared/data")
    return folder


@pytest.fixture(scope="session", autouse=True)
def no_network() -> Iterator[None]:
    """Fail a test whose process asks for another machine: nothing is fetched unless a user names an address."""
    connect, look_up = socket.socket.connect, socket.getaddrinfo

    def connect_here(own: socket.socket, address: object) -> None:
        if isinstance(address, tuple):
            assert ipaddress.ip_address(address[0]).is_loopback, f"a connection to {address}"
        connect(own, address)  # type: ignore[arg-type]

    def look_up_here(host: object, *args: object, **settings: object) -> object:
        assert host in (None, "", "localhost", "127.0.0.1", "::1", socket.gethostname()), f"a look-up of {host}"
        return look_up(host, *args, **settings)  # type: ignore[arg-type]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", connect_here)
        patch.setattr(socket, "getaddrinfo", look_up_here)
        yield


@pytest.fixture
def without_shape_checks() -> Iterator[None]:
    """Leave out the shape checks of the tests, which do not take the proxies of torch.fx for tensors."""
    before = jaxtyping.config.jaxtyping_disable
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", before)


@pytest.fixture
def own_registrations(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Remove what the test registers, and the plugins it loads, when it ends."""
    from eztorch_sce import plugins, registry
    from eztorch_sce.augment.statistics import STATISTICS

    for group in registry.GROUPS:
        registry.choices(group)  # load the built-in choices before copying them
    copied = {group: dict(members) for group, members in registry._CHOICES.items()}
    monkeypatch.setattr(registry, "_CHOICES", copied)
    monkeypatch.setattr(plugins, "_as_typed", {})
    monkeypatch.setattr(registry, "_remarks", [])
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setenv(plugins.FILES_VARIABLE, "{}")
    known = dict(STATISTICS)
    yield
    STATISTICS.clear()
    STATISTICS.update(known)
