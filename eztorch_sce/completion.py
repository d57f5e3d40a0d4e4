"""Shell completion: the scripts for bash, zsh and fish, and the words that complete a command line.

The scripts ask `eztorch-sce completion` at every TAB, so nothing here imports torch: settings and choices come from the
generated reference, as in `--help`.
"""

import os
import re
import shlex
from collections.abc import Iterator, Sequence
from importlib import resources
from typing import NamedTuple

from eztorch_sce.commands import COMMANDS, GROUPS
from eztorch_sce.config import help as help_pages
from eztorch_sce.config.recipes import recipes
from eztorch_sce.config.reference import Description, Entry, Reference, load, reference_of
from eztorch_sce.errors import ConfigError, did_you_mean
from eztorch_sce.positional import PositionalCommand

SHELLS = ("bash", "zsh", "fish")
_FLAGS = ("--dry-run", "--help", "-m", "--cfg")
_SHORT_HELP = 60  # characters of the help shown beside a setting


class Candidate(NamedTuple):
    """A word that completes what is typed.

    Attributes:
        text: The whole word. One that ends in "=", ".", "/" or "," is not complete yet.
        help: What it means, in a few words; shown by shells that can.
    """

    text: str
    help: str = ""


def run_completion(words: Sequence[str]) -> None:
    """Print the completion script of a shell, or, for the scripts, the words that complete a command line.

    Args:
        words: The name of a shell; or `--words` and the words so far, of which the last is completed; or `--line`, the
            line so far and the piece of it that bash completes.

    Raises:
        ConfigError: If the shell is not known.
    """
    if words[:1] == ["--words"]:
        for candidate in candidates(words[1:]):
            print(f"{candidate.text}\t{candidate.help}".rstrip())
    elif words[:1] == ["--line"]:
        for text in _pieces(*words[1:3]):
            print(text)
    elif len(words) == 1 and words[0] in SHELLS:
        print(resources.files("eztorch_sce").joinpath(f"shells/eztorch-sce.{words[0]}").read_text(), end="")
    else:
        wrong = f"{words[0]} is not a shell" if words else "the name of the shell is missing"
        if len(words) > 1:
            wrong = f"one shell is expected, got {' '.join(words)}"
        cure = did_you_mean(words[0], SHELLS) if len(words) == 1 else ""
        raise ConfigError([f"{wrong}: write eztorch-sce completion {'|'.join(SHELLS)}{cure}"])


def _pieces(line: str, piece: str) -> Iterator[str]:
    """Yield what replaces the last piece of a line in bash, which breaks words at "=" and ":" too.

    What the shell would read otherwise, such as spaces in the names of files, is quoted.
    """
    words, raw = _split(line)
    quote = piece[:1] if piece[:1] in ("'", '"') else ""
    before = _unquoted(raw[: len(raw) - len(piece)])
    for candidate in candidates(words[1:]):
        text = candidate.text.removeprefix(before)
        yield f"{quote}{text}" if quote else re.sub(r"([^\w@%+=:,./*~-])", r"\\\1", text)


def _split(line: str) -> tuple[list[str], str]:
    """Return the words of an unfinished line, and the last one as it was typed, with its quotes."""
    starts = [match.end() for match in re.finditer(r"(?<!\\)\s+", line)]
    for start in reversed([0, *starts]):  # the last word may contain spaces in quotes
        try:
            return [*shlex.split(line[:start]), _unquoted(line[start:])], line[start:]
        except ValueError:
            continue
    return [line], line


def _unquoted(text: str) -> str:
    """Return a word without its quotes, of which the last may be missing."""
    for ending in ("", "'", '"'):
        try:
            return " ".join(shlex.split(text + ending))
        except ValueError:
            continue
    return text.rstrip("\\")


def candidates(words: Sequence[str]) -> list[Candidate]:
    """Return the words that complete the last one of a command line.

    Args:
        words: The words after `eztorch-sce`; the last is the one to complete, and may be empty.

    >>> [candidate.text for candidate in candidates(["pretrain", "loss=s"])]
    ['loss=sce']
    """
    *before, current = words or [""]
    return [each for each in _possible(before, current) if each.text.startswith(current)]


def _possible(before: Sequence[str], current: str) -> Iterator[Candidate]:
    if not before:
        yield from map(Candidate, [*help_pages.command_names(), "--help", "--version"])
        return
    command, *rest = before
    reference = load()
    if command in GROUPS:
        known = GROUPS[command].commands
        if not rest:
            yield from (Candidate(name, each.summary[:_SHORT_HELP]) for name, each in known.items())
        elif rest[0] in known:
            yield from _of_positional(known[rest[0]], rest[1:], current)
    elif command == "recipes":
        parts = {part for name in recipes() for part in name.split("_")}
        yield from map(Candidate, [*recipes(), *sorted(parts)])
    elif command == "completion":
        yield from map(Candidate, SHELLS)
    elif command == "compare":
        yield from _paths("", current)
    elif command in COMMANDS:
        yield from _of_positional(COMMANDS[command], rest, current)
    elif command in reference.commands:
        yield from _of_command(command, reference, before, current)


def _of_command(command: str, reference: Reference, before: Sequence[str], current: str) -> Iterator[Candidate]:
    """Yield settings, one level of their path at a time, or the values of a setting."""
    key, equals, value = current.partition("=")
    if equals:
        entry = _find(command, reference, before, key)
        if entry is not None:
            yield from _values(key, value, entry, reference, command)
        return
    yield from map(Candidate, _FLAGS if current.startswith("-") else ())
    parents = key.rpartition(".")[0]
    prefix = f"{parents}." if parents else ""
    for name, entry in _settings(command, reference, before, parents).items():
        path = f"{prefix}{name}"
        if entry.config or entry.group:
            yield Candidate(f"{path}.")
        if not entry.config or entry.is_list:
            yield Candidate(f"{path}=", entry.help[:_SHORT_HELP])


def _settings(command: str, reference: Reference, before: Sequence[str], path: str) -> dict[str, Entry]:
    """Return the settings below a path, which depend on the choices made by the words before."""
    description: Description | None = reference.commands[command]
    typed = dict(word.split("=", 1) for word in before if "=" in word)
    walked: list[str] = []
    for part in filter(None, path.split(".")):
        walked.append(part)
        if part.isdigit() or part == "*":  # a view
            continue
        entry = description.settings.get(part) if description else None
        if entry is None:
            return {}
        if entry.group:
            members = reference.choices[entry.group]
            own = members.get(typed.get(".".join(walked), entry.default))
            description = own or Description("", {k: v for each in members.values() for k, v in each.settings.items()})
        else:
            description = reference.configs.get(entry.config)
    if description is None:
        return {}
    is_view = walked[-1:] == ["views"]
    return {"*": Entry("Every view.", config="ViewConfig")} if is_view else description.settings


def _find(command: str, reference: Reference, before: Sequence[str], key: str) -> Entry | None:
    parents, _, name = key.rpartition(".")
    return _settings(command, reference, before, parents).get(name)


def _values(key: str, value: str, entry: Entry, reference: Reference, command: str) -> Iterator[Candidate]:
    """Yield the values of a setting: names of choices, recipes, files, or true and false."""
    names = list(entry.choices)
    if key == "views":
        names = reference.policies
    elif key == "recipe":
        owner = "pretrain" if command == "plan" else command
        names = [name for name, header in recipes().items() if header["command"] == owner]
    elif entry.default in ("true", "false"):
        names = ["true", "false"]
    yield from (Candidate(f"{key}={name}") for name in names)
    if entry.is_path or (key == "recipe" and "/" in value):
        yield from _paths(f"{key}=", value)


def _of_positional(command: PositionalCommand, before: Sequence[str], current: str) -> Iterator[Candidate]:
    """Yield what a positional argument may be, and settings or the values of one."""
    key, equals, value = current.partition("=")
    entries = _entries(command, before)
    if equals and key in entries:
        yield from _values(key, value, entries[key], Reference({}, {}, {}, []), "")
        return
    if current.startswith("-"):
        yield from map(Candidate, ("--dry-run", "--help") if command.rehearse is not None else ("--help",))
        return
    position = len([word for word in before if "=" not in word and not word.startswith("-")])
    arguments = [each for each in command.arguments[: position + 1] if each.is_repeated] or command.arguments[position:]
    for argument in arguments[:1]:
        yield from map(Candidate, argument.choices() if argument.choices else ())
        if argument.choices is None:
            yield from _paths("", current)
    yield from (Candidate(f"{name}=", entry.help[:_SHORT_HELP]) for name, entry in entries.items())


def _entries(command: PositionalCommand, before: Sequence[str]) -> dict[str, Entry]:
    """Return the settings of a command by path, which depend on the choices made by the words before."""
    if command.config is None:
        return {f"data.{name}": entry for name, entry in load().configs["DataConfig"].settings.items()}
    typed = dict(word.split("=", 1) for word in before if "=" in word)
    description, reference = reference_of(command.config)
    entries = dict[str, Entry]()
    for name, entry in description.settings.items():
        nested = reference.configs[entry.config].settings if entry.config else {}
        if entry.group:
            members = reference.choices[entry.group]
            chosen = members.get(typed.get(name, entry.default))
            entries[name], nested = entry, chosen.settings if chosen else {}
        entries |= {f"{name}.{inner}": each for inner, each in nested.items()} or {name: entry}
    if "backbone" in entries:
        entries["backbone"].choices = list(load().choices["backbone"])  # a network of timm is allowed, too
    return entries


def _paths(prefix: str, typed: str) -> Iterator[Candidate]:
    """Yield the files and folders whose path begins as typed; hidden ones only if a dot is typed."""
    folder, name = os.path.split(typed)
    try:
        entries = sorted(os.scandir(os.path.expanduser(folder) or "."), key=lambda entry: entry.name)
    except OSError:
        return
    for entry in entries:
        if entry.name.startswith(name) and (name.startswith(".") or not entry.name.startswith(".")):
            path = os.path.join(folder, entry.name)
            yield Candidate(f"{prefix}{path}{'/' if entry.is_dir() else ''}")
