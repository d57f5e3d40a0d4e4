"""Checks of the settings in a recipe or config file: one message per mistake, with the file and the key."""

import re
import typing
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from typing import Any

from eztorch_sce import registry
from eztorch_sce.augment.view import ViewConfig
from eztorch_sce.config.choices import OWN_VIEWS, VIEWS, ChoiceField
from eztorch_sce.config.renamed import renamed
from eztorch_sce.config.starting import OBJECT, StartingPoint
from eztorch_sce.errors import did_you_mean
from eztorch_sce.settings import Setting, declaration, problem_with, show


def mistakes_in(start: StartingPoint, config_class: type, choices: Mapping[str, ChoiceField]) -> list[str]:
    """Return one message per setting of a starting point that its command does not have or does not accept."""
    checker = _Checker(start, choices)
    messages = [*checker.names(), *checker.settings(config_class, start.settings, "")]
    return [f"{_place_of(start, message)}: {message}" for message in messages]


def _place_of(start: StartingPoint, message: str) -> str:
    """Return the file and the line of the setting that a message begins with."""
    path = re.split(r"[ =]", message, maxsplit=1)[0]
    return start.places.get(path, start.label)


class _Checker:
    """Checks of one file.

    Args:
        start: The starting point that the file holds.
        choices: The choices of the command.
    """

    def __init__(self, start: StartingPoint, choices: Mapping[str, ChoiceField]) -> None:
        self.start, self.choices = start, choices

    def names(self) -> Iterator[str]:
        """Yield a message for each unknown choice."""
        for path, name in self.start.choices.items():
            known = self.choices[path].names()
            if name not in (None, OWN_VIEWS, *known):
                yield registry.unknown_choice(path, show(name), self.choices[path].group)

    def settings(self, config_class: type, settings: Mapping[str, Any], prefix: str) -> Iterator[str]:
        """Yield the messages about the settings of a config class."""
        items = {item.name: item for item in fields(config_class)}
        hints = typing.get_type_hints(config_class)
        for name, value in settings.items():
            path = f"{prefix}{name}"
            if message := renamed(path) or renamed(f"{path}."):
                yield message
            elif name not in items:
                yield f"{path} is not a setting{self._cure(path, name, list(items), prefix)}"
            elif path in self.choices:
                yield from self._choice(path, value)
            else:
                yield from self._value(path, value, declaration(items[name]) or Setting(), hints[name])

    def _choice(self, path: str, value: Any) -> Iterator[str]:
        choice = self.choices[path]
        if isinstance(value, list) and choice.group == VIEWS:
            for number, view in enumerate(value):
                yield from self._value(f"{path}.{number}", view, Setting(), ViewConfig)
        elif not isinstance(value, Mapping):
            yield f"{path}={show(value)} must be one of {', '.join(choice.names())}, or settings by name"
        elif OBJECT in value:
            yield (
                f"{path} was the object {value[OBJECT]}, which a file cannot hold: pass it again in Python, with "
                f'recipe("FILE", {path}=...), register its config in a plugin, or choose another with {path}=NAME'
            )
        elif (own := self.start.own(choice)) in choice.names():
            of_choice = choice.value(str(own))
            yield from self.settings(_class_of(of_choice), value, f"{path}.")
        elif own is None:
            yield from self._open(choice, value)

    def _open(self, choice: ChoiceField, value: Mapping[str, Any]) -> Iterator[str]:
        """Check settings below a choice that is left open: one of the choices must have each of them."""
        classes = [_class_of(choice.value(name)) for name in choice.names()]
        for name, item in value.items():
            path, owners = f"{choice.path}.{name}", [cls for cls in classes if name in {f.name for f in fields(cls)}]
            found = [list(self.settings(cls, {name: item}, f"{choice.path}.")) for cls in owners]
            if not owners:
                known = sorted({f.name for cls in classes for f in fields(cls)})
                yield f"{path} is not a setting of any {choice.path}{did_you_mean(name, known)}"
            elif [] not in found:
                yield found[0][0]

    def _value(self, path: str, value: Any, declared: Setting, hint: Any) -> Iterator[str]:
        arguments = typing.get_args(hint)
        if isinstance(value, str) and "${" in value:
            return  # an interpolation of Hydra
        nested = next((each for each in (hint, *arguments) if isinstance(each, type) and is_dataclass(each)), None)
        if nested is not None and isinstance(value, Mapping):
            yield from self.settings(nested, value, f"{path}.")
        elif nested is not None and isinstance(value, list) and typing.get_origin(hint) is list:
            for number, item in enumerate(value):
                yield from self._value(f"{path}.{number}", item, Setting(), nested)
        elif nested is not None and value is not None:
            yield f"{path}={show(value)} must be settings by name: {', '.join(f.name for f in fields(nested))}"
        elif message := problem_with(path, value, declared, hint):
            yield message

    def _cure(self, path: str, name: str, known: list[str], prefix: str) -> str:
        for choice in self.choices.values():
            if prefix != f"{choice.path}." or choice.group == VIEWS:
                continue
            if others := registry.choices_with(choice.path, choice.group, name):
                return f" of {choice.path}={self.start.own(choice)}; {others} has it"
        return did_you_mean(path, [f"{prefix}{each}" for each in known])


def _class_of(value: Any) -> type:
    """Return the config class of a choice, which is a class, a config or a list of views."""
    if isinstance(value, list):
        return ViewConfig
    return value if isinstance(value, type) else type(value)
