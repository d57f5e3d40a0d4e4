"""Words of a command line that are not `name=value`, and what they were meant as.

People type `--lr 0.1` as in other programs, put spaces around "=", give a path without its setting, or leave a pattern
of files to the shell. All of it is answered at once, before torch is imported.
"""

import os
import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from eztorch_sce.config.help import reference_with_plugins
from eztorch_sce.config.recipes import recipes
from eztorch_sce.config.reference import Description, Reference
from eztorch_sce.data.media import KNOWN_SUFFIXES
from eztorch_sce.errors import did_you_mean, shorten
from eztorch_sce.other_names import setting_meant

_OF_HYDRA = {"-m", "--multirun", "-r", "--run", "--resolve", "--hydra-help", "--info", "-i"}
_WITH_VALUE = {"--cfg", "-c", "--package", "-p", "--config-dir", "-cd"}  # flags of Hydra that take the next word
HYDRA_FLAGS = _OF_HYDRA | _WITH_VALUE
_OPTIONS = ("--help", "--version")  # in place of a command
_LISTS = (".csv", ".txt", ".parquet", ".tsv")
_WEIGHTS = (".safetensors", ".pt", ".pth", ".ckpt")
_SUFFIXES = {*_LISTS, *_WEIGHTS, *KNOWN_SUFFIXES, ".yaml", ".yml"}


def corrected(command: str, words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the words of a command line as they were meant, and one message per kind of mistake.

    Args:
        command: The command, such as "pretrain".
        words: The words after it.
    """
    line = _Line(command, words)
    return line.words, line.messages()


def set_twice(words: Sequence[str]) -> list[str]:
    """Return a note for each setting with several values. The last one counts, so that scripts can override theirs.

    >>> set_twice(["seed=1", "seed=2", "loss=sce", "loss=sce"])
    ['note: seed is set 2 times (seed=1, seed=2); the last one counts']
    """
    typed: dict[str, dict[str, None]] = {}
    for word in words:
        if "=" in word and word[0].isalpha():
            typed.setdefault(word.partition("=")[0], {})[word] = None
    return [
        f"note: {name} is set {len(each)} times ({', '.join(each)}); the last one counts"
        for name, each in typed.items()
        if len(each) > 1
    ]


class _Line:
    """A command line, read from left to right.

    Attributes:
        words: The words so far, corrected.
    """

    def __init__(self, command: str, words: Sequence[str]) -> None:
        self.command, self.words = command, list[str]()
        self.paths: list[str] = []
        self.flags: list[tuple[str, str]] = []  # as typed, as meant
        self.spaces: list[tuple[str, str]] = []
        self.others: list[str] = []
        self.reference = reference_with_plugins()
        self.known = list(_all_paths(self.reference, self.reference.commands[command]))
        self.queue = list(words)
        while self.queue:
            self._read(self.queue.pop(0))
        self.of_paths = [f"{name}={path}" for name, path in self._settings_of_paths().items()]
        self.words += self.of_paths

    def _read(self, word: str) -> None:
        following = self.queue[0] if self.queue else ""
        if word in _OF_HYDRA:
            self.words.append(word)
        elif word in _WITH_VALUE:
            self.words += [word, *self._taken()]
        elif word.startswith("-"):
            self._flag(word)
        elif "=" in word.strip("=") and not word.endswith("="):
            self.words.append(word)
        elif word.endswith("=") and word != "=" and following and "=" not in following:
            self._with_spaces([word, *self._taken()])
        elif following == "=" and len(self.queue) > 1:
            self._with_spaces([word, *self._taken(), *self._taken()])
        elif following.startswith("=") and len(following) > 1:
            self._with_spaces([word, *self._taken()])
        elif word in self.known and following and "=" not in following and not following.startswith("-"):
            self.words.append(f"{word}={self.queue.pop(0)}")
            self.spaces.append((f"{word} {following}", self.words[-1]))
        elif "=" in word or word.startswith("~"):  # such as data.root=, or what only Hydra reads
            self.words.append(word)
        else:
            self._bare(word)

    def _taken(self) -> list[str]:
        return [self.queue.pop(0)] if self.queue else []

    def _flag(self, word: str) -> None:
        """Read a word with dashes in front, as in programs that use argparse, and its value."""
        name, equals, value = word.lstrip("-").partition("=")
        setting = setting_meant(name.replace("-", "_"), self.known)
        typed = [word]
        if not equals:
            has_value = bool(self.queue) and not self.queue[0].startswith("-") and "=" not in self.queue[0]
            values = self._taken() if has_value else []
            typed += values
            value = values[0] if values else "true"
        self.flags.append((shlex.join(typed), f"{setting}={value}" if setting else ""))
        if setting:
            self.words.append(f"{setting}={value}")

    def _with_spaces(self, parts: list[str]) -> None:
        self.words.append("".join(parts))
        self.spaces.append((" ".join(parts), self.words[-1]))

    def _bare(self, word: str) -> None:
        """Read a word without "=": a path, the name of a choice, or something misspelled."""
        choices = {group: list(members) for group, members in self.reference.choices.items()}
        choices |= {"views": self.reference.policies, "recipe": list(recipes())}
        group = next((group for group in self.known if word in choices.get(group, ())), None)
        is_path = "/" in word or Path(word).suffix in _SUFFIXES or os.path.exists(os.path.expanduser(word))
        whole = f"{self.words[-1]} {word}" if self.words else ""
        if is_path and os.path.exists(os.path.expanduser(whole.partition("=")[2])):
            self.others.append(f"a path with spaces needs quotes: write {shlex.quote(whole)}")
            self.words[-1] = whole
        elif group is None and is_path:
            self.paths.append(word)
        elif group is not None:
            self.others.append(f"{word} must be of the form name=value: write {group}={word}")
            self.words.append(f"{group}={word}")
        else:
            names = [name for name in self.known if "." not in name]
            cure = did_you_mean(word, names) or f"; `eztorch-sce {self.command} --help` lists the settings"
            self.others.append(f"{word} must be of the form name=value{cure}")

    def messages(self) -> list[str]:
        """Return one message per kind of mistake."""
        messages = []
        if self.flags:
            meant = shlex.join(text for _, text in self.flags if text)
            unknown = [typed.split()[0] for typed, text in self.flags if not text]
            typed = " ".join(typed for typed, _ in self.flags)
            cure = f"write {meant}" if meant else f"`eztorch-sce {self.command} --help` lists them"
            more = f"; {', '.join(unknown)} has no counterpart here" if unknown and meant else ""
            messages.append(f"{typed}: settings are written name=value, without dashes: {cure}{more}")
        if self.spaces:
            typed, meant = (", ".join(pair[number] for pair in self.spaces) for number in (0, 1))
            messages.append(f"{typed}: settings are written name=value, without spaces around =: write {meant}")
        return [*messages, *self._about_paths(), *self.others]

    def _about_paths(self) -> Iterator[str]:
        if not self.paths:
            return
        cure = shlex.join(self.of_paths) or "NAME=PATH"
        if len(self.paths) == 1:
            yield f"{self.paths[0]} is a path without the name of its setting: write {cure}"
        else:
            expanded = "the shell may have expanded a pattern such as *: " if len(self.paths) > 2 else ""
            shown = f"{len(self.paths)} words are paths without the name of a setting ({shorten(self.paths, 2)})"
            yield f"{shown}; {expanded}write {cure}"

    def _settings_of_paths(self) -> Mapping[str, str]:
        """Return the settings that the paths were probably meant for: of several files, their folder."""
        typed = {word.partition("=")[0] for word in self.words}
        settings: dict[str, str] = {}
        for text in self.paths:
            path = Path(text).expanduser()
            name, value = "data.root", text
            is_missing_run = not path.exists() and not path.suffix and len(self.paths) > 1
            if path.suffix in _WEIGHTS or (path / "config.yaml").is_file() or is_missing_run:
                name = "weights"
            elif path.suffix in _LISTS:
                name = "data.list"
            elif path.suffix in (".yaml", ".yml"):
                name, value = "recipe", text if "/" in text else f"./{text}"
            elif path.is_file():
                value = os.path.dirname(text) or "."
            if name in self.known and name not in typed:
                if name in settings and settings[name] != value:  # such as the folders of the classes
                    value = os.path.commonpath([os.path.dirname(each.rstrip("/")) or "." for each in self.paths]) or "."
                settings[name] = value
        return settings


def _all_paths(reference: Reference, description: Description, prefix: str = "", depth: int = 0) -> Iterator[str]:
    """Yield the paths of all settings of a command, of every choice too."""
    for name, entry in description.settings.items():
        path = f"{prefix}{name}"
        if not entry.config or entry.is_list:
            yield path
        if depth > 3:
            continue
        if entry.config:
            inner = f"{path}.*." if entry.is_list else f"{path}."
            yield from _all_paths(reference, reference.configs[entry.config], inner, depth + 1)
        for choice in reference.choices.get(entry.group, {}).values():
            yield from _all_paths(reference, choice, f"{path}.", depth + 1)


def unknown_command(word: str, known: Sequence[str], groups: Mapping[str, str]) -> str:
    """Return the message for a first word that is not a command.

    Args:
        word: The word.
        known: The first words that are commands.
        groups: The first word of each command of two words, by the second one.
    """
    if word in groups:
        return f"{word} is not a command; did you mean {groups[word]} {word}?"
    if word.startswith("--") and (cure := did_you_mean(word, _OPTIONS)):
        return f"{word} is not an option{cure}"
    if "=" in word or word.startswith("-") or os.path.exists(word):
        example = word if "=" in word.strip("-") else f"data.root={word if os.path.isdir(word) else 'FOLDER'}"
        return f"{word}: the command is missing in front of it, as in eztorch-sce pretrain {example.lstrip('-')}"
    cure = did_you_mean(word, known) or f"; the commands are {', '.join(known)}"
    return f"{word} is not a command{cure}"
