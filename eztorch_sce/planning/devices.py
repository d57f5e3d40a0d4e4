"""What devices can do: by their data sheets, and as measured."""

import json
from pathlib import Path
from typing import NamedTuple

RESULTS = Path(__file__).resolve().parents[2] / "benchmarks" / "results"
"""What was measured, in a checkout; an installed package has none."""


class Device(NamedTuple):
    """Numbers of a data sheet.

    Attributes:
        memory_gib: GiB.
        fp32, tf32, fp16, bf16: Peak TFLOP/s without sparsity, sums in float32.
        bandwidth_gb_s: GB/s to its own memory.
        link_gb_s: GB/s to the other devices of the machine, each way.
    """

    memory_gib: float
    fp32: float
    tf32: float
    fp16: float
    bf16: float
    bandwidth_gb_s: float
    link_gb_s: float

    def peak(self, precision: str) -> float:
        """Return the TFLOP/s of a `trainer.precision`; torch lets convolutions of float32 run in TF32."""
        return {"32-true": self.tf32, "16-mixed": self.fp16, "bf16-mixed": self.bf16}[precision]


# Sources: NVIDIA's data sheets of the A100 (SXM), H100 (SXM) and V100 (SXM2), its white papers on Ampere GA102 and Ada.
# What a device has no units for runs in float32. The CPU is none in particular: 16 cores at 2.5 GHz, each with two
# fused multiply-adds on 8 numbers a cycle, four channels of DDR4-3200, and 10-Gbit Ethernet to the next one.
DEVICES = {
    "A100-80G": Device(80, 19.5, 156, 312, 312, 2039, 300),
    "A100-40G": Device(40, 19.5, 156, 312, 312, 1555, 300),
    "H100-80G": Device(80, 67, 494.5, 989, 989, 3350, 450),
    "V100-32G": Device(32, 15.7, 15.7, 125, 15.7, 900, 150),
    "V100-16G": Device(16, 15.7, 15.7, 125, 15.7, 900, 150),
    "RTX-4090": Device(24, 82.6, 82.6, 165.2, 165.2, 1008, 32),
    "RTX-3090": Device(24, 35.6, 35.6, 71, 71, 936, 32),
    "cpu": Device(64, 1.28, 1.28, 1.28, 1.28, 102, 1.25),
}


def measured_throughput(device: str, what: str) -> tuple[float, str] | None:
    """Return the samples/s of one device that `benchmarks/` has measured, and where; None if it has not.

    Args:
        device: A name of `DEVICES`; the hardware must have each part of it in its own name.
        what: How the name of the measurement begins, as in "resnet50, 2 views of 224 px,".
    """
    for file in sorted(RESULTS.glob("*.json")):
        found = json.loads(file.read_text())
        versions = found["versions"]
        hardware = versions.get("gpu", f"cpu {versions.get('cpu')}, {versions.get('threads')} threads")
        if not all(part in hardware for part in device.split("-")):
            continue
        for row in found["rows"]:
            if row["who"] == "eztorch_sce" and row["unit"] == "samples/s" and row["what"].startswith(what):
                return row["value"], f"{hardware}: {row['what']} (benchmarks/results/{file.name})"
    return None
