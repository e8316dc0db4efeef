"""Networks by name: `create_model("sa_csp_ca")`.

A model is its file here, one line below, one recipe and one test.
"""

from __future__ import annotations

from mien.models.contract import MODELS, Model, create_model, names
from mien.models.sa_csp_ca import SaCspCa

__all__ = ["MODELS", "Model", "SaCspCa", "create_model", "names"]
