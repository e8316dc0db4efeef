"""Networks by name: `create_model("sa_csp_ca")`.

A model is its file here, one line below, one recipe and one test.
"""

from __future__ import annotations

from mien.models.contract import MODELS, Model, create_model, names
from mien.models.sa_csp_ca import SaCspCa
from mien.models.vgg16 import VGG16
from mien.models.vgg16_gcca import VGG16GCCA

__all__ = ["MODELS", "VGG16", "VGG16GCCA", "Model", "SaCspCa", "create_model", "names"]
