"""The page of one or more runs: a single HTML file that needs neither network nor server."""

import base64
import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from functools import cache
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
from eztorch_sce.report.sections.curves import curves
from eztorch_sce.report.sections.data import data
from eztorch_sce.report.sections.duplicates import duplicates
from eztorch_sce.report.sections.environment import environment
from eztorch_sce.report.sections.gallery import gallery
from eztorch_sce.report.sections.headline import headline
from eztorch_sce.report.sections.map import map as map_of_records
from eztorch_sce.report.sections.settings import settings
from eztorch_sce.report.sections.study import study
from eztorch_sce.report.sections.verdict import verdict
from eztorch_sce.report.sections.views import views

if TYPE_CHECKING:
    from jinja2 import Environment

    from eztorch_sce.report.media import Media

# In the order of the page. Each returns its section, or None if the runs have nothing to show there.
_SECTIONS: tuple[Callable[[Sequence[RunFiles], "Media | None"], Section | None], ...] = (
    study,
    headline,
    verdict,
    curves,
    map_of_records,
    gallery,
    confusion,
    duplicates,
    views,
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
    return page_of(sections_of(runs, media), [run.name for run in runs])


def sections_of(runs: Sequence[RunFiles], media: "Media | None" = None) -> list[Section]:
    """Return the sections that the runs have something to show in."""
    return [section for make in _SECTIONS if (section := make(runs, media)) is not None]


def page_of(sections: Sequence[Section], names: Sequence[str], *, live: bool = False) -> str:
    """Return a page of these sections, of runs with these names.

    All texts pass through here: they are escaped by Jinja in HTML and by `_json` in scripts, and characters that would
    change the text around them are written as escapes.

    Args:
        sections: The sections in order.
        names: Names of the runs.
        live: Whether the page asks its server for what changes, in the form of `news_of`.
    """
    shown = [_entry(section) for section in sections]
    of_sections = sorted(_all_sections()) if live else [section.name for section in sections]
    own_scripts = ["page.js", "records.js", *(["live.js"] if live else [])]
    own_scripts += [f"sections/{name}.js" for name in of_sections]
    scripts = [_text(_ECHARTS), "\n".join(filter(None, map(_optional, own_scripts)))]
    images = {name: content for section in sections for name, content in section.images.items()}  # some share them
    own_styles = ["page.css", "records.css", *(["live.css"] if live else [])]
    own_styles += [f"sections/{name}.css" for name in of_sections]
    return (
        _environment()
        .get_template("page.html")
        .render(
            names=_shown(list(names)),
            version=__version__,
            live=live,
            sections=[{**entry, "json": _json(entry["data"])} for entry in shown],
            columns=[_column(name, values) for section in sections for name, values in section.columns.items()],
            images=[_image(name, content) for name, content in images.items()],
            styles="\n".join(filter(None, map(_optional, own_styles))),
            scripts=scripts,
            script_hashes=[f"'sha256-{_base64(hashlib.sha256(script.encode()).digest())}'" for script in scripts],
        )
    )


def news_of(section: Section) -> dict[str, Any]:
    """Return a section as a live page receives it, with a digest that tells whether it has changed."""
    entry = _entry(section)
    html = _environment().get_template("section.html").render(section=entry)
    columns = [_column(name, values) for name, values in section.columns.items()]
    images = [_image(name, content) for name, content in section.images.items()]
    binaries = {
        kind: [{"name": each.name, "type": each.kind, "base64": each.base64} for each in each_kind]
        for kind, each_kind in (("columns", columns), ("images", images))
    }
    news = {**entry, "html": html, **binaries}
    return {**news, "digest": hashlib.sha256(_json(news).encode()).hexdigest()[:16]}


def _entry(section: Section) -> dict[str, Any]:
    return {"name": section.name, "title": section.title, "data": _shown(section.data)}


@cache
def _environment() -> "Environment":
    from jinja2 import Environment, PackageLoader, StrictUndefined

    return Environment(
        loader=PackageLoader("eztorch_sce.report", "template"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _all_sections() -> set[str]:
    return {Path(file.name).stem for file in _TEMPLATE.joinpath("sections").iterdir()}


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


def _image(name: str, content: bytes) -> _Binary:
    return _Binary(name, "image/webp", _base64(content))


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode("ascii")
