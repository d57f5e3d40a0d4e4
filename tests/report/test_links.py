"""Tests of the links from runs to the evaluations of their weights and features."""

import json
import multiprocessing
from pathlib import Path
from typing import Any

import pytest

from eztorch_sce.models.weights import hash_of
from eztorch_sce.report.links import link_to_sources


def write_run(run_dir: Path, weights: bytes | None = None) -> Path:
    run_dir.mkdir(parents=True)
    (run_dir / "config.yaml").write_text("seed: 0\n")
    if weights is not None:
        (run_dir / "backbone.safetensors").write_bytes(weights)
    return run_dir


def links(run_dir: Path) -> Any:
    file = run_dir / "evaluations.json"
    return json.loads(file.read_text()) if file.is_file() else None


def card(typed: str, run_dir: Path) -> dict[str, Any]:
    return {"file": typed, "sha256": hash_of(run_dir / "backbone.safetensors")}


def test_weights_are_named_by_their_directory_or_by_their_file(tmp_path: Path) -> None:
    trained = write_run(tmp_path / "runs/mine", b"weights")
    for name, typed in (("knn", trained), ("linear", trained / "backbone.safetensors")):
        link_to_sources(write_run(tmp_path / name), card(str(typed), trained), None)
    link_to_sources(tmp_path / "knn", card(str(trained), trained), None)
    assert links(trained) == ["../../knn", "../../linear"]


def test_weights_outside_of_a_run_and_networks_without_weights_have_no_list(tmp_path: Path) -> None:
    (tmp_path / "backbone.safetensors").write_bytes(b"downloaded")
    run_dir = write_run(tmp_path / "knn")
    link_to_sources(run_dir, card(str(tmp_path / "backbone.safetensors"), tmp_path), None)
    link_to_sources(run_dir, {"file": None, "untrained": True}, None)
    link_to_sources(run_dir, None, None)
    assert not list(tmp_path.rglob("evaluations.json"))


def test_features_lead_to_the_weights_from_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trained = write_run(tmp_path / "project/runs/mine", b"weights")
    extracted = write_run(tmp_path / "project/runs/features")
    typed = card("runs/mine", trained)  # as typed in the folder "project"
    decoy = write_run(tmp_path / "elsewhere/runs/mine", b"others")
    monkeypatch.chdir(tmp_path / "elsewhere")
    link_to_sources(write_run(tmp_path / "elsewhere/knn"), typed, str(extracted))
    assert links(trained) == links(extracted) == ["../../../elsewhere/knn"]
    assert links(decoy) is None


def test_a_run_that_cannot_be_written_is_noted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trained = write_run(tmp_path / "mine", b"weights")
    (trained / "evaluations.json").mkdir()  # not even the superuser can replace it by a file
    link_to_sources(write_run(tmp_path / "knn"), card(str(trained), trained), None)
    assert f"note: {trained} cannot list this evaluation" in capsys.readouterr().err
    assert [path.name for path in trained.iterdir() if "partial" in path.name] == []


def test_a_damaged_list_is_begun_again(tmp_path: Path) -> None:
    trained = write_run(tmp_path / "mine", b"weights")
    (trained / "evaluations.json").write_text('["../one",')
    link_to_sources(write_run(tmp_path / "knn"), card(str(trained), trained), None)
    assert links(trained) == ["../knn"]


def add_many(trained: Path, name: str) -> None:
    for number in range(20):
        link_to_sources(trained.parent / f"{name}-{number}", card(str(trained), trained), None)


def test_evaluations_that_end_together_are_all_listed(tmp_path: Path) -> None:
    trained = write_run(tmp_path / "mine", b"weights")
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=add_many, args=(trained, name)) for name in "abc"]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert sorted(links(trained)) == sorted(f"../{name}-{number}" for name in "abc" for number in range(20))
