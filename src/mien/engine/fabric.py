"""Lightning Fabric, without what comes with it.

Fabric asks for torchmetrics' version by importing it where it is installed, and with it scipy.signal and most of matplotlib:
100 MiB that training has no use for. So torchmetrics passes for absent meanwhile.
"""

from __future__ import annotations

import logging
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from mien.errors import require


@contextmanager
def _absent(module: str) -> Iterator[None]:
    """Let imports of a module fail, unless it is there already; None among the modules is Python's way to say so."""
    if module in sys.modules:
        yield
        return
    sys.modules[module] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules[module]


if TYPE_CHECKING:
    from lightning_fabric import Fabric
else:
    with _absent("torchmetrics"):
        Fabric = require("lightning_fabric", "train").Fabric

logging.getLogger("lightning_fabric").setLevel(logging.WARNING)  # not how many processes began, and with which precision
for name in ("torch._dynamo", "torch.utils.cpp_extension"):  # nor what the compiler skips, and that there is no CUDA
    logging.getLogger(name).setLevel(logging.ERROR)
warnings.filterwarnings("ignore", "Grad strides do not match bucket view strides")  # of compiled gradients; harmless

__all__ = ["Fabric"]
