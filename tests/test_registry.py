"""Tests of registering choices."""

from dataclasses import dataclass

import pytest

from eztorch_sce import registry
from eztorch_sce.registry import choices, name_of, register


@pytest.fixture(autouse=True)
def _restore_choices(monkeypatch: pytest.MonkeyPatch) -> None:
    choices("backbone")  # load the built-in choices before copying them
    monkeypatch.setattr(registry, "_CHOICES", {group: dict(members) for group, members in registry._CHOICES.items()})


def define() -> type:
    @dataclass
    class Mine:
        width: int = 4

    return register("backbone", "mine")(Mine)


def test_a_registered_class_is_a_choice() -> None:
    cls = define()
    assert choices("backbone")["mine"] is cls
    assert name_of(cls()) == "mine"


def test_a_class_that_is_defined_again_replaces_the_earlier_one() -> None:
    define()
    again = define()
    assert choices("backbone")["mine"] is again
    assert name_of(again()) == "mine"


def test_a_name_cannot_be_registered_for_another_class() -> None:
    define()

    @dataclass
    class Other:
        pass

    with pytest.raises(ValueError, match="backbone=mine is registered twice"):
        register("backbone", "mine")(Other)
