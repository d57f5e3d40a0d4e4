"""Settings of a run that goes on: what was chosen from the data when it started is kept."""

from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, TypeVar

from omegaconf import OmegaConf

from eztorch_sce import registry
from eztorch_sce.augment.view import ViewConfig
from eztorch_sce.config.adjust import adjusted
from eztorch_sce.config.choices import choice_fields
from eztorch_sce.config.parts import CommandConfig
from eztorch_sce.config.starting import StartingPoint, load_start

C = TypeVar("C", bound=CommandConfig)

_NUMBERS = {
    "data": ("batch_size", "num_frames", "clip_s"),
    "method": ("queue_size", "momentum"),
    "schedule": ("warmup_epochs",),
    "trainer": ("max_epochs",),
}


def resumed(command: str, config: C, run_dir: Path) -> C:
    """Return a config whose open settings are those of a run, from its `config.yaml`.

    The files may have changed since, or the machine; what was chosen must not.

    Args:
        command: The command, such as "pretrain".
        config: Its config.
        run_dir: The directory of the run, which is of the same command.

    Raises:
        ConfigError: If a setting of an open choice is not one of what the run has chosen.
    """
    saved = load_start(command, choice_fields(type(config)), "config", str(run_dir / "config.yaml"))
    values = _choices(saved, config) | {"views": _views(saved, config)}
    for name, numbers in _NUMBERS.items():
        chosen = {setting: value for setting, value in saved.below(name).items() if setting in numbers}
        values[name] = _filled(getattr(config, name, None), chosen)
    if getattr(config, "adjust", None):
        values["adjust"] = {}
    names = {item.name for item in fields(config)}
    return replace(config, **{name: value for name, value in values.items() if name in names})


def _choices(saved: StartingPoint, config: Any) -> dict[str, Any]:
    """Return the backbone and the optimizer: those of the run, with what is adjusted, where they are open."""
    values = {}
    for group in ("backbone", "optimizer"):
        cls = registry.choices(group).get(saved.choices.get(group) or "")
        if getattr(config, group, None) is None and cls is not None:
            values[group] = adjusted(group, _config(cls, saved.below(group)), getattr(config, "adjust", {}))
    return values


def _views(saved: StartingPoint, config: Any) -> list[Any]:
    """Return the views: those of the run if they are open, else with its values where single settings are."""
    own, before = getattr(config, "views", []), [_config(ViewConfig, view) for view in saved.below("views")]
    if not own and hasattr(config, "adjust"):
        return [adjusted("views", view, config.adjust) for view in before]
    if len(own) != len(before):
        return list(own)
    return [_filled(view, vars(chosen)) for view, chosen in zip(own, before, strict=True)]


def _filled(config: Any, saved: Mapping[str, Any]) -> Any:
    """Return a config in which settings that are null are taken from saved ones."""
    if config is None:
        return None
    names = {item.name for item in fields(config) if getattr(config, item.name) is None}
    return replace(config, **{name: saved[name] for name in names & saved.keys()})


def _config(cls: type, settings: dict[str, Any]) -> Any:
    return OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(cls), settings))
