"""Self-supervised learning from video and images with Similarity Contrastive Estimation (SCE)."""

from eztorch_sce.compat import repair_torchvision_on_import

__version__ = "0.1.0"

repair_torchvision_on_import()
