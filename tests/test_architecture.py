"""Tests of the architecture: which modules may import which."""

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "eztorch_sce"
MODULES = sorted(PACKAGE.rglob("*.py"))

# From the bottom up. A module may import from its own floor and those below; unlisted modules are the ground floor.
FLOORS = (
    {"losses", "models", "interop", "augment", "data", "optim", "jobs", "config.names"},
    {"methods", "config.parts", "config.choice_types", "training.config"},
    {"training", "evaluation", "curation", "planning"},
    {"config", "opening", "report"},
    {"extraction", "extraction_merge", "extraction_work", "linear_on_views", "results"},
    {"run_records", "thumbnails", "pages", "rehearsal", "watch", "replaying"},
    {"api"},
    {"demo", "studies", "replay_words", "checkpoints"},
    {"commands", "completion"},
    {"cli"},
    {"__main__"},
)
ALLOWED = {
    "pytorch_lightning": ("training/", "data/datamodule.py"),
    "hydra": ("config/", "cli.py"),
    "omegaconf": ("config/", "cli.py", "choice_checks.py"),
    "av": ("data/decoders/pyav/", "curation/", "report/environment.py"),
    "decord": ("data/decoders/decord.py",),
    "torchcodec": ("data/decoders/torchcodec.py",),
    "pyarrow": (
        "data/sources/media_table.py",
        "data/sources/records.py",
        "data/sources/list_table.py",
        "jobs/",
        "curation/",
        "evaluation/",
        "extraction_merge.py",
        "extraction_work.py",
    ),
    "ray": ("jobs/runners/",),
    "submitit": ("jobs/runners/",),
    "pytorchvideo": (),
    "rich.console": ("printing.py",),  # other consoles would read names as markup
    "sklearn": ("evaluation/svm.py", "report/projection.py"),
}


def imports(file: Path, top_level_only: bool = False) -> set[str]:
    tree = ast.parse(file.read_text())
    nodes = tree.body if top_level_only else list(ast.walk(tree))
    names: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def floor(module: str) -> int:
    path = module.split(".")[1:]
    for name in (".".join(path[:2]), *path[:1]):
        for number, packages in enumerate(FLOORS, start=1):
            if name in packages:
                return number
    return 0


@pytest.mark.parametrize("file", MODULES, ids=lambda file: str(file.relative_to(PACKAGE)))
def test_nothing_imports_upward(file: Path) -> None:
    own = floor("eztorch_sce." + ".".join(file.relative_to(PACKAGE).with_suffix("").parts))
    above = {name for name in imports(file) if name.startswith("eztorch_sce.") and floor(name) > own}
    assert not above


def test_no_modules_import_each_other_in_a_circle() -> None:
    names = {"eztorch_sce." + ".".join(file.relative_to(PACKAGE).with_suffix("").parts): file for file in MODULES}
    graph = {name: imports(file, top_level_only=True) & names.keys() for name, file in names.items()}
    TopologicalSorter(graph).prepare()  # raises CycleError


def test_files_stay_below_500_lines_and_functions_below_60() -> None:
    for file in MODULES:
        text = file.read_text()
        assert text.count("\n") < 500, file
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef):
                assert (node.end_lineno or 0) - node.lineno < 60, f"{file}: {node.name}"


@pytest.mark.parametrize("file", MODULES, ids=lambda file: str(file.relative_to(PACKAGE)))
def test_third_party_packages_are_imported_only_where_allowed(file: Path) -> None:
    path = file.relative_to(PACKAGE).as_posix()
    for package, paths in ALLOWED.items():
        if any(f"{name}.".startswith(f"{package}.") for name in imports(file)):
            assert paths, f"{package} in {path}"
            assert path.startswith(paths), f"{package} in {path}"


@pytest.mark.parametrize(
    "package", ["av", "decord", "torchcodec", "pyarrow", "ray", "submitit", "torchvision", "sklearn"]
)
def test_heavy_packages_are_imported_inside_functions(package: str) -> None:
    eager = [file for file in MODULES if package in {n.split(".")[0] for n in imports(file, top_level_only=True)}]
    assert not eager


def test_losses_import_little_besides_torch() -> None:
    for file in (PACKAGE / "losses").glob("*.py"):
        ours = {name for name in imports(file) if name.startswith("eztorch_sce")}
        allowed = ("losses", "precision", "registry", "settings")
        assert all(name.startswith(tuple(f"eztorch_sce.{module}" for module in allowed)) for name in ours)
        assert "torch.distributed" not in imports(file)


def test_evaluation_does_not_import_methods() -> None:
    for file in (PACKAGE / "evaluation").glob("*.py"):
        assert not any(name.startswith("eztorch_sce.methods") for name in imports(file))


def test_init_files_are_empty() -> None:
    for file in PACKAGE.rglob("*/__init__.py"):
        assert not file.read_text().strip(), file


def test_the_map_of_the_code_names_every_module_and_package() -> None:
    text = (PACKAGE.parent / "docs" / "how" / "map.md").read_text(encoding="utf-8")
    modules = [file.name for file in PACKAGE.glob("*.py") if not file.name.startswith("_")]
    packages = [f"{folder.name}/" for folder in PACKAGE.iterdir() if folder.is_dir() and folder.name != "__pycache__"]
    assert [name for name in (*modules, *packages) if f"`{name}" not in text] == []
