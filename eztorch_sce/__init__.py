"""Self-supervised learning from video and images with Similarity Contrastive Estimation (SCE)."""

from eztorch_sce.compat import declare_missing_torchvision_operators

__version__ = "0.1.0"

# Before anything imports torchvision: a CPU torch beside a CUDA-built torchvision would fail there.
declare_missing_torchvision_operators()
