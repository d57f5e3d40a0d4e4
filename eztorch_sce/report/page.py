"""The page of one or more runs: a single HTML file that needs neither network nor server."""

import base64
import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from eztorch_sce import __version__
from eztorch_sce.files import write_text
from eztorch_sce.printing import visible
from eztorch_sce.report.run_files import RunFiles
from eztorch_sce.report.section import Section
from eztorch_sce.report.sections.confusion import confusion
from eztorch_sce.report.sections.data import data
from eztorch_sce.report.sections.duplicates import duplicates
from eztorch_sce.report.sections.environment import environment
from eztorch_sce.report.sections.gallery import gallery
from eztorch_sce.report.sections.headline import headline
from eztorch_sce.report.sections.map import map as map_of_records
from eztorch_sce.report.sections.settings import settings

if TYPE_CHECKING:
    from eztorch_sce.report.media import Media

# In the order of the page. Each returns its section, or None if the runs have nothing to show there.
_SECTIONS: tuple[Callable[[Sequence[RunFiles], "Media | None"], Section | None], ...] = (
    headline,
    map_of_records,
    gallery,
    confusion,
    duplicates,
    settings,
    data,
    environment,
)
_TEMPLATE = resources.files("eztorch_sce.report").joinpath("template")
_ECHARTS = "vendor/echarts.common.min.js"
_TYPED_ARRAYS = ("int8", "uint8", "int16", "uint16", "int32", "uint32", "float32", "float64")  # of JavaScript
_NARROWED = {"bool": "uint8", "float16": "float32"}


class _Binary(NamedTuple):
    """A column or image as text of the page."""

    name: str
    kind: str
    base64: str


def write_page(file: Path, runs: Sequence[RunFiles], media: "Media | None" = None) -> None:
    """Write the page of the runs atomically; see `render`."""
    write_text(file, render(runs, media))


def render(runs: Sequence[RunFiles], media: "Media | None" = None) -> str:
    """Return the page of the runs as HTML.

    Args:
        runs: The runs side by side, at least one; their evaluations are found through them.
        media: Thumbnails and animations of their records; None shows paths instead.
    """
    sections = [section for make in _SECTIONS if (section := make(runs, media)) is not None]
    return page_of(sections, [run.name for run in runs])


def page_of(sections: Sequence[Section], names: Sequence[str]) -> str:
    """Return a page of these sections, of runs with these names.

    All texts pass through here: they are escaped by Jinja in HTML and by `_json` in scripts, and characters that would
    change the text around them are written as escapes.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("eztorch_sce.report", "template"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    shown = [(section, _shown(section.data)) for section in sections]
    scripts = [_text(_ECHARTS), "\n".join(filter(None, map(_optional, _script_names(sections))))]
    images = {name: content for section in sections for name, content in section.images.items()}  # some share them
    styles = [
        _text("page.css"),
        _text("records.css"),
        *filter(None, (_optional(f"sections/{each.name}.css") for each in sections)),
    ]
    return environment.get_template("page.html").render(
        names=_shown(list(names)),
        version=__version__,
        sections=[
            {"name": section.name, "title": section.title, "data": content, "json": _json(content)}
            for section, content in shown
        ],
        columns=[_column(name, values) for section in sections for name, values in section.columns.items()],
        images=[_Binary(name, "image/webp", _base64(content)) for name, content in images.items()],
        styles="\n".join(styles),
        scripts=scripts,
        script_hashes=[f"'sha256-{_base64(hashlib.sha256(script.encode()).digest())}'" for script in scripts],
    )


def _script_names(sections: Sequence[Section]) -> list[str]:
    return ["page.js", "records.js", *(f"sections/{section.name}.js" for section in sections)]


def _text(name: str) -> str:
    return _TEMPLATE.joinpath(name).read_text(encoding="utf-8")


def _optional(name: str) -> str:
    """Return a file of the template, or an empty string if a section has none of this kind."""
    return _text(name) if _TEMPLATE.joinpath(name).is_file() else ""


def _shown(value: Any) -> Any:
    """Return data as JSON can hold it, with the characters of texts that have no form of their own as escapes."""
    if isinstance(value, str):
        return visible(value)
    if isinstance(value, Mapping):
        return {visible(str(name)): _shown(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_shown(item) for item in value]
    if isinstance(value, (float, np.floating)):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, np.integer):
        return int(value)
    return value if isinstance(value, (bool, int, type(None))) else visible(str(value))


def _json(content: Any) -> str:
    """Return JSON that cannot end the script element around it."""
    text = json.dumps(content, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _column(name: str, values: npt.NDArray[np.generic]) -> _Binary:
    kind = _NARROWED.get(values.dtype.name, values.dtype.name)
    if kind in ("int64", "uint64"):
        fits = not values.size or -(2**31) <= values.min() <= values.max() < 2**31
        kind = "int32" if fits else "float64"
    assert kind in _TYPED_ARRAYS, f"column {name} has type {values.dtype}"
    little_endian = np.ascontiguousarray(values, dtype=np.dtype(kind).newbyteorder("<"))
    return _Binary(name, kind, _base64(little_endian.tobytes()))


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode("ascii")
