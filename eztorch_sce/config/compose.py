"""Composition of `key=value` overrides into a validated config."""

from collections.abc import Sequence
from dataclasses import fields, is_dataclass
from typing import Any, cast

from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from eztorch_sce import registry
from eztorch_sce.augment.policies import policy
from eztorch_sce.config import schema
from eztorch_sce.config.adjust import redirected
from eztorch_sce.config.overrides import escape_interpolations, take_literally
from eztorch_sce.config.parts import CommandConfig
from eztorch_sce.config.plugin_words import with_plugins
from eztorch_sce.config.recipes import config_folder
from eztorch_sce.errors import ConfigError
from eztorch_sce.evaluation.base import ExtractConfig
from eztorch_sce.objects import PassedObject, name_of_object

GROUPS = ("backbone", "loss", "method", "optimizer")
"""Registry groups that `group=name` chooses from. `views` and `recipe` are chosen in the same way."""
INVALID = (HydraException, OmegaConfBaseException)
"""Exceptions of Hydra and OmegaConf for overrides that do not compose."""

RENAMED_KEYS: dict[str, str] = {
    "loss.implementation": "loss.implementation is no longer a setting: there is one implementation",
    "loss.target_temperature_ramp.": (
        "loss.target_temperature_ramp is now ramps=[{setting:loss.target_temperature,start:0.1}]"
    ),
    "loss.positive_weight_ramp.": "loss.positive_weight_ramp is now ramps=[{setting:loss.positive_weight,start:1}]",
}
"""Error messages for keys of earlier versions. A key that ends in "." stands for all keys below it."""


def commands() -> dict[str, type]:
    """Return the config class of each command."""
    return {
        "pretrain": schema.PretrainConfig,
        "plan": schema.PlanConfig,
        "finetune": schema.FinetuneConfig,
        "test": schema.ClassifierTestConfig,
        "extract": ExtractConfig,
        **registry.choices("evaluation"),
        "demo": schema.DemoConfig,
        "show-views": schema.ShowViewsConfig,
    }


def compose(command: str, overrides: Sequence[str] = ()) -> Any:
    """Return the validated config of a command.

    Args:
        command: "pretrain", "knn", ...
        overrides: `key=value`, as on the command line. Paths need no quotes for Hydra.

    Raises:
        ConfigError: With one message per mistake. Unknown keys are reported with the nearest known key, invalid values
            with the allowed ones.
    """
    overrides = take_literally(commands()[command], with_plugins(overrides))
    prepare_hydra(command)
    try:
        return to_config(compose_by_hydra(command, for_each_view(command, overrides)))
    except INVALID as error:
        from eztorch_sce.config.explain import explain

        raise ConfigError(explain(command, overrides, error)) from None


def to_config(composed: DictConfig) -> Any:
    """Convert a config composed by Hydra to the dataclass of its command, and validate it.

    Raises:
        ConfigError: With one message per invalid setting.
    """
    config = cast(CommandConfig, OmegaConf.to_object(composed))
    schema.validate(config)  # the resolved copy is discarded: api resolves the processes when the command runs
    return config


def to_yaml(config: Any) -> str:
    """Return a config as YAML, including the names of its registered choices."""
    return OmegaConf.to_yaml(OmegaConf.create(_escaped(settings_of(config))))


def settings_of(config: Any) -> Any:
    """Return a config as nested dictionaries, including the names of its registered choices."""
    if isinstance(config, list):
        return [settings_of(item) for item in config]
    if isinstance(config, PassedObject):
        return {"object": str(config)}
    if not is_dataclass(config) or isinstance(config, type):
        return config
    values = {item.name: settings_of(getattr(config, item.name)) for item in fields(config)}
    if (place := registry.place_of(config)) is not None:
        return {"name": place[1], **values} if place[0] in GROUPS else values
    is_own = callable(getattr(config, "build", None)) and not type(config).__module__.startswith("eztorch_sce.")
    return {"object": name_of_object(config), **values} if is_own else values


def _escaped(node: Any) -> Any:
    """Escape `${` in the texts of nested dictionaries and lists, which OmegaConf would read as interpolations."""
    if isinstance(node, dict):
        return {name: _escaped(value) for name, value in node.items()}
    if isinstance(node, (list, tuple)):
        return [_escaped(item) for item in node]
    return escape_interpolations(node) if isinstance(node, str) else node


def prepare_hydra(command: str) -> None:
    """Register the schema of a command with Hydra, and the choices of its groups."""
    store = ConfigStore.instance()
    config_class = commands()[command]
    names = {item.name for item in fields(config_class)}
    for group in names.intersection(GROUPS):
        for name, choice in registry.choices(group).items():
            store.store(group=group, name=name, node=choice)
    if "views" in names:
        for name in registry.choices("views"):
            store.store(group="views", name=name, node={"views": policy(name)}, package="_global_")
    # Mark the groups as missing, so that only the YAML file of the command determines their default choices.
    open_groups = [item for item in fields(config_class) if item.name in GROUPS and item.type is Any]
    missing = {item.name: "???" for item in open_groups if item.default is not None}
    store.store(group="schema", name=command, node=config_class(**missing), package="_global_")
    if not registry.is_own(config_class):  # an evaluation of a plugin, which has no YAML file
        chosen = [{f"/{item.name}": registry.name_of(item.default)} for item in open_groups if item.default is not None]
        node = {"defaults": [f"/schema/{command}", "_self_", *chosen, {"recipe": None}]}
        store.store(name=command, node=node)


def for_each_view(command: str, overrides: Sequence[str]) -> list[str]:
    """Replace `views.*.size=64` by one override per view, or keep it for the views that will fit the data."""
    if "adjust" in {item.name for item in fields(commands()[command])}:
        overrides = redirected(overrides)
    others = [override for override in overrides if not override.startswith("views.*.")]
    if len(others) == len(overrides):
        return list(overrides)
    # Only these settings decide the number of views; the others may hold several values for a sweep.
    deciding = [override for override in others if override.split("=")[0] in ("views", "recipe")]
    num_views = len(compose_by_hydra(command, deciding).views)
    return [
        each
        for override in overrides
        for each in (
            [override.replace("*", str(number), 1) for number in range(num_views)]
            if override.startswith("views.*.")
            else [override]
        )
    ]


def compose_by_hydra(command: str, overrides: Sequence[str]) -> DictConfig:
    """Return the config of a command as composed by Hydra, without validating it.

    Raises:
        HydraException, OmegaConfBaseException: If the overrides do not compose.
    """
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(config_folder()), version_base="1.3"):
        return hydra_compose(command, list(overrides))
