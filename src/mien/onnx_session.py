"""The only module that imports ONNX Runtime.

ONNX Runtime 1.31 writes a device id and an event database to `~/.cache/Microsoft` and contacts an upload host. mien promises to
work offline, so it sets `ORT_DISABLE_TELEMETRY=1` before the import; setting it later has no effect. A value that the user has
set is kept.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

import onnxruntime
from onnxruntime import InferenceSession as Session

PREFERRED = ("CUDAExecutionProvider", "CPUExecutionProvider")
"""Execution providers in order of preference."""


def default_providers() -> list[str]:
    """Return the preferred execution providers that the installed ONNX Runtime offers: CUDA before CPU."""
    offered = onnxruntime.get_available_providers()
    return [name for name in PREFERRED if name in offered]


def open_session(
    network: bytes,
    threads: int,
    *,
    providers: Sequence[str] = ("CPUExecutionProvider",),
    any_shape: bool = False,
    weights: Mapping[str, NDArray[np.float32]] | None = None,
) -> Session:
    """Return a network that is ready to run.

    Args:
        network: Contents of an ONNX file.
        threads: Threads of one run.
        providers: Execution providers in order of preference.
        any_shape: Whether the shape of the inputs changes from run to run; then ONNX Runtime does not plan its memory ahead.
        weights: Weights that the file names but does not contain.

    Raises:
        Exception: The network cannot be loaded. ONNX Runtime's errors share no base class.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.enable_mem_pattern = not any_shape
    # Waiting threads sleep. Spinning gains little on an idle machine and doubles the time next to another busy process.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3  # errors only
    if weights:
        values = [onnxruntime.OrtValue.ortvalue_from_numpy(array) for array in weights.values()]
        options.add_external_initializers(list(weights), values)
    return Session(network, options, providers=list(providers))
