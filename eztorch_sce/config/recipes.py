"""Recipes: files with the settings of published results."""

import shutil
from collections import Counter
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from eztorch_sce.errors import ConfigError, did_you_mean, normalized


def config_folder() -> Path:
    """Return the folder of the YAML files: inside the installed package, or beside it in a checkout."""
    package = Path(__file__).resolve().parents[1]
    inside = package / "configs"
    return inside if inside.is_dir() else package.parent / "configs"


@cache
def recipes() -> dict[str, dict[str, str]]:
    """Return the header of each recipe by name: its `# key: value` lines."""
    headers = {}
    for file in sorted((config_folder() / "recipe").glob("*.yaml")):
        headers[file.stem] = header_of(file.read_text(encoding="utf-8"))
    return headers


def recipe_text(name: str) -> str:
    """Return the text of a recipe file.

    Raises:
        ConfigError: If there is no such recipe.
    """
    known = list(recipes())
    if name not in known:
        raise ConfigError([f"{name} is not a recipe; `eztorch-sce recipes` lists all{did_you_mean(name, known)}"])
    return (config_folder() / "recipe" / f"{name}.yaml").read_text(encoding="utf-8")


def header_of(text: str) -> dict[str, str]:
    """Return the `# key: value` lines of a recipe file."""
    lines = [line.lstrip("# ") for line in text.splitlines() if line.startswith("#")]
    pairs = [line.split(":", 1) for line in lines if ":" in line]
    return {key.strip(): value.strip() for key, value in pairs}


def find_recipes(words: Sequence[str]) -> dict[str, dict[str, str]]:
    """Return the headers of the recipes that have every word in their name, command or source, in any case.

    Words that only the other lines of a header have, such as the name of a GPU, find recipes if these three do not.

    Raises:
        ConfigError: If no recipe has all of the words; names the nearest word, or those that exist.
    """
    for keys in (("command", "source"), ("command", "source", "expected", "hardware", "hours")):
        texts = {name: " ".join([name, *(header.get(key, "") for key in keys)]) for name, header in recipes().items()}
        found = [name for name, text in texts.items() if all(normalized(word) in normalized(text) for word in words)]
        if found:
            return {name: recipes()[name] for name in found}
    known = sorted(
        {part for name in recipes() for part in name.split("_")} | {h["command"] for h in recipes().values()}
    )
    absent = [word for word in words if not any(normalized(word) in normalized(text) for text in texts.values())]
    if not absent:
        raise ConfigError([f"no recipe has all of the words {', '.join(words)}: leave one out"])
    examples = f"; words that many have are {', '.join(_common_words())}"
    cures = [did_you_mean(word, [*recipes(), *known]) or examples for word in absent]
    cures[-1] += "; `eztorch-sce recipes` lists all"
    raise ConfigError([f"no recipe has the word {word}{cure}" for word, cure in zip(absent, cures, strict=True)])


def _common_words() -> list[str]:
    """Return the five words that most names of recipes have."""
    return [word for word, _ in Counter(part for name in recipes() for part in name.split("_")).most_common(5)]


def print_recipes(words: Sequence[str] = ()) -> None:
    """Print one line per recipe: name, command, expected number, hardware, hours; only those that have the words."""
    found, width = find_recipes(words), shutil.get_terminal_size().columns
    rows = [("recipe", "command", "devices", "hours", "expected")]
    rows += [
        (
            name,
            header["command"],
            header.get("hardware", "").removesuffix(" cores").removesuffix("-80G"),
            _hours(header.get("hours", "")),
            header.get("expected", ""),
        )
        for name, header in found.items()
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    for row in rows:
        line = "  ".join([*(cell.ljust(size) for cell, size in zip(row, widths, strict=False)), row[4]])
        print(line if len(line) <= width else f"{line[: width - 3]}...")
    print()
    print("Show one: eztorch-sce recipes NAME. Run it: eztorch-sce COMMAND recipe=NAME.")
    if not words:
        print("List those that have some words: eztorch-sce recipes ucf101 finetune.")


def _hours(text: str) -> str:
    """Return the hours of a header in a few characters.

    >>> _hours("9 or more, by plan"), _hours("not published")
    ('9+', '')
    """
    return "" if text == "not published" else text.replace(" or more, by plan", "+")
