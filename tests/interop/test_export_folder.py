"""Tests of folders for the Hugging Face Hub, and of programs of torch.export, without this package."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jaxtyping
import pytest
import torch
import yaml
from fresh_environment import run_fresh
from torch import Tensor, nn

from eztorch_sce.augment.view import View, evaluation_view
from eztorch_sce.data.shaping import short_side_crops
from eztorch_sce.errors import ConfigError
from eztorch_sce.interop.export import export
from eztorch_sce.models.backbones.base import BackboneConfig
from eztorch_sce.models.backbones.small import SmallR2Plus1DConfig
from eztorch_sce.models.backbones.timm_models import TimmConfig
from eztorch_sce.models.classifier import Classifier
from eztorch_sce.models.weights import load_backbone, load_weights, save_weights
from eztorch_sce.objects import as_config
from eztorch_sce.types import InputSpec

pytestmark = [pytest.mark.xdist_group("exports"), pytest.mark.usefixtures("traceable")]
SMALL = SmallR2Plus1DConfig(width=2, num_blocks=1)
