"""Assumptions behind the time of a plan, in one table; the documentation shows the same one."""

from typing import NamedTuple


class Assumption(NamedTuple):
    """A number that a plan assumes.

    Attributes:
        name: What it is.
        value: The number.
        unit: Its unit; empty for a factor.
        basis: Where it comes from.
    """

    name: str
    value: float
    unit: str
    basis: str


LAUNCH = Assumption(
    "host time per kernel launch",
    20.0,
    "µs",
    "40 ms for the 1950 launches of ResNet-50 at batch 4 on the host of an H200 (benchmarks/step.py --batch 4)",
)
STEP = Assumption("host time per step besides launches", 2.0, "ms", "Lightning's loop, callbacks and the data loader")
VIEW_LAUNCHES = Assumption("launches per view", 30, "", "at most 60 for two views, counted by benchmarks/launches.py")
COMPILED_VIEW_LAUNCHES = Assumption("launches per view with trainer.compile=true", 4, "", "one graph per size of views")
UPDATE_LAUNCHES = Assumption(
    "launches of the optimizer, the momentum encoder and the queue",
    120,
    "",
    "multi-tensor kernels of at most 110 tensors",
)
COMPILED_LAUNCHES = Assumption(
    "fraction of the networks' launches that remain with trainer.compile=true",
    0.4,
    "",
    "matrix products remain; norms, activations and sums are fused",
)
COMPILED_TRAFFIC = Assumption(
    "fraction of the memory traffic that remains with trainer.compile=true",
    0.7,
    "",
    "norms and activations share a pass",
)
COMPILED_MEMORY = Assumption(
    "fraction of the activations kept with trainer.compile=true",
    0.6,
    "",
    "outputs of activations are recomputed in the backward pass",
)
SYNC_LAUNCHES = Assumption(
    "launches per synchronized batch norm, forward or backward", 6, "", "counted by benchmarks/launches.py"
)
COLLECTIVE_NEAR = Assumption(
    "time to start a collective on one machine", 0.03, "ms", "NCCL's latency over NVLink or PCIe"
)
COLLECTIVE_FAR = Assumption("time to start a collective between machines", 0.08, "ms", "NCCL's latency over InfiniBand")
NETWORK = Assumption(
    "bandwidth per GPU between machines", 25.0, "GB/s", "200 Gbit/s per GPU, as in published clusters of A100s"
)
EXCHANGE = Assumption(
    "exchange of counts between hosts, per batch",
    0.3,
    "ms",
    "one gather of a few numbers over gloo, in parallel with the device",
)

ALL = (
    *(
        LAUNCH,
        STEP,
        VIEW_LAUNCHES,
        COMPILED_VIEW_LAUNCHES,
        UPDATE_LAUNCHES,
        COMPILED_LAUNCHES,
        COMPILED_TRAFFIC,
        COMPILED_MEMORY,
    ),
    *(SYNC_LAUNCHES, COLLECTIVE_NEAR, COLLECTIVE_FAR, NETWORK, EXCHANGE),
)


def to_markdown() -> str:
    """Return the assumptions as a table in Markdown."""
    lines = ["| assumption | value | basis |", "|---|---|---|"]
    lines += [
        f"| {each.name} | {' '.join(filter(None, [f'{each.value:g}', each.unit]))} | {each.basis} |" for each in ALL
    ]
    return "\n".join(lines)
