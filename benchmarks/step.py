"""Overhead of a training step over bare forward and backward passes, and the fraction of it spent in the loss.

python benchmarks/step.py --json benchmarks/results/step.json
python benchmarks/step.py --device cuda --batch 256 --forms float32 bf16 bf16+channels_last bf16+channels_last+compile
python benchmarks/step.py --device cuda --backbone r3d50 --frames 8 --batch 32 --views 2 --forms bf16+channels_last

A form is a precision, float32 (with TF32 products where the device has them) or bf16 (autocast), and what is added to
it: channels_last (weights and views in that format), compile (the encoders). The passes alone run in the same form.
"""

import argparse
from collections.abc import Callable
from functools import partial

import torch
from common import Row, arguments, finish, medians, row
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


def in_form(form: str, call: Callable[[], object], device: str) -> Callable[[], None]:
    """Return a call that runs under autocast if the form says bf16."""

    def run() -> None:
        with torch.autocast(device, torch.bfloat16, enabled="bf16" in form):
            call()

    return run


def method_in_form(backbone: str, form: str, device: str) -> MomentumContrast:
    """Return SCE on a backbone, with weights in the format of the form, and compiled if it says so."""
    network = choices("backbone")[backbone]().build()
    method = MomentumContrastConfig(queue_size=65536).build(network, SCEConfig().build()).to(device)
    if "channels_last" in form:
        is_3d = any(isinstance(module, torch.nn.Conv3d) for module in method.modules())
        memory_format = torch.channels_last_3d if is_3d else torch.channels_last
        method.to(memory_format=memory_format)  # type: ignore[call-overload]  # torch annotates a few forms of it
    if "compile" in form:
        method.online.compile()
        method.momentum_encoder.encoder.compile()
    return method


def main() -> None:
    """Measure the steps, print the table and write the results."""
    parser = arguments(str(__doc__))
    parser.add_argument("--backbone", default="resnet50")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--size", type=int, default=224, help="pixels of the global views; sets the local ones too")
    parser.add_argument("--frames", type=int, default=1)
    parser.add_argument(
        "--views", type=int, nargs="+", default=[2, 6], help="numbers of views: 2, or 6 with local ones"
    )
    parser.add_argument("--forms", nargs="+", default=["float32"])
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    torch.backends.cudnn.benchmark = True
    torch.backends.cuda.matmul.allow_tf32 = True  # of the networks; the loss computes in float32 whatever this says

    rows, notes = [], []
    for form in options.forms:
        for num_views in options.views:
            rows_of_form, note = measure(options, form, num_views)
            rows += rows_of_form
            notes.append(note)
    finish(rows, ["torch", "eztorch-sce"], options.json, notes)


def measure(options: argparse.Namespace, form: str, num_views: int) -> tuple[list[Row], str]:
    """Return the rates of the step and of the passes alone, and their ratio in words."""
    sides = [round(size * options.size / 224) for size in (224, 224, *LOCAL_SIZES)[:num_views]]
    method = method_in_form(options.backbone, form, options.device)
    optimizer = LARSConfig().build([p for p in method.parameters() if p.requires_grad], 0.1)
    shapes = [(options.batch, 3, options.frames, side, side) for side in sides]
    views = [torch.randn(shape, device=options.device) for shape in shapes]
    if "channels_last" in form:
        views = [view.contiguous(memory_format=torch.channels_last_3d) for view in views]
    calls = {
        "step": partial(training_step, method, optimizer, views),
        "passes": partial(forwards_and_backwards, method, views),
        "loss": partial(loss_alone, method, options.batch, len(views), options.device),
    }
    in_this_form: dict[str, Callable[[], object]] = {
        name: in_form(form, call, options.device) for name, call in calls.items()
    }
    if options.device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    seconds = medians(in_this_form, options.repeats, options.device)
    frames = f" x {options.frames} frames" if options.frames > 1 else ""
    name = "2 views" if num_views == 2 else f"2 + {num_views - 2} views"
    what = f"{options.backbone}, {name} of {sides[0]} px{frames}, batch {options.batch}, queue 65536, {options.device}"
    if options.device != "cpu":
        what += f", {form}"
    rates = {who: options.batch / seconds[name] for name, who in (("step", US), ("passes", "torch, the passes alone"))}
    peak = f"; peak memory {torch.cuda.max_memory_allocated() / 2**30:.1f} GiB" if options.device == "cuda" else ""
    note = (
        f"{what}: a step takes {seconds['step'] / seconds['passes']:.3f}x the passes alone; "
        f"the loss is {seconds['loss'] / seconds['step']:.2%} of it{peak}"
    )
    return [row(what, who, rate, "samples/s") for who, rate in rates.items()], note


if __name__ == "__main__":
    main()
