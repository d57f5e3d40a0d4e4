"""Settings of runs of one command side by side, with where each value comes from."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from eztorch_sce.config.origins import origins_of, setting_help
from eztorch_sce.report.finished_runs import flat
from eztorch_sce.report.run_files import RunFiles
from eztorch_sce.report.side_by_side import show_short

DEFAULT, RECIPE, CHOSEN, OPEN, SET = "default", "recipe", "chosen", "open", "set"
_UNSET: tuple[Any, ...] = (None, "auto", [], "null")
_NO_SETTINGS = ("config", "recipe", "run.dir")  # where a run starts from, and where it is
_ORIGINS = (DEFAULT, RECIPE, OPEN, CHOSEN, SET)  # from the least to the most interesting


def setting_table(command: str, runs: Sequence[RunFiles]) -> dict[str, Any]:
    """Return the settings of runs of a command as data of the page.

    Each row has the name and the help of a setting, its value in each run, what it would be by default or in the
    recipe, and an origin:

    - "default": the value is the default;
    - "recipe": it is that of the recipe, which differs from the default;
    - "chosen": the run chose it from the data, with the reason;
    - "open": the default leaves it open, and the user, the data or the machine decided;
    - "set": the user set it.
    """
    cells: dict[str, list[dict[str, Any] | None]] = {}
    for number, run in enumerate(runs):
        for name, cell in _cells(run).items():
            cells.setdefault(name, [None] * len(runs))[number] = cell
    rows = [_row(command, name, row, runs[0].settings) for name, row in _joined(cells).items()]
    known = all(origins_of(run.command, run.config) is not None for run in runs)
    recipes = dict.fromkeys(str(run.config["recipe"]) for run in runs if run.config.get("recipe"))
    return {
        "command": command,
        "runs": [run.name for run in runs],
        "recipes": list(recipes),
        "has_origins": known,
        "rows": rows,
    }


def _joined(cells: Mapping[str, list[Any]]) -> dict[str, list[Any]]:
    """Return the cells by name, with one name, such as "views.*.size", for a setting that all views agree in."""
    by_pattern: dict[str, list[str]] = {}
    for name in cells:
        by_pattern.setdefault(re.sub(r"\.\d+\.", ".*.", name), []).append(name)
    joined: dict[str, list[Any]] = {}
    for pattern, names in by_pattern.items():
        agree = len(names) > 1 and all(cells[name] == cells[names[0]] for name in names)
        joined |= {pattern: cells[names[0]]} if agree else {name: cells[name] for name in names}
    return joined


def _row(command: str, name: str, cells: list[Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    values = [None if cell is None else cell["value"] for cell in cells]
    return {
        "name": name,
        "cells": cells,
        "differs": any(value != values[0] for value in values),
        "help": setting_help(command, name.replace("*", "0"), settings),
        "origin": max((cell["origin"] for cell in cells if cell), key=_ORIGINS.index),
    }


def _cells(run: RunFiles) -> dict[str, dict[str, Any]]:
    """Return the value of each setting of a run as text, its origin, and what it differs from."""
    origins = origins_of(run.command, run.config)
    defaults = {} if origins is None else _with_views(flat(origins.defaults), origins.view, run.settings)
    recipe = defaults if origins is None or origins.recipe is None else flat(origins.recipe)
    reasons = _reasons(run.report.get("protocol", {}).get("chosen", []))
    cells = {}
    for name, value in run.settings.items():
        if name in _NO_SETTINGS:
            continue
        reason = next((text for pattern, text in reasons.items() if re.fullmatch(pattern, name)), "")
        origin = _origin(value, name, defaults, recipe, reason) if defaults else SET
        base = recipe.get(name, defaults.get(name))
        shown = "" if origin in (DEFAULT, RECIPE) or base in _UNSET else show_short(base)
        cells[name] = {"value": show_short(value), "origin": origin, "reason": reason, "instead": shown}
    return cells


def _with_views(defaults: dict[str, Any], view: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the defaults with those of each view of a run."""
    numbers = {name.split(".")[1] for name in settings if re.match(r"views\.\d+\.", name)}
    of_views = {f"views.{number}.{name}": value for number in numbers for name, value in flat(dict(view)).items()}
    return of_views | defaults


def _origin(value: Any, name: str, defaults: Mapping[str, Any], recipe: Mapping[str, Any], reason: str) -> str:
    base = recipe.get(name, defaults.get(name))
    if value == base:
        return DEFAULT if value == defaults.get(name) else RECIPE
    if reason:
        return CHOSEN
    return OPEN if name in recipe and base in _UNSET and name.startswith("trainer.") else SET


def _reasons(chosen: Sequence[str]) -> dict[str, str]:
    """Return the reason of each choice of a protocol card, by a pattern of the settings it made.

    >>> _reasons(["views=motion views.*.size=32: records of 32 px"])
    {'views(\\\\..*)?': 'records of 32 px', 'views\\\\.[0-9]+\\\\.size(\\\\..*)?': 'records of 32 px'}
    """
    patterns = {}
    for text in chosen:
        typed, _, reason = text.partition(": ")
        for word in typed.split():
            name = re.escape(word.partition("=")[0]).replace(r"\*", "[0-9]+")
            patterns[rf"{name}(\..*)?"] = reason
    return patterns
