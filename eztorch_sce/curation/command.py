"""`eztorch-sce data unpack | check | doctor | prepare | bench`: what is done to files before a run."""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from eztorch_sce.curation.check import Checked, check
from eztorch_sce.curation.doctor import Diagnosis, diagnose
from eztorch_sce.curation.prepare import PrepareConfig, prepare
from eztorch_sce.data.sources.layouts import LAYOUTS
from eztorch_sce.data.sources.manifest import shorten
from eztorch_sce.data.sources.media_table import NAME
from eztorch_sce.data.sources.packed import unpack

if TYPE_CHECKING:
    from eztorch_sce.curation.bench import BenchResult  # it loads what trains

_MOST_SHOWN = 20
_UNKNOWN = "no number is published; a list tells one: data.annotations=FOLDER, data.list=FILE, data.test_list=FILE"


def run_data(words: Sequence[str]) -> None:
    """Run a command on files; exits with 1 if one is unusable, has no copy, or is missing."""
    # a setting may be written as everywhere else: data.split=2 is --split=2
    options = _parser().parse_args(["--" + word[5:].replace("_", "-") if _is_setting(word) else word for word in words])
    commands = {"doctor": _doctor, "prepare": _prepare, "unpack": _unpack, "check": _check}
    sys.exit(int(not commands[options.command](options)))


def _is_setting(word: str) -> bool:
    return word.startswith("data.") and "=" in word


def _doctor(options: argparse.Namespace) -> bool:
    diagnosis, file = diagnose(options.folder, options.full, options.workers, options.lists)
    _print_diagnosis(diagnosis, file)
    return diagnosis.num_unusable == 0


def _unpack(options: argparse.Namespace) -> bool:
    done = unpack(options.source, options.out)
    console = Console()
    made = f"{done.num_made} images written in {done.seconds:.0f} s, {done.num_kept} were there"
    to_read = f"set data.layout={done.layout} data.root={options.out}"
    console.print(f"{made}; {to_read}", highlight=False, markup=False, soft_wrap=True)
    # the labeled part, and for STL-10 what is pretrained on
    layouts = [name for name in LAYOUTS if name in (done.layout, f"{done.layout}_unlabeled")]
    complete = True
    for layout in layouts:
        checked = check(layout, str(options.out))
        _print_check(layout, checked)
        complete = complete and checked.complete
    return complete


def _check(options: argparse.Namespace) -> bool:
    places = {name: getattr(options, name) for name in ("list", "test_root", "test_list", "annotations", "split")}
    checked = check(options.name, options.root, **places)
    _print_check(options.name, checked)
    if options.missing:
        text = "".join(f"{name}\n" for name in checked.missing)
        options.missing.write_text(text, encoding="utf-8", errors="surrogateescape")
        written = f"all that is missing is in {options.missing}"
        Console().print(written, highlight=False, markup=False, soft_wrap=True)
    return checked.complete


def _prepare(options: argparse.Namespace) -> bool:
    config = PrepareConfig(**{item.name: getattr(options, item.name) for item in fields(PrepareConfig)})
    console = Console()
    done = prepare(options.folder, options.out, config)
    console.print(f"{done.num_made} copies made in {done.seconds:.0f} s, {done.num_kept} were there", highlight=False)
    if done.gain:
        console.print(f"a clip is read {done.gain:.1f} times faster from a copy than from its source", highlight=False)
    for path, why in list(done.failed.items())[:_MOST_SHOWN]:
        console.print(f"no copy of {path}: {why}", highlight=False, markup=False, soft_wrap=True)
    if len(done.failed) > _MOST_SHOWN:
        console.print(f"and of {len(done.failed) - _MOST_SHOWN} more: run `eztorch-sce data doctor {options.folder}`")
    if done.complete and done.num_copies:
        _, file = diagnose(options.out, workers=options.workers)
        done_in = f"written to {options.out}; {file} lets runs start fast"
        console.print(done_in, highlight=False, markup=False, soft_wrap=True)
    elif not done.complete:
        console.print(f"other shards are not done yet: the last one to end writes {NAME}", highlight=False)
    return not done.failed


def print_bench(result: "BenchResult") -> None:
    """Print what `data bench` measured and what to set."""
    table = Table("decoder", "clips/s, one process", "usable", "remark", title_justify="left")
    for row in result.decoders:
        rate = f"{row.clips_per_s:.1f}" if row.clips_per_s else "-"
        table.add_row(row.decoder, rate, "yes" if row.usable else "no", escape(row.remark))
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
        table.add_row(escape(finding), str(count), escape(path))
    if table.rows:
        console.print(table)
    bad = [row for row in diagnosis.rows if not row.usable]
    for row in bad[:_MOST_SHOWN]:
        why = "; ".join(row.findings)
        console.print(f"unusable: {row.path}: {why}", highlight=False, markup=False, soft_wrap=True)
    if len(bad) > _MOST_SHOWN:
        console.print(f"and {len(bad) - _MOST_SHOWN} more, see the column `usable` of {file}", highlight=False)
    if diagnosis.others:
        others = f"not looked at, for want of a suffix of videos or images: {shorten(diagnosis.others)}"
        console.print(others, highlight=False, markup=False, soft_wrap=True)
    rate = len(diagnosis.rows) / max(diagnosis.seconds, 1e-9)
    summary = f"{len(diagnosis.rows)} files, {len(bad)} unusable, {diagnosis.seconds:.1f} s ({rate:.0f} files/s)"
    console.print(f"{summary}; written to {file}", highlight=False, markup=False, soft_wrap=True)


def _print_check(layout: str, checked: Checked) -> None:
    console = Console()
    table = Table(layout, "asked", "found", "missing", title_justify="left")
    for count in checked.counts:
        asked = "-" if count.asked is None else str(count.asked)
        table.add_row(f"{count.part} {count.of}", asked, str(count.found), str(count.missing) if count.missing else "")
    console.print(table)
    for name in checked.missing[:_MOST_SHOWN]:
        console.print(f"missing: {name}", highlight=False, markup=False, soft_wrap=True)
    if len(checked.missing) > _MOST_SHOWN:
        console.print(f"and {len(checked.missing) - _MOST_SHOWN} more: --missing FILE writes all", highlight=False)
    for count in checked.counts:
        if count.asked is not None and count.found > count.asked:
            console.print(f"{count.part}: {count.found - count.asked} {count.of} more than asked", highlight=False)
    if any(count.asked is None for count in checked.counts):
        console.print(f"-: {_UNKNOWN}", highlight=False, soft_wrap=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("eztorch-sce data", description=__doc__, allow_abbrev=False)
    commands = parser.add_subparsers(dest="command", required=True)
    packed = commands.add_parser("unpack", help="CIFAR-10, CIFAR-100, STL-10: from the published arrays to PNG files")
    packed.add_argument("source", type=Path, help="the folder of the unpacked archive, or the one it lies in")
    packed.add_argument("out", type=Path)
    asked = commands.add_parser("check", help="count the files of a data set beside what its publisher names")
    asked.add_argument("name", metavar="NAME", help=f"the layout: {', '.join(LAYOUTS)}")
    asked.add_argument("root", metavar="ROOT")
    asked.add_argument("--annotations", help="folder of the published lists, or file of the classes to keep")
    asked.add_argument("--split", type=int, default=1, help="of the published splits (default: %(default)s)")
    asked.add_argument("--list", help="list file of the training part")
    asked.add_argument("--test-list", help="list file of the test part")
    asked.add_argument("--test-root", help="folder of the test part")
    asked.add_argument("--missing", type=Path, metavar="FILE", help="write the names of all that is missing")
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
