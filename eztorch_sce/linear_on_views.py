"""Linear evaluation on features of new random views in every epoch, as in the published protocols."""

from eztorch_sce.evaluation.features import sampling_of
from eztorch_sce.evaluation.linear import LinearConfig, LinearHeads, choice_metrics, heads_scores, sweep_scores
from eztorch_sce.extraction import records_card, views_of
from eztorch_sce.opening import BackboneSource, Network, open_labeled, open_training, summarize
from eztorch_sce.report.protocol import training_card
from eztorch_sce.report.run_directory import open_run
from eztorch_sce.results import chance_of, write_results
from eztorch_sce.types import Report


def linear_on_views(config: LinearConfig, backbone: Network | None) -> Report:
    """Train linear classifiers on features of new random views in every epoch, and test them on clips and crops."""
    from eztorch_sce.data.datamodule import TrainingData
    from eztorch_sce.training.determinism import determinism_of
    from eztorch_sce.training.probe_module import ProbeModule, ValidationHeads
    from eztorch_sce.training.trainer import fit

    source = BackboneSource.of(config, backbone)
    splits = open_labeled(config.data, config.seed, source)
    summary = summarize(splits)
    opened = open_training(config.data, splits, config.views, source, config.seed)
    sampling_of(config.test, opened.spec)  # raises before anything is written
    held_out = config.held_out(opened.train) if config.probe().selects_on_validation else None

    loaded = TrainingData(config.data, opened.train, opened.views, opened.spec, config.seed, config.trainer)
    run_dir = open_run("linear", config, opened.train.records, labeled=True)
    heads = LinearHeads(opened.backbone.num_features, len(opened.train.classes), config.probe().lrs)
    views = loaded.augmentation
    validation = None if held_out is None else ValidationHeads(heads, held_out)
    module = ProbeModule(
        opened.backbone, heads, views, config.optimizer, config.schedule, config.data.samples_per_step, validation
    )
    trainer = fit(module, loaded, config, run_dir)

    device, choice = trainer.strategy.root_device, {}
    if validation is not None:
        chosen_on = opened.train.with_records(
            opened.train.records.where(validation.held_out.cpu().numpy()), "validation"
        )
        records = views_of(config, opened, chosen_on, "validation records", device)._replace(skip_unreadable=True)
        choice = choice_metrics(heads.lrs, heads_scores(opened.backbone, validation.heads, records, device)[0])
        heads = heads.only(choice["linear_lr"])
    test_views = views_of(config, opened, opened.labeled_test, "test split", device)
    by_head, bank = heads_scores(opened.backbone, heads, test_views, device)
    scores = sweep_scores(heads.lrs, by_head)
    metrics = scores.metrics | choice
    protocol = test_views.protocol | records_card(opened, summary)
    protocol |= {"train": opened.train.source, "training": training_card(config)}
    chance = chance_of(metrics, opened)
    report = Report("linear", metrics, protocol, run_dir, chance, determinism=determinism_of(trainer))
    return write_results(report, config, scores, None, bank)
