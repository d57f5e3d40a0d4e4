"""Self-supervised learning from video and images with Similarity Contrastive Estimation (SCE).

The names in `__init__.pyi` are public: each is imported from its home when it is first used, so that importing the
package does not import torch. What is not in that list is private, and may change without notice.
"""

import lazy_loader

from eztorch_sce.compat import repair_torchvision_on_import

__version__ = "0.1.0"
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

repair_torchvision_on_import()
