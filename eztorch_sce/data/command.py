"""`eztorch-sce data doctor | prepare | bench FOLDER`: what is done to files before a run."""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from eztorch_sce.data.doctor import Diagnosis, diagnose
from eztorch_sce.data.media_table import NAME
from eztorch_sce.data.prepare import PrepareConfig, prepare

if TYPE_CHECKING:
    from eztorch_sce.data.bench import BenchResult  # it loads what trains

_MOST_SHOWN = 20


def run_data(words: Sequence[str]) -> None:
    """Run `data doctor` or `data prepare`; exits with 1 if a file is unusable or has no copy."""
    options = _parser().parse_args(words)
    if options.command == "doctor":
        diagnosis, file = diagnose(options.folder, options.full, options.workers, options.lists)
        _print_diagnosis(diagnosis, file)
        sys.exit(int(diagnosis.num_unusable > 0))
    config = PrepareConfig(**{item.name: getattr(options, item.name) for item in fields(PrepareConfig)})
    console = Console()
    done = prepare(options.folder, options.out, config)
    console.print(f"{done.num_made} copies made in {done.seconds:.0f} s, {done.num_kept} were there", highlight=False)
    if done.gain:
        console.print(f"a clip is read {done.gain:.1f} times faster from a copy than from its source", highlight=False)
    for path, why in list(done.failed.items())[:_MOST_SHOWN]:
        console.print(f"no copy of {path}: {why}", highlight=False, soft_wrap=True)
    if len(done.failed) > _MOST_SHOWN:
        console.print(f"and of {len(done.failed) - _MOST_SHOWN} more: run `eztorch-sce data doctor {options.folder}`")
    if done.complete:
        _, file = diagnose(options.out, workers=options.workers)
        console.print(f"written to {options.out}; {file} lets runs start fast", highlight=False, soft_wrap=True)
    else:
        console.print(f"other shards are not done yet: the last one to end writes {NAME}", highlight=False)
    sys.exit(int(bool(done.failed)))


def print_bench(result: "BenchResult") -> None:
    """Print what `data bench` measured and what to set."""
    table = Table("decoder", "clips/s, one process", "usable", "remark", title_justify="left")
    for row in result.decoders:
        rate = f"{row.clips_per_s:.1f}" if row.clips_per_s else "-"
        table.add_row(row.decoder, rate, "yes" if row.usable else "no", row.remark)
    console = Console()
    console.print(table)
    rates = ", ".join(f"{number}: {rate:.1f}" for number, rate in result.by_workers.items())
    console.print(f"clips/s by number of workers: {rates}", highlight=False)
    threads = f"{result.threads} decoding thread each"
    console.print(
        f"fastest: data.decoder={result.decoder} data.num_workers={result.num_workers} ({threads}); "
        f"data.decoder=auto takes this decoder from now on",
        highlight=False,
        soft_wrap=True,
    )


def _print_diagnosis(diagnosis: Diagnosis, file: Path) -> None:
    console = Console()
    table = Table("finding", "files", "for instance", title_justify="left")
    for finding, count, path in diagnosis.counts():
        table.add_row(finding, str(count), path)
    if table.rows:
        console.print(table)
    bad = [row for row in diagnosis.rows if not row.usable]
    for row in bad[:_MOST_SHOWN]:
        console.print(f"unusable: {row.path}: {'; '.join(row.findings)}", highlight=False, soft_wrap=True)
    if len(bad) > _MOST_SHOWN:
        console.print(f"and {len(bad) - _MOST_SHOWN} more, see the column `usable` of {file}", highlight=False)
    rate = len(diagnosis.rows) / max(diagnosis.seconds, 1e-9)
    summary = f"{len(diagnosis.rows)} files, {len(bad)} unusable, {diagnosis.seconds:.1f} s ({rate:.0f} files/s)"
    console.print(f"{summary}; written to {file}", highlight=False, soft_wrap=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("eztorch-sce data", description=__doc__, allow_abbrev=False)
    commands = parser.add_subparsers(dest="command", required=True)
    doctor = commands.add_parser("doctor", help=f"look at every file, say what is wrong, write {NAME}")
    doctor.add_argument("folder", type=Path)
    doctor.add_argument("--full", action="store_true", help="decode every frame, not three of each video")
    doctor.add_argument("--lists", type=Path, nargs="*", default=[], help="train and test lists: no file may be in two")
    doctor.add_argument("--workers", type=int, help="processes; one per core if not given")
    copies = commands.add_parser("prepare", help="make copies that decode fast")
    copies.add_argument("folder", type=Path)
    copies.add_argument("out", type=Path)
    defaults = PrepareConfig()
    copies.add_argument("--short-side", type=int, default=defaults.short_side, help="pixels (default: %(default)s)")
    copies.add_argument("--gop", type=int, default=defaults.gop, help="frames from key to key (default: %(default)s)")
    copies.add_argument("--fps", type=float, help="frames per second; as the source if not given")
    copies.add_argument("--crf", type=int, default=defaults.crf, help="x264's quality, 0 best (default: %(default)s)")
    copies.add_argument("--to", default=defaults.to, help="h264, or frames for folders of JPEGs (default: %(default)s)")
    copies.add_argument("--shard", default=defaults.shard, help="i/n: the i-th of n parts (default: %(default)s)")
    copies.add_argument("--workers", type=int, help="processes; one per core if not given")
    commands.add_parser("bench", help="FOLDER [key=value ...]: which decoder is fastest, sampled as `pretrain` does")
    return parser
