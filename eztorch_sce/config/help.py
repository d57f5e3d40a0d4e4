"""Text of `--help`, generated from the reference of all settings without importing torch."""

import shutil
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

from eztorch_sce.config.added import with_added
from eztorch_sce.config.reference import Description, Reference, load, reference_of
from eztorch_sce.errors import ConfigError, did_you_mean, shorten
from eztorch_sce.positional import CommandGroup, PositionalCommand

MAX_LINES, MAX_WIDTH = 96, 100  # two screens
_COLUMN = 28  # where the help of a setting starts

_SECTIONS_OF_COMMANDS = {
    "Start": ("demo", "study", "recipes", "env", "completion"),
    "Prepare": ("data", "checkpoint", "show-views", "plan"),
    "Train": ("pretrain", "finetune", "test"),
    "Evaluate": (),  # all commands that are in no other section
    "Look": ("report", "watch", "compare", "replay"),
}
_OTHER_COMMANDS = {
    "data": "Find bad files, make copies that decode fast, choose a decoder; see `eztorch-sce data --help`.",
    "checkpoint": "Import the weights of other code bases, and export those of runs; see `eztorch-sce checkpoint "
    "--help`.",
    "report": "Write one HTML page of the results, curves and nearest clips of runs (report RUN [RUN ...]).",
    "watch": "Follow a run that is still training on a live page (watch RUN).",
    "compare": "Compare the metrics of runs and list the settings that differ (compare RUN RUN ...).",
    "replay": "Take a step again and find the first number that is not finite (replay RUN step=100).",
    "recipes": "List the recipes of published results, or those with some words (`recipes ucf101`), to run with "
    "recipe=NAME; `recipes NAME` shows one.",
    "env": "Show the installed versions (`--version`: in one line), and which decoders and devices work here.",
    "completion": "Print the script that completes commands and settings by TAB (completion bash, zsh or fish).",
}
_ARGUMENTS = {"study": "[FOLDER] "}  # before the settings
_EXAMPLES = {
    "demo": ("", "seed=1 run.dir=runs/demo", "max_epochs=5"),
    "study": ("videos", "videos minutes=20", "data.list=train.csv data.test_list=test.csv minutes=30"),
    "pretrain": (
        "data.root=videos run.dir=runs/mine",
        "recipe=k400_r3d18 data.root=K400 trainer.devices=8",
        "data.root=images backbone=resnet50 loss=infonce",
    ),
    "plan": (
        "recipe=k400_r3d50 devices=8 device=A100-80G",
        "recipe=imagenet_resnet50_100ep device=H100-80G",
        "backbone=r3d18 data.layout=kinetics400 throughput=500",
    ),
    "finetune": (
        "weights=runs/mine data.root=videos run.dir=runs/tuned",
        "recipe=ucf101_finetune weights=runs/mine data.root=UCF101",
        "weights=null backbone=r3d18 data.root=videos",
    ),
    "test": (
        "weights=runs/tuned data.root=videos",
        "weights=runs/tuned data.root=videos test.num_clips=10",
        "weights=runs/tuned data.root=train data.test_root=test",
    ),
    "extract": (
        "weights=runs/mine data.root=videos run.dir=runs/features",
        "weights=runs/mine data.root=videos untrained=true",
        "weights=runs/mine data.root=train data.test_root=test",
    ),
    "show-views": ("data.root=videos", "data.root=images views=image", "data.root=videos views=motion num_samples=8"),
}
_EVALUATION_EXAMPLES = (
    "features=runs/features",
    "weights=runs/mine data.root=videos",
    "weights=runs/mine data.root=videos untrained=true",
)
# The most used settings are shown first; the others follow in groups, in the order of `_FIRST_GROUPS`.
_FIRST = (
    *(
        "recipe",
        "config",
        "weights",
        "features",
        "data.root",
        "data.list",
        "data.layout",
        "views",
        "backbone",
        "method",
        "loss",
    ),
    *("optimizer", "optimizer.lr", "data.batch_size", "data.num_frames", "data.clip_s", "trainer.max_epochs"),
    *("minutes", "trainer.devices", "trainer.precision", "run.dir", "seed"),
)
_FIRST_GROUPS = ("", "data", "trainer", "optimizer", "schedule", "test", "method", "loss", "backbone")


@dataclass(frozen=True)
class Row:
    """One setting as shown by `--help`.

    Attributes:
        path: Path of the setting, such as "data.root".
        default: Default value as typed; empty if it depends on another choice.
        help: Meaning of the setting, with the allowed values in parentheses.
    """

    path: str
    default: str
    help: str

    def label(self) -> str:
        """Return the setting as typed, with its default."""
        return f"{self.path}={self.default}" if self.default else self.path

    def lines(self, width: int) -> list[str]:
        """Return the setting in two columns."""
        label = f"  {self.label()}"
        body = textwrap.wrap(self.help, width - _COLUMN, break_on_hyphens=False) or [""]
        if len(label) >= _COLUMN:
            return [label, *(" " * _COLUMN + line for line in body)]
        first = f"{label:{_COLUMN}}{body[0]}".rstrip()
        return [first, *(" " * _COLUMN + line for line in body[1:])]


@dataclass
class Section:
    """A group of settings.

    Attributes:
        name: First component of their paths; empty for the settings of the command itself.
        summary: One sentence about the group.
        rows: The settings.
    """

    name: str
    summary: str = ""
    rows: list[Row] = field(default_factory=list)

    def title(self) -> str:
        """Return the heading."""
        heading = self.name or "further settings"
        return f"{heading}: {self.summary}" if self.summary else f"{heading}:"

    def full(self, width: int) -> list[str]:
        """Return every setting with its help."""
        lines = [line for row in self.rows for line in row.lines(width)]
        return ["", *textwrap.wrap(self.title(), width), *lines]

    def compact(self, width: int) -> list[str]:
        """Return the settings with their defaults, without help."""
        names = "  ".join(row.label().replace(" ", "\0") for row in self.rows)  # do not wrap within a label
        wrapped = textwrap.wrap(names, width - 2, break_long_words=False, break_on_hyphens=False)
        return [*textwrap.wrap(self.title(), width), *(f"  {line}".replace("\0", " ") for line in wrapped)]


@lru_cache(maxsize=1)
def _own_reference() -> Reference:
    return load()


def reference_with_plugins() -> Reference:
    """Return the reference, with the choices of the plugins that are loaded."""
    return with_added(_own_reference())


def command_names() -> list[str]:
    """Return the names of all commands."""
    return [*reference_with_plugins().commands, *_OTHER_COMMANDS]


def overview() -> str:
    """Return the help of `eztorch-sce` itself."""
    summaries = {name: command.summary for name, command in reference_with_plugins().commands.items()} | _OTHER_COMMANDS
    placed = {name for names in _SECTIONS_OF_COMMANDS.values() for name in names}
    lines = ["usage: eztorch-sce <command> [key=value ...]", ""]
    lines += ["Self-supervised learning from video and images. A folder is enough to start:"]
    lines += ["", "  eztorch-sce pretrain data.root=FOLDER run.dir=runs/mine"]
    lines += ["  eztorch-sce knn weights=runs/mine data.root=FOLDER"]
    for title, names in _SECTIONS_OF_COMMANDS.items():
        lines += ["", f"{title}:"]
        for name in names or [name for name in summaries if name not in placed]:
            lines += _two_columns(name, summaries[name], 13)
    lines += ["", "More about a command:"]
    lines += _two_columns("--help", "Explain the most used settings; `--help all` explains every setting.", 13)
    lines += _two_columns("--dry-run", "Check settings, data, weights, memory and disk, and say what would happen.", 13)
    lines += _two_columns("--cfg job", "Print the complete configuration (by Hydra).", 13)
    lines += _two_columns(
        "-m", "Run a sweep over values (by Hydra), as in `-m seed=0,1,2`; a comma in a path then needs quotes.", 13
    )
    return "\n".join(lines)


def command_help(command: str, topics: Sequence[str] = ()) -> str:
    """Return the help of a command.

    Args:
        command: The command, such as "pretrain".
        topics: Empty for a page of two screens, "all" for everything, or the name of a group, choice or setting.

    Raises:
        ConfigError: If there is no such topic.
    """
    reference = reference_with_plugins()
    description = reference.commands[command]
    usage = f"eztorch-sce {command} {_ARGUMENTS.get(command, '')}key=value ..."
    head = [*textwrap.wrap(description.summary, _width()), "", f"usage: {usage}", "", "examples:"]
    head += [f"  eztorch-sce {command} {words}".rstrip() for words in _EXAMPLES.get(command, _EVALUATION_EXAMPLES)]
    sections = list(_sections(description, reference))
    first, others = _split(sections)
    if "all" in topics:
        others += _choice_sections(description, reference)
        return "\n".join([*head, *_all_lines([first, *others])])
    if topics:
        return "\n".join(_topic_lines(topics[0], sections + _choice_sections(description, reference)))
    tail = ["", f"`eztorch-sce {command} --help all` explains every setting and every choice;"]
    tail += [f"`--help NAME` explains one group or choice, such as `--help {others[-1].name or 'all'}`."]
    return "\n".join([*head, *_fitted([first, *others], MAX_LINES - len(head) - len(tail)), *tail])


def group_overview(group: CommandGroup) -> str:
    """Return the help of commands that share their first word, such as `eztorch-sce data`."""
    lines = [*textwrap.wrap(group.summary, _width()), ""]
    lines += [f"usage: eztorch-sce {group.name} <command> ... [key=value ...]", ""]
    for name, command in group.commands.items():
        lines += _two_columns(name, command.summary, 9)
    return "\n".join([*lines, "", f"`eztorch-sce {group.name} <command> --help` shows the settings of a command."])


def positional_help(command: PositionalCommand, topics: Sequence[str] = ()) -> str:
    """Return the help of a command that takes positional arguments.

    Args:
        command: The command.
        topics: Empty for its page, "all" for that of every choice, too, or the name of a group, choice or setting.

    Raises:
        ConfigError: If there is no such topic.
    """
    lines = [*textwrap.wrap(command.summary, _width()), "", f"usage: {command.usage()}", "", "examples:"]
    lines += [f"  {example}" for example in command.examples]
    arguments = [Row(argument.name, "", argument.help) for argument in command.arguments]
    lines += Section("arguments", rows=arguments).full(_width())
    if command.config is None:
        return "\n".join([*lines, "", f"settings: the same as those of `eztorch-sce {command.settings_of}`."])
    description, reference = reference_of(command.config)
    sections = list(_sections(description, reference))
    choices = _choice_sections(description, reference)
    if topics and topics[0] != "all":
        return "\n".join(_topic_lines(topics[0], sections + choices))
    rows = [row for section in sections for row in section.rows]
    lines += Section("settings", rows=rows).full(_width()) if rows else []
    if "all" in topics:
        lines += _all_lines(choices)
    elif choices:
        names = list(dict.fromkeys(section.name.partition("=")[0] for section in choices))
        shown = " and ".join(f"`--help {name}`" for name in names)
        lines += ["", f"{shown} explains the settings of each choice."]
    if command.rehearse is not None:
        lines += ["", "`--dry-run` tells what would be done, and writes nothing."]
    return "\n".join(lines)


def _width() -> int:
    return max(60, min(MAX_WIDTH, shutil.get_terminal_size((MAX_WIDTH, 24)).columns))


def _sections(description: Description, reference: Reference) -> Iterator[Section]:
    """Yield the settings of a command in groups: its own, then one group per nested config and choice."""
    yield Section("", rows=[row for row in _rows(description, reference, "") if "." not in row.path])
    for name, entry in description.settings.items():
        nested = _nested(entry.config, entry.group, entry.default, reference)
        if nested is not None:
            group = Section(name, nested.summary)
            prefix = f"{name}.*." if entry.is_list else f"{name}."
            group.rows = list(_rows(nested, reference, prefix, entry.changed))
            if entry.is_list:
                group.rows = [Row(row.path, "", row.help) for row in group.rows]
            yield group


def _nested(config: str, group: str, choice: str, reference: Reference) -> Description | None:
    """Return the config that is the default of a setting, or None if the default is a plain value."""
    if config:
        return reference.configs[config]
    return reference.choices[group].get(choice) if group else None


def _rows(
    description: Description, reference: Reference, prefix: str, changed: dict[str, str] | None = None
) -> Iterator[Row]:
    """Yield the settings of a config, including those of nested configs."""
    for name, entry in description.settings.items():
        path, default = f"{prefix}{name}", (changed or {}).get(name, entry.default)
        if name == "views":
            policies = ", ".join(reference.policies)
            yield Row(path, "", f"Policy of the views ({policies}); `views.*.flip=0` sets a value for every view.")
        elif entry.config and prefix:
            yield from _rows(reference.configs[entry.config], reference, f"{path}.", entry.changed)
        elif not entry.config:
            allowed = f" ({entry.values()})" if entry.values() else ""
            yield Row(path, default, entry.help.removesuffix(".") + allowed + "." if entry.help else entry.values())


def _split(sections: list[Section]) -> tuple[Section, list[Section]]:
    """Separate the most used settings from the others, and order both."""
    rows = {row.path: row for section in sections for row in section.rows}
    first = Section("most used", rows=[rows[path] for path in _FIRST if path in rows])
    others = [Section(s.name, s.summary, [row for row in s.rows if row.path not in _FIRST]) for s in sections]
    order = {name: number for number, name in enumerate(_FIRST_GROUPS)}
    others.sort(key=lambda section: order.get(section.name, len(order)))
    return first, [section for section in others if section.rows]


def _choice_sections(description: Description, reference: Reference, prefix: str = "") -> list[Section]:
    """Return one section for each choice of each group of a config and of the configs inside it."""
    sections = []
    for name, entry in description.settings.items():
        path = f"{prefix}{name}"
        for choice, config in reference.choices.get(entry.group, {}).items():
            rows = list(_rows(config, reference, f"{path}."))
            sections.append(Section(f"{path}={choice}", config.summary, rows))
        if entry.config and not entry.is_list:
            sections += _choice_sections(reference.configs[entry.config], reference, f"{path}.")
    return sections


def _all_lines(sections: Sequence[Section]) -> list[str]:
    return [line for section in sections for line in section.full(_width())]


def _fitted(sections: Sequence[Section], num_lines: int) -> list[str]:
    """Return the first section and as many more as fit into `num_lines` in full, and the remaining ones compactly."""
    full = [len(section.full(MAX_WIDTH)) for section in sections]
    compact = [len(section.compact(MAX_WIDTH)) for section in sections]
    spare, lines, all_fit = num_lines - 1 - sum(compact), [], True
    for number, section in enumerate(sections):
        extra = full[number] - compact[number]
        still_fits = number == 0 or (all_fit and extra <= spare)
        spare -= extra if still_fits else 0
        if all_fit and not still_fits:
            lines.append("")
        all_fit = still_fits
        lines += section.full(_width()) if still_fits else section.compact(_width())
    return lines


def _topic_lines(topic: str, sections: Sequence[Section]) -> list[str]:
    """Return the sections of a topic: a group, a choice, or the path of a setting."""
    chosen = [section for section in sections if topic in (section.name, *section.name.split("="))]
    if not chosen:
        rows = [row for section in sections for row in section.rows if row.path.startswith(topic)]
        chosen = [Section(topic, rows=rows)] if rows else []
    if not chosen:
        known = [section.name.split("=")[-1] for section in sections if section.name]
        cure = did_you_mean(topic, known) or f"; groups are {shorten(list(dict.fromkeys(known)), 8)}"
        raise ConfigError([f"--help {topic}: no such group or setting{cure}"])
    return _all_lines(chosen)[1:]


def _two_columns(name: str, text: str, column: int) -> list[str]:
    body = textwrap.wrap(text, _width() - column - 2)
    return [f"  {name:{column}}{body[0]}", *(" " * (column + 2) + line for line in body[1:])]
