"""Composition of `key=value` overrides into a validated config."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import fields, is_dataclass, replace
from typing import Any, NamedTuple, cast

from hydra import compose as hydra_compose
from hydra import initialize
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from eztorch_sce import registry
from eztorch_sce.config import schema
from eztorch_sce.config.adjust import redirected
from eztorch_sce.config.choices import VIEWS, ChoiceField, choice_fields, named_parts
from eztorch_sce.config.file_checks import mistakes_in
from eztorch_sce.config.options import UNSET, Chosen, group_of, store_command, store_start
from eztorch_sce.config.overrides import escape_interpolations, parsed, take_literally, values_of
from eztorch_sce.config.parts import CommandConfig, Recorded
from eztorch_sce.config.plugin_words import with_plugins
from eztorch_sce.config.recipes import recipes
from eztorch_sce.config.set_where import Origins, names_origins, origins_of, remember
from eztorch_sce.config.starting import KEYS, StartError, StartingPoint, flat, load_start, separated
from eztorch_sce.errors import ConfigError
from eztorch_sce.evaluation.base import ExtractConfig
from eztorch_sce.launch import is_first_process
from eztorch_sce.methods.base import has_own_loss, own_loss_message
from eztorch_sce.objects import PassedObject, name_of_object
from eztorch_sce.progress import print_above

INVALID = (HydraException, OmegaConfBaseException)
"""Exceptions of Hydra and OmegaConf for overrides that do not compose."""


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
        "study": schema.StudyConfig,
        "show-views": schema.ShowViewsConfig,
    }


def choice_groups() -> list[str]:
    """Return the registry groups that commands choose from, as in `loss=sce`."""
    groups = {choice.group for config_class in commands().values() for choice in choice_fields(config_class).values()}
    return sorted(groups - {VIEWS})


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
    try:
        prepared = prepare(command, overrides)
        config = to_config(compose_by_hydra(command, prepared.words), prepared)
    except (StartError, *INVALID) as error:
        from eztorch_sce.config.explain import explain

        raise ConfigError(explain(command, overrides, error)) from None
    say(prepared.remarks)
    return config


@names_origins
def _validated(config: Any) -> Any:
    schema.validate(config)  # the resolved copy is discarded: api resolves the processes when the command runs
    return config


def to_config(composed: DictConfig, prepared: "Prepared") -> Any:
    """Convert a config composed by Hydra to the dataclass of its command, and validate it.

    Args:
        composed: The config.
        prepared: The overrides that it was composed from, which tell where its settings come from.

    Raises:
        ConfigError: With one message per invalid setting.
    """
    return _validated(to_dataclass(composed, prepared))


def to_dataclass(composed: DictConfig, prepared: "Prepared") -> Any:
    """Convert a config composed by Hydra to the dataclass of its command, without validating it."""
    origins = prepared.origins(OmegaConf.to_container(composed))
    recorded = {key: Recorded(composed[key]) for key in KEYS if composed[key]}
    composed = composed.copy()
    composed.update(dict.fromkeys(KEYS))
    config = cast(CommandConfig, OmegaConf.to_object(composed))
    for key, value in recorded.items():
        setattr(config, key, value)
    remember(config, origins)
    return config


def to_yaml(config: Any) -> str:
    """Return a config as YAML, including the names of its registered choices."""
    return OmegaConf.to_yaml(OmegaConf.create(_escaped(settings_of(config))))


def settings_of(config: Any) -> Any:
    """Return a config as nested dictionaries, including the names of its registered choices."""
    if isinstance(config, list):
        return [settings_of(item) for item in config]
    if isinstance(config, str):
        return str(config)  # no subclass, which YAML does not know
    if isinstance(config, PassedObject):
        return {"object": str(config)}
    if not is_dataclass(config) or isinstance(config, type):
        return config
    values = {item.name: settings_of(getattr(config, item.name)) for item in fields(config)}
    if (place := registry.place_of(config)) is not None:
        return {"name": place[1], **values} if place[0] != "evaluation" else values
    is_own = callable(getattr(config, "build", None)) and not type(config).__module__.startswith("eztorch_sce.")
    return {"object": name_of_object(config), **values} if is_own else values


def _escaped(node: Any) -> Any:
    """Escape `${` in the texts of nested dictionaries and lists, which OmegaConf would read as interpolations."""
    if isinstance(node, dict):
        return {name: _escaped(value) for name, value in node.items()}
    if isinstance(node, (list, tuple)):
        return [_escaped(item) for item in node]
    return escape_interpolations(node) if isinstance(node, str) else node


class Changes(NamedTuple):
    """Settings of Python that change those of a recipe.

    Attributes:
        settings: Nested settings, as a file would hold them.
        objects: Paths of further settings, whose values no file can hold.
        label: What messages call them.
    """

    settings: Mapping[str, Any]
    objects: Collection[str]
    label: str


NO_CHANGES = Changes({}, (), "")


class Prepared(NamedTuple):
    """Overrides as Hydra takes them.

    Attributes:
        words: The overrides.
        remarks: One sentence per choice that replaces one of a recipe or file, with what is left out.
        starts: The recipes or files; one, except in a sweep.
        typed: Paths of the settings that were typed, or passed in Python.
        choices: Names of the choices that are made, by path; in a sweep, the first.
    """

    words: list[str]
    remarks: list[str]
    starts: list[StartingPoint]
    typed: frozenset[str]
    choices: dict[str, str | None]

    def origins(self, settings: Any) -> Origins:
        """Return the origins of the settings of the composed config, given as nested dictionaries."""
        files = self.starts[0].places if len(self.starts) == 1 else {}
        return origins_of(settings, files, self.typed, self.choices)


def prepare(command: str, overrides: Sequence[str], changes: Changes = NO_CHANGES) -> Prepared:
    """Register with Hydra what a command starts from and what can be chosen, and return the overrides for Hydra.

    Args:
        command: The command.
        overrides: `key=value`, with free text in quotes. In a sweep, a choice may have several values.
        changes: Settings that change those of the recipe or file, before the overrides.

    Raises:
        StartError: If `recipe` or `config` does not name a starting point of the command, or if a loss is typed for a
            method that has its own.
        HydraException, OmegaConfBaseException: If the number of views is needed, but the overrides do not compose.
    """
    config_class = commands()[command]
    choices = choice_fields(config_class)
    chosen = [override for text in overrides if (override := parsed(text)) and override.type.name == "CHANGE"]
    typed = {
        path: values_of(override, choices[path].names()) for override in chosen if (path := _path(override)) in choices
    }
    starts = _starting_points(command, chosen, choices, changes)
    if method := _method_with_own_loss(typed, starts, choices):
        typed |= _without_loss(method, typed, chosen)
    made = {path for path, names in typed.items() if names != [None]}
    made |= {path for path, choice in choices.items() if path not in typed and any(s.own(choice) for s in starts)}
    usable: Chosen = dict(typed)
    if any(text.startswith("hydra.sweeper") for text in overrides):  # which makes choices of its own
        usable = {path: [*choice.names(), *usable.get(path, [])] for path, choice in choices.items()}
    store_command(command, config_class)
    for start in starts if len(starts) == 1 else [StartingPoint()]:
        store_start(config_class, start, usable)
    for start in starts if len(starts) > 1 else []:  # in a sweep, each has options of its own
        store_start(config_class, start, usable, f"{start.slug}/")
    remarks = [remark for start in starts for remark in start.remarks]
    remarks += [
        remark
        for path, names in typed.items()
        for start in starts
        for name in names
        if (remark := start.left_out(choices[path], name))
    ]
    folder = "${recipe}/" if len(starts) > 1 else ""
    words = [f"recipe={','.join(start.slug for start in starts)}"] if starts != [StartingPoint()] else []
    words += [
        f"{group_of(path)}={','.join(folder + (name or UNSET) for name in names)}" for path, names in typed.items()
    ]
    others = [text for text in overrides if (each := parsed(text)) is None or _path(each) not in (*KEYS, *typed)]
    if "adjust" in {item.name for item in fields(config_class)}:
        others = redirected(others, made)
    words += _for_each_view(command, overrides, others, changes)
    made_names = {
        path: typed[path][0] if typed.get(path) else starts[0].own(choice) for path, choice in choices.items()
    }
    all_typed = {_path(override) for override in chosen} | {path for path, _ in flat(changes.settings, "")}
    all_typed |= {word.split("=", 1)[0].lstrip("+") for word in words}
    return Prepared(
        words, list(dict.fromkeys(remarks)), starts, frozenset(all_typed | set(changes.objects)), made_names
    )


def _method_with_own_loss(
    typed: Mapping[str, Sequence[str | None]], starts: Sequence[StartingPoint], choices: Mapping[str, ChoiceField]
) -> str | None:
    """Return the name of the method, if it computes its own loss; of several for a sweep, if all of them do."""
    if "method" not in choices:
        return None
    names = typed.get("method") or [start.own(choices["method"]) for start in starts]
    known = registry.choices("method")
    return names[0] if all(has_own_loss(known.get(str(name))) for name in names) else None


def _without_loss(
    method: str, typed: Mapping[str, Sequence[str | None]], chosen: Sequence[Override]
) -> dict[str, list[str | None]]:
    """Return the choice of no loss, unless settings of a loss are typed, which validation rejects."""
    if losses := [name for name in typed.get("loss", []) if name is not None]:
        raise StartError([own_loss_message(losses[0], method)], guess="null")
    return {} if any(_path(override).startswith("loss.") for override in chosen) else {"loss": [None]}


def _starting_points(
    command: str, chosen: Sequence[Override], choices: Mapping[str, ChoiceField], changes: Changes
) -> list[StartingPoint]:
    """Return what the typed recipe or file holds; several for a sweep, and an empty one if none is typed."""
    typed = {override.key_or_group: override for override in chosen if override.key_or_group in KEYS}
    values = {key: values_of(override, list(recipes())) for key, override in typed.items()}
    values = {key: names for key, names in values.items() if names != [None]}
    if len(values) > 1:
        raise StartError(["recipe and config both say what to start from: remove one of them"])
    starts = [load_start(command, choices, key, name) for key, names in values.items() for name in names]
    replaced = [*map(_path, chosen), *changes.settings, *changes.objects]
    names = [f"{path}.name" for path in named_parts(commands()[command])]
    starts = [start.without_objects(replaced).without_settings(names) for start in starts]
    mistakes = [text for start in starts for text in mistakes_in(start, commands()[command], choices)]
    if changes.settings and not mistakes:
        starts = [start.with_settings(changes.settings, choices) for start in starts]
        settings = separated(changes.settings, choices)[1]
        changed = [replace(start, label=changes.label, settings=settings, places={}) for start in starts]
        mistakes = [text for start in changed for text in mistakes_in(start, commands()[command], choices)]
    if mistakes:
        raise StartError(mistakes)
    return starts or [StartingPoint()]


def _path(override: Override) -> str:
    return str(override.key_or_group).replace("/", ".")


def _for_each_view(command: str, overrides: Sequence[str], others: list[str], changes: Changes) -> list[str]:
    """Replace `views.*.size=64` by one override per view."""
    if not any(text.startswith("views.*.") for text in others):
        return others
    # Only these settings decide the number of views; the others may hold several values for a sweep.
    deciding = [text for text in overrides if text.split("=")[0] in ("views", *KEYS)]
    num_views = len(compose_by_hydra(command, prepare(command, deciding, changes).words).views)
    return [
        each
        for text in others
        for each in (
            [text.replace("*", str(number), 1) for number in range(num_views)]
            if text.startswith("views.*.")
            else [text]
        )
    ]


def compose_by_hydra(command: str, words: Sequence[str]) -> DictConfig:
    """Return the config of a command as composed by Hydra, without validating it.

    Args:
        command: The command.
        words: Overrides from `prepare`.

    Raises:
        HydraException, OmegaConfBaseException: If the overrides do not compose.
    """
    GlobalHydra.instance().clear()
    with initialize(config_path=None, version_base="1.3"):
        return hydra_compose(command, list(words))


def say(remarks: Sequence[str]) -> None:
    """Print remarks about a config, in the first process."""
    for remark in remarks if is_first_process() else []:
        print_above(remark)
