"""Plugins: modules and files outside this package that register choices.

A plugin is a module (`my_package.parts`) or a file (`./parts.py`) that registers choices when it is imported. It is
named by the setting `plugins`, by the environment variable EZTORCH_SCE_PLUGINS, or by an entry point of the group
"eztorch_sce.plugins" of an installed package. Python programs simply import it.

A file becomes a submodule of this module, whose name depends only on the path, so that worker processes find it again.
"""

import hashlib
import importlib
import json
import os
import pkgutil
import re
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.metadata import EntryPoint, entry_points
from importlib.util import spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

from eztorch_sce import registry
from eztorch_sce.errors import ConfigError, did_you_mean, first_line
from eztorch_sce.launch import is_first_process

VARIABLE = "EZTORCH_SCE_PLUGINS"
ENTRY_POINTS = "eztorch_sce.plugins"
__path__: list[str] = []  # the files of plugins are imported as submodules of this one

FILES_VARIABLE = "EZTORCH_SCE_PLUGIN_FILES"  # passes the files of plugins to worker processes: {module: path}
_PACKAGE, _PYTHON = str(Path(__file__).parent), os.path.dirname(os.__file__)
_ITEM = re.compile(r"""\s*(?:"[^"]*"|'[^']*')\s*(?=,|$)|[^,]+""")  # quotes protect a comma in a path

_as_typed: dict[str, str] = {}  # how the plugin of a module was named, such as "./parts.py"
_installed: list[str] | None = None  # the modules of the entry points; None before they are loaded


def names_in(text: str) -> list[str]:
    """Return the plugins in the value of a setting or of the environment variable.

    >>> names_in("my_package.parts,./parts.py"), names_in("[a,'b, c.py']"), names_in("null")
    (['my_package.parts', './parts.py'], ['a', 'b, c.py'], [])
    """
    text = text.strip()
    if text.lower() in ("", "null"):
        return []
    if text.startswith("[") and text.endswith("]"):
        text = text[1:-1]
    names = [item.strip() for item in _ITEM.findall(text)]
    names = [name[1:-1] if len(name) > 1 and name[0] == name[-1] and name[0] in "'\"" else name for name in names]
    return [name for name in names if name]


def load(names: Sequence[str], source: str = "plugins") -> None:
    """Import plugins, each once. One that fails registers nothing.

    Args:
        names: Modules such as "my_package.parts", and files such as "./parts.py".
        source: What named them, for messages.

    Raises:
        ConfigError: With one message per plugin that cannot be loaded: the place in its code, and the exception.
    """
    messages = [message for name in names for message in _load(name, source)]
    if messages:
        raise ConfigError(messages)


def load_defaults() -> None:
    """Load the plugins of installed packages and of the environment variable, unless this process already has.

    An entry point that fails is reported by a line on stderr, since the command may not need it.

    Raises:
        ConfigError: If a plugin that the environment variable names cannot be loaded.
    """
    global _installed
    if _installed is None:
        _installed = []  # before the imports: a plugin may look up a choice while it loads
        for point in entry_points(group=ENTRY_POINTS):
            _installed.append(point.module)
            _load_entry_point(point)
    load(names_in(os.environ.get(VARIABLE, "")), VARIABLE)


def plugin_of(choice: Any) -> str:
    """Return where a registered class is defined, as one would type it after `plugins=`.

    It is the module, or the file as it was named; for a class of the program itself, the program's file, or "__main__"
    in an interactive session.
    """
    module = choice.__module__
    if module in _as_typed:
        return _as_typed[module]
    file = getattr(sys.modules.get(module), "__file__", None)
    return module if module not in ("__main__", "__mp_main__") or file is None else _short(Path(file))


def _load(name: str, source: str) -> list[str]:
    """Import a plugin; return one message per reason why that is not possible."""
    is_file = name.endswith(".py") or os.sep in name
    file = Path(name).expanduser()
    if is_file and not file.is_file():
        return [f"{source}={name} {_why_no_file(name, file)}"]
    if not is_file and not all(part.isidentifier() for part in name.split(".")):
        return [f"{source}={name} is neither a module, such as my_package.parts, nor a file, such as ./parts.py"]
    module = _module_of(file) if is_file else name
    _as_typed.setdefault(module, _short(file) if is_file and file.is_absolute() else name)
    if module in sys.modules:
        return []
    choices_before = registry.added_choices()
    try:
        with registry.all_or_nothing(), _importable(module, file) if is_file else nullcontext():
            importlib.import_module(module)
    except (Exception, SystemExit) as error:  # whatever the code of the plugin raises
        return [f"{source}={name}{reason}" for reason in _reasons(name, module, error)]
    if registry.added_choices() == choices_before and not _has_choices(module):
        registry.remark(f"{source}={name} registers nothing")
    return []


def _has_choices(module: str) -> bool:
    """Return whether a module or package has registered choices."""
    choices = [choice for members in registry.added_choices().values() for choice in members.values()]
    return any(f"{choice.__module__}.".startswith(f"{module}.") for choice in choices)


def _load_entry_point(point: EntryPoint) -> None:
    """Import the module of an entry point, or print a line that names its package."""
    if point.module in sys.modules:
        return
    try:
        with registry.all_or_nothing():
            point.load()
    except (Exception, SystemExit) as error:  # whatever the code of the plugin raises
        package = point.dist.name if point.dist is not None else "an installed package"
        reason = "; ".join(_reasons(point.module, point.module, error)).removeprefix(": ")
        sentence = f"the plugin {point.module} of {package} is not loaded: {reason}"
        registry.remark(sentence)
        if is_first_process():
            print(f"eztorch-sce: warning: {sentence}", file=sys.stderr)


# Files -------------------------------------------------------------------------------------------


def _module_of(file: Path) -> str:
    """Return the name under which a file is imported, which depends only on its path."""
    path = file.resolve()
    stem = re.sub(r"\W", "_", path.stem, flags=re.ASCII)
    return f"{__name__}.{stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"


def _files() -> dict[str, str]:
    """Return the paths of the plugin files by module name."""
    files: dict[str, str] = json.loads(os.environ.get(FILES_VARIABLE, "{}"))
    return files


@contextmanager
def _importable(module: str, file: Path) -> Iterator[None]:
    """Let a file be imported, here and in worker processes, unless its first import fails.

    As for a script, the files beside it can be imported too.
    """
    folder, files = str(file.resolve().parent), os.environ.get(FILES_VARIABLE)
    is_new = folder not in sys.path
    os.environ[FILES_VARIABLE] = json.dumps(_files() | {module: str(file.resolve())})
    if is_new:
        sys.path.append(folder)
    try:
        yield
    except BaseException:
        if is_new:
            sys.path.remove(folder)
        if files is None:
            del os.environ[FILES_VARIABLE]
        else:
            os.environ[FILES_VARIABLE] = files
        raise


class _FileFinder(MetaPathFinder):
    """Finds the submodules of this module: the files of plugins, in worker processes too."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return how to import a file, or None for other modules."""
        file = _files().get(fullname) if fullname.startswith(f"{__name__}.") else None
        return None if file is None else spec_from_file_location(fullname, file)


sys.meta_path.append(_FileFinder())


# Messages ----------------------------------------------------------------------------------------


def _why_no_file(name: str, file: Path) -> str:
    if file.is_dir():
        return "is a folder: name its file, such as " + os.path.join(name, "parts.py")
    folder = file.parent
    siblings = [each.name for each in folder.glob("*.py")] if folder.is_dir() else []
    prefix = name.removesuffix(file.name)
    near = did_you_mean(file.name, siblings)
    return f"does not exist{near.replace('mean ', f'mean {prefix}')}"


def _reasons(name: str, module: str, error: BaseException) -> Iterator[str]:
    """Yield the rest of the message after the name of a plugin: where its code failed, and why."""
    if isinstance(error, ModuleNotFoundError) and error.name and f"{module}.".startswith(f"{error.name}."):
        yield f": {_why_no_module(name, error.name)}"
        return
    place = _place_in(error)
    if isinstance(error, SyntaxError):
        yield f": {_short(Path(error.filename or name))}:{error.lineno}: {type(error).__name__}: {error.msg}"
    elif isinstance(error, ImportError) and f"{error.name}.".startswith(f"{__name__}."):
        yield f": {place}{_why_no_relative_import(name)}"
    elif isinstance(error, ConfigError):
        yield from (f": {place}{problem}" for problem in error.problems)
    else:
        text = first_line(error).removeprefix(f"{type(error).__name__}: ")
        yield f": {place}{type(error).__name__}: {text}"


def _why_no_module(name: str, missing: str) -> str:
    """Return why a module cannot be imported, and what to type instead."""
    parent, _, _ = missing.rpartition(".")
    if parent:
        path = getattr(sys.modules.get(parent), "__path__", None)
        known = [f"{parent}.{each.name}" for each in pkgutil.iter_modules(path)] if path else []
        return f"{parent} has no module {missing.rpartition('.')[2]}{did_you_mean(missing, known)}"
    file = Path(*name.split(".")).with_suffix(".py")
    here = [file, *([file.with_suffix("") / "__init__.py"])]
    found = next((each for each in here if each.is_file()), None)
    if found is not None and len(found.parts) == 1:
        return f"there is no module {missing}; for the file in this folder write plugins=./{found}"
    if found is not None:
        return (
            f"there is no module {missing} on the path of Python; write plugins=./{found}, or install the package "
            "(pip install -e .)"
        )
    names = [each.stem for each in Path.cwd().glob("*.py")]
    near = did_you_mean(name, names)
    cure = f"; did you mean ./{near.removeprefix('; did you mean ').removesuffix('?')}.py?" if near else ""
    return f"there is no module {missing}: it is neither installed nor on PYTHONPATH{cure}"


def _why_no_relative_import(name: str) -> str:
    """Return what to do if a file imports from its package, as in `from .other import x`."""
    folder = Path(name).expanduser().resolve().parent
    if not (folder / "__init__.py").is_file():
        return "a relative import needs a package: write `from other import x` for a file beside this one"
    module = f"{folder.name}.{Path(name).stem}"
    cure = f"install it, or set PYTHONPATH={_short(folder.parent)}, and write plugins={module}"
    return f"a relative import needs the package {folder.name}: {cure}"


def _place_in(error: BaseException) -> str:
    """Return "file:line: " of the innermost line of the plugin that an exception passed through, or an empty string."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not frame.filename.startswith("<frozen")]
    frames = [frame for frame in frames if not any(_is_below(frame.filename, folder) for folder in (_PACKAGE, _PYTHON))]
    if not frames:
        return ""
    within = [frame for frame in frames if _is_below(frame.filename, os.path.dirname(frames[0].filename))]
    return f"{_short(Path(within[-1].filename))}:{within[-1].lineno}: "


def _is_below(file: str, folder: str) -> bool:
    """Return whether a file is below a folder, but not of a package that is installed there."""
    return file.startswith(folder + os.sep) and "site-packages" not in file.removeprefix(folder)


def _short(path: Path) -> str:
    """Return a path as one types it in the current folder."""
    here, path = Path.cwd().resolve(), path.resolve()
    return os.path.join(".", path.relative_to(here)).removesuffix("/.") if path.is_relative_to(here) else str(path)
