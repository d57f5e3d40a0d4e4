"""Help on the choices that plugins add, described on top of the generated reference."""

import copy

from eztorch_sce import registry
from eztorch_sce.config.reference import Description, Entry, Reference, describe
from eztorch_sce.plugins import plugin_of


def with_added(reference: Reference) -> Reference:
    """Return a reference that also holds the choices, views and evaluations that plugins have registered."""
    added = registry.added_choices()
    if not added:
        return reference
    reference = copy.deepcopy(reference)
    reference.policies = sorted([*reference.policies, *added.get("views", {})])
    for name, cls in added.get("evaluation", {}).items():
        reference.commands[name] = _described(cls, reference)
    for group in added.keys() - {"views", "evaluation"}:
        members = {name: _described(cls, reference) for name, cls in added[group].items()}
        reference.choices[group] = dict(sorted((reference.choices.get(group, {}) | members).items()))
    for description in (*reference.commands.values(), *reference.configs.values()):
        for name, entry in description.settings.items():
            _allow(name, entry, reference, added)
    return reference


def _described(cls: type, reference: Reference) -> Description:
    description = describe(cls, reference)
    automatic = (cls.__doc__ or "").startswith(f"{cls.__name__}(")  # the signature, which dataclass fills in
    summary = f"{cls.__name__}." if automatic or not description.summary else description.summary
    description.summary = f"{summary.removesuffix('.')} (of the plugin {plugin_of(cls)})."
    return description


def _allow(name: str, entry: Entry, reference: Reference, added: dict[str, dict[str, type]]) -> None:
    """Add to the allowed values of a setting what plugins have registered for it."""
    if entry.group in added:
        entry.choices = list(reference.choices[entry.group])
    elif name == "decoder" and "decoder" in added:
        entry.choices = [*entry.choices, *added["decoder"]]
