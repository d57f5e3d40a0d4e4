"""Explanations of overrides that do not compose: one message per mistake, all at once."""

import re
import shlex
import typing
from collections.abc import Sequence
from dataclasses import fields
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Glob, Override
from hydra.errors import HydraException
from omegaconf import DictConfig, ListConfig, OmegaConf

from eztorch_sce import registry
from eztorch_sce.config.adjust import needs_names, open_group
from eztorch_sce.config.choices import VIEWS, choice_fields
from eztorch_sce.config.compose import INVALID, NO_CHANGES, Changes, commands, compose_by_hydra, prepare, to_config
from eztorch_sce.config.overrides import parsed, quoted
from eztorch_sce.config.renamed import renamed
from eztorch_sce.config.starting import KEYS, StartError
from eztorch_sce.errors import ConfigError, did_you_mean, first_line, nearest, shorten
from eztorch_sce.other_names import known_elsewhere, setting_meant
from eztorch_sce.settings import Setting, declaration, problem_with

_EACH_VIEW = "views.*."
_ANY_VIEW = "views.any."  # the same in a form that Hydra parses


def explain(
    command: str,
    overrides: Sequence[str],
    error: Exception,
    changes: Changes = NO_CHANGES,
    is_complete: bool = True,
) -> list[str]:
    """Return one message per mistake in overrides that do not compose.

    Each override is checked separately. Then the config is composed without the rejected ones and validated, so that a
    mistyped key does not hide an invalid value elsewhere.

    Args:
        command: The command, such as "pretrain".
        overrides: The overrides as typed.
        error: The exception from Hydra, reported if no mistake is found.
        changes: Settings that change those of the recipe or file, before the overrides.
        is_complete: Whether the config must be complete, so that missing settings are mistakes, too.
    """
    explanation = _Explanation(command, changes)
    typed = [override for text in overrides if (override := explanation.parse(text))]
    try:
        config = explanation.compose_choices([override for override in typed if explanation.is_choice(override)])
    except StartError:  # the settings cannot be checked without those that they start from
        return explanation.messages
    for override in typed:
        if not explanation.is_choice(override):
            explanation.apply(override, config)
    if is_complete:
        explanation.validate(config)
    return explanation.messages or [first_line(error)]


def explain_each(command: str, overrides: Sequence[str], error: Exception) -> list[str]:
    """Do the same for a sweep, one value at a time; the other overrides then have their first value."""
    words = [_values_of(text) for text in overrides]
    firsts = [each[0] for each in words]
    jobs = [[*firsts[:number], word, *firsts[number + 1 :]] for number, each in enumerate(words) for word in each[1:]]
    messages = dict[str, None]()
    for job in [firsts, *jobs]:
        try:
            prepared = prepare(command, job)
            to_config(compose_by_hydra(command, prepared.words), prepared)
        except INVALID as cause:
            messages |= dict.fromkeys(explain(command, job, cause))
        except ConfigError as cause:
            messages |= dict.fromkeys(cause.problems)
    return list(messages) or [first_line(error)]


def _values_of(text: str) -> list[str]:
    """Return an override with each of its values; itself if it has one or does not parse."""
    override = parsed(text)
    if override is None or not override.is_sweep_override() or isinstance(override.value(), Glob):
        return [text]
    return [f"{override.key_or_group}={value}" for value in override.sweep_string_iterator()]


class _Explanation:
    """The messages collected so far, and the paths whose values are unreliable because of them.

    Args:
        command: The command whose overrides are explained.
        changes: Settings that change those of the recipe or file.
    """

    def __init__(self, command: str, changes: Changes) -> None:
        self.command, self.changes = command, changes
        self.choices = {path: choice.names() for path, choice in choice_fields(commands()[command]).items()}
        self.messages: list[str] = []
        self.unquoted: dict[str, str] = {}  # messages about values that Hydra cannot parse, by key
        self.typed: set[str] = set()
        self.doubtful: list[str] = []  # paths whose values may differ from what the user intended

    def is_choice(self, override: Override) -> bool:
        """Return whether an override selects from a group, like `loss=sce`, or needs Hydra, like `+key=value`."""
        return override.key_or_group in (*self.choices, *KEYS) or override.type.name != "CHANGE"

    def parse(self, text: str) -> Override | None:
        """Parse an override. If that fails or the key was renamed, add a message and return None."""
        key, equals, value = text.partition("=")
        if not equals and not text.startswith("~"):
            self.messages.append(f"{text} must be of the form key=value{self._nearest_key(text)}")
            return None
        if sentence := renamed(key):
            self.messages.append(sentence)
            return None
        parser = OverridesParser.create()
        try:
            override = parser.parse_override(text.replace(_EACH_VIEW, _ANY_VIEW, 1))
        except HydraException:
            message = f"{text} must be of the form key=value; quote special characters: {_quoted(key, value)}"
            try:
                override = parser.parse_override(f"{key.replace(_EACH_VIEW, _ANY_VIEW, 1)}={quoted(value)}")
            except HydraException:  # the key is malformed, too
                self.messages.append(message)
                return None
            self.unquoted[override.key_or_group] = message
            return override
        if override.is_sweep_override():
            self.messages.append(
                f"{text} has several values: add -m to run each one, write {key}=[{value}] for a list, or "
                f"{_quoted(key, value)} for text"
            )
            self.doubtful.append(key)
            return None
        return override

    def compose_choices(self, overrides: list[Override]) -> DictConfig:
        """Compose the config of the choices, replacing an unknown choice by the nearest known one."""
        accepted: list[str] = []
        for override in sorted(overrides, key=lambda each: each.key_or_group == "loss"):  # the method may exclude it
            text = str(override.input_line)
            group, value = override.key_or_group, str(override.value())
            known = self.choices.get(group, [])
            if group in self.choices and value not in [*known, "None"]:
                of_choice = choice_fields(commands()[self.command])[group].group
                self.messages.append(registry.unknown_choice(group, value, of_choice))
                elsewhere = known_elsewhere(of_choice, value)
                guess = elsewhere[0] if elsewhere else nearest(value, known)
                if guess is None:
                    self.doubtful.append(group)
                    continue
                text = f"{group}={guess}"
            try:
                prepare(self.command, [*accepted, text], self.changes)
            except StartError as error:
                self.messages += error.problems
                if error.guess is None:
                    raise
                text = f"{group}={error.guess}"
            if self._composes([*accepted, text]):
                accepted.append(text)
            else:
                self.messages.append(f"{text} does not apply to {self.command}")
                self.doubtful.append(group)
        self.prepared = prepare(self.command, accepted, self.changes)
        return compose_by_hydra(self.command, self.prepared.words)

    def apply(self, override: Override, config: DictConfig) -> None:
        """Set one value of the config, or add a message."""
        key = override.key_or_group
        if (group := open_group(key.replace(_ANY_VIEW, _EACH_VIEW, 1), config)) is not None:
            name = key.removeprefix(_ANY_VIEW).removeprefix(f"{group}.")
            OmegaConf.update(config, f"adjust.{group}.{name}", override.value(), force_add=True)
            return
        keys = [key]
        if key.startswith(_ANY_VIEW) and "views" in config:
            keys = [key.replace(_ANY_VIEW, f"views.{number}.", 1) for number in range(len(config.views))]
        for key in keys:
            if any(_is_below(key, path) for path in self.doubtful):
                continue
            if key not in _flat_keys(OmegaConf.to_container(config)):
                self._reject_key(key, config)
                return
            if message := self.unquoted.get(override.key_or_group):
                self.messages.append(message)
                self.doubtful.append(key)
                return
            self.typed.add(key)
            try:
                OmegaConf.update(config, key, override.value(), merge=True)
            except INVALID as error:
                self.messages.append(_invalid_value(key, override, config, error))
                self.doubtful.append(key)
                return

    def validate(self, config: DictConfig) -> None:
        """Validate the config, and add the messages about paths that are not doubtful."""
        try:
            typed = self.prepared.typed | self.typed
            to_config(config, self.prepared._replace(typed=typed))
        except ConfigError as error:
            for message in error.problems:
                if not any(_is_below(message, path) for path in self.doubtful):
                    self.messages.append(message)
        except INVALID as error:
            if not self.messages:
                self.messages.append(first_line(error))

    def _composes(self, overrides: list[str]) -> bool:
        try:
            compose_by_hydra(self.command, prepare(self.command, overrides, self.changes).words)
        except (StartError, *INVALID):
            return False
        return True

    def _reject_key(self, key: str, config: DictConfig) -> None:
        if (message := needs_names(key, config)) is not None:
            self.messages.append(message)
            return
        known = _flat_keys(OmegaConf.to_container(config))
        guess = setting_meant(key, known)
        if guess is not None:
            self.doubtful.append(guess)
        others = self._choices_with(key)
        cure = f"; {others} has it" if others else "" if guess is None else f"; did you mean {guess}?"
        owners = [name for name, cls in commands().items() if key in {item.name for item in fields(cls)}]
        if owners and not others:
            cure = f", but of {shorten(owners, 4)}"
        cure = cure or f"; `eztorch-sce {self.command} --help` lists them"
        self.messages.append(f"{key} is not a setting of {self.command}{cure}")

    def _choices_with(self, key: str) -> str:
        """Return the choices that have a setting, such as "optimizer=adamw" for `optimizer.betas`."""
        for path, choice in choice_fields(commands()[self.command]).items():
            if key.startswith(f"{path}.") and choice.group != VIEWS:
                return registry.choices_with(path, choice.group, key.removeprefix(f"{path}.").split(".")[0])
        return ""

    def _nearest_key(self, word: str) -> str:
        names = [*self.choices, *(item.name for item in fields(commands()[self.command]))]
        return did_you_mean(word, names)


def _invalid_value(key: str, override: Override, config: DictConfig, error: Exception) -> str:
    """Return the message for a value that has the wrong type."""
    value: Any = override.value()
    parent_key, _, name = key.rpartition(".")
    parent = OmegaConf.select(config, parent_key) if parent_key else config
    if isinstance(parent, DictConfig) and isinstance(config_class := OmegaConf.get_type(parent), type):
        hints = typing.get_type_hints(config_class)
        for item in fields(config_class):
            if item.name == name:
                message = problem_with(key, value, declaration(item) or Setting(), hints[name])
                if message is not None:
                    return message
    cause: BaseException = error
    while cause.__cause__ is not None:  # the innermost exception names the invalid value
        cause = cause.__cause__
    return f"{override.input_line}: {first_line(cause)}"


def _quoted(key: str, value: str) -> str:
    """Return an override quoted for Hydra and for the shell.

    >>> print(_quoted("data.root", "a=b"))
    'data.root="a=b"'
    """
    return shlex.quote(f"{key}={quoted(value)}")


def _is_below(text: str, path: str) -> bool:
    """Return whether a text starts with a path, as a whole name."""
    return text.startswith(path) and (len(text) == len(path) or not re.match(r"\w", text[len(path)]))


def _flat_keys(node: Any, prefix: str = "") -> list[str]:
    """Return the dotted keys of nested dictionaries and lists."""
    items: Any = ()
    if isinstance(node, (dict, DictConfig)):
        items = node.items()
    elif isinstance(node, (list, ListConfig)):
        items = enumerate(node)
    keys = []
    for name, child in items:
        keys += [f"{prefix}{name}", *_flat_keys(child, f"{prefix}{name}.")]
    return keys
