"""Reference of all settings, derived from their declarations.

`python -m eztorch_sce.config.reference` writes it to `config/reference.json`, from which `--help` answers without
importing torch, and to the pages `docs/settings/` and `docs/recipes/index.md` of the documentation. It also writes
`config/names.py`, from which type checkers know the names of choices and recipes.
"""

import json
import typing
from dataclasses import MISSING, Field, dataclass, field, fields, is_dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from eztorch_sce import registry
from eztorch_sce.config.recipes import recipes
from eztorch_sce.files import write_text
from eztorch_sce.settings import Setting, declaration, default_of, kind_of, show

FILE = Path(__file__).with_name("reference.json")
NAMES = Path(__file__).with_name("names.py")
REGENERATE = "python -m eztorch_sce.config.reference"


@dataclass
class Entry:
    """A field of a config: a setting, a config inside it, or a choice of a registry group.

    Attributes:
        help: Meaning of the setting, in one sentence.
        default: Default value as typed; for a choice of a group, its name.
        allowed: Type and range in words; empty if there are choices.
        choices: The allowed words.
        is_path: Whether the value is a path.
        config: Name of the config class of a nested config; empty for a single value.
        is_list: Whether the value is a list of such configs, as the views are.
        group: Registry group of a choice; empty otherwise.
        changed: Defaults of a nested config that differ from those of its class, by name.
    """

    help: str
    default: str = ""
    allowed: str = ""
    choices: list[str] = field(default_factory=list)
    is_path: bool = False
    config: str = ""
    is_list: bool = False
    group: str = ""
    changed: dict[str, str] = field(default_factory=dict)

    def values(self) -> str:
        """Return the allowed values in words."""
        return ", ".join(self.choices) or self.allowed


@dataclass
class Description:
    """Summary and settings of a config class."""

    summary: str
    settings: dict[str, Entry]


@dataclass
class FormatEntry:
    """A format of checkpoints.

    Attributes:
        title: What it is.
        networks: The networks that it may hold, in words.
        encoders: The encoders that a file may hold, for one that is imported; the first is taken.
    """

    title: str
    networks: str = ""
    encoders: list[str] = field(default_factory=list)


@dataclass
class Reference:
    """All settings.

    Attributes:
        commands: Config of each command.
        choices: Configs of the choices of each group, by name.
        configs: Nested configs, by class name.
        policies: Names of the view policies.
        formats: Formats of checkpoints by name: those of "import" and of "export".
    """

    commands: dict[str, Description]
    choices: dict[str, dict[str, Description]]
    configs: dict[str, Description]
    policies: list[str]
    formats: dict[str, dict[str, FormatEntry]] = field(default_factory=dict)


def load() -> Reference:
    """Read the reference from the package."""
    content = json.loads(resources.files("eztorch_sce.config").joinpath(FILE.name).read_text(encoding="utf-8"))
    return Reference(
        {name: _description(item) for name, item in content["commands"].items()},
        {
            group: {name: _description(item) for name, item in members.items()}
            for group, members in content["choices"].items()
        },
        {name: _description(item) for name, item in content["configs"].items()},
        content["policies"],
        {
            way: {name: FormatEntry(**item) for name, item in members.items()}
            for way, members in content["formats"].items()
        },
    )


def _description(content: dict[str, Any]) -> Description:
    return Description(content["summary"], {name: Entry(**item) for name, item in content["settings"].items()})


def build() -> Reference:
    """Derive the reference from the declarations of all commands and registered choices."""
    from eztorch_sce.augment.policies import POLICIES
    from eztorch_sce.config.compose import choice_groups, commands

    reference = Reference({}, {}, {}, sorted(POLICIES), _formats())
    for group in sorted({*choice_groups(), "runner"}):  # which the `data` commands choose, too
        if choices := registry.own_choices(group):
            reference.choices[group] = {name: describe(cls, reference) for name, cls in choices.items()}
    for name, cls in commands().items():
        if not registry.is_own(cls):
            continue
        reference.commands[name] = describe(cls, reference)
    reference.configs = dict(sorted(reference.configs.items()))
    return reference


def _formats() -> dict[str, dict[str, FormatEntry]]:
    from eztorch_sce.interop.export import EXPORTS
    from eztorch_sce.interop.format import BY_PREFIX
    from eztorch_sce.interop.formats import FORMATS
    from eztorch_sce.interop.layouts import LAYOUTS

    imports = {}
    for each in FORMATS:
        layouts = () if callable(each.layouts) else each.layouts
        networks = [network.backbone for name in layouts for network in LAYOUTS[name].networks]
        title = each.title + (" (taken only by name)" if each.named_only else "")
        encoders = [name for name in each.encoders if name != BY_PREFIX]
        imports[each.name] = FormatEntry(title, ", ".join(dict.fromkeys(networks)), encoders)
    exports = {name: FormatEntry(each.title, each.networks) for name, each in EXPORTS.items()}
    return {"import": imports, "export": exports}


def reference_of(cls: type) -> tuple[Description, Reference]:
    """Describe a config class of a positional command, and the configs and choices inside it."""
    reference = Reference({}, {}, {}, [])
    description = describe(cls, reference)
    groups = {entry.group for each in (description, *reference.configs.values()) for entry in each.settings.values()}
    for group in sorted(groups - {""}):
        members = registry.choices(group)
        reference.choices[group] = {name: describe(choice, reference) for name, choice in members.items()}
    return description, reference


def describe(cls: type, reference: Reference) -> Description:
    """Describe a config class, and add the configs inside it to the reference."""
    hints = typing.get_type_hints(cls)
    entries = {item.name: _entry(item, hints[item.name], reference) for item in fields(cls)}
    return Description(_summary(cls), entries)


def _entry(item: "Field[Any]", hint: Any, reference: Reference) -> Entry:
    declared, default = declaration(item) or Setting(), default_of(item)
    if declared.group is not None:
        name = "null" if default is None else registry.name_of(default)
        return Entry(declared.help, name, choices=declared.allowed(), group=declared.group)
    nested = _config_class(hint)
    if nested is None:
        words = declared.allowed()
        allowed = "" if words else _range(declared, hint)
        return Entry(declared.help, show(default), allowed, words, declared.is_path)
    if nested.__name__ not in reference.configs:
        reference.configs[nested.__name__] = Description("", {})  # a config may contain its own class
        reference.configs[nested.__name__] = describe(nested, reference)
    entry = Entry(declared.help, config=nested.__name__, is_list=typing.get_origin(hint) is list)
    if default is None:
        entry.default = "null"
    elif not entry.is_list:
        entry.changed = _changed(default)
    return entry


def _range(declared: Setting, hint: Any) -> str:
    """Return the range of a setting in words, with its type unless the default shows it."""
    kind = kind_of(hint)
    shown = "" if kind in ("a number", "text", "true or false") else kind.removeprefix("a ")
    return ", ".join(words for words in (shown, declared.range()) if words)


def _changed(config: Any) -> dict[str, str]:
    """Return the values of a config that differ from the defaults of its class."""
    values = {item.name: (getattr(config, item.name), default_of(item)) for item in fields(config)}
    return {name: show(value) for name, (value, default) in values.items() if value != default}


def _config_class(hint: Any) -> type | None:
    """Return the config class in a type annotation such as `list[ViewConfig]`, or None."""
    if isinstance(hint, type) and is_dataclass(hint):
        return hint
    classes = [_config_class(argument) for argument in typing.get_args(hint)]
    return next((cls for cls in classes if cls is not None), None)


def _summary(cls: type) -> str:
    """Return the first paragraph of a docstring as one line."""
    return " ".join((cls.__doc__ or "").split("\n\n")[0].split())


def to_json(reference: Reference) -> str:
    """Return the reference as JSON, without the fields of entries that have their default value."""
    return json.dumps(reference, default=_non_defaults, indent=1) + "\n"


def _non_defaults(value: Any) -> dict[str, Any]:
    content = {}
    for item in fields(value):
        if getattr(value, item.name) != (default_of(item) if isinstance(value, Entry | FormatEntry) else MISSING):
            content[item.name] = getattr(value, item.name)
    return content


def to_names() -> str:
    """Return the module that lists the names of choices and recipes as types, such as `LossName` and `PretrainRecipe`.

    Names that plugins add are not in it: a type checker knows the choices of this package only.
    """
    names = {f"{group.title()}Name": list(registry.own_choices(group)) for group in registry.GROUPS}
    for name, header in recipes().items():
        names.setdefault(f"{header['command'].title()}Recipe", []).append(name)
    lines = [f'"""Names of choices and recipes, for type checkers; generated by `{REGENERATE}`."""', ""]
    lines += ["from typing import Literal, TypeAlias", ""]
    for alias, members in sorted(names.items()):
        if members:
            lines += [f"{alias}: TypeAlias = Literal[", *(f'    "{member}",' for member in sorted(members)), "]"]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Write the reference, the pages of the documentation and the names for type checkers."""
    from eztorch_sce.config.reference_pages import DOCS, pages

    reference = build()
    write_text(FILE, to_json(reference))
    for name, text in pages(reference).items():
        write_text(DOCS / name, text)
    write_text(NAMES, to_names())


if __name__ == "__main__":
    main()
