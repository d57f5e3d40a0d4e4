"""The `eztorch-sce data` commands: their arguments, functions and output.

Importing this module loads neither torch nor a decoder, so that `--help` responds at once.
"""

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from rich.table import Table

from eztorch_sce.curation.settings import CheckConfig, DoctorConfig, PrepareConfig, StatusConfig, UnpackConfig
from eztorch_sce.errors import counted, typed
from eztorch_sce.files import write_text
from eztorch_sce.planning.data_settings import DataPlanConfig
from eztorch_sce.positional import Argument, PositionalCommand
from eztorch_sce.printing import PlainConsole, in_bytes, print_line, print_wrapped

if TYPE_CHECKING:
    from eztorch_sce.curation.bench import BenchResult
    from eztorch_sce.curation.check import CheckResult
    from eztorch_sce.curation.doctor import Diagnosis
    from eztorch_sce.curation.prepare import Prepared
    from eztorch_sce.curation.rates import Rates, Speed

_MAX_SHOWN = 20  # lines per list; the rest is counted


def run_doctor(folder: str, config: DoctorConfig) -> bool:
    """Inspect the files of a folder; return whether all are usable."""
    from eztorch_sce.curation.doctor import diagnose

    diagnosis = diagnose(Path(folder), config)
    _print_diagnosis(diagnosis)
    return diagnosis.num_unusable == 0


def rehearse_doctor(folder: str, config: DoctorConfig) -> list[str]:
    """Return lines that tell what `run_doctor` would do."""
    from eztorch_sce.curation.doctor import rehearse_diagnosis

    return rehearse_diagnosis(Path(folder), config)


def rehearse_prepare(folder: str, out: str, config: PrepareConfig) -> list[str]:
    """Return lines that tell what `run_prepare` would do."""
    from eztorch_sce.curation.prepare import rehearse_copies

    return rehearse_copies(Path(folder), Path(out), config)


def run_prepare(folder: str, out: str, config: PrepareConfig) -> bool:
    """Copy the videos of a folder, then inspect the copies; return whether every video was copied."""
    from eztorch_sce.curation.doctor import diagnose
    from eztorch_sce.curation.prepare import prepare

    prepared = prepare(Path(folder), Path(out), config)
    _print_prepared(prepared, folder)
    if prepared.num_copies:
        table = diagnose(Path(out), DoctorConfig(runner=config.runner, workers=config.workers)).table
        print_line(f"written to {out}; {table} makes runs start fast")
    return not prepared.failed


def run_status(out: str, _: StatusConfig) -> bool:
    """Print how far the jobs in a folder are; return whether all are complete."""
    from eztorch_sce.jobs.status import find_jobs

    jobs = find_jobs(out)
    for line in (line for job in jobs for line in job.lines()):
        print_wrapped(line)
    return all(job.is_complete for job in jobs)


def run_check(name: str, root: str, config: CheckConfig) -> bool:
    """Compare a data set with the publisher's counts; return whether it is complete."""
    from eztorch_sce.curation.check import check

    result = check(name, root, config)
    _print_check(name, result)
    if config.missing:
        write_text(Path(config.missing), "".join(f"{line}\n" for line in result.missing))
        print_line(f"all missing files are listed in {config.missing}")
    return result.complete


def run_unpack(source: str, out: str, _: UnpackConfig) -> bool:
    """Unpack a packed set, then check the result; return whether it is complete."""
    from eztorch_sce.curation.check import check
    from eztorch_sce.curation.unpack import unpack
    from eztorch_sce.data.sources.layouts import LAYOUTS

    unpacked = unpack(Path(source), Path(out))
    counts = f"{unpacked.num_written} images written in {unpacked.seconds:.0f} s, {unpacked.num_kept} already there"
    print_line(f"{counts}; set {typed(('data.layout', unpacked.layout), ('data.root', out))}")
    # STL-10 is checked twice: its labeled images, and its unlabeled images for pretraining.
    layouts = [name for name in (unpacked.layout, f"{unpacked.layout}_unlabeled") if name in LAYOUTS]
    results = {name: check(name, out) for name in layouts}
    for name, result in results.items():
        _print_check(name, result)
    return all(result.complete for result in results.values())


def run_plan(folder: str, config: DataPlanConfig) -> bool:
    """Predict time and bytes of data work from the speeds that `data bench` measured."""
    from eztorch_sce.curation.rates import read_rates
    from eztorch_sce.planning.data_plan import plan_data
    from eztorch_sce.planning.data_tables import print_data_plan

    print_data_plan(plan_data(config, read_rates(Path(folder))))
    return True


def print_bench(result: "BenchResult", rates: "Rates") -> None:
    """Print the measurements of `data bench` and the settings they suggest."""
    console = PlainConsole()
    table = Table("decoder", "clips/s, one process", "usable", "remark", title_justify="left")
    for row in result.decoders:
        rate = f"{row.clips_per_s:.1f}" if row.clips_per_s else "-"
        table.add_row(row.decoder, rate, "yes" if row.usable else "no", row.remark)
    if table.rows:
        console.print(table)
    console.print(_table_of_rates(rates))
    by_workers = ", ".join(f"{number}: {rate:.1f}" for number, rate in result.by_workers.items())
    print_wrapped(f"clips/s by number of workers: {by_workers}")
    if result.decoders:
        threads = f"{result.threads} decoding thread each"
        print_line(f"fastest: data.decoder={result.decoder} data.num_workers={result.num_workers} ({threads})")
        print_line("data.decoder=auto now selects this decoder")
    else:
        print_line(f"no videos, so decoders are not compared; fastest: data.num_workers={result.num_workers}")
    print_line("data plan now knows the speeds of this machine on these files")


def _table_of_rates(rates: "Rates") -> Table:
    """Return the measured speeds of data work in one process, and the facts about the files, as a table."""
    reading, network = rates.reading, rates.network
    device = network.device if not network.threads else f"CPU, {counted(network.threads, 'thread')}"
    shown = f"{counted(network.num_frames, 'frame')} of {network.size} px"
    rows = [("doctor", f"{rates.doctor.records_per_s:.1f} files/s", _bytes_of(rates.doctor))]
    if rates.prepare is not None:
        rows.append(("prepare", f"{rates.prepare.records_per_s:.2f} videos/s", _bytes_of(rates.prepare)))
    for num_clips, speed in ((1, reading.one_clip), (reading.num_clips, reading.clips)):
        if speed is not None:
            name = f"reading {counted(num_clips, 'clip')} x {reading.num_crops} crops"
            rows.append((name, f"{speed.records_per_s:.2f} files/s", _bytes_of(speed)))
    rows.append((f"features, {device}", f"{network.views_per_s:.1f} views/s", f"{network.backbone}, {shown}"))
    rows.append(("opening a file", f"{1e3 * rates.open_s:.3f} ms", "status and first bytes"))
    rows.append(("merging", f"{rates.merge.rows_per_s:.0f} records/s", "by the process that starts a job"))
    table = Table("data work, one process", "speed", "remark", title_justify="left")
    table.columns[1].justify = "right"
    for row in rows:
        table.add_row(*row)
    return table


def _bytes_of(speed: "Speed") -> str:
    written = f", {in_bytes(speed.bytes_written)} written" if speed.bytes_written else ""
    return f"{in_bytes(speed.bytes_read)} read{written} per file"


def _print_diagnosis(diagnosis: "Diagnosis") -> None:
    from eztorch_sce.errors import shorten

    table = Table("finding", "files", "example", title_justify="left")
    for finding, count, path in diagnosis.counts():
        table.add_row(finding, str(count), path)
    if table.rows:
        PlainConsole().print(table)
    num_unusable = diagnosis.num_unusable
    for row in diagnosis.rows.unusable(_MAX_SHOWN):
        print_wrapped(f"unusable: {row.path}: {'; '.join(row.findings)}")
    if num_unusable > _MAX_SHOWN:
        print_line(f"and {num_unusable - _MAX_SHOWN} more; see the column `usable` of {diagnosis.table}")
    if diagnosis.skipped:
        print_wrapped(f"skipped, neither a video nor an image by suffix: {shorten(diagnosis.skipped)}")
    rate = len(diagnosis.rows) / max(diagnosis.seconds, 1e-9)
    counts = f"{len(diagnosis.rows)} files, {num_unusable} unusable"
    print_line(f"{counts}, {diagnosis.seconds:.1f} s ({rate:.0f} files/s)")
    print_line(f"written to {diagnosis.table}")


def _print_prepared(prepared: "Prepared", folder: str) -> None:
    print_wrapped(
        f"{prepared.num_written} copies written in {prepared.seconds:.0f} s, {prepared.num_kept} already there"
    )
    if prepared.speedup:
        print_line(f"reading a clip is {prepared.speedup:.1f} times faster from a copy than from its source")
    for path, reason in list(prepared.failed.items())[:_MAX_SHOWN]:
        print_wrapped(f"no copy of {path}: {reason}")
    if len(prepared.failed) > _MAX_SHOWN:
        print_line(f"and {len(prepared.failed) - _MAX_SHOWN} more; run `eztorch-sce data doctor {shlex.quote(folder)}`")


def _print_check(layout: str, result: "CheckResult") -> None:
    table = Table(layout, "expected", "on disk", "missing", title_justify="left")
    for count in result.counts:
        expected = "-" if count.expected is None else str(count.expected)
        missing = str(count.missing) if count.missing else ""
        table.add_row(f"{count.split} {count.unit}", expected, str(count.on_disk), missing)
    PlainConsole().print(table)
    for line in result.missing[:_MAX_SHOWN]:
        print_wrapped(f"missing: {line}")
    if len(result.missing) > _MAX_SHOWN:
        print_line(f"and {len(result.missing) - _MAX_SHOWN} more; missing=FILE lists all")
    for count in result.counts:
        if count.expected is not None and count.on_disk > count.expected:
            print_line(f"{count.split}: {count.on_disk - count.expected} more {count.unit} than expected")
    if any(count.expected is None for count in result.counts):
        print_wrapped(
            "-: no count is published; set annotations=FOLDER, list=FILE or test_list=FILE to compare with a list"
        )


def _layouts() -> list[str]:
    from eztorch_sce.data.sources.layouts import LAYOUTS

    return list(LAYOUTS)


_COMMANDS = (
    PositionalCommand(
        "data doctor",
        "Inspect every file of a folder, report problems, and write a table that makes runs start fast.",
        (Argument("FOLDER", "Folder of videos, images or frame folders.", is_folder=True),),
        DoctorConfig,
        (
            "eztorch-sce data doctor videos",
            "eztorch-sce data doctor videos full=true workers=4",
            "eztorch-sce data doctor videos lists=[train.csv,test.csv]",
        ),
        run_doctor,
        rehearse=rehearse_doctor,
    ),
    PositionalCommand(
        "data prepare",
        "Re-encode the videos of a folder into small copies with frequent key frames, which decode fast.",
        (
            Argument("FOLDER", "Folder of the source videos.", is_folder=True),
            Argument("OUT", "Folder of the copies, outside FOLDER; existing copies are kept."),
        ),
        PrepareConfig,
        (
            "eztorch-sce data prepare videos copies",
            "eztorch-sce data prepare videos copies short_side=128 gop=16",
            "eztorch-sce data prepare videos copies runner=slurm",
        ),
        run_prepare,
        rehearse=rehearse_prepare,
        removed={
            "shard": "start the command once, with runner=slurm or runner=ray, which divides the videos among machines "
            "and proves that none is missing"
        },
    ),
    PositionalCommand(
        "data status",
        "Tell how far `data doctor`, `data prepare` or `extract` is, from another terminal or after an interruption.",
        (Argument("OUT", "Folder or URL that the command writes to, or that of its job."),),
        StatusConfig,
        (
            "eztorch-sce data status videos",
            "eztorch-sce data status copies",
            "eztorch-sce data status s3://bucket/features",
        ),
        run_status,
    ),
    PositionalCommand(
        "data bench",
        "Find the fastest decoder and number of workers for the files of a folder, and measure what `data plan` needs.",
        (Argument("FOLDER", "Folder of videos or images, sampled as pretraining does.", is_folder=True),),
        None,
        (
            "eztorch-sce data bench videos",
            "eztorch-sce data bench videos data.num_frames=16",
            "eztorch-sce data bench videos recipe=ucf101_r2plus1d18",
        ),
        None,
        settings_of="pretrain",
    ),
    PositionalCommand(
        "data plan",
        "Predict hours, bytes and bottlenecks of doctor, prepare and extract on many machines, from `data bench`.",
        (Argument("FOLDER", "Folder of a sample of the files, which `data bench` has measured.", is_folder=True),),
        DataPlanConfig,
        (
            "eztorch-sce data plan videos",
            "eztorch-sce data plan videos records=650000 nodes=32 cores=32",
            "eztorch-sce data plan videos records=100000000 nodes=512 cores=64 storage_gbps=1000",
        ),
        run_plan,
    ),
    PositionalCommand(
        "data check",
        "Compare the files of a data set with the counts and lists of its publisher.",
        (
            Argument("NAME", "Layout of the data set, such as ucf101, kinetics400 or imagenet.", choices=_layouts),
            Argument("ROOT", "Folder of the data set."),
        ),
        CheckConfig,
        (
            "eztorch-sce data check kinetics400 kinetics400",
            "eztorch-sce data check ucf101 UCF-101 split=2 annotations=ucfTrainTestlist",
            "eztorch-sce data check imagenet imagenet missing=missing.txt",
        ),
        run_check,
    ),
    PositionalCommand(
        "data unpack",
        "Unpack CIFAR-10, CIFAR-100 or STL-10 into folders of PNG files, the only form training reads.",
        (
            Argument("SOURCE", "The publisher's archive, its extracted folder, or the folder that contains it."),
            Argument("OUT", "Folder of the images, outside SOURCE; existing images are kept."),
        ),
        UnpackConfig,
        (
            "eztorch-sce data unpack cifar-10-python.tar.gz cifar10",
            "eztorch-sce data unpack cifar-100-python cifar100",
            "eztorch-sce data unpack stl10_binary stl10",
        ),
        run_unpack,
    ),
)
DATA_COMMANDS = {command.title.removeprefix("data "): command for command in _COMMANDS}
