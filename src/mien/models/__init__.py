"""Networks by name: `create_model("sa_csp_ca")`.

A model is one file here, one import line below, one recipe and one test.
"""

from __future__ import annotations

from mien.models.contract import MODELS, Model, create_model, names
from mien.models.dlib_resnet import DlibResNet
from mien.models.efficientnet import EfficientNetB0
from mien.models.resemotenet import ResEmoteNet
from mien.models.resnet import ResNet
from mien.models.resnet50_cbam_erf import ResNet50CBAMERF
from mien.models.sa_csp_ca import SaCspCa
from mien.models.stn_resnet50 import STNResNet50
from mien.models.vanilla_cnn import VanillaCNN
from mien.models.vgg16 import VGG16
from mien.models.vgg16_gcca import VGG16GCCA
from mien.models.vggface import VGGFace

__all__ = [
    "MODELS",
    "VGG16",
    "VGG16GCCA",
    "DlibResNet",
    "EfficientNetB0",
    "Model",
    "ResEmoteNet",
    "ResNet",
    "ResNet50CBAMERF",
    "STNResNet50",
    "SaCspCa",
    "VGGFace",
    "VanillaCNN",
    "create_model",
    "names",
]
