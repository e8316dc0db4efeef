"""Networks by name: `create_model("sa_csp_ca")`.

A model is one file here, one name in the import below, one recipe and one test.
"""

from __future__ import annotations

from mien.models import (  # noqa: F401 (each registers its networks)
    dlib_resnet,
    efficientnet,
    facemesh,
    resemotenet,
    resnet,
    resnet50_cbam_erf,
    sa_csp_ca,
    stn_resnet50,
    vanilla_cnn,
    vgg16,
    vgg16_gcca,
    vggface,
)
from mien.models.base import MODELS, Model, create_model, names

__all__ = ["MODELS", "Model", "create_model", "names"]
