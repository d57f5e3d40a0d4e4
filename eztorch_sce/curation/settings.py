"""Settings of the `eztorch-sce data` commands. Nothing heavy is imported here, so that `--help` responds at once."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eztorch_sce.jobs.runners.local import LocalConfig
from eztorch_sce.settings import Settings, choice, setting

if TYPE_CHECKING:
    from eztorch_sce.config.choice_types import RunnerChoice
else:
    RunnerChoice = Any  # that module imports torch


@dataclass
class DoctorConfig(Settings):
    """Settings of `data doctor`."""

    full: bool = setting(
        False,
        help="Decode every frame and every image, instead of only the first, middle and last frame of a video, and "
        "images whose end is missing.",
    )
    lists: list[str] = setting(
        [],
        is_path=True,
        help="List files, such as [train.csv,test.csv]; files whose content is in more than one list are reported.",
    )
    runner: RunnerChoice = choice(
        "runner", LocalConfig(), help="Where files are inspected; all machines need FOLDER under the same path."
    )
    workers: int | None = setting(None, at_least=1, help="Worker processes per machine; null starts one per core.")


@dataclass
class PrepareConfig(Settings):
    """Settings of `data prepare`."""

    short_side: int = setting(
        128, at_least=2, help="Short side of the copies in pixels; smaller videos keep their size."
    )
    gop: int = setting(
        16, at_least=1, help="Frames between key frames; fewer make the copies faster to decode, but larger."
    )
    fps: float | None = setting(None, at_least=0.1, help="Frames per second of the copies; null keeps every frame.")
    crf: int = setting(18, at_least=0, at_most=51, help="Constant rate factor of x264; 0 is lossless.")
    to: str = setting(
        "h264",
        choices=("h264", "frames"),
        help="Format of the copies; frames writes a folder of JPEG images per video, 25 images per second.",
    )
    runner: RunnerChoice = choice(
        "runner", LocalConfig(), help="Where videos are copied; all machines need FOLDER and OUT under the same paths."
    )
    workers: int | None = setting(None, at_least=1, help="Worker processes per machine; null starts one per core.")

    def conflicts(self, prefix: str) -> list[str]:
        """Return one message per conflict between settings."""
        from eztorch_sce.data.decoders.frames import FPS

        messages = []
        if self.to == "frames" and self.fps not in (None, FPS):
            messages.append(
                f"fps={self.fps:g} conflicts with to=frames, which is always {FPS:g} per second; remove fps"
            )
        return messages

    def format_settings(self) -> dict[str, object]:
        """Return the settings that determine the content of the copies."""
        return {name: value for name, value in asdict(self).items() if name not in ("runner", "workers")}


@dataclass
class CheckConfig(Settings):
    """Settings of `data check`."""

    split: int = setting(1, at_least=1, help="Number of the publisher's split, from 1.")
    annotations: str | None = setting(
        None,
        is_path=True,
        help="Folder of the publisher's lists, or a text file of the classes to keep; null searches in and next to "
        "ROOT.",
    )
    list: str | None = setting(None, is_path=True, help="List file of the train split.")
    test_list: str | None = setting(None, is_path=True, help="List file of the test split.")
    test_root: str | None = setting(None, is_path=True, help="Folder of the test split, if it is not under ROOT.")
    missing: str | None = setting(None, is_path=True, help="File to write the names of all missing files to.")

    def conflicts(self, prefix: str) -> Sequence[str]:
        """Return a message if `missing` cannot be written."""
        folder = Path(self.missing or "").parent
        return [] if folder.is_dir() else [f"missing={self.missing} is in a folder that does not exist: {folder}"]


@dataclass
class StatusConfig(Settings):
    """Settings of `data status`, which has none."""


@dataclass
class UnpackConfig(Settings):
    """Settings of `data unpack`, which has none."""
