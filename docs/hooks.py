"""MkDocs hooks: pages of the public names, and the files that pages link to but that lie outside `docs/`."""

import ast
import base64
import json
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOK = ROOT / "docs" / "start" / "notebook.ipynb"
# Page of the API: its title, and the modules of the package whose public names it documents. The last takes the rest.
API_PAGES = {
    "commands": ("Commands and configs", ("api", "config", "demo", "planning")),
    "data": ("Data and views", ("data", "augment", "curation")),
    "networks": ("Networks and checkpoints", ("models", "checkpoints", "interop")),
    "objectives": ("Losses and methods", ("losses", "methods", "distributed")),
    "training": ("Optimization and training", ("optim", "training")),
    "evaluations": ("Evaluations", ("evaluation", "report")),
    "types": ("Types, errors and registration", ("",)),
}


def public_names() -> dict[str, str]:
    """Return the module of each public name, such as "losses.sce" of SCELoss, as `__init__.pyi` lists them."""
    stub = ast.parse((ROOT / "eztorch_sce" / "__init__.pyi").read_text(encoding="utf-8"))
    imports = [node for node in stub.body if isinstance(node, ast.ImportFrom) and node.module]
    return {alias.name: str(node.module) for node in imports for alias in node.names}


def api_page(page: str) -> str:
    """Return a page of the API as Markdown: an instruction for mkdocstrings for each of its names."""
    title, _ = API_PAGES[page]
    names = {name: module for name, module in public_names().items() if page_of(module) == page}
    blocks = [
        f"::: eztorch_sce.{module}.{name}\n    options:\n      toc_label: {name}" for name, module in names.items()
    ]
    return "\n\n".join([f"# {title}", *blocks]) + "\n"


def page_of(module: str) -> str:
    """Return the page that documents the public names of a module."""
    return next(page for page, (_, starts) in API_PAGES.items() if module.startswith(starts))


def api_index() -> str:
    """Return the list of all public names, by page."""
    lines = ["# Public names", "", "Everything that `from eztorch_sce import ...` offers. What is not here is private."]
    for page, (title, _) in API_PAGES.items():
        names = sorted(name for name, module in public_names().items() if page_of(module) == page)
        links = [f"[`{name}`]({page}.md#eztorch_sce.{public_names()[name]}.{name})" for name in names]
        lines += ["", f"## {title}", "", ", ".join(links)]
    return "\n".join(lines) + "\n"


def notebook_page(cells: list[dict[str, Any]]) -> tuple[str, list[bytes]]:
    """Return the cells of a notebook as Markdown, and the PNG images that it shows as `notebook-0.png` and so on."""
    parts: list[str] = []
    images: list[bytes] = []
    for cell in cells:
        source = "".join(cell["source"])
        parts.append(source if cell["cell_type"] == "markdown" else f"```python\n{source}\n```")
        for output in cell.get("outputs", []):
            shown = output.get("data", {})
            if "image/png" in shown:
                parts.append(f"![Output of the cell above](notebook-{len(images)}.png)")
                images.append(base64.b64decode(shown["image/png"]))
            elif output["output_type"] == "execute_result" or output.get("name") == "stdout":  # not the progress
                parts.append(f"```text\n{''.join(shown.get('text/plain', output.get('text', ''))).rstrip()}\n```")
    return "\n\n".join(parts) + "\n", images


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages of the API, the notebook as a page, and the examples, which are there for download."""
    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    page, images = notebook_page(cells)
    files.append(File.generated(config, "start/notebook.md", content=page))
    for number, image in enumerate(images):
        files.append(File.generated(config, f"start/notebook-{number}.png", content=image))
    files.append(File.generated(config, "api/index.md", content=api_index()))
    for page in API_PAGES:
        files.append(File.generated(config, f"api/{page}.md", content=api_page(page)))
    for example in sorted((ROOT / "examples").glob("*.py")):
        files.append(File.generated(config, f"examples/{example.name}", abs_src_path=str(example)))
    return files
