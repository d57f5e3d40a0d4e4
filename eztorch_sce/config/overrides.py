"""Free text in overrides: the values of paths and other texts, which Hydra must not read as its own grammar."""

import re
import typing
from collections.abc import Iterator, Sequence
from dataclasses import fields, is_dataclass
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Glob, Override
from hydra.errors import HydraException
from omegaconf import OmegaConf

from eztorch_sce import registry
from eztorch_sce.settings import Setting, declaration

_INTERPOLATION = re.compile(r"\$\{(?P<name>(?P<first>\w+)[\w.]*)(?P<arguments>:[^{}]*)?\}")


def take_literally(config_class: type, overrides: Sequence[str], sweep: bool = False) -> list[str]:
    """Quote the values of text settings for Hydra, so that `data.root=/x/it's (1), a=b` means what it says.

    `null`, a value in quotes, and interpolations of Hydra such as `${oc.env:HOME}` or `${seed}` keep their meaning.

    Args:
        config_class: The config of the command.
        overrides: `key=value`, as on the command line.
        sweep: Whether a comma separates the values of a sweep, except of run.dir, which holds all runs of a sweep.
    """
    texts = set(_texts(config_class, ""))
    return [
        _literal(override, config_class, sweep and not override.startswith("run.dir="))
        if override.partition("=")[0].lstrip("+") in texts
        else override
        for override in overrides
    ]


def quoted(value: str) -> str:
    r"""Return a text in double quotes, which Hydra reads back as the same text.

    >>> print(quoted('a "b", c\\'))
    "a \"b\", c\\"
    """
    escaped = re.sub(r'(\\*)"', r'\1\1\\"', value)
    return '"' + re.sub(r"(\\+)$", r"\1\1", escaped) + '"'


def _texts(config_class: type, prefix: str) -> Iterator[str]:
    """Yield the paths of the settings whose value is free text, such as "data.root"."""
    hints = typing.get_type_hints(config_class)
    for item in fields(config_class):
        hint, declared = hints[item.name], declaration(item) or Setting()
        if declared.group is not None:
            for choice in registry.choices(declared.group).values():
                yield from _texts(choice, f"{prefix}{item.name}.")
        elif isinstance(hint, type) and is_dataclass(hint):
            yield from _texts(hint, f"{prefix}{item.name}.")
        elif _is_text(hint) and declared.choices is None:
            yield f"{prefix}{item.name}"


def _is_text(hint: Any) -> bool:
    return typing.get_origin(hint) is not list and set(typing.get_args(hint) or (hint,)) <= {str, type(None)}


def _literal(override: str, config_class: type, sweep: bool) -> str:
    key, equals, value = override.partition("=")
    if not equals or value == "" or value.lower() == "null" or is_in_quotes(value):
        return override
    override_of = parsed(f"key={value}")
    if sweep and override_of is not None and override_of.is_sweep_override():
        return override
    values = value.split(",") if sweep else [value]
    return f"{key}={','.join(quoted(escape_interpolations(each, config_class)) for each in values)}"


def is_in_quotes(value: str) -> bool:
    """Return whether a value is a text in Hydra's quotes."""
    return value[:1] in ("'", '"') and value[-1:] == value[:1] and parsed(f"key={value}") is not None


def parsed(text: str) -> Override | None:
    """Return an override as Hydra parses it, or None if it does not parse."""
    try:
        return OverridesParser.create().parse_override(text)
    except HydraException:
        return None


def values_of(override: Override, names: Sequence[str]) -> list[str | None]:
    """Return the words that an override chooses; several for a sweep, also by `glob(...)` of the known names.

    >>> override = parsed("backbone=resnet18,null")
    >>> override and values_of(override, names=[])
    ['resnet18', None]
    """
    value: Any = override.value()
    if not override.is_sweep_override():
        values = [value]
    elif isinstance(value, Glob):
        values = value.filter(list(names))
    else:
        each = (parsed(f"key={text}") for text in override.sweep_string_iterator())
        values = [item.value() for item in each if item]
    return [None if value is None else str(value) for value in values]


def escape_interpolations(value: str, config_class: type | None = None) -> str:
    """Escape each `${` of a text for OmegaConf.

    Args:
        value: The text.
        config_class: If given, interpolations of a resolver or of a setting of this config are left as they are.
    """
    names = {item.name for item in fields(config_class)} if config_class else set()

    def escape(match: re.Match[str]) -> str:
        inner = _INTERPOLATION.match(value, match.end("backslashes"))
        if (
            config_class
            and inner
            and (OmegaConf.has_resolver(inner["name"]) if inner["arguments"] else inner["first"] in names)
        ):
            return match[0]
        return f"{2 * match['backslashes']}\\${{"

    return re.sub(r"(?P<backslashes>\\*)\$\{", escape, value)
