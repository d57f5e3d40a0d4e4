"""Tests that run each example as a user would: from a folder of its own, with the package installed from a wheel."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from checkout import ROOT, copy_checkout

pytestmark = pytest.mark.xdist_group("examples")  # fixtures take long: once, in one worker

EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
LONG = {"barlow_twins", "feature_maps", "own_callbacks"}  # whose parts other examples try, too


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Return the environment variables with which Python imports the package from an installed wheel."""
    folder = tmp_path_factory.mktemp("installed")
    copy, target = copy_checkout(folder / "source"), folder / "packages"
    options = ("-q", "--no-deps", "--no-build-isolation", "--disable-pip-version-check")
    subprocess.run([sys.executable, "-m", "pip", "install", *options, "--target", target, copy], check=True)
    return os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(target)}


def run_python(*arguments: str, folder: Path, environment: dict[str, str]) -> str:
    command = [sys.executable, *arguments]
    run = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stderr
    return run.stdout


def project_with(example: Path, folder: Path) -> str:
    """Copy an example to a folder, and return its name there."""
    (folder / example.name).write_bytes(example.read_bytes())
    return example.name


@pytest.mark.parametrize(
    "example",
    [pytest.param(path, marks=pytest.mark.long if path.stem in LONG else []) for path in EXAMPLES],
    ids=lambda path: path.stem,
)
def test_the_example_runs_in_a_project_of_its_own(example: Path, tmp_path: Path, environment: dict[str, str]) -> None:
    printed = run_python(project_with(example, tmp_path), folder=tmp_path, environment=environment)
    assert printed.strip(), "an example must print its result"
    if example.stem == "minimal":
        untrained, pretrained = (float(number) for number in re.findall(r"kNN (0\.\d+)", printed))
        assert pretrained > untrained + 0.1


@pytest.mark.long
def test_the_loop_runs_on_two_processes(tmp_path: Path, environment: dict[str, str]) -> None:
    example = project_with(ROOT / "examples" / "own_loop.py", tmp_path)
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    printed = run_python(*torchrun, example, folder=tmp_path, environment=environment)
    results = re.findall(r"records \d+, kNN [\d.]+", printed)
    assert len(results) == 2
    assert results[0] == results[1]  # both have the features of all records
    assert results[0].startswith("records 32,")


def test_the_examples_import_the_wheel(tmp_path: Path, environment: dict[str, str]) -> None:
    script = "import eztorch_sce; print(eztorch_sce.__file__)"
    imported = run_python("-c", script, folder=tmp_path, environment=environment)
    assert Path(imported.strip()).is_relative_to(environment["PYTHONPATH"])


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_is_short_and_uses_public_names_only(example: Path) -> None:
    text = example.read_text(encoding="utf-8")
    assert text.count("\n") < 40
    assert not re.search(r"(from|import) eztorch_sce\.", text)


def test_the_documentation_includes_every_example() -> None:
    pages = "".join(page.read_text(encoding="utf-8") for page in (ROOT / "docs").glob("*/*.md"))
    included = set(re.findall(r'^--8<-- "examples/(\w+)\.py"$', pages, re.MULTILINE))
    assert included == {example.stem for example in EXAMPLES}
