"""Fixtures of the decoder tests: the decoders by name, and the frames they are expected to return."""

from collections.abc import Callable

import pytest

from eztorch_sce.data.decoders.base import SNAP_S, Decoder, DecoderConfig
from eztorch_sce.errors import ConfigError
from eztorch_sce.registry import choices
from eztorch_sce.types import ClipSpan

FPS = 30


def _build(name: str) -> Decoder:
    config: DecoderConfig = choices("decoder")[name]()
    try:
        return config.build()
    except ConfigError as error:
        if name == "torchcodec":  # an optional dependency that needs FFmpeg from the system
            pytest.skip(str(error))
        raise


@pytest.fixture(scope="session")
def build_decoder() -> Callable[[str], Decoder]:
    """Return a function that builds a decoder by its registered name, or skips the test if torchcodec does not load."""
    return _build


@pytest.fixture(params=["pyav", "decord", "torchcodec"])
def decoder(request: pytest.FixtureRequest) -> Decoder:
    """Return each video decoder in turn."""
    return _build(request.param)


def _expected_numbers(span: ClipSpan, num_frames: int, last: int) -> list[int]:
    interval_s = (span.end_s - span.start_s) / num_frames
    midpoints_s = [span.start_s + (i + 0.5) * interval_s for i in range(num_frames)]
    return [min(int((time_s + SNAP_S) * FPS), last) for time_s in midpoints_s]


@pytest.fixture(scope="session")
def expected_numbers() -> Callable[[ClipSpan, int, int], list[int]]:
    """Return a function that computes which frames a clip of a video of 30 frames per second contains.

    Call it as `expected_numbers(span, num_frames, last)`, where `last` is the number of the video's last frame.
    """
    return _expected_numbers
