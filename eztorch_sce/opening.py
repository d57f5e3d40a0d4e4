"""Opening of a run: data, weights and network, checked for compatibility before any expensive work starts."""

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias, TypedDict, TypeVar

from torch import nn

from eztorch_sce import signals
from eztorch_sce.augment.view import ViewConfig
from eztorch_sce.config.adjust import adjusted
from eztorch_sce.config.fit import fit_input
from eztorch_sce.config.parts import CommandConfig
from eztorch_sce.config.schema import FinetuneConfig, PretrainConfig, validate
from eztorch_sce.data.config import DataConfig
from eztorch_sce.data.loading import check_batch_size, input_spec
from eztorch_sce.data.sources.holdout import holdout_as_trained
from eztorch_sce.data.sources.labels import check_labels, label_messages
from eztorch_sce.data.sources.manifest import Manifest
from eztorch_sce.data.sources.provenance import Provenance, trained_with_labels
from eztorch_sce.data.sources.splits import Splits
from eztorch_sce.data.sources.summary import DataSummary
from eztorch_sce.errors import ConfigError, counted, did_you_mean, shorten
from eztorch_sce.evaluation.base import FeaturesConfig
from eztorch_sce.launch import is_first_process
from eztorch_sce.methods.base import Method, check_method, has_own_loss
from eztorch_sce.methods.going_on import go_on_with
from eztorch_sce.models.backbones.base import Backbone, BackboneConfig, as_backbone, build_network
from eztorch_sce.models.weights import Weights, load_weights
from eztorch_sce.objects import PassedObject, as_config, as_configs
from eztorch_sce.progress import print_above
from eztorch_sce.seeding import seed_everything
from eztorch_sce.settings import chosen
from eztorch_sce.types import FeatureBank, InputSpec

if TYPE_CHECKING:
    from eztorch_sce.config.names import BackboneName
    from eztorch_sce.data.sources.source import Source, SourceConfig

    Network: TypeAlias = nn.Module | BackboneConfig | BackboneName
else:
    Network = nn.Module | BackboneConfig | str  # the names of plugins too
"""A backbone: a module from clips (B, C, T, H, W) or images (B, C, H, W) to features (B, F), a config, or a name."""

C = TypeVar("C", bound=CommandConfig)
P = TypeVar("P", bound=PretrainConfig)


class Objects(TypedDict, total=False):
    """Python objects that the functions of the commands take in the place of settings.

    Attributes:
        backbone: Network to load the weights of the config into or, if it has no weights, to use as it is. Its
            attribute `input_spec`, if it has one, describes its input.
        data: Records that replace the files of the config.
        test_data: Records of the test split; without them, it is held out of `data`.
    """

    backbone: Network | None
    data: "Source | SourceConfig | str | None"
    test_data: "Source | None"


def of_kind(config: C, kind: type) -> C:
    """Return the config. Raise TypeError unless it is an object of `kind`, the class that a function takes."""
    if isinstance(config, kind):
        return config
    example = f"a {kind.__name__}, such as {kind.__name__}(data=DataConfig(root=...))"
    if inspect.isabstract(kind):
        example = "the config of an evaluation, such as KnnConfig(weights=..., data=DataConfig(root=...))"
    name = f"the class {config.__name__}" if isinstance(config, type) else f"an object of {type(config).__name__}"
    raise TypeError(f"expected {example}, got {name}")


def with_objects(config: C, kind: type, objects: Objects, **choices: object) -> C:
    """Return the validated config of a command, with objects in the place of its settings.

    Args:
        config: The config.
        kind: The class of config that the command takes.
        objects: What the caller passed.
        choices: Further choices by group, "loss" and "method": a name, a config, an object, or None.

    Raises:
        TypeError: If the config or an argument is not one of the command.
        ConfigError: If an object or a setting is invalid.
    """
    of_kind(config, kind)
    for name in objects.keys() - Objects.__annotations__.keys():
        known = [*Objects.__annotations__, *choices, "callbacks", "loggers"]
        raise TypeError(f"{name} is not an argument{did_you_mean(name, known)}")
    data, test_data, backbone = (objects.get(name) for name in ("data", "test_data", "backbone"))
    if isinstance(data, DataConfig):
        cure = f"pass it as {type(config).__name__}(data=...); the argument data takes records"
        raise ConfigError([f"data=DataConfig(...) holds settings: {cure}"])
    if data is not None:
        config = replace(config, data=config.data.with_source(data, test_data))  # type: ignore[call-arg,attr-defined]
    elif test_data is not None:
        raise ConfigError(["test_data is set but data is not: pass both"])
    if backbone is not None and (isinstance(config, PretrainConfig) or getattr(config, "weights", None) is None):
        choices = {"backbone": backbone, **choices}
    config = replace(config, **as_configs(choices))
    if isinstance(config, PretrainConfig) and isinstance(config.method, PassedObject):
        check_method(config.method.value, config.method)
        config = replace(config, backbone=as_config("backbone", config.method.value.backbone))
    is_replaced = choices.get("method") is not None and choices.get("loss") is None
    if isinstance(config, PretrainConfig) and is_replaced and has_own_loss(config.method):
        config = replace(config, loss=None)  # it belonged to the method of the config
    config = validate(config)
    signals.allow(config.run.grace_s)
    return config


def with_settings_of_weights(config: P) -> P:
    """Return the config of a pretraining with the network and the queue size of its weights, unless they are set.

    Raises:
        ConfigError: If the weights file is missing, or does not describe its network.
    """
    if config.weights is None:
        return config
    weights = load_weights(str(config.weights))
    keys = weights.method.get("queue.keys")
    if keys is not None and getattr(config.method, "queue_size", 0) is None:
        config = replace(config, method=replace(config.method, queue_size=len(keys)))
    if config.backbone is not None:
        return config
    network = adjusted("backbone", weights.config(), config.adjust)
    others = {name: settings for name, settings in config.adjust.items() if name != "backbone"}
    return replace(config, backbone=network, adjust=others)


class BackboneSource(NamedTuple):
    """Origin of a backbone: a weights file, or a config alone.

    Attributes:
        config: The config that builds the backbone.
        spec: The input it was trained on; the default for a new one.
        weights: Content of the weights file, or None without one.
        file: Path of the weights file as typed, or None without one.
        untrained: Whether the backbone is initialized at random.
    """

    config: BackboneConfig
    spec: InputSpec
    weights: Weights | None
    file: str | None
    untrained: bool

    @classmethod
    def of(cls, config: FeaturesConfig | FinetuneConfig, backbone: Network | None) -> "BackboneSource":
        """Return the weights or else the backbone of a config; `backbone` is the network to load the weights into."""
        if config.weights is None:
            return cls.from_config(chosen(config.backbone))
        return cls.from_weights(config.weights, config.untrained, backbone)

    @classmethod
    def from_weights(
        cls, file: str | None, untrained: bool = False, backbone: Network | None = None
    ) -> "BackboneSource":
        """Read a weights file; with `untrained`, only the architecture and the input are taken from it.

        Args:
            file: The weights file, or the run directory that contains it.
            untrained: Initialize the network at random.
            backbone: The network to load the weights into; None builds the one that the file describes.

        Raises:
            ConfigError: If the file is missing or is not a weights file, or if it does not describe its network.
        """
        weights = load_weights(str(file))
        _say_source(weights)
        config = weights.config() if backbone is None else as_config("backbone", backbone)
        return cls(config, weights.spec, weights, file, untrained)

    @classmethod
    def for_pretraining(cls, config: PretrainConfig) -> "BackboneSource":
        """Return the backbone of a pretraining, with the weights that it starts from if they are set.

        Raises:
            ConfigError: If the weights file is missing or is not one.
        """
        source = cls.from_config(chosen(config.backbone))
        if config.weights is None:
            return source
        weights = load_weights(str(config.weights))
        _say_source(weights)
        return source._replace(weights=weights, file=str(config.weights), untrained=False)

    @classmethod
    def from_config(cls, config: BackboneConfig) -> "BackboneSource":
        """Return the source of a new backbone, initialized at random, or of one that was passed as an object."""
        if isinstance(config, PassedObject):
            spec = getattr(config.value, "input_spec", None) or InputSpec()
            return cls(config, spec, None, None, untrained=False)
        describe = getattr(config, "input_spec", None)
        return cls(config, describe() if callable(describe) else InputSpec(), None, None, untrained=True)

    def fitted(self, data: DataConfig, manifest: Manifest) -> "BackboneSource":
        """Return the same source; if nothing describes the input of the network, it is chosen as for a pretraining."""
        if self.weights is not None or self.spec != InputSpec():
            return self
        config = fit_input(PretrainConfig(data=data, backbone=self.config), manifest)
        return self._replace(spec=input_spec(config.data, manifest, self.spec, config.views[0]))

    @property
    def provenance(self) -> Provenance | None:
        """The records that the weights were trained on, or None if that is not known."""
        return None if self.weights is None else self.weights.provenance

    def build(self, spec: InputSpec) -> Backbone:
        """Return the backbone, for an input."""
        backbone = as_backbone(build_network(self.config), num_frames=spec.num_frames, size=spec.size)
        if self.weights is not None and not self.untrained:
            self.weights.load_into(backbone)
        return backbone

    def card(self) -> dict[str, Any]:
        """Return the origin for the protocol card of a report."""
        card: dict[str, Any] = {"file": None, "untrained": self.untrained}
        if self.weights is not None:
            card |= {"file": self.file, "sha256": self.weights.sha256}
            if self.weights.source is not None:
                card["imported"] = self.weights.source
        return card | ({"object": str(self.config)} if isinstance(self.config, PassedObject) else {})


def go_on(method: Method, opened: "Opened") -> dict[str, Any]:
    """Load what a pretraining goes on with beside its backbone, say so, and return it for the protocol card."""
    weights, card = opened.source.weights, dict[str, Any]()
    if weights is None or weights.source is None:
        return card
    lines: list[str] = []
    if weights.method:
        assert isinstance(method, nn.Module)  # as `check_method` has checked
        going_on = go_on_with(method, weights.method)
        lines, card = going_on.lines(weights.file), going_on.card()
    if opened.spec.stats != weights.spec.stats:
        differ = f"was trained with the statistics {weights.spec.stats}, but the views have {opened.spec.stats}"
        lines.append(f"note: weights={weights.file} {differ}: views.*.stats=null takes the former")
    for line in lines if is_first_process() else ():
        print_above(line)
    return card


def _say_source(weights: Weights) -> None:
    """Print in the first process what was taken from a file of another code base."""
    if weights.source is None or not is_first_process():
        return
    print_above(f"weights={weights.file}: {weights.source['title']}: {weights.source['tensors']} tensors")
    for note in weights.source["notes"]:
        print_above(f"  note: {note}")


class Opened(NamedTuple):
    """Data and network of a run, checked for compatibility.

    Attributes:
        train: The train split.
        test: The test split, or None if the data have none.
        views: Training views, with unset values taken from the source; empty for an evaluation.
        source: Origin of the backbone.
        spec: The input of the backbone.
        backbone: The backbone.
    """

    train: Manifest
    test: Manifest | None
    views: list[ViewConfig]
    source: BackboneSource
    spec: InputSpec
    backbone: Backbone

    @property
    def labeled_test(self) -> Manifest:
        """The test split. Labeled data always have one."""
        assert self.test is not None
        return self.test


def open_labeled(data: DataConfig, seed: int, source: BackboneSource) -> Splits:
    """Open labeled data. If there is no test split, hold out what the weights held out, or else draw what is held out.

    Args:
        data: Settings of the data.
        seed: Seed of the draw.
        source: Origin of the backbone.

    Raises:
        ConfigError: If files or labels are missing in either split, if the weights were trained with the labels of test
            records, or if the data cannot be divided as the weights divided them.
    """
    _check_settings(data)
    splits = data.open_with_test(seed, source.provenance)
    check_labels(splits)
    _check_untrained(splits.labeled_test, source)
    return splits


def open_for_extraction(data: DataConfig, seed: int, source: BackboneSource) -> Splits:
    """Open data to extract features from: labeled data as `open_labeled` does, unlabeled data without a held-out split.

    Raises:
        ConfigError: As `open_labeled`, or if a subset of the labels is chosen without labels.
    """
    _check_settings(data)
    splits = data.open_with_test(seed, source.provenance)
    if splits.train.classes:
        check_labels(splits)
    else:
        data.check_no_label_subset()
    if splits.test is not None:
        _check_untrained(splits.test, source)
    return splits


def open_test(data: DataConfig, seed: int, source: BackboneSource) -> Splits:
    """Open the data to test a classifier on.

    Without a test split, that is what the classifier held out of these data, or all of them if it was trained on
    others. If its file does not say what it was trained on, the test split is drawn with the seed.

    Raises:
        ConfigError: As `open_labeled`.
    """
    _check_settings(data)
    provenance = source.provenance
    is_recorded = provenance is not None and provenance.trained is not None
    splits = data.open() if is_recorded else data.open_with_test(seed)
    if splits.test is None and splits.train.classes:
        splits = holdout_as_trained(splits, provenance, data.test_fraction, data.group) or _all_as_test(data, splits)
    test = splits.test or splits.train
    if messages := label_messages(test, "the test split", "data.test_list" if splits.test else "data.list"):
        raise ConfigError(messages)
    _check_untrained(test, source)
    return splits


def _all_as_test(data: DataConfig, splits: Splits) -> Splits:
    """Return the only split as train and as test split."""
    if data.test_fraction is not None:
        cure = "leave it out to test on all records"
        raise ConfigError([f"data.test_fraction={data.test_fraction} has no effect on data not trained on: {cure}"])
    return splits._replace(test=splits.train, origin=f"{splits.origin}: all records are tested")


def _check_untrained(test: Manifest, source: BackboneSource) -> None:
    """Raise ConfigError if the backbone was trained with the labels of test records."""
    if source.untrained:
        return
    if trained := trained_with_labels(test, source.provenance):
        count = f"{len(trained)} of the {len(test.records)} test records ({test.source})"
        cure = "test on the data that were held out: the same data and data.group as in its training"
        raise ConfigError([f"weights={source.file} was trained with the labels of {count}: {shorten(trained)}; {cure}"])


def _check_settings(data: DataConfig) -> None:
    """Raise ConfigError if a setting has no effect outside of a pretraining."""
    if data.pretrain_on != "train":
        cure = "it says which records a pretraining sees: remove it here"
        raise ConfigError([f"data.pretrain_on={data.pretrain_on} has no effect on this command; {cure}"])


def summarize(splits: Splits, remark: str = "", online: Splits | None = None) -> dict[str, Any]:
    """Print what was understood of the data, in the first process, and return it for the protocol card.

    Args:
        splits: The opened data.
        remark: What else there is to say about the origin of the split.
        online: The data of the online evaluation, if they are others.
    """
    summary = DataSummary.of(splits)
    summary.origin = "; ".join(filter(None, [splits.origin, remark]))
    _print_summary(summary, None if online is None else DataSummary.of(online))
    return summary.card()


def summarize_features(train: FeatureBank, test: FeatureBank, run_dir: str) -> dict[str, Any]:
    """Do the same for features that `extract` wrote to a run directory."""
    summary = DataSummary.of_features(train, test)
    origin = ", ".join(filter(None, [summary.origin, f"features={run_dir}"]))
    _print_summary(replace(summary, origin=origin))
    return summary.card()


_said: ContextVar[set[str] | None] = ContextVar("_said", default=None)  # lines that need not be said again


@contextmanager
def saying_once() -> Iterator[None]:
    """Print each line about the data only once, for a command that runs others on the same data."""
    token = _said.set(set())
    try:
        yield
    finally:
        _said.reset(token)


def _print_summary(summary: DataSummary, online: DataSummary | None = None) -> None:
    said = _said.get()
    for line in summary.lines(online) if is_first_process() else []:
        if said is None or line not in said:
            print_above(line)
        if said is not None:
            said.add(line)


def open_training(
    data: DataConfig, splits: Splits, views: list[ViewConfig], source: BackboneSource, seed: int
) -> Opened:
    """Build the backbone for a training on random views.

    Args:
        data: Settings of the data.
        splits: The opened data.
        views: Training views; size, input and statistics may be unset.
        source: Origin of the backbone.
        seed: Seed of the run, and of a random initialization.

    Raises:
        ConfigError: If the data, the views and the backbone are incompatible.
    """
    known = source.spec if source.weights is None else source.weights.spec
    views = [view.filled_in(known) for view in views]
    check_batch_size(data, splits.train)
    return _open(data, splits, views, source, seed)


def open_evaluation(data: DataConfig, splits: Splits, source: BackboneSource, seed: int) -> Opened:
    """Build the backbone for an evaluation on clips and crops; see `open_training`."""
    return _open(data, splits, [], source.fitted(data, splits.train), seed)


def check_classes(manifest: Manifest, classes: list[str]) -> None:
    """Raise ConfigError, with the names that differ, unless the data have a classifier's classes in the same order."""
    if manifest.classes == classes:
        return
    new = [name for name in manifest.classes if name not in set(classes)]
    absent = [name for name in classes if name not in set(manifest.classes)]
    differences = []
    if new:
        differences.append(f"{counted(len(new), 'class', 'classes')} unknown to the classifier: {shorten(new, num=10)}")
    if absent:
        differences.append(
            f"{counted(len(absent), 'class', 'classes')} of the classifier missing: {shorten(absent, num=10)}"
        )
    if not differences:
        pairs = enumerate(zip(manifest.classes, classes, strict=True))
        number, (here, there) = next((number, pair) for number, pair in pairs if pair[0] != pair[1])
        differences = [f"the classes in a different order: class {number} is {here}, but {there} in the classifier"]
    cure = f"give data with the {len(classes)} classes that the classifier was trained on, in its order"
    raise ConfigError([f"{manifest.source} has {', and '.join(differences)}; {cure}"])


def check_num_classes(manifest: Manifest, weights: Weights) -> None:
    """Check the data of a classifier whose file does not name its classes, and say that their order is assumed.

    Raises:
        ConfigError: If the data have another number of classes than the classifier.
    """
    assert weights.head is not None
    count, outputs = len(manifest.classes), len(weights.head["bias"])
    if count != outputs:
        cure = f"give data with the {outputs} classes that it was trained on"
        raise ConfigError(
            [f"weights={weights.file} classifies {outputs} classes, but {manifest.source} has {count}; {cure}"]
        )
    if is_first_process():
        order = f"its outputs are assumed to be {shorten(manifest.classes, num=3)}, in the order of the data"
        print_above(f"note: weights={weights.file} does not name its classes: {order}")


def _open(data: DataConfig, splits: Splits, views: list[ViewConfig], source: BackboneSource, seed: int) -> Opened:
    spec = input_spec(data, splits.train, source.spec, views[0] if views else None)
    seed_everything(seed)
    backbone = source.build(spec)
    _check_input(backbone, splits.train, spec)
    backbone.input_spec = spec
    return Opened(splits.train, splits.test, views, source, spec, backbone)


def _check_input(backbone: Backbone, manifest: Manifest, spec: InputSpec) -> None:
    has_videos = not manifest.records.all_images()
    if has_videos and spec.num_frames > 1 and not backbone.takes_clips:
        raise ConfigError(
            [
                f"the backbone takes single images, but {manifest.source} holds videos, read as clips of "
                f"{spec.num_frames} frames: choose a video backbone (backbone=r3d18) or data.num_frames=1"
            ]
        )
    if not has_videos and spec.input == "difference":
        cure = "choose videos, or views or weights with input=rgb"
        raise ConfigError([f"input=difference needs several frames, but {manifest.source} holds images: {cure}"])
