"""Settings that differ between a run and the command that goes on with it: which may change, and which may not."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from typing import Any, NamedTuple

from eztorch_sce.config.compose import to_yaml
from eztorch_sce.config.saved import as_saved
from eztorch_sce.errors import counted
from eztorch_sce.evaluation.linear import LinearConfig
from eztorch_sce.report.finished_runs import flat
from eztorch_sce.settings import Settings, declaration, show

_IGNORED = ("recipe", "config", "adjust", "run.dir")  # what a run started from, and where it is
_WIDTH = 22  # characters of a value in a table


class Change(NamedTuple):
    """A setting with another value than the run has.

    Attributes:
        setting: Its path, such as "trainer.max_epochs".
        before: The value of the run, as text.
        now: The value of the command, as text.
        kind: "taken" if the run may go on with it, "place" if it may where the records or the weights behind the path
            are the same, or "refused".
    """

    setting: str
    before: str
    now: str
    kind: str


def changes_between(saved: Mapping[str, Any], config: Any) -> list[Change]:
    """Return the settings of a config that differ from those of a run.

    Args:
        saved: Content of the run's `config.yaml`, nested. A setting that it lacks, of a later version of this package,
            had its default.
        config: The config of the command, with open settings filled in from the run.
    """
    before, now = flat(dict(saved)), flat(as_saved(to_yaml(config)))
    kinds = dict(_kinds(config, ""))
    changes = list(_of_choices(before, now, kinds))
    chosen_anew = tuple(f"{change.setting}." for change in changes)
    defaults = flat(as_saved(to_yaml(type(config)())))
    for path, value in now.items():
        if path in _IGNORED or f"{path}.".startswith((*chosen_anew, "adjust.")):
            continue
        old = before.get(path, defaults.get(path))
        if old != value and (path in before or path in defaults):
            changes.append(Change(path, show(old), show(value), kinds.get(path, "refused")))
    return _joined(changes)


def _of_choices(before: Mapping[str, Any], now: Mapping[str, Any], kinds: Mapping[str, str]) -> Iterator[Change]:
    """Yield the choices that are made otherwise, such as another loss; the settings below them are not compared."""
    first, second = _choices(before), _choices(now)
    for path in dict.fromkeys([*second, *first]):
        if first.get(path) != second.get(path):
            yield Change(path, show(first.get(path)), show(second.get(path)), kinds.get(path, "refused"))
    numbers = [len({name.split(".")[1] for name in each if re.match(r"views\.\d+\.", name)}) for each in (before, now)]
    if numbers[0] != numbers[1]:
        yield Change("views", counted(numbers[0], "view"), counted(numbers[1], "view"), "refused")


def _choices(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the names of the choices in flat settings, by path."""
    named = {path.rpartition(".")[0]: value for path, value in settings.items() if re.search(r"\.(name|object)$", path)}
    return {path: value for path, value in named.items() if path}


def _kinds(config: Any, prefix: str) -> Iterator[tuple[str, str]]:
    """Yield the settings of a config, and of the configs inside it, that may change, with the kind of their change."""
    for item in fields(config):
        value, path, declared = getattr(config, item.name), f"{prefix}{item.name}", declaration(item)
        if (isinstance(config, Settings) and config.RESUMABLE) or (declared is not None and declared.resumable):
            yield path, "taken"
        elif declared is not None and declared.is_path:
            yield path, "place"
        for number, child in enumerate(value) if isinstance(value, list) else ():
            if is_dataclass(child):
                yield from _kinds(child, f"{path}.{number}.")
        if is_dataclass(value) and not isinstance(value, type):
            yield from _kinds(value, f"{path}.")


def _joined(changes: Sequence[Change]) -> list[Change]:
    """Return the changes, with a single one, such as "views.*.size", for one that is alike in several views."""
    by_pattern: dict[tuple[str, ...], list[Change]] = {}
    for change in changes:
        pattern = re.sub(r"^views\.\d+\.", "views.*.", change.setting)
        by_pattern.setdefault((pattern, change.before, change.now), []).append(change)
    return [
        alike[0] if len(alike) == 1 else alike[0]._replace(setting=pattern)
        for (pattern, *_), alike in by_pattern.items()
    ]


def table_of(changes: Sequence[Change]) -> list[str]:
    """Return the lines of a table of changes, at most 80 characters wide unless the name of a setting is long.

    >>> print("\\n".join(table_of([Change("trainer.max_epochs", "100", "200", "taken")])))
      setting             before  now
      trainer.max_epochs  100     200
    """
    rows = [("setting", "before", "now")]
    rows += [(change.setting, _short(change.before), _short(change.now)) for change in changes]
    widths = [max(len(row[column]) for row in rows) for column in range(2)]
    return [f"  {setting:<{widths[0]}}  {before:<{widths[1]}}  {now}" for setting, before, now in rows]


def batch_norm_note(changes: Sequence[Change], config: Any) -> list[str]:
    """Return a note if batch norm will take its statistics over another number of samples than before.

    Args:
        changes: The settings of a training that have changed.
        config: The config of the training with all settings resolved.
    """
    if isinstance(config, LinearConfig):  # its backbone is frozen
        return []
    trainer = config.trainer
    now = {name: getattr(trainer, name) for name in ("accumulate", "devices", "num_nodes", "sync_batchnorm")}
    before = dict(now)
    for change in changes:
        name = change.setting.removeprefix("trainer.")
        if name in before:
            before[name] = change.before == "true" if name == "sync_batchnorm" else int(change.before)
    samples = [
        config.data.samples_per_step // (each["accumulate"] * _num_apart(each["devices"] * each["num_nodes"], each))
        for each in (before, now)
    ]
    if samples[0] == samples[1]:
        return []
    return [
        f"note: batch norm now takes its statistics over {counted(samples[1], 'sample')} instead of {samples[0]}: the "
        "losses of networks that have it differ from those of a run without this change"
    ]


def _num_apart(world_size: int, settings: Mapping[str, Any]) -> int:
    """Return the number of processes that normalize their samples apart."""
    return 1 if settings["sync_batchnorm"] else world_size


def _short(value: str) -> str:
    """Return a value that fits into a column: of a long one the end, where paths differ most."""
    return value if len(value) <= _WIDTH else f"...{value[3 - _WIDTH :]}"
