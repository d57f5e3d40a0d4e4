"""Time and bytes of data work on many machines, predicted from the speeds that `data bench` measured on one."""

import math
from dataclasses import dataclass
from typing import NamedTuple

from eztorch_sce.curation.rates import Rates, Speed
from eztorch_sce.errors import ConfigError, counted
from eztorch_sce.planning.data_settings import DataPlanConfig
from eztorch_sce.printing import in_bytes

_BYTES_PER_GBIT = 1e9 / 8
_DRIVER_THREADS = 16  # that ask for the status of files, see `jobs.job.file_states`
_DRIVER_BYTES = 730  # per record; the peak of the process that merges 1,000,000 records of the doctor
REQUESTS = {"doctor": 3, "prepare": 8, "extract": 3}
"""Requests to the storage per record: listing, status, open; for a copy also create, rename, status and two opens."""
REQUESTS_PER_SHARD = 6
"""For output and receipt: create, rename and open each."""
_IN_WORDS = {
    "cores": "the CPU cores",
    "GPUs": "the GPUs",
    "network": "the network of each node",
    "storage": "the bandwidth of the storage",
    "requests": "the requests that the storage answers",
    "driver": "the process that starts the job",
}


class Load(NamedTuple):
    """What a stage demands of a resource.

    Attributes:
        resource: Name of the resource.
        hours: Hours that the resource is busy, if nothing else limits it.
        reason: The numbers behind the hours.
        grows: Whether more machines have more of it.
    """

    resource: str
    hours: float
    reason: str
    grows: bool


@dataclass(frozen=True)
class Stage:
    """One command on all records.

    Attributes:
        name: "doctor", "prepare" or "extract".
        num_records: Records that it works on.
        loads: What it demands of the resources that work at the same time.
        driver: The work of the process that starts the job, before and after the others.
        bytes_read, bytes_written: Bytes between the machines and the storage.
        num_requests: Requests to the storage for files.
        output_bytes: Bytes of the outputs of all shards.
        driver_bytes: Memory that merging needs on the driver.
    """

    name: str
    num_records: float
    loads: tuple[Load, ...]
    driver: Load
    bytes_read: float
    bytes_written: float
    num_requests: float
    output_bytes: float
    driver_bytes: float

    @property
    def bottleneck(self) -> Load:
        """The load that takes longest."""
        return max((*self.loads, self.driver), key=lambda load: load.hours)

    @property
    def hours(self) -> float:
        """Hours from start to end."""
        return max(load.hours for load in self.loads) + self.driver.hours

    def enough_nodes(self, nodes: int) -> int:
        """Return the number of machines from which on the storage limits, given the loads on `nodes` machines."""
        fixed = max(load.hours for load in self.loads if not load.grows)
        growing = max(load.hours for load in self.loads if load.grows) * nodes
        return max(1, math.ceil(growing / fixed))


@dataclass(frozen=True)
class DataPlan:
    """Predicted time and bytes of data work.

    Attributes:
        title: The amount of work and the machines, in one line.
        stages: The commands.
        num_shards: Shards of each job; each leaves an output and a receipt.
        advice: What limits each command, and what would help, one sentence each.
        assumptions: What the numbers rest on, one sentence each.
    """

    title: str
    stages: tuple[Stage, ...]
    num_shards: int
    advice: list[str]
    assumptions: list[str]


class _Cluster(NamedTuple):
    """The machines and the amount of work, with the measured values in the place of null."""

    config: DataPlanConfig
    rates: Rates
    records: int
    cores: int
    gpus: int
    scaling: float
    open_s: float
    num_shards: int

    @classmethod
    def of(cls, config: DataPlanConfig, rates: Rates) -> "_Cluster":
        records = rates.folder_records if config.records is None else config.records
        return cls(
            config,
            rates,
            records,
            rates.cores if config.cores is None else config.cores,
            rates.num_gpus if config.gpus is None else config.gpus,
            rates.scaling if config.scaling is None else config.scaling,
            rates.open_s if config.open_ms is None else config.open_ms / 1e3,
            -(-records // config.shard_records),
        )

    @property
    def busy_nodes(self) -> float:
        """Machines that would do all shards in the time of the one that has the most: at most `nodes`."""
        return self.num_shards / math.ceil(self.num_shards / self.config.nodes)

    def on_cores(self, num_records: float, seconds: float, num_requests: int) -> float:
        """Return the hours of work on records for which a process takes `seconds` each, with opens as measured."""
        seconds += num_requests * (self.open_s - self.rates.open_s)
        return num_records * max(0.0, seconds) / (self.busy_nodes * self.cores * self.scaling) / 3600


def plan_data(config: DataPlanConfig, rates: Rates) -> DataPlan:
    """Return the predicted time and bytes of `data doctor`, `data prepare` and `extract`.

    Args:
        config: Validated settings.
        rates: The speeds that `data bench` measured.

    Raises:
        ConfigError: If the speed of the network is not known for the hardware of the machines.
    """
    cluster = _Cluster.of(config, rates)
    if messages := _unknown_network(cluster):
        raise ConfigError(messages)
    stages = [_doctor(cluster), *_prepare(cluster), _extract(cluster)]
    gpus = f", {counted(cluster.gpus, 'GPU')}" if cluster.gpus else ""
    machines = f"{counted(config.nodes, 'node')} of {counted(cluster.cores, 'core')}{gpus}"
    return DataPlan(
        title=f"{cluster.records:,} records on {machines}",
        stages=tuple(stages),
        num_shards=cluster.num_shards,
        advice=[line for stage in stages for line in _advice(stage, cluster)] + _idle_nodes(cluster),
        assumptions=_assumptions(cluster),
    )


def _unknown_network(cluster: _Cluster) -> list[str]:
    """Return a message if the network was measured on other hardware than the machines have."""
    measured_on_cpu, given = cluster.rates.network.threads > 0, cluster.config.views_per_s
    if cluster.gpus and measured_on_cpu and given is None:
        cure = "set views_per_s=... of one GPU, run `data bench` on a machine with such a GPU, or set gpus=0"
        return [f"gpus={cluster.gpus}: the network was measured on a CPU; {cure}"]
    if not cluster.gpus and given is not None:
        return [f"views_per_s={given:g} is the speed of a GPU, and gpus=0: set gpus=..., or remove views_per_s"]
    if not cluster.gpus and not measured_on_cpu:
        cure = "set gpus=..., or run `data bench` with CUDA_VISIBLE_DEVICES= (empty)"
        return [f"gpus=0: the network was measured on a GPU ({cluster.rates.network.device}); {cure}"]
    return []


def _doctor(cluster: _Cluster) -> Stage:
    rates, records = cluster.rates, cluster.records
    hours = cluster.on_cores(records, 1 / rates.doctor.records_per_s, 1)
    cores = Load("cores", hours, f"{rates.doctor.records_per_s:.3g} files/s and process", True)
    return _stage("doctor", cluster, records, [cores], rates.doctor, rates.merge.bytes_per_row)


def _prepare(cluster: _Cluster) -> list[Stage]:
    """Return the stage of copying, or nothing without videos."""
    prepare = cluster.rates.prepare
    if prepare is None:
        return []
    videos = cluster.records * cluster.rates.videos
    hours = cluster.on_cores(videos, 1 / prepare.records_per_s, 3)
    cores = Load("cores", hours, f"{prepare.records_per_s:.3g} videos/s and process", True)
    stage = _stage("prepare", cluster, videos, [cores], prepare, cluster.rates.merge.bytes_per_row)
    return [stage]


def _extract(cluster: _Cluster) -> Stage:
    network, records, views = cluster.rates.network, cluster.records, _num_views(cluster)
    speed = _reading(cluster)
    reading_hours = cluster.on_cores(records, 1 / speed.records_per_s, 1)
    reading = f"reading {speed.records_per_s:.3g} files/s and process"
    if cluster.gpus:
        views_per_s = cluster.config.views_per_s or network.views_per_s
        hours = records * views / (views_per_s * cluster.gpus * cluster.busy_nodes) / 3600
        loads = [
            Load("cores", reading_hours, reading, True),
            Load("GPUs", hours, f"{views_per_s:.3g} views/s and GPU, {views} views per record", True),
        ]
    else:
        views_per_s = network.views_per_s / network.threads
        hours = records * views / (views_per_s * cluster.cores * cluster.busy_nodes) / 3600
        reason = f"{reading}; network {views_per_s:.3g} views/s and core, {views} views per record"
        loads = [Load("cores", reading_hours + hours, reason, True)]
    row_bytes = 4 * network.num_features + cluster.rates.merge.key_bytes
    return _stage("extract", cluster, records, loads, speed, row_bytes)


def _num_views(cluster: _Cluster) -> int:
    """Return the clips and crops of a record."""
    num_clips = 1 if cluster.rates.reading.clips is None else cluster.config.num_clips
    return num_clips * cluster.config.num_crops


def _reading(cluster: _Cluster) -> Speed:
    """Return the speed of reading `num_clips` clips per record, on the line through the two that were measured."""
    reading = cluster.rates.reading
    one, several = reading.one_clip, reading.clips
    if several is None:
        return one
    part = (cluster.config.num_clips - 1) / (reading.num_clips - 1)
    first_s, last_s = 1 / one.records_per_s, 1 / several.records_per_s
    seconds = first_s + part * max(0.0, last_s - first_s)
    num_bytes = one.bytes_read + part * max(0.0, several.bytes_read - one.bytes_read)
    return Speed(1 / seconds, num_bytes, 0.0, several.num_records)


def _stage(
    name: str, cluster: _Cluster, num_records: float, loads: list[Load], speed: Speed, row_bytes: float
) -> Stage:
    """Return a stage with what it demands of the network, the storage and the driver."""
    config, merge = cluster.config, cluster.rates.merge
    output = num_records * row_bytes
    num_bytes = (num_records * speed.bytes_read + output, num_records * speed.bytes_written + output)
    requests = num_records * REQUESTS[name] + cluster.num_shards * REQUESTS_PER_SHARD
    link_s = max(num_bytes) / (cluster.busy_nodes * config.network_gbps * _BYTES_PER_GBIT)
    storage_s = sum(num_bytes) / (config.storage_gbps * _BYTES_PER_GBIT)
    driver_s = num_records / merge.rows_per_s + num_records * cluster.open_s / _DRIVER_THREADS
    reason = f"{merge.rows_per_s:.3g} records/s merged, {1e3 * cluster.open_s:.3g} ms per status / {_DRIVER_THREADS}"
    return Stage(
        name=name,
        num_records=num_records,
        loads=(
            *loads,
            Load("network", link_s / 3600, f"network_gbps={config.network_gbps:g} per node", True),
            Load("storage", storage_s / 3600, f"storage_gbps={config.storage_gbps:g} for all nodes", False),
            Load(
                "requests",
                requests / config.requests_per_s / 3600,
                f"{REQUESTS[name]} requests per record, requests_per_s={config.requests_per_s:g}",
                False,
            ),
        ),
        driver=Load("driver", driver_s / 3600, reason, False),
        bytes_read=num_bytes[0],
        bytes_written=num_bytes[1],
        num_requests=requests,
        output_bytes=output,
        driver_bytes=_DRIVER_BYTES * num_records,
    )


def _advice(stage: Stage, cluster: _Cluster) -> list[str]:
    """Return what limits a stage, and from how many machines on more do not help."""
    limit, nodes = stage.bottleneck, cluster.config.nodes
    lines = [f"{stage.name}: {stage.hours:.3g} hours, limited by {_IN_WORDS[limit.resource]} ({limit.reason})."]
    longest = max(stage.loads, key=lambda load: load.hours)
    if limit is stage.driver:
        lines.append(f"{stage.name}: more nodes do not shorten the work of the process that starts the job.")
    elif not longest.grows:
        enough, shared = stage.enough_nodes(nodes), _IN_WORDS[longest.resource]
        lines.append(f"{stage.name}: {enough} of {nodes} nodes would take as long, since all share {shared}.")
    else:
        fixed = max((load for load in stage.loads if not load.grows), key=lambda load: load.hours)
        enough = stage.enough_nodes(nodes)
        lines.append(f"{stage.name}: from {enough:,} nodes on, the limit is {_IN_WORDS[fixed.resource]}.")
    if cluster.gpus and stage.name == "extract":
        cores, gpus = (next(load for load in stage.loads if load.resource == name) for name in ("cores", "GPUs"))
        busy = min(1.0, gpus.hours / max(load.hours for load in stage.loads))
        lines.append(f"extract: the GPUs are busy {busy:.0%} of the time, the cores {_busy(cores, stage):.0%}.")
    return lines


def _busy(load: Load, stage: Stage) -> float:
    return load.hours / max(each.hours for each in stage.loads)


def _idle_nodes(cluster: _Cluster) -> list[str]:
    """Return a sentence if machines have no shard to work on."""
    if cluster.num_shards >= cluster.config.nodes:
        return []
    idle, most = cluster.config.nodes - cluster.num_shards, max(1, cluster.records // cluster.config.nodes)
    return [
        f"{idle} of {cluster.config.nodes} nodes have no shard: set runner.shard_records={most} in the commands, and "
        f"shard_records={most} here."
    ]


def _assumptions(cluster: _Cluster) -> list[str]:
    rates, config, network = cluster.rates, cluster.config, cluster.rates.network
    scaling = "measured with the loader" if config.scaling is None else "set"
    device = network.device if not network.threads else f"the CPU ({counted(network.threads, 'thread')})"
    on = (
        f"views_per_s={config.views_per_s:g}, set" if config.views_per_s else f"{network.views_per_s:.3g}/s on {device}"
    )
    opening = "set" if config.open_ms is not None else "measured in FOLDER, perhaps from the cache of this machine"
    length = f" and {rates.duration_s:.3g} s" if rates.duration_s else ""
    lines = [
        f"Speeds: measured on {rates.date} in one process on a machine with {rates.cores} cores ({rates.machine}), on "
        f"{counted(rates.num_records, 'record')} of {in_bytes(rates.bytes_per_record)}{length} on average. The cores "
        "of the nodes are assumed to be as fast, and all records to be like these.",
        f"scaling={cluster.scaling:.2g} ({scaling}): speed of a process while all cores are busy, relative to one "
        "alone.",
        f"Features: {network.backbone}, {counted(network.num_frames, 'frame')} of {network.size} px, {on}; "
        f"{counted(_num_views(cluster), 'view')} (clips and crops) per record; {network.num_features} numbers in "
        "float32. For another network, give its settings to data bench.",
        f"Storage, assumed: network_gbps={config.network_gbps:g} per node, storage_gbps={config.storage_gbps:g} and "
        f"requests_per_s={config.requests_per_s:g} for all (Amazon documents 5500 reads per second and prefix for S3).",
        f"Opening a file takes {1e3 * cluster.open_s:.3g} ms: {opening}.",
        f"Requests per record: {', '.join(f'{name} {count}' for name, count in REQUESTS.items())}; "
        f"{REQUESTS_PER_SHARD} per shard.",
        f"Shards of shard_records={config.shard_records}: the node with the most has "
        f"{math.ceil(cluster.num_shards / config.nodes)}, and the others wait for it.",
        f"Driver: describes and merges {rates.merge.rows_per_s:.3g} records/s, measured with {rates.merge.num_rows} "
        f"rows of 100 bytes, and needs {_DRIVER_BYTES} bytes of memory per record (benchmarks/merge.py, 1,000,000 "
        "records). Features are not counted: those that take more than half of the memory stay in shards.",
        "Not counted: waiting for the cluster, starting processes, repeated shards.",
    ]
    if cluster.rates.videos < 1 and cluster.rates.prepare is not None:
        lines.append(f"prepare copies videos only, {cluster.rates.videos:.0%} of the records.")
    return lines
