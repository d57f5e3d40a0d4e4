"""Tests of the state of a study: what it remembers, and what it refuses."""

import json
from pathlib import Path

import pytest

from eztorch_sce.errors import ConfigError
from eztorch_sce.studies.state import FILE, State

SETTINGS = {"data.root": "/videos", "minutes": 5.0}


def test_a_state_that_is_opened_again_has_spent_its_time(tmp_path: Path) -> None:
    state = State.open(tmp_path, SETTINGS)
    assert not state.is_continued
    state.content |= {"spent_s": 90.0, "starts": 1}
    state.save()
    again = State.open(tmp_path, dict(SETTINGS))
    assert again.is_continued
    assert again.spent_s >= 90


def test_another_folder_or_another_time_is_refused_by_name(tmp_path: Path) -> None:
    State.open(tmp_path, SETTINGS).save()
    with pytest.raises(ConfigError) as caught:
        State.open(tmp_path, {"data.root": "/images", "minutes": 9.0})
    [message] = caught.value.problems
    for part in ("data.root=/images was /videos", "minutes=9", "run.dir"):
        assert part in message


def test_a_directory_of_another_run_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("# eztorch-sce knn\n")
    with pytest.raises(ConfigError, match="already contains a run"):
        State.open(tmp_path, SETTINGS)


@pytest.mark.parametrize("text", ["", "{", "[]", json.dumps({"format": 1})])
def test_a_damaged_state_is_refused_in_words(text: str, tmp_path: Path) -> None:
    (tmp_path / FILE).write_text(text)
    with pytest.raises(ConfigError, match="not the state of a study"):
        State.open(tmp_path, SETTINGS)
