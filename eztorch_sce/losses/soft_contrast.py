"""The family of soft contrastive losses: SCE and what it generalizes, InfoNCE, NT-Xent and ReSSL."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from eztorch_sce.losses.pairs import PairLoss, PairLosses, accurate, check_finite, check_norms, check_pair
from eztorch_sce.losses.streaming import Keys, attend, log_sum_exp
from eztorch_sce.optim.ramp import NO_RAMP, Ramp

IMPLEMENTATIONS = ("streaming", "dense")


class SoftContrast(PairLoss):
    """Cross entropy between a target over the keys and the softmax of a query's similarities with them.

    With keys k_j, the relation of sample i is one vector, R_i = softmax_j(k_i . k_j / target_temperature) k_j, the
    positive left out. With w the weight of the positive and p_i what is predicted for it, the loss is
    -w log p_i + (1 - w) (logsumexp_j(q_i . k_j / temperature) - q_i . R_i / temperature).

    Args:
        temperature: Divides the similarities of the query; > 0.
        target_temperature: Divides the similarities of the key; > 0.
        positive_weight: Share of the target on the positive, in [0, 1].
        implementation: "streaming" holds no similarities; "dense" is written as in the papers, for reading and for
            second derivatives.
        positive_is_candidate: The positive is among what the query is compared with.
        keys_learn: Keys take gradients too.
        weight: Multiplies the loss; > 0.
        target_temperature_ramp, positive_weight_ramp: How the two get to their values in training.

    Raises:
        ValueError: If an argument is out of range.
    """

    def __init__(
        self,
        temperature: float,
        target_temperature: float = 1.0,
        positive_weight: float = 1.0,
        implementation: str = "streaming",
        positive_is_candidate: bool = True,
        keys_learn: bool = False,
        weight: float = 1.0,
        target_temperature_ramp: Ramp = NO_RAMP,
        positive_weight_ramp: Ramp = NO_RAMP,
    ) -> None:
        super().__init__()
        name = type(self).__name__
        problems = setting_problems(
            name,
            temperature,
            target_temperature,
            positive_weight,
            implementation,
            weight,
            target_temperature_ramp,
            positive_weight_ramp,
        )
        problems += target_temperature_ramp.problems(f"{name}.target_temperature_ramp")
        problems += positive_weight_ramp.problems(f"{name}.positive_weight_ramp")
        if problems:
            raise ValueError("; ".join(problems))
        self.temperature, self.implementation, self.weight = temperature, implementation, weight
        self.final_target_temperature, self.target_temperature_ramp = target_temperature, target_temperature_ramp
        self.final_positive_weight, self.positive_weight_ramp = positive_weight, positive_weight_ramp
        self.positive_is_candidate, self.keys_learn = positive_is_candidate, keys_learn
        self._norms_checked = False
        self.set_progress(0.0)

    def extra_repr(self) -> str:
        """Show the settings when printed."""
        return (
            f"temperature={self.temperature}, target_temperature={self.target_temperature}, "
            f"positive_weight={self.positive_weight}, implementation={self.implementation}"
        )

    def set_progress(self, progress: float) -> None:
        """Move the target's settings to where their ramps are at `progress` in [0, 1] of training."""
        self.target_temperature = self.target_temperature_ramp.at(progress, self.final_target_temperature)
        self.positive_weight = self.positive_weight_ramp.at(progress, self.final_positive_weight)

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        negatives: Tensor | None = None,
        batch_keys: Tensor | None = None,
        batch_offset: int = 0,
    ) -> Tensor:
        """Return the batch mean, a scalar; arguments as in `PairLoss.forward`.

        Raises:
            ValueError: If shapes or types do not fit, there is nothing to contrast with, an embedding is not finite
                (on a GPU found on the first call only), or not of unit norm (found on the first call).
        """
        in_batch = None if batch_keys is None else [batch_keys]
        return self.over_pairs([query], [key], [(0, 0)], negatives, in_batch, batch_offset).loss

    def over_pairs(
        self,
        queries: list[Tensor],
        keys: list[Tensor],
        pairs: list[tuple[int, int]],
        negatives: Tensor | None = None,
        batch_keys: list[Tensor] | None = None,
        batch_offset: int = 0,
    ) -> PairLosses:
        """Return the mean over pairs; a target is made once per key view, and the queue is read once for all of them.

        The queue is read a second time for all query views.
        """
        named = self._check(queries, keys, negatives, batch_keys, batch_offset)
        if not self.keys_learn:
            keys = [key.detach() for key in keys]
            negatives = None if negatives is None else negatives.detach()
            batch_keys = None if batch_keys is None else [rows.detach() for rows in batch_keys]
        with torch.autocast(queries[0].device.type, enabled=False):
            queries, keys = [accurate(query) for query in queries], [accurate(key) for key in keys]
            shared = [] if negatives is None else [Keys(negatives)]
            in_batch = [_per_view(batch_keys, view, batch_offset) for view in range(len(keys))]
            if not shared and not any(in_batch):
                raise ValueError(
                    "nothing to contrast with: give negatives (a queue) or the keys of a batch larger than 1"
                )
            compare = self._dense if self.implementation == "dense" else self._streaming
            losses = compare(queries, keys, pairs, shared, in_batch)
        check_finite(losses.loss, named)
        return losses

    def _streaming(
        self,
        queries: list[Tensor],
        keys: list[Tensor],
        pairs: list[tuple[int, int]],
        shared: list[Keys],
        in_batch: list[list[Keys]],
    ) -> PairLosses:
        """Compare with `shared` keys, the same for every pair, and with those of the batch, by key view."""
        parts = [_log_sum_exps(queries, others, self.temperature) for others in shared]  # each (views, B)
        relations = self._relations(keys, shared, in_batch) if self.positive_weight < 1 else []
        terms, positive_mass, alignment = [], [], []
        for i, j in pairs:
            cosine = (queries[i] * keys[j]).sum(dim=1)  # (B,)
            totals = [part[i] for part in parts]
            totals += [log_sum_exp(queries[i], others, self.temperature) for others in in_batch[j]]
            positive, total = cosine / self.temperature, torch.stack(totals).logsumexp(dim=0)  # (B,)
            # A total less the positive would lose its digits where the positive stands out; this does not.
            log_positive = F.logsigmoid(positive - total) if self.positive_is_candidate else positive - total
            term = -log_positive
            if relations:
                related = (queries[i] * relations[j][0]).sum(dim=1) / self.temperature
                total = torch.logaddexp(total, positive) if self.positive_is_candidate else total
                term = self.positive_weight * term + (1 - self.positive_weight) * (total - related)
            terms.append(term.mean())
            positive_mass.append(log_positive.detach().exp().mean())
            alignment.append((2 - 2 * cosine).detach().mean())
        metrics = {"alignment": torch.stack(alignment).mean()}
        if self.positive_is_candidate:
            metrics["positive_mass"] = torch.stack(positive_mass).mean()
        if relations:
            entropies = torch.cat([entropy for _, entropy in relations])
            metrics["target_entropy"] = entropies.mean()
            metrics["target_neighbors"] = entropies.exp().mean()
        return PairLosses(self.weight * torch.stack(terms).mean(), metrics)

    @torch.no_grad()
    def _relations(
        self, keys: list[Tensor], shared: list[Keys], in_batch: list[list[Keys]]
    ) -> list[tuple[Tensor, Tensor]]:
        """Return per key view the mean of the keys related to it (B, D), and the entropy (B,) of its relation in nats.

        The shared keys are read once for all views.
        """
        sizes, together = [len(key) for key in keys], torch.cat(keys)
        parts = [attend(together, others, self.target_temperature) for others in shared]
        by_view = [list(zip(total.split(sizes), mean.split(sizes), strict=True)) for total, mean in parts]
        relations = []
        for view, key in enumerate(keys):
            seen = [part[view] for part in by_view]
            seen += [attend(key, others, self.target_temperature) for others in in_batch[view]]
            totals, means = zip(*seen, strict=True)
            stacked = torch.stack(totals)  # (parts, B)
            mean = (stacked.softmax(dim=0)[..., None] * torch.stack(means)).sum(dim=0)  # (B, D)
            expected = (key * mean).sum(dim=1) / self.target_temperature
            relations.append((mean, (stacked.logsumexp(dim=0) - expected).clamp_min(0)))
        return relations

    def _dense(
        self,
        queries: list[Tensor],
        keys: list[Tensor],
        pairs: list[tuple[int, int]],
        shared: list[Keys],
        in_batch: list[list[Keys]],
    ) -> PairLosses:
        """Do the same as the papers write it, with every similarity in memory."""
        shared = [Keys(others.rows.clone(), others.own) for others in shared]  # a queue moves on before the backward
        terms = []
        for i, j in pairs:
            others = shared + in_batch[j]
            log_prediction = F.log_softmax(
                self._similarities(queries[i], keys[j], others, self.positive_is_candidate) / self.temperature, dim=1
            )  # (B, 1 + N)
            relation = self._similarities(keys[j], keys[j], others, False) / self.target_temperature
            target = (1 - self.positive_weight) * relation.softmax(dim=1).detach()
            target[:, 0] += self.positive_weight
            # A column left out has probability 0 on both sides; 0 * -inf would be NaN.
            terms.append(-(target * log_prediction.masked_fill(target == 0, 0)).sum(dim=1).mean())
        return PairLosses(self.weight * torch.stack(terms).mean(), {})

    @staticmethod
    def _similarities(anchors: Tensor, key: Tensor, others: list[Keys], positive_counts: bool) -> Tensor:
        """Return cosines (B, 1 + N), with the own key first; what does not count is -inf."""
        positive = (anchors * key).sum(dim=1, keepdim=True)
        columns = [positive if positive_counts else torch.full_like(positive, -torch.inf)]
        for rows, own in others:
            cosines = anchors @ rows.to(anchors.dtype).T
            if own is not None:
                samples = torch.arange(len(anchors), device=anchors.device)
                cosines = cosines.index_put((samples, samples + own), cosines.new_tensor(-torch.inf))
            columns.append(cosines)
        return torch.cat(columns, dim=1)

    def _check(
        self,
        queries: list[Tensor],
        keys: list[Tensor],
        negatives: Tensor | None,
        batch_keys: list[Tensor] | None,
        batch_offset: int,
    ) -> list[tuple[str, Tensor]]:
        """Refuse what does not fit; return all embeddings with the names of their arguments."""
        query = queries[0]
        for other in queries:
            check_pair(other, keys[0])
        for key in keys:
            check_pair(query, key)
        others = [] if negatives is None else [("negatives", negatives)]
        others += [("batch_keys", rows) for rows in batch_keys or []]
        for name, rows in others:
            allowed = (2,) if name == "negatives" else (2, 3)
            if rows.ndim not in allowed or rows.shape[-1] != query.shape[1]:
                raise ValueError(f"{name} must be (N, {query.shape[1]}) like the query: got {tuple(rows.shape)}")
            if name == "negatives" and len(rows) == 0:
                raise ValueError(f"negatives is empty, {tuple(rows.shape)}: leave it out, or fill the queue")
            if name == "batch_keys" and not 0 <= batch_offset <= rows.shape[-2] - len(query):
                raise ValueError(
                    f"batch_offset={batch_offset}: the {len(query)} samples of the query must lie within the "
                    f"{rows.shape[-2]} rows of batch_keys"
                )
        named = [("query", x) for x in queries] + [("key", x) for x in keys] + others
        for name, rows in named:
            if rows.dtype != query.dtype or not rows.is_floating_point():
                raise ValueError(f"{name} must be of one floating-point type: got {rows.dtype} beside {query.dtype}")
        if not self._norms_checked:
            for name, rows in named:
                check_norms(name, rows)
            self._norms_checked = True
        return named


def setting_problems(
    prefix: str,
    temperature: float,
    target_temperature: float = 1.0,
    positive_weight: float = 1.0,
    implementation: str = "streaming",
    weight: float = 1.0,
    target_temperature_ramp: Ramp = NO_RAMP,
    positive_weight_ramp: Ramp = NO_RAMP,
) -> list[str]:
    """Name each setting of a loss of the family that cannot be; `prefix` is where it is, as in "loss"."""
    positive = {
        "temperature": temperature,
        "target_temperature": target_temperature,
        "target_temperature_ramp.start": target_temperature_ramp.start,
        "weight": weight,
    }
    shares = {"positive_weight": positive_weight, "positive_weight_ramp.start": positive_weight_ramp.start}
    found = [
        f"{prefix}.{name}={value} must be greater than 0"
        for name, value in positive.items()
        if value is not None and not 0 < value < math.inf
    ]
    found += [
        f"{prefix}.{name}={value} must be between 0 and 1"
        for name, value in shares.items()
        if value is not None and not 0 <= value <= 1
    ]
    if implementation not in IMPLEMENTATIONS:
        found.append(f"{prefix}.implementation={implementation} must be one of {', '.join(IMPLEMENTATIONS)}")
    return found


def _per_view(batch_keys: list[Tensor] | None, view: int, own: int) -> list[Keys]:
    """Return the keys of the batch that the pairs of a key view are compared with; none in a batch of one."""
    if batch_keys is None:
        return []
    rows = batch_keys[view]
    parts = [Keys(part, own) for part in (rows if rows.ndim == 3 else rows[None])]
    return [part for part in parts if not part.are_none]


def _log_sum_exps(queries: list[Tensor], others: Keys, temperature: float) -> tuple[Tensor, ...]:
    """Return one (B,) per query view from a single pass over the keys."""
    return log_sum_exp(torch.cat(queries), others, temperature).split([len(query) for query in queries])
