"""Settings of a run that is resumed: what was chosen from the data when it started is kept."""

from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from eztorch_sce import registry
from eztorch_sce.augment.view import ViewConfig
from eztorch_sce.config import schema
from eztorch_sce.config.adjust import adjusted
from eztorch_sce.config.choices import choice_fields
from eztorch_sce.config.starting import load_start

_NUMBERS = {
    "data": ("batch_size", "num_frames", "clip_s"),
    "method": ("queue_size", "momentum"),
    "schedule": ("warmup_epochs",),
    "trainer": ("max_epochs",),
}


def resumed(config: schema.PretrainConfig) -> schema.PretrainConfig:
    """Return a config whose open settings are those of the run that it resumes, from its `config.yaml`.

    The files may have changed since, or the machine; what was chosen must not.
    """
    file = Path(config.run.dir or "") / "config.yaml"
    if not config.run.resume or not file.is_file():
        return config
    saved = load_start("pretrain", choice_fields(schema.PretrainConfig), "config", str(file))
    for group in ("backbone", "optimizer"):
        cls = registry.choices(group).get(saved.choices.get(group) or "")
        if getattr(config, group) is None and cls is not None:
            chosen = _config(cls, saved.below(group))
            config = replace(config, **{group: adjusted(group, chosen, config.adjust)})
    if not config.views:
        views = [_config(ViewConfig, view) for view in saved.below("views")]
        config = replace(config, views=[adjusted("views", view, config.adjust) for view in views])
    for name, numbers in _NUMBERS.items():
        chosen = {setting: value for setting, value in saved.below(name).items() if setting in numbers}
        config = replace(config, **{name: _filled(getattr(config, name), chosen)})
    return replace(config, adjust={})


def _filled(config: Any, saved: dict[str, Any]) -> Any:
    """Return a config in which settings that are null are taken from saved ones."""
    names = {item.name for item in fields(config) if getattr(config, item.name) is None}
    return replace(config, **{name: saved[name] for name in names & saved.keys()})


def _config(cls: type, settings: dict[str, Any]) -> Any:
    return OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(cls), settings))
