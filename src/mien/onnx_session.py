"""The only module that imports ONNX Runtime.

ONNX Runtime 1.31 writes a device id and an event database to `~/.cache/Microsoft` and contacts an upload host. mien promises to
work offline, so it sets `ORT_DISABLE_TELEMETRY=1` before the import; setting it later has no effect. A value that the user has
set is kept.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from functools import cache

import numpy as np
from numpy.typing import NDArray

from mien.provenance import available_cores

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

import onnxruntime
from onnxruntime import InferenceSession as Session

PREFERRED = ("CUDAExecutionProvider", "CPUExecutionProvider")
"""Execution providers in order of preference."""

RUN_BYTES = 512 * 2**20
"""Memory for the activations of all bounded networks. VGG-16 takes about 40 MiB for a crop of 224 x 224 px."""

CORE_BYTES = 64 * 2**20
"""More of it for each core, because large batches run in one thread per core."""

CONSTANT_BYTES = 2**20
"""Largest constant that ONNX Runtime computes in advance when it opens a file; twice the size of the file if that is larger."""


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
    bounded: bool = False,
) -> Session:
    """Return a network that is ready to run.

    Args:
        network: Contents of an ONNX file.
        threads: Threads of one run.
        providers: Execution providers in order of preference.
        any_shape: Whether the shape of the inputs changes from run to run; then ONNX Runtime does not plan its memory ahead.
        weights: Weights that the file names but does not contain.
        bounded: Whether memory is limited, for files that mien did not make. A few lines of ONNX can ask for any amount.

    Raises:
        Exception: The network cannot be loaded. ONNX Runtime's errors share no base class.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.enable_mem_pattern = not any_shape
    # Waiting threads sleep. Spinning gains little on an idle machine and doubles the time next to another busy process.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 4  # nothing: errors are raised
    if bounded:
        _limit_runs()
        options.add_session_config_entry("session.use_env_allocators", "1")
        options.add_session_config_entry(
            "optimization.constant_folding_max_output_size_in_bytes", str(max(CONSTANT_BYTES, 2 * len(network)))
        )
    if weights:
        values = [onnxruntime.OrtValue.ortvalue_from_numpy(array) for array in weights.values()]
        options.add_external_initializers(list(weights), values)
    # Where there is nothing to fall back to, ONNX Runtime would print an error and load the file a second time.
    can_fall_back = list(providers) != ["CPUExecutionProvider"]
    return Session(network, options, providers=list(providers), enable_fallback=can_fall_back)


@cache
def _limit_runs() -> None:
    """Register the memory that bounded networks share: the activations of their runs, not their weights."""
    memory = onnxruntime.OrtMemoryInfo(
        "Cpu", onnxruntime.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, onnxruntime.OrtMemType.DEFAULT
    )
    limit = RUN_BYTES + CORE_BYTES * available_cores()
    onnxruntime.create_and_register_allocator(memory, onnxruntime.OrtArenaCfg({"max_mem": limit}))
