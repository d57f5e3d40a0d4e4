"""Speeds of the work on files, measured by `data bench` and stored in `rates.json`, from which `data plan` predicts."""

import json
import shlex
from dataclasses import asdict, dataclass
from pathlib import Path

from eztorch_sce.data.sources.walk import RATES_FILE
from eztorch_sce.errors import ConfigError
from eztorch_sce.files import write_text


@dataclass(frozen=True)
class Speed:
    """Work on one record after the other, in one process on one thread.

    Attributes:
        records_per_s: Records per second.
        bytes_read: Bytes read per record, those of files that the work writes and reads back included.
        bytes_written: Bytes written per record.
        num_records: Records that were timed.
    """

    records_per_s: float
    bytes_read: float
    bytes_written: float
    num_records: int


@dataclass(frozen=True)
class Reading:
    """Reading of the clips of an evaluation, without the network.

    Attributes:
        one_clip: Reading one clip per record.
        clips: Reading `num_clips` clips per record; None for images, which have one.
        num_clips: Number of clips that `clips` reads.
        num_crops: Crops per clip.
    """

    one_clip: Speed
    clips: Speed | None
    num_clips: int
    num_crops: int


@dataclass(frozen=True)
class NetworkSpeed:
    """Forward passes of a network on clips that are in memory.

    Attributes:
        backbone: Name of the network.
        num_features: Width of its features.
        num_frames, size: Frames per clip, and side of the crop in pixels.
        device: Name of the GPU, or "cpu".
        threads: Threads that computed, on a CPU; 0 on a GPU.
        views_per_s: Clips and crops per second on this device, one of several GPUs, or the CPU with all its threads.
    """

    backbone: str
    num_features: int
    num_frames: int
    size: int
    device: str
    threads: int
    views_per_s: float


@dataclass(frozen=True)
class MergeSpeed:
    """The driver's work on the records of a job: describing them as shards, and merging the outputs.

    Attributes:
        rows_per_s: Records per second.
        bytes_per_row: Bytes of the merged table per record, with 100 bytes of columns.
        key_bytes: Those of the key and the position of the record.
        num_rows: Records that were timed.
    """

    rows_per_s: float
    bytes_per_row: float
    key_bytes: float
    num_rows: int


@dataclass(frozen=True)
class Rates:
    """Speeds of one machine on the files of one folder.

    Attributes:
        version: Version of this package.
        date: Day of the measurement.
        machine: Model of the CPU.
        cores: Cores that the process could use.
        num_gpus: GPUs of the machine.
        folder_records: Records of the folder.
        num_records: Records of the sample.
        videos: Fraction of its records that are videos, which `data prepare` copies.
        bytes_per_record: Mean size of a record on disk.
        duration_s: Mean duration of a record; 0 for images.
        open_s: Mean seconds to ask for the status of a file, open it and read its first bytes.
        scaling: Speed of as many loader processes as there are cores, over that of one times their number; at most 1.
        doctor, reading, network, merge: Speeds.
        prepare: Speed on videos, with the default settings and the check of the copy; None without videos.
    """

    version: str
    date: str
    machine: str
    cores: int
    num_gpus: int
    folder_records: int
    num_records: int
    videos: float
    bytes_per_record: float
    duration_s: float
    open_s: float
    scaling: float
    doctor: Speed
    prepare: Speed | None
    reading: Reading
    network: NetworkSpeed
    merge: MergeSpeed


def write_rates(folder: Path, rates: Rates) -> None:
    """Write the speeds into the folder that they were measured in."""
    write_text(folder / RATES_FILE, json.dumps(asdict(rates), indent=2) + "\n")


def read_rates(folder: Path) -> Rates:
    """Return the speeds that `data bench` measured in a folder.

    Raises:
        ConfigError: If it has not, or another version of this package wrote other ones.
    """
    command = f"run `eztorch-sce data bench {shlex.quote(str(folder))}`"
    file = folder / RATES_FILE
    if not file.is_file():
        raise ConfigError([f"FOLDER={folder} has no measured speeds ({RATES_FILE}): {command} first"])
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
        reading = found["reading"]
        return Rates(
            **found
            | {
                "doctor": Speed(**found["doctor"]),
                "prepare": _speed(found["prepare"]),
                "reading": Reading(
                    **reading | {"one_clip": Speed(**reading["one_clip"]), "clips": _speed(reading["clips"])}
                ),
                "network": NetworkSpeed(**found["network"]),
                "merge": MergeSpeed(**found["merge"]),
            }
        )
    except (ValueError, TypeError, KeyError):
        raise ConfigError([f"{file} is damaged or of another version: {command} again"]) from None


def _speed(found: dict[str, float] | None) -> Speed | None:
    return None if found is None else Speed(**found)  # type: ignore[arg-type]  # num_records is an int in JSON too
