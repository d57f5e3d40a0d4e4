"""Speed of devices, from data sheets and from benchmarks."""

import json
from importlib import resources
from typing import NamedTuple

from eztorch_sce.machine import BF16_CAPABILITY


class Device(NamedTuple):
    """Specifications from the data sheet of a device.

    Attributes:
        memory_gib: Memory in GiB.
        fp32, tf32, fp16, bf16: Peak TFLOP/s without sparsity, accumulating in float32.
        bandwidth_gb_s: Memory bandwidth in GB/s.
        link_gb_s: Bandwidth to the other devices of the machine in GB/s, in each direction.
    """

    memory_gib: float
    fp32: float
    tf32: float
    fp16: float
    bf16: float
    bandwidth_gb_s: float
    link_gb_s: float

    @property
    def capability(self) -> tuple[int, int]:
        """CUDA compute capability, as far as it decides about bfloat16."""
        return BF16_CAPABILITY if self.bf16 > self.fp32 else (7, 0)

    def peak(self, precision: str) -> float:
        """Return the peak TFLOP/s for a `trainer.precision`. PyTorch runs float32 convolutions in TF32 if it can."""
        return {"32-true": self.tf32, "16-mixed": self.fp16, "bf16-mixed": self.bf16}[precision]


# Sources: NVIDIA's data sheets of the A100, H100 and H200 (SXM) and V100 (SXM2) and its white papers on Ampere GA102
# and Ada. Formats without hardware support run at the float32 rate. The CPU is a typical one: 16 cores at 2.5 GHz, each
# with two fused multiply-adds on 8 numbers per cycle, four channels of DDR4-3200, and 10-Gbit Ethernet.
DEVICES = {
    "A100-80G": Device(80, 19.5, 156, 312, 312, 2039, 300),
    "A100-40G": Device(40, 19.5, 156, 312, 312, 1555, 300),
    "H200": Device(141, 67, 494.5, 989, 989, 4800, 450),
    "H100-80G": Device(80, 67, 494.5, 989, 989, 3350, 450),
    "V100-32G": Device(32, 15.7, 15.7, 125, 15.7, 900, 150),
    "V100-16G": Device(16, 15.7, 15.7, 125, 15.7, 900, 150),
    "RTX-4090": Device(24, 82.6, 82.6, 165.2, 165.2, 1008, 32),
    "RTX-3090": Device(24, 35.6, 35.6, 71, 71, 936, 32),
    "cpu": Device(64, 1.28, 1.28, 1.28, 1.28, 102, 1.25),
}


class Measurement(NamedTuple):
    """Throughput of a training step on one device, a row of `measured.json`.

    Attributes:
        hardware: Name of the device, as its driver reports it.
        workload: Network, views and batch, such as "resnet50, 2 views of 224 px, batch 16".
        samples_per_s: Samples per second.
        source: The file of benchmark results, relative to the repository.
    """

    hardware: str
    workload: str
    samples_per_s: float
    source: str


def load_measurements() -> list[Measurement]:
    """Return the measurements included in the package. `benchmarks/measured.py` collects them."""
    text = resources.files("eztorch_sce.planning").joinpath("measured.json").read_text(encoding="utf-8")
    return [Measurement(**row) for row in json.loads(text)]


def find_measurement(device: str, workload: str, form: str) -> Measurement | None:
    """Return the first measurement of a workload on a device, or None.

    Args:
        device: A name in `DEVICES`. Each of its words, such as "A100" and "80G", must occur in the hardware's name.
        workload: Beginning of the workload, such as "resnet50, 2 views of 224 px,".
        form: End of the workload on a GPU: precision, memory format and compilation, such as "bf16+channels_last".
    """
    end = ", cpu" if device == "cpu" else f", {form}"
    for measurement in load_measurements():
        same_device = all(word in measurement.hardware for word in device.split("-"))
        if same_device and measurement.workload.startswith(workload) and measurement.workload.endswith(end):
            return measurement
    return None
