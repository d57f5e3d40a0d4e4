"""Contract tests of every config: each mistake yields a message that starts with the path of the setting."""

import copy
import typing
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from typing import Any

import pytest

from eztorch_sce import registry
from eztorch_sce.config.compose import choice_groups, commands
from eztorch_sce.errors import ConfigError
from eztorch_sce.settings import Setting, declaration, invalid_settings

CLASSES = {f"{group}={name}": cls for group in choice_groups() for name, cls in registry.choices(group).items()}
CLASSES |= {f"decoder={name}": cls for name, cls in registry.choices("decoder").items()}
CLASSES |= commands()
UNBOUNDED = {"ramps.0.start"}  # has the bounds of the setting that the ramp changes


def config_class(hint: Any) -> type | None:
    """Return the config class in an annotation such as `list[ViewConfig]`, or None."""
    return next(
        (kind for kind in (hint, *typing.get_args(hint)) if isinstance(kind, type) and is_dataclass(kind)), None
    )


def nested(cls: type, path: str = "") -> Iterator[tuple[str, Any, Setting | None]]:
    """Yield path, annotation and declaration of each setting of a config and of the configs inside it."""
    hints = typing.get_type_hints(cls)
    for item in fields(cls):
        hint, name = hints[item.name], f"{path}{item.name}"
        inner = config_class(hint)
        if inner is None:
            yield name, hint, declaration(item)
        else:
            yield from nested(inner, f"{name}.0." if typing.get_origin(hint) is list else f"{name}.")


def kinds(hint: Any) -> set[Any]:
    """Return the plain types in an annotation."""
    arguments = typing.get_args(hint)
    return set().union(*map(kinds, arguments)) if arguments else {hint}


def with_value(cls: type, path: str, value: object) -> Any:
    """Return a config with one value changed; empty lists and missing configs along the path are filled first."""
    config: Any = cls()
    node = config
    *parents, name = path.split(".")
    for step in parents:
        if step.isdigit():
            node = node[int(step)]
            continue
        if not getattr(node, step):
            inner = config_class(typing.get_type_hints(type(node))[step])
            assert inner is not None
            setattr(node, step, [inner()] if getattr(node, step) == [] else inner())
        node = getattr(node, step)
    setattr(node, name, value)
    return config


def messages_about(cls: type, path: str, value: object) -> list[str]:
    """Return the messages about one changed value: of its assignment if it is no choice, else of the validation."""
    try:
        return invalid_settings(with_value(cls, path, value))
    except ConfigError as error:  # the config that is assigned to does not know where it is nested
        return [f"{path.removesuffix(path.split('.')[-1])}{problem}" for problem in error.problems]


def outside(declared: Setting) -> Iterator[float]:
    """Yield a number outside of each bound."""
    for bound, sign in ((declared.at_least, -1), (declared.at_most, 1)):
        if bound is not None:
            yield bound + sign
    for bound in (declared.above, declared.below):
        if bound is not None:
            yield bound


def invalid_values(hint: Any, declared: Setting) -> Iterator[object]:
    is_list = typing.get_origin(hint) is list
    values: list[object] = [] if declared.group else ["no such word"] if declared.allowed() else list(outside(declared))
    for value in values:
        whole = int(value) if int in kinds(hint) and isinstance(value, float) else value
        yield [whole] if is_list else whole


@pytest.mark.parametrize("name", CLASSES)
def test_a_value_out_of_range_is_one_message_that_starts_with_its_path(name: str) -> None:
    for path, hint, declared in nested(CLASSES[name]):
        for value in [] if declared is None else invalid_values(hint, declared):
            messages = [m for m in messages_about(CLASSES[name], path, value) if m.startswith(f"{path}=")]
            if path.split(".")[0] not in unused(CLASSES[name]):
                assert messages, (path, value)


def unused(cls: type) -> set[str]:
    config = cls()
    return set(config.unused_settings()) if hasattr(config, "unused_settings") else set()


@pytest.mark.parametrize("name", CLASSES)
@pytest.mark.parametrize(
    "value", [0, -1, 1, 10**9, 0.0, -0.5, "", "x", True, False, None, [], [0.0], [0.5, -1.0], [""]]
)
def test_no_value_raises(name: str, value: object) -> None:
    """Rules across settings accept any value of the right type; other values yield messages."""
    for path, _, _ in nested(CLASSES[name]):
        for message in messages_about(CLASSES[name], path, copy.deepcopy(value)):
            assert isinstance(message, str)
            assert message


@pytest.mark.parametrize("name", CLASSES)
def test_a_wrong_type_is_a_message(name: str) -> None:
    for path, hint, declared in nested(CLASSES[name]):
        if path.split(".")[0] in unused(CLASSES[name]):
            continue
        wrong: object = 3 if kinds(hint) <= {str, type(None)} else "no such value"
        if declared is not None and declared.group is not None:
            wrong = "no such choice"
        messages = messages_about(CLASSES[name], path, wrong)
        assert any(message.startswith(f"{path}=") for message in messages), path


@pytest.mark.parametrize("name", CLASSES)
def test_every_setting_is_declared_with_help_and_bounds(name: str) -> None:
    for path, hint, declared in nested(CLASSES[name]):
        assert declared is not None, f"{path} is not declared by setting(...)"
        assert declared.help.endswith("."), f"{path} has no help"
        if kinds(hint) & {int, float} and not declared.allowed() and path not in UNBOUNDED:
            assert declared.range(), f"{path} is a number without bounds"
