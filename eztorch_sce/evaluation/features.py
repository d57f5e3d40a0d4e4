"""From a frozen backbone to features: the mean over the views of each record."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from eztorch_sce.augment.view import View, evaluation_view
from eztorch_sce.data.loading import TimedLoader
from eztorch_sce.data.sources.manifest import Manifest
from eztorch_sce.distributed import gather_rows
from eztorch_sce.errors import MediaError
from eztorch_sce.progress import track
from eztorch_sce.types import Batch, FeatureBank, InputSpec


def extract_features(
    backbone: torch.nn.Module,
    spec: InputSpec,
    loader: TimedLoader,
    manifest: Manifest,
    device: torch.device,
    protocol: dict[str, Any],
    title: str,
) -> FeatureBank:
    """Return the pooled backbone features of each record, averaged over its views.

    Args:
        backbone: (B, C, T, S, S) to (B, F); put in evaluation mode.
        spec: What it sees.
        loader: The views of each record.
        manifest: The records, for labels and paths.
        device: Where to compute.
        protocol: Kept with the features.
        title: Shown beside the progress bar.

    Raises:
        MediaError: If a file cannot be read; in evaluation none is left out.
    """
    features, records = mean_over_views(backbone, lambda output: output, spec, loader, device, title)
    order = records.argsort()  # processes interleave
    records, features = records[order], features[order]
    chosen = [manifest.records[i] for i in records.tolist()]
    labels = torch.tensor([-1 if record.label is None else record.label for record in chosen], dtype=torch.long)
    return FeatureBank(features, labels, [record.path for record in chosen], manifest.classes, protocol)


@torch.no_grad()
def mean_over_views(
    network: torch.nn.Module,
    finish: Callable[[Tensor], Tensor],
    spec: InputSpec,
    loader: TimedLoader,
    device: torch.device,
    title: str,
) -> tuple[Tensor, Tensor]:
    """Return (N, F) outputs, each the mean of `finish(network(view))` over the views of a record, and (N,) records."""
    network.to(device).eval()
    show = View(evaluation_view(spec)).to(device)
    rows: list[Tensor] = []
    records: list[Tensor] = []
    for batch in track(loader, len(loader), f"{title}, batches"):
        _raise_on_failures(batch)
        views = [show(clips.to(device, non_blocking=True), []) for clips in batch.frames]
        outputs = torch.stack([finish(network(view)).float() for view in views])  # (V, B, F)
        rows.append(outputs.mean(dim=0).cpu())
        records.append(batch.record)
    # Through the device: between GPUs nothing else can be sent.
    return gather_rows(torch.cat(rows).to(device)).cpu(), gather_rows(torch.cat(records).to(device)).cpu()


def _raise_on_failures(batch: Batch) -> None:
    """Stop at a file that cannot be read; processes have different numbers of batches, so nobody is asked first."""
    if batch.failures:
        first = batch.failures[0]
        more = "" if len(batch.failures) == 1 else f" (and {len(batch.failures) - 1} more in the same batch)"
        raise MediaError(
            first.path, f"{first.reason}{more}. Evaluation leaves no file out: mend it or take it off the list"
        )
