"""Overhead of a training step over bare forward and backward passes, and the fraction of it spent in the loss.

python benchmarks/step.py --json benchmarks/results/step.json
python benchmarks/step.py --device cuda --batch 256 --size 224
"""

from functools import partial

import torch
from common import arguments, finish, medians, row
from torch import Tensor

from eztorch_sce.evaluation.diagnostics import embedding_diagnostics
from eztorch_sce.losses.pairs import ViewPairs
from eztorch_sce.losses.sce import SCEConfig
from eztorch_sce.methods.momentum_contrast import MomentumContrast, MomentumContrastConfig
from eztorch_sce.optim.lars import LARSConfig
from eztorch_sce.registry import choices

US = "eztorch_sce"
LOCAL_SIZES = (192, 160, 128, 96)  # with two global views of 224 pixels, as in the paper


def forwards_and_backwards(method: MomentumContrast, views: list[Tensor]) -> None:
    """Run only the passes: keys of the global views, queries of all views, and their gradients."""
    for parameter in method.parameters():
        parameter.grad = None
    for view in views[:2]:
        method.momentum_encoder(view)
    queries = torch.stack([method.online(view).q.sum() for view in views])
    torch.autograd.backward(queries.sum())


def training_step(method: MomentumContrast, optimizer: torch.optim.Optimizer, views: list[Tensor]) -> None:
    """Run a whole step: method, loss, queue, diagnostics, optimizer, momentum encoder."""
    optimizer.zero_grad()
    output = method(views)
    torch.autograd.backward(output.loss)
    embedding_diagnostics(output.embeddings)
    optimizer.step()
    method.after_step(0.5)


def loss_alone(method: MomentumContrast, batch: int, num_views: int, device: str) -> None:
    """Run the loss of all pairs and its gradient, without networks."""
    dim = method.config.projector.output_dim
    unit = [torch.nn.functional.normalize(torch.randn(batch, dim, device=device), dim=1) for _ in range(num_views)]
    queries = [view.requires_grad_() for view in unit]
    keys = [view.detach() for view in unit[:2]]
    pairs = [(i, j) for j in range(2) for i in range(num_views) if i != j]
    assert method.queue is not None
    torch.autograd.backward(method.over_pairs(ViewPairs(queries, keys, pairs, method.queue.keys)).loss)


def main() -> None:
    """Measure the steps, print the table and write the results."""
    parser = arguments(str(__doc__))
    parser.add_argument("--backbone", default="resnet50")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--size", type=int, default=224, help="pixels of the global views; sets the local ones too")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)

    rows, notes = [], []
    for num_views, sizes in (("2 views", (224, 224)), ("2 + 4 views", (224, 224, *LOCAL_SIZES))):
        backbone = choices("backbone")[options.backbone]().build()
        method = MomentumContrastConfig(queue_size=65536).build(backbone, SCEConfig().build()).to(options.device)
        parameters = [p for p in method.parameters() if p.requires_grad]
        optimizer = LARSConfig().build(parameters, 0.1)
        sides = [round(size * options.size / 224) for size in sizes]
        views = [torch.randn(options.batch, 3, 1, side, side, device=options.device) for side in sides]
        seconds = medians(
            {
                "step": partial(training_step, method, optimizer, views),
                "passes": partial(forwards_and_backwards, method, views),
                "loss": partial(loss_alone, method, options.batch, len(views), options.device),
            },
            options.repeats,
            options.device,
        )
        what = f"{options.backbone}, {num_views} of {sides[0]} px, batch {options.batch}, queue 65536, {options.device}"
        rows.append(row(what, US, options.batch / seconds["step"], "samples/s"))
        rows.append(row(what, "torch, the passes alone", options.batch / seconds["passes"], "samples/s"))
        notes.append(
            f"{what}: a step takes {seconds['step'] / seconds['passes']:.3f}x the passes alone; "
            f"the loss is {seconds['loss'] / seconds['step']:.2%} of it"
        )
    finish(rows, ["torch", "eztorch-sce"], options.json, notes)


if __name__ == "__main__":
    main()
