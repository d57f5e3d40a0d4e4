"""From `key=value` overrides to a checked config, with errors that teach."""

from collections.abc import Iterator, Sequence
from dataclasses import fields, is_dataclass
from importlib import resources
from typing import Any

from hydra import compose as hydra_compose
from hydra import initialize_config_module
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from eztorch_sce import registry
from eztorch_sce.augment.policies import POLICIES, policy
from eztorch_sce.config import schema
from eztorch_sce.errors import ConfigError, did_you_mean

CONFIG_MODULE = "eztorch_sce.configs"
COMMANDS: dict[str, type] = {
    "pretrain": schema.PretrainConfig,
    "plan": schema.PlanConfig,
    "linear": schema.LinearConfig,
    "finetune": schema.FinetuneConfig,
    "test": schema.ClassifierTestConfig,
    "extract": schema.ExtractConfig,
    "knn": schema.KnnConfig,
    "retrieve": schema.RetrieveConfig,
    "svm": schema.SvmConfig,
    "few-shot": schema.FewShotConfig,
    "demo": schema.DemoConfig,
    "show-views": schema.ShowViewsConfig,
}
_GROUPS = ("backbone", "loss", "method", "optimizer")  # what `group=name` chooses, besides views and recipe


def compose(command: str, overrides: Sequence[str] = ()) -> Any:
    """Return the checked config of a command.

    Args:
        command: "pretrain", "knn", ...
        overrides: `key=value`, as on the command line.

    Raises:
        ConfigError: With all problems at once: unknown keys with the nearest known one, wrong values with the choices.
    """
    prepare_hydra()
    overrides = expand(command, overrides)
    try:
        composed = _compose(command, overrides)
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(list(_explain(command, overrides, error))) from None
    return to_config(composed)


def to_config(composed: DictConfig) -> Any:
    """Turn what Hydra composed into the dataclass of its command, and check it."""
    config = OmegaConf.to_object(composed)
    schema.validate(config)
    return config


def to_yaml(config: Any) -> str:
    """Return a config as YAML, with the name of each registered part beside its settings."""
    return OmegaConf.to_yaml(OmegaConf.create(settings_of(config)))


def recipes() -> dict[str, dict[str, str]]:
    """Return the header of each recipe by name: its `# key: value` lines."""
    found = {}
    for file in sorted(resources.files(f"{CONFIG_MODULE}.recipe").iterdir(), key=lambda entry: entry.name):
        if file.name.endswith(".yaml"):
            lines = [line[1:].split(":", 1) for line in file.read_text().splitlines() if line.startswith("#")]
            found[file.name[: -len(".yaml")]] = {k.strip(): v[0].strip() for k, *v in lines if v}
    return found


def recipe_text(name: str) -> str:
    """Return the file of a recipe.

    Raises:
        ConfigError: If there is none of this name.
    """
    if name not in (known := list(recipes())):
        raise ConfigError([f"recipe={name} is not known{did_you_mean(name, known)}; `eztorch-sce recipes` lists all"])
    return resources.files(f"{CONFIG_MODULE}.recipe").joinpath(f"{name}.yaml").read_text()


def prepare_hydra() -> None:
    """Offer every registered choice to Hydra."""
    store = ConfigStore.instance()
    for group in _GROUPS:
        for name, cls in registry.choices(group).items():
            store.store(group=group, name=name, node=cls)
    for name in POLICIES:
        store.store(group="views", name=name, node={"views": policy(name)}, package="_global_")
    for command, cls in COMMANDS.items():
        # Groups are left open here: which choice fills them is said once, in the YAML of the command.
        open_groups = [item for item in fields(cls) if item.name in _GROUPS and item.type is Any]
        missing = {item.name: "???" for item in open_groups if item.default is not None}
        store.store(group="schema", name=command, node=cls(**missing), package="_global_")


def expand(command: str, overrides: Sequence[str]) -> list[str]:
    """Write `views.*.size=64` out for each view.

    Raises:
        ConfigError: If an override is not of the form `key=value`.
    """
    malformed = [text for text in overrides if "=" not in text and not text.startswith("~")]
    if malformed:
        raise ConfigError([f"'{text}' is not of the form key=value" for text in malformed])
    plain = [text for text in overrides if not text.startswith("views.*.")]
    if len(plain) == len(overrides):
        return list(overrides)
    try:
        num_views = len(_compose(command, plain).views)
    except (HydraException, OmegaConfBaseException):
        num_views = 1  # what is wrong is explained when the whole is composed
    return [
        text.replace("*", str(number), 1)
        for text in overrides
        for number in range(num_views if text.startswith("views.*.") else 1)
    ]


def _compose(command: str, overrides: Sequence[str]) -> DictConfig:
    GlobalHydra.instance().clear()
    with initialize_config_module(CONFIG_MODULE, version_base="1.3"):
        return hydra_compose(command, list(overrides))


def _explain(command: str, overrides: Sequence[str], error: Exception) -> Iterator[str]:
    """Try each override by itself on top of the choices of groups: what fails alone is to blame."""
    group_keys = {*_GROUPS, "views", "recipe"}
    chosen = [text for text in overrides if text.split("=")[0] in group_keys]
    blamed = False
    for text in chosen:
        if not _works(command, [text]):
            blamed = True
            yield _explain_choice(text)
    if blamed:
        chosen = []
    for text in overrides:
        if text.split("=")[0] in group_keys:
            continue
        try:
            OmegaConf.to_object(_compose(command, [*chosen, text]))
        except (HydraException, OmegaConfBaseException) as failure:
            blamed = True
            yield _explain_key(command, chosen, text, failure)
    if not blamed:
        yield str(error).splitlines()[0]


def _works(command: str, overrides: list[str]) -> bool:
    try:
        _compose(command, overrides)
    except (HydraException, OmegaConfBaseException):
        return False
    return True


def _explain_choice(text: str) -> str:
    group, value = text.split("=", 1)
    if group == "views":
        names = list(POLICIES)
    elif group == "recipe":
        names = list(recipes())
    else:
        names = list(registry.choices(group))
    if value in names:
        return f"{text} does not fit this command; `eztorch-sce recipes` says which command each recipe is for"
    return f"{group}={value} must be one of {', '.join(names)}{did_you_mean(value, names)}"


def _explain_key(command: str, chosen: list[str], text: str, failure: Exception) -> str:
    try:
        key = OverridesParser.create().parse_override(text).key_or_group
    except HydraException:
        name, value = text.split("=", 1)
        quoted = f"'{name}=\"{value}\"'"
        return f"'{text}' is not of the form key=value; put a value with special characters in quotes: {quoted}"
    known = _flat_keys(OmegaConf.to_container(_compose(command, chosen)))
    if key not in known:
        return f"{key} is not a setting of {command}{did_you_mean(key, known)}"
    cause = failure
    while cause.__cause__ is not None:  # the first cause says which value is of the wrong kind
        cause = cause.__cause__  # type: ignore[assignment]
    return f"{text}: {str(cause).splitlines()[0]}"


def _flat_keys(node: Any, prefix: str = "") -> list[str]:
    items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    keys = []
    for name, child in items:
        keys += [f"{prefix}{name}", *_flat_keys(child, f"{prefix}{name}.")]
    return keys


def settings_of(config: Any) -> Any:
    """Return a config, or a part of one, as dictionaries, with the name of each registered part in it."""
    if isinstance(config, list):
        return [settings_of(item) for item in config]
    if not is_dataclass(config) or isinstance(config, type):
        return config
    values = {item.name: settings_of(getattr(config, item.name)) for item in fields(config)}
    registered = any(type(config) in registry.choices(group).values() for group in _GROUPS)
    return {"name": registry.name_of(config), **values} if registered else values
