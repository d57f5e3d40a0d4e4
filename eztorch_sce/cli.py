"""Command line: `eztorch-sce <command> key=value ...`.

Modules are imported inside the functions that need them to keep startup fast: help and the list of recipes do not load
torch, and errors in settings do not load Lightning.
"""

import os
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from importlib import import_module
from pathlib import Path
from typing import Any

from eztorch_sce import signals
from eztorch_sce.commands import COMMANDS, GROUPS
from eztorch_sce.errors import (
    EXPLAINED,
    INTERRUPTED,
    ConfigError,
    MediaError,
    ProcessError,
    SourceError,
    describe_disk,
    did_you_mean,
)
from eztorch_sce.failures import failed_process, has_printed, is_of_another
from eztorch_sce.launch import is_first_process, refuse_several
from eztorch_sce.positional import CommandGroup, PositionalCommand
from eztorch_sce.printing import accept_any_text, print_line, visible
from eztorch_sce.started import how_to_go_on, opened_run, remember_words
from eztorch_sce.together import together
from eztorch_sce.waiting import announced

_HELP_WORDS = ("-h", "--help", "help")
_DRY_RUN = "--dry-run"
_TRAINING = ("pretrain", "finetune", "demo", "study")
_MODULES = {"demo": "eztorch_sce.demo", "study": "eztorch_sce.studies.study"}  # others are functions of `api`
_WITH_DRY_RUN = ("pretrain", "finetune", "test", "extract")  # and every evaluation


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command. On an error that the user can fix, print it and exit with 2."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    command, rest = (words[0], words[1:]) if words else ("help", [])
    accept_any_text()
    remember_words(words)
    try:
        with signals.watched(f"eztorch-sce {visible(command)}", is_last=arguments is None), together():
            _run(command, rest)
            sys.stdout.flush()
    except BrokenPipeError:  # the reader of a pipe, such as head, has what it needs
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python would write the rest at exit
        sys.exit(1)
    except EXPLAINED as error:
        if "EZTORCH_SCE_TRACE" in os.environ:
            raise
        _print_once(error, f"eztorch-sce {visible(command)}: {_describe(error)}")
        sys.exit(2)
    except OSError as error:
        disk = describe_disk(error, opened_run())
        if disk is None or "EZTORCH_SCE_TRACE" in os.environ:
            raise
        again = how_to_go_on() if command in _TRAINING else "run the same command again"
        _print_once(error, f"eztorch-sce {visible(command)}: {_process_of(error)}{visible(disk)}; {again}")
        sys.exit(2)
    except ProcessError as error:
        _print_once(error, f"eztorch-sce {visible(command)}: {error}")
        sys.exit(1)
    except KeyboardInterrupt as error:
        how = f": {error}" if str(error) else _how_to_continue(command)
        _print_once(error, f"\neztorch-sce {visible(command)}: interrupted{how}")
        sys.exit(INTERRUPTED)


def _print_once(error: BaseException, text: str) -> None:
    """Print an error, unless another process does."""
    if not is_of_another(error):
        print(text, file=sys.stderr, flush=True)
        has_printed()


def _process_of(error: BaseException) -> str:
    """Return the process that an error ended, for the beginning of a line, if there are several processes."""
    number = failed_process(error)
    return "" if number is None else f"process {number}: "


def _describe(error: Exception) -> str:
    process = _process_of(error)
    if isinstance(error, ConfigError):
        return "\n".join(["invalid configuration:", *(f"- {process}{visible(problem)}" for problem in error.problems)])
    if isinstance(error, SourceError):
        return f"{process}mistake in the data source: {visible(error.summary)}"
    return f"{process}{'cannot read' if isinstance(error, MediaError) else 'stopped:'} {visible(str(error))}"


def _how_to_continue(command: str) -> str:
    return f"; {how_to_go_on()}" if command in ("data", *_TRAINING) else ""


@contextmanager
def _loading(text: str) -> Iterator[None]:
    """Announce the import of large packages, in which a signal may end the process."""
    with announced(text), signals.idle():
        yield


def _run(command: str, rest: list[str]) -> None:
    """Show help or run a command."""
    if command in _HELP_WORDS:
        _show_overview(rest)
    elif command == "--version":
        _show_version()
    elif command in GROUPS:
        _run_group(GROUPS[command], rest)
    elif command in COMMANDS:
        _run_positional(command, rest)
    elif command == "recipes":
        _list_recipes(rest)
    elif command == "compare":
        _compare(rest)
    elif command == "env":
        _show_environment(rest)
    elif command == "completion":
        _complete(rest)
    else:
        _run_with_settings(command, rest)


def _show_overview(rest: list[str]) -> None:
    from eztorch_sce.config import help as help_pages
    from eztorch_sce.config.plugin_words import with_plugins

    with_plugins(rest)  # their evaluations are commands
    print(help_pages.overview())


def _run_with_settings(command: str, rest: list[str]) -> None:
    """Run a command that takes key=value settings, or show its help."""
    from eztorch_sce import registry
    from eztorch_sce.config import help as help_pages
    from eztorch_sce.config.folder_words import with_folder
    from eztorch_sce.config.plugin_words import with_plugins, without_plugins

    takes_folder = command == "study" and not any(word in _HELP_WORDS for word in rest)
    words = with_plugins(with_folder(rest) if takes_folder else rest)
    if command not in (known := help_pages.command_names()):
        from eztorch_sce.config.mistyped import unknown_command

        groups = {name: group.name for group in GROUPS.values() for name in group.commands}
        raise ConfigError([unknown_command(command, known, groups) + registry.remarks()])
    if any(word in _HELP_WORDS for word in words):
        return print(help_pages.command_help(command, _topics(without_plugins(words))))
    if _DRY_RUN in words:
        return _dry_run(command, [word for word in words if word != _DRY_RUN])
    with _loading("loading PyTorch"):
        from eztorch_sce.config.by_hydra import run_by_hydra
        from eztorch_sce.config.command_words import config_of, is_for_hydra

        config = None if is_for_hydra(words) else config_of(command, words)
    if config is None:
        run_by_hydra(command, words, _start)
    else:
        _start(command, config)


def _topics(words: Sequence[str]) -> Sequence[str]:
    """Return the words after `--help`."""
    return words[next(number for number, word in enumerate(words) if word in _HELP_WORDS) + 1 :]


def _dry_run(command: str, words: list[str]) -> None:
    """Check a command with all its settings and data, and print what it would do."""
    from eztorch_sce import registry

    known = [*_WITH_DRY_RUN, *registry.choices("evaluation")]
    if command not in known:
        raise ConfigError([f"{command} has no {_DRY_RUN}; the commands that have one are {', '.join(known)}"])
    if any(word in ("-m", "--multirun") for word in words):
        raise ConfigError([f"{_DRY_RUN} checks one run, not a sweep: leave out -m, and give each setting one value"])
    with _loading("loading PyTorch"):
        from eztorch_sce.config.command_words import config_of
        from eztorch_sce.rehearsal import dry_run

        config = config_of(command, words)
    for line in dry_run(config).lines(shutil.get_terminal_size().columns):
        print_line(line)


def _list_recipes(rest: list[str]) -> None:
    from eztorch_sce.config import help as help_pages
    from eztorch_sce.config.recipes import print_recipes, recipe_text, recipes

    if rest and rest[0] in _HELP_WORDS:
        print(help_pages.overview())
    elif len(rest) == 1 and rest[0] in recipes():
        print(recipe_text(rest[0]), end="")
    else:
        print_recipes(rest)


def _compare(rest: list[str]) -> None:
    from eztorch_sce.report.compare import print_comparison

    print_comparison(rest)


def _complete(rest: list[str]) -> None:
    from eztorch_sce.completion import run_completion
    from eztorch_sce.config import help as help_pages

    if rest and rest[0] in _HELP_WORDS:
        print(help_pages.overview())
    else:
        run_completion(rest)


def _show_version() -> None:
    from eztorch_sce.report.versions import version_line

    print(version_line())


def _show_environment(rest: list[str]) -> None:
    if rest and rest[0] not in _HELP_WORDS:
        raise ConfigError([f"env takes no arguments, got {' '.join(rest)}"])
    from eztorch_sce.report.environment import print_environment

    print_environment()


def _run_positional(name: str, words: list[str]) -> None:
    """Run a command that takes positional arguments, or show its help."""
    from eztorch_sce.config import help as help_pages
    from eztorch_sce.positional import parse

    command = COMMANDS[name]
    if any(word in _HELP_WORDS for word in words):
        return print(help_pages.positional_help(command, _topics(words)))
    refuse_several(name)
    line = parse(command, words)
    assert command.run is not None
    command.run(*line.arguments, line.config)


def _run_group(group: CommandGroup, words: list[str]) -> None:
    """Run a command of two words, or show its help. Exit with 1 if files are unusable, missing or failed."""
    from eztorch_sce.config import help as help_pages
    from eztorch_sce.positional import parse

    name, rest = (words[0], words[1:]) if words else ("help", [])
    if name in _HELP_WORDS:
        return print(help_pages.group_overview(group))
    if name not in group.commands:
        cure = did_you_mean(name, group.commands) or f"; the commands are {', '.join(group.commands)}"
        raise ConfigError([f"{group.name} {name} is not a command{cure}"])
    command = group.commands[name]
    if any(word in _HELP_WORDS for word in rest):
        return print(help_pages.positional_help(command, _topics(rest)))
    refuse_several(command.title)
    if _DRY_RUN in rest:
        return _rehearse(group, command, [word for word in rest if word != _DRY_RUN])
    line = parse(command, rest)
    if command.run is None:
        return _bench(line.arguments[0], line.overrides)
    with _loading("loading PyTorch"):
        import_module(group.shared)
    sys.exit(0 if command.run(*line.arguments, line.config) else 1)


def _rehearse(group: CommandGroup, command: PositionalCommand, words: list[str]) -> None:
    """Print what a command of two words would do."""
    from eztorch_sce.positional import parse

    if command.rehearse is None:
        known = [each.title for each in group.commands.values() if each.rehearse is not None]
        cure = f"; the commands that have one are {', '.join(known)}" if known else ""
        raise ConfigError([f"{command.title} has no {_DRY_RUN}{cure}"])
    line = parse(command, words)
    with _loading("loading PyTorch"):
        import_module(group.shared)
    lines = command.rehearse(*line.arguments, line.config)
    for text in [f"dry run of {command.title}: no mistakes found, and nothing was written", *lines]:
        print_line(text)


def _bench(folder: str, overrides: list[str]) -> None:
    with _loading("loading PyTorch"):
        from eztorch_sce import api
        from eztorch_sce.config.compose import compose
        from eztorch_sce.config.overrides import quoted
        from eztorch_sce.curation.command import print_bench

    # Decoding uses no GPU, so the batch need not divide among the GPUs of this machine.
    print_bench(*api.bench(compose("pretrain", [f"data.root={quoted(folder)}", "trainer.accelerator=cpu", *overrides])))


def _start(command: str, config: object) -> None:
    """Run a command with a validated config and print the result."""
    with _loading("loading PyTorch Lightning" if command in _TRAINING else "loading"):
        from eztorch_sce import registry
        from eztorch_sce.report.tables import print_plan, print_report
        from eztorch_sce.types import EarlierReport

        module = import_module(_MODULES.get(command, "eztorch_sce.api"))
        if command in _TRAINING:
            import_module("eztorch_sce.training.trainer")  # by the functions of these commands otherwise, silently
    is_evaluation = command in registry.choices("evaluation")
    function: Callable[[Any], Any] = getattr(module, "evaluate" if is_evaluation else command.replace("-", "_"))
    with announced("measuring the networks") if command == "plan" else nullcontext():
        result = function(config)
    if command == "study" or isinstance(result, EarlierReport):
        return  # which has printed what it found
    if command == "plan":
        if is_first_process():
            print_plan(result)
    else:
        print_report(result)
        if is_first_process() and (is_evaluation or command in ("demo", "finetune", "test")):
            _print_pages(result.run_dir, is_written=command == "demo")


def _print_pages(run_dir: Path, is_written: bool) -> None:
    """Say where the page of a run is, or add an evaluation to the pages of the runs that it evaluated."""
    from eztorch_sce.pages import PAGE, refresh_pages
    from eztorch_sce.printing import print_line

    for page in [run_dir / PAGE] if is_written else refresh_pages(run_dir):
        print_line(f"page: {page}")
