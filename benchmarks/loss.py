"""Speed and memory of SCE, forward and backward, compared with the paper's dense form and with bare matrix products.

python benchmarks/loss.py --json benchmarks/results/loss.json
python benchmarks/loss.py --device cuda --dtype bfloat16
"""

import subprocess
import sys
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from common import arguments, finish, medians, row
from torch import Tensor

from eztorch_sce.losses.sce import SCELoss

BATCH, DIM, NUM_NEGATIVES = 256, 256, 65536
OURS = "eztorch_sce"


def inputs(num_negatives: int, device: str, dtype: torch.dtype, batch: int = BATCH) -> tuple[Tensor, Tensor, Tensor]:
    """Return query, key and negatives."""
    generator = torch.Generator().manual_seed(0)
    sizes = (batch, batch, num_negatives)
    tensors = [F.normalize(torch.randn(n, DIM, generator=generator), dim=1).to(device, dtype) for n in sizes]
    return tensors[0].requires_grad_(), tensors[1], tensors[2]


def step(loss: SCELoss, query: Tensor, key: Tensor, negatives: Tensor) -> None:
    """Run forward and backward."""
    query.grad = None
    loss(query, key, negatives).backward()


def as_in_the_paper(query: Tensor, key: Tensor, negatives: Tensor) -> None:
    """Run forward and backward of the loss as the paper writes it: relation, target, prediction, cross entropy."""
    query.grad = None
    logits = torch.cat([(query * key).sum(dim=1, keepdim=True), query @ negatives.T], dim=1) / 0.1
    with torch.no_grad():
        relation = torch.cat([key.new_full((len(key), 1), -torch.inf), key @ negatives.T], dim=1) / 0.05
        target = 0.5 * F.softmax(relation, dim=1)
        target[:, 0] = 0.5
    (-(target * F.log_softmax(logits, dim=1)).sum(dim=1)).mean().backward()


def products(query: Tensor, key: Tensor, negatives: Tensor) -> None:
    """Compute only the four matrix products that the loss needs: similarities and weighted means of query and key."""
    with torch.no_grad():
        for anchors in (query, key):
            similarities = anchors @ negatives.T
            similarities @ negatives


def extra_memory(form: str, num_negatives: int) -> float:
    """Return the peak memory in MB above inputs and a first small step, measured in a separate process."""
    run = subprocess.run(
        [sys.executable, __file__, "--memory-of", form, "--num-negatives", str(num_negatives)],
        capture_output=True,
        text=True,
        check=True,
    )
    return float(run.stdout)


def measure_memory(form: str, num_negatives: int) -> float:
    """Run one step in this process and return the increase of its peak memory in MB (Linux)."""
    loss = SCELoss()
    calls = {"streaming": lambda *x: step(loss, *x), "as_in_the_paper": as_in_the_paper}
    query, key, negatives = inputs(num_negatives, "cpu", torch.float32)
    calls[form](query, key, negatives[:1024])
    Path("/proc/self/clear_refs").write_text("5")  # reset the peak
    before = status("VmRSS")
    calls[form](query, key, negatives)
    return status("VmHWM") - before


def status(name: str) -> float:
    """Return a memory size of this process in MB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(float(line.split()[1]) / 1024 for line in lines if line.startswith(name))


def main() -> None:
    """Measure, print and write the results."""
    parser = arguments(str(__doc__))
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16", "float16"])
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--memory-of", help="internal: measure the memory of one form in this process")
    parser.add_argument("--num-negatives", type=int, default=NUM_NEGATIVES)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.memory_of:
        print(measure_memory(options.memory_of, options.num_negatives))
        return

    dtype, device = getattr(torch, options.dtype), options.device
    tensors = inputs(NUM_NEGATIVES, device, dtype)
    loss = SCELoss()
    seconds = medians(
        {
            "streaming": lambda: step(loss, *tensors),
            "paper": lambda: as_in_the_paper(*tensors),
            "products": lambda: products(*tensors),
        },
        options.repeats,
        device,
    )
    subject = f"SCE forward + backward, B={BATCH} D={DIM} K={NUM_NEGATIVES} {options.dtype}, {device}"
    rows = [
        row(subject, OURS, 1 / seconds["streaming"], "steps/s"),
        row(subject, "torch, dense as in the paper", 1 / seconds["paper"], "steps/s"),
        row(subject, "torch, four bare products", 1 / seconds["products"], "steps/s"),
    ]
    notes = [
        f"streaming is {seconds['paper'] / seconds['streaming']:.2f}x as fast as the dense form of the paper and "
        f"{seconds['products'] / seconds['streaming']:.2f}x as fast as the four bare products"
    ]
    measures_memory = device == "cpu" and sys.platform == "linux"
    if measures_memory:
        for form, name in (("streaming", OURS), ("as_in_the_paper", "torch, dense as in the paper")):
            megabytes = extra_memory(form, NUM_NEGATIVES)
            subject = f"keys per MB of extra memory, K={NUM_NEGATIVES}"
            rows.append(row(subject, name, NUM_NEGATIVES / max(megabytes, 0.1), "1/MB"))
            notes.append(f"{name}: {megabytes:.1f} MB of extra memory at K={NUM_NEGATIVES}")
    for num_negatives in (NUM_NEGATIVES, 4 * NUM_NEGATIVES, 16 * NUM_NEGATIVES):
        many = inputs(num_negatives, device, dtype)
        step_s = medians({"streaming": partial(step, loss, *many)}, 3, device)["streaming"]
        rows.append(row(f"keys per second, K={num_negatives}", OURS, num_negatives / step_s, "keys/s"))
        if measures_memory:
            megabytes = extra_memory("streaming", num_negatives)
            notes.append(f"{OURS}: {megabytes:.1f} MB of extra memory at K={num_negatives}")
    finish(rows, ["torch", "eztorch-sce"], options.json, notes)


if __name__ == "__main__":
    main()
