"""Tests of conclusions: what is said and recommended, from outcomes made by hand."""

import shlex
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt

from eztorch_sce.studies.conclusion import Conclusion, Evidence, conclude, longer_command, without_labels
from eztorch_sce.studies.paired import compare

Array = npt.NDArray[np.float64]
VIDEOS = {"motion": "untrained motion", "color": "untrained color"}


def right(rate: float, num: int, seed: int) -> Array:
    """Return a network that is right on a fraction of the records, more of the same ones the higher its rate is."""
    hard = np.random.default_rng(0).random(num)  # the same records are hard for all
    noise = np.random.default_rng(seed).random(num)
    return np.asarray(0.7 * hard + 0.3 * noise < rate, np.float64)


def evidence(
    rates: Mapping[str, float], num: int, untrained: Mapping[str, str] = VIDEOS, steps: int = 500, kind: str = "video"
) -> Evidence:
    outcomes = {
        name: {
            metric: right(rate, num, seed=100 + 10 * row + column) for column, metric in enumerate(("knn_top1", "mAP"))
        }
        for row, (name, rate) in enumerate(rates.items())
    }
    sets = list(untrained)
    networks = list(dict.fromkeys(untrained.values()))
    pairs = [(name, network) for name in sets for network in networks] + [(sets[0], sets[1])]
    guessing = {"knn_top1": np.full(num, 0.1), "mAP": np.full(num, 0.1)}
    chance = compare({**outcomes, "guessing": guessing}, [(name, "guessing") for name in outcomes])
    equal = dict.fromkeys(sets, 1)
    cost = {name: 0.1 * (number + 1) for number, name in enumerate(sets)}
    all_steps = dict.fromkeys(sets, steps)
    return Evidence(kind, sets, untrained, compare(outcomes, pairs), chance, num, num, equal, all_steps, cost)


def text(found: Conclusion) -> str:
    return " ".join([found.headline, *found.sentences])


def test_where_motion_helps_and_color_hurts_motion_is_recommended() -> None:
    rates = {"motion": 0.65, "color": 0.1, "untrained motion": 0.42, "untrained color": 0.12}
    found = conclude(evidence(rates, num=69))
    assert (found.verdict, found.recommended, found.is_supported) == ("helps", "motion", True)
    assert "motion views is better than pretraining with color views" in text(found)


def test_where_color_helps_color_is_recommended_although_crops_are_cheaper() -> None:
    rates = {"crop": 0.25, "color": 0.34, "untrained": 0.25}
    found = conclude(evidence(rates, 400, {"crop": "untrained", "color": "untrained"}, kind="image"))
    assert (found.verdict, found.recommended) == ("helps", "color")


def test_sets_that_help_equally_are_not_ranked_and_the_cheapest_is_taken() -> None:
    rates = {"motion": 0.6, "color": 0.6, "untrained motion": 0.2, "untrained color": 0.2}
    found = conclude(evidence(rates, num=100))
    assert (found.verdict, found.recommended) == ("helps", "motion")
    assert "cannot be told apart" in found.headline


def test_without_a_gain_the_study_says_so_and_does_not_claim_its_command_is_supported() -> None:
    rates = {"motion": 0.4, "color": 0.4, "untrained motion": 0.4, "untrained color": 0.4}
    found = conclude(evidence(rates, num=200))
    assert (found.verdict, found.is_supported) == ("unknown", False)
    assert "ruled out" in text(found)
    assert "could not tell" in text(found)


def test_noise_is_called_guessing_and_recommends_nothing() -> None:
    found = conclude(evidence(dict.fromkeys(["motion", "color", *VIDEOS.values()], 0.1), num=40))
    assert (found.verdict, found.recommended) == ("chance", None)


def test_eight_test_videos_allow_no_conclusion_whatever_they_show() -> None:
    rates = {"motion": 1.0, "color": 0.0, "untrained motion": 0.0, "untrained color": 0.0}
    found = conclude(evidence(rates, num=8))
    assert (found.verdict, found.is_supported) == ("few", False)
    assert "Nothing can be concluded from 8 test videos" in found.headline


def test_a_pretraining_of_a_few_steps_is_not_judged() -> None:
    rates = {"motion": 0.4, "color": 0.4, "untrained motion": 0.4, "untrained color": 0.4}
    found = conclude(evidence(rates, num=200, steps=9))
    assert found.verdict == "short"
    assert "9 steps" in found.headline


def test_views_that_make_a_network_worse_than_another_untrained_one_do_not_help() -> None:
    rates = {"motion": 0.5, "color": 0.3, "untrained motion": 0.5, "untrained color": 0.1}
    assert conclude(evidence(rates, num=300)).verdict == "unknown"


def test_without_labels_a_collapse_is_named_and_its_views_are_not_recommended() -> None:
    found = without_labels("video", {"motion": "collapsed", "color": None}, "color")
    assert "motion: collapsed." in found.sentences
    assert found.recommended == "color"


def test_the_recommended_command_repeats_the_settings_of_a_run_in_any_directory(tmp_path: Path) -> None:
    run_dir = tmp_path / "it's a study (1)" / "pretrain-motion"
    words = shlex.split(longer_command(run_dir, None, 40, "longer"))
    assert words == [
        "eztorch-sce", "pretrain", f"config={run_dir}", "trainer.max_epochs=40", "run.dir=runs/longer"
    ]  # fmt: skip
