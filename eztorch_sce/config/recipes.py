"""Recipes: files with the settings of published results."""

from functools import cache
from pathlib import Path

from eztorch_sce.errors import ConfigError, did_you_mean


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


def print_recipes() -> None:
    """Print a table of the recipes: name, command, expected number, hardware, hours."""
    from rich.table import Table

    from eztorch_sce.printing import PlainConsole

    table = Table(title="eztorch-sce <command> recipe=NAME; `eztorch-sce recipes NAME` shows the file")
    columns = ("command", "expected", "hardware", "hours")
    table.add_column("recipe", no_wrap=True)
    for column in columns:
        table.add_column(column)
    for name, header in recipes().items():
        table.add_row(name, *(header.get(column, "") for column in columns))
    PlainConsole().print(table)
