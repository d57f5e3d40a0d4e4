"""Settings of `data plan`. Nothing heavy is imported here, so that `--help` responds at once."""

from dataclasses import dataclass

from eztorch_sce.jobs.runners.base import RunnerConfig
from eztorch_sce.settings import Settings, setting


@dataclass
class DataPlanConfig(Settings):
    """Settings of `data plan`: the amount of work, and the machines. What is null was measured by `data bench`."""

    records: int | None = setting(None, at_least=1, help="Number of records; null plans for those of FOLDER.")
    nodes: int = setting(1, at_least=1, help="Number of machines.")
    cores: int | None = setting(None, at_least=1, help="CPU cores per machine; null means as many as were measured on.")
    gpus: int | None = setting(
        None, at_least=0, help="GPUs per machine; null means as many as the measured machine has."
    )
    views_per_s: float | None = setting(
        None,
        above=0,
        help="Clips and crops per second that one GPU computes features of; null takes the speed that was measured.",
    )
    num_clips: int = setting(10, at_least=1, help="Clips per video, test.num_clips of extract; an image has one.")
    num_crops: int = setting(3, at_least=1, at_most=3, help="Crops per clip, test.num_crops of extract.")
    scaling: float | None = setting(
        None,
        above=0,
        at_most=1,
        help="Speed of a process while all cores are busy, relative to a process alone; null takes that of the loader.",
    )
    open_ms: float | None = setting(
        None, at_least=0, help="Milliseconds to open a file on the storage of the cluster; null takes those of FOLDER."
    )
    network_gbps: float = setting(10.0, above=0, help="Gbit/s between a machine and the storage, in each direction.")
    storage_gbps: float = setting(100.0, above=0, help="Gbit/s that the storage reads and writes for all machines.")
    requests_per_s: float = setting(
        5500.0, above=0, help="Requests per second (status, open, create, rename) that the storage answers."
    )
    shard_records: int = setting(
        RunnerConfig.shard_records, at_least=1, help="Records per shard, runner.shard_records of the commands."
    )

    def conflicts(self, prefix: str) -> list[str]:
        """Return a message if the number of crops is neither 1 nor 3, as `extract` takes it."""
        return ["num_crops=2 must be 1 (center) or 3"] if self.num_crops == 2 else []
