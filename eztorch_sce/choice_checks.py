"""Checks of what a user registers, so that a mistake is reported at `@register` rather than in the middle of a run."""

import inspect
import re
import typing
from collections.abc import Iterator
from dataclasses import MISSING, Field, dataclass, fields, is_dataclass
from typing import Any

from eztorch_sce.errors import ConfigError, first_line

_NAME = re.compile(r"[A-Za-z][\w.-]*", re.ASCII)
_WORDS = ("null", "none", "true", "false", "all", "help")  # which mean something else on the command line
_BUILD = {
    "backbone": ("build",),
    "decoder": ("build",),
    "evaluation": ("evaluate", "train", "test", "device"),
    "loss": ("build",),
    "method": ("build", "backbone", "loss"),
    "optimizer": ("build", "parameters", "lr"),
    "source": ("build", "split"),
}
"""The method that a config of each group must have, and its arguments."""
_CONTRACT = ("num_global_views", "has_negatives", "needs_negatives", "has_own_loss", "takes_unit_vectors")
"""Class attributes that are no settings although they have no annotation."""
COMMANDS = (
    "pretrain",
    "plan",
    "finetune",
    "test",
    "extract",
    "demo",
    "study",
    "show-views",
    "data",
    "checkpoint",
    "compare",
    "report",
    "watch",
    "replay",
    "recipes",
    "checkpoint",
    "completion",
    "env",
)
"""Commands other than evaluations, whose names an evaluation cannot have."""


def check_choice(group: str, name: str, choice: Any) -> None:
    """Check what is registered as a choice of a group.

    Raises:
        ConfigError: With one message per reason why it can never work.
    """
    messages = _name_messages(group, name)
    if group == "views":
        messages += _views_messages(name, choice)
    elif not isinstance(choice, type):
        messages.append(f'@register("{group}", "{name}") expects a dataclass, not {_shown(choice)}')
    elif (message := _not_a_dataclass(group, name, choice)) is not None:
        messages.append(message)
    else:
        messages += _method_messages(group, choice)
        messages += _field_messages(choice) or _default_messages(group, choice)
    if messages:
        raise ConfigError(messages)


def _name_messages(group: str, name: str) -> list[str]:
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        rule = "start with a letter, followed by letters, digits, _, - or ."
        return [f"{name!r} cannot be typed as {group}=NAME: a name must {rule}"]
    if name.lower() in _WORDS:
        return [f"{group}={name} means something else on the command line: choose another name"]
    if group == "evaluation" and name in COMMANDS:
        return [f"{name} is a command already: register the evaluation as another name"]
    return []


def _views_messages(name: str, choice: Any) -> list[str]:
    if isinstance(choice, type) or not callable(choice):
        return [f'@register("views", "{name}") expects a function that returns a list of views, not {_shown(choice)}']
    if not _takes(choice, ()):
        return [f"{choice.__name__} of views={name} must be callable without arguments: {choice.__name__}()"]
    return []


def _not_a_dataclass(group: str, name: str, cls: type) -> str | None:
    own = inspect.get_annotations(cls)
    is_complete = "__dataclass_fields__" in cls.__dict__ or (is_dataclass(cls) and not own)
    if is_complete:
        return None
    order = f'write @register("{group}", "{name}") in the line above @dataclass, and @dataclass above the class'
    return f"{cls.__name__} is not a dataclass when it is registered: {order}"


def _method_messages(group: str, cls: Any) -> list[str]:
    """Return one message per part of the contract of the group that a config class lacks."""
    method, *arguments = _BUILD[group]
    call = f"{method}({', '.join(['self', *arguments])})"
    if group == "evaluation" and not _is_evaluation(cls):
        cure = f"write class {cls.__name__}(EvaluationConfig)"
        return [f"{cls.__name__} has none of the settings of an evaluation: {cure}"]
    if not callable(getattr(cls, method, None)) or method in getattr(cls, "__abstractmethods__", ()):
        return [f"{cls.__name__} has no method {call}"]
    if not _takes(getattr(cls, method), ("self", *arguments)):
        signature = inspect.signature(getattr(cls, method))
        return [f"{cls.__name__}.{method}{signature} must take the arguments of {call}"]
    return []


def _is_evaluation(cls: type) -> bool:
    """Return whether a class derives from `EvaluationConfig`, which this module may not import."""
    return "eztorch_sce.evaluation.base.EvaluationConfig" in {f"{c.__module__}.{c.__qualname__}" for c in cls.__mro__}


def _takes(function: Any, arguments: tuple[str, ...]) -> bool:
    """Return whether a function can be called with these positional arguments."""
    try:
        inspect.signature(function).bind(*arguments)
    except TypeError:
        return False
    return True


def _field_messages(cls: Any) -> list[str]:
    """Return one message per field that cannot be a setting."""
    if cls.__dataclass_params__.frozen:
        return [f"{cls.__name__} is frozen, so its settings cannot be changed: remove frozen=True"]
    messages = list(_constants(cls))
    try:
        hints = typing.get_type_hints(cls)
    except Exception as error:  # whatever evaluating an annotation raises
        return [*messages, f"an annotation of {cls.__name__} cannot be evaluated when it is registered: {error}"]
    for item in fields(cls):
        path = f"{cls.__name__}.{item.name}"
        if item.name == "name":
            messages.append(f"{path}: config.yaml keeps the name of the choice as `name`; rename the field")
        if item.default is MISSING and item.default_factory is MISSING:
            messages.append(f"{path} has no default: every setting needs one, as in {item.name}: int = 1")
        if (reason := _unusable_annotation(item, hints[item.name])) is not None:
            messages.append(f"{path}: {_annotation(hints[item.name])} cannot be a setting{reason}")
    return messages


def _constants(cls: type) -> Iterator[str]:
    """Yield a message for each value in the body of a class that looks like a setting but has no annotation."""
    annotated = {name for base in cls.__mro__ for name in inspect.get_annotations(base)}
    for name, value in cls.__dict__.items():
        is_setting = isinstance(value, (bool, int, float, str, list, tuple, dict)) and name.islower()
        if is_setting and not name.startswith("_") and name not in (*annotated, *_CONTRACT):
            kind = type(value).__name__
            cure = f"write {name}: {kind} = {value!r}, or {name}: ClassVar[{kind}] for a constant"
            yield f"{cls.__name__}.{name} has no annotation, so it is not a setting: {cure}"


def _unusable_annotation(item: "Field[Any]", hint: Any) -> str | None:
    """Return why OmegaConf, which holds the settings, cannot hold a field of this type; None if it can."""
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    if typing.get_origin(hint) is typing.Literal:
        words = ", ".join(map(repr, typing.get_args(hint)))
        return f": write {item.name}: str = setting({item.default!r}, choices=[{words}], help=...)"
    probe = type("Probe", (), {"__annotations__": {item.name: hint}})
    try:
        OmegaConf.structured(dataclass(probe))
    except (OmegaConfBaseException, TypeError, ValueError):
        return ": use int, float, bool, str, an enum, a dataclass, a list or dict of these, or any of them | None"
    return None


def _annotation(hint: Any) -> str:
    return getattr(hint, "__name__", None) or str(hint).removeprefix("typing.") if isinstance(hint, type) else str(hint)


def _default_messages(group: str, cls: Any) -> list[str]:
    """Return one message per default that its own declaration does not allow."""
    from eztorch_sce.settings import Setting, declaration, problem_with

    try:
        config = cls()
    except Exception as error:  # whatever the user's __post_init__ raises
        return [f"{cls.__name__}() fails with its defaults: {type(error).__name__}: {first_line(error)}"]
    hints = typing.get_type_hints(cls)
    checked = (
        problem_with(item.name, getattr(config, item.name), declaration(item) or Setting(), hints[item.name])
        for item in fields(cls)
    )
    return [
        f"the default {message.replace(' must be', f' of {cls.__name__} must be', 1)}" for message in checked if message
    ]


def _shown(value: Any) -> str:
    kind = "the class" if isinstance(value, type) else "the function" if inspect.isfunction(value) else "the value"
    return f"{kind} {getattr(value, '__name__', repr(value))}"
