"""Sessions of ONNX Runtime that survive forks, pickling and copying.

No other module imports ONNX Runtime, except its quantiser in `mien.engine.export`.
"""

from __future__ import annotations

import ctypes
import json
import os
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any
from weakref import WeakSet

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from mien.errors import MissingExtraError, UnknownNameError
from mien.provenance import available_cores
from mien.registry import nearest

PREFERRED = ("CUDAExecutionProvider", "CPUExecutionProvider")
"""Execution providers in order of preference."""

PACKAGES = {
    "cuda": "onnxruntime-gpu",
    "tensorrt": "onnxruntime-gpu",
    "openvino": "onnxruntime-openvino",
    "directml": "onnxruntime-directml",
}
"""Packages of ONNX Runtime with more execution providers. CoreML is in the usual one, on macOS."""

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


def find_providers(names: str | Sequence[str]) -> list[str]:
    """Return ONNX Runtime's names of execution providers.

    >>> find_providers("cpu")
    ['CPUExecutionProvider']

    Args:
        names: Names with or without "ExecutionProvider", in any case, such as `"cuda,cpu"` or `["OpenVINO"]`.

    Raises:
        MissingExtraError: The installed ONNX Runtime does not have one; the message names the package that does.
        UnknownNameError: No ONNX Runtime has one.
    """
    known, offered = (
        {_short(name): name for name in each}
        for each in (onnxruntime.get_all_providers(), onnxruntime.get_available_providers())
    )
    chosen = [_short(name) for name in (names.split(",") if isinstance(names, str) else names)]
    for name in chosen:
        if name not in known | offered:
            raise UnknownNameError(f"unknown execution provider {name!r}{nearest(name, list(known))}")
        if name not in offered:
            advice = "for CoreML use macOS" if name == "coreml" else "it needs another build of ONNX Runtime"
            if name in PACKAGES:
                advice = f"run: pip uninstall onnxruntime, then: pip install {PACKAGES[name]}"
            raise MissingExtraError(
                f"the installed ONNX Runtime has no execution provider {name!r}, only {', '.join(offered)}; {advice}"
            )
    return [offered[name] for name in chosen]


def _short(provider: str) -> str:
    name = provider.strip().lower().removesuffix("executionprovider")
    return "directml" if name == "dml" else name


class Session:
    """A network that is ready to run: an `onnxruntime.InferenceSession` that survives forks and can be pickled and copied.

    The threads of an ONNX Runtime session do not exist in a forked process, so it hangs there. This one is opened again, from
    the same bytes, when it first runs in that process, and when it is unpickled or copied. `open_session` describes the
    arguments.
    """

    def __init__(self, *arguments: Any) -> None:
        self._arguments = arguments  # of `_open`
        self._opened: onnxruntime.InferenceSession | None = _open(*arguments)
        _SESSIONS.add(self)

    def run(self, outputs: Sequence[str] | None, inputs: Mapping[str, NDArray[Any]]) -> list[NDArray[Any]]:
        """Return the outputs of those names, or all, for inputs by name. Several threads may call it at the same time."""
        return self._session().run(outputs, inputs)

    def _session(self) -> onnxruntime.InferenceSession:
        session = self._opened
        if session is None:  # two threads may both open one; either serves
            session = self._opened = _open(*self._arguments)
        return session

    def __getattr__(self, name: str) -> Any:
        return getattr(self._session(), name)

    def __reduce__(self) -> tuple[Any, ...]:
        return Session, self._arguments


_SESSIONS: WeakSet[Session] = WeakSet()


def _abandon_sessions() -> None:
    """In a forked process, let no session be used or destroyed: both would wait for threads that do not exist."""
    for session in _SESSIONS:
        if session._opened is not None:
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(session._opened))  # so that it is not destroyed even at exit
            session._opened = None


if hasattr(os, "register_at_fork"):  # Windows has no fork
    os.register_at_fork(after_in_child=_abandon_sessions)


def open_session(
    network: bytes,
    threads: int,
    *,
    providers: Sequence[str] = ("CPUExecutionProvider",),
    any_shape: bool = False,
    weights: Mapping[str, NDArray[np.float32]] | None = None,
    bounded: bool = False,
    fallback: bool = False,
) -> Session:
    """Return a network that is ready to run.

    Args:
        network: Contents of an ONNX file.
        threads: Threads of one run, at most the cores this process may use.
        providers: Execution providers in order of preference.
        any_shape: Whether the shape of the inputs changes from run to run; then ONNX Runtime does not plan its memory ahead.
        weights: Weights that the file names but does not contain.
        bounded: Whether memory is limited, for files that mien did not make. A few lines of ONNX can ask for any amount.
        fallback: Whether the CPU takes over, with a printed note, if a provider fails. Some fail silently all the same, so
            compare `get_providers()`.

    Raises:
        Exception: The network cannot be loaded. ONNX Runtime's errors share no base class.
    """
    return Session(network, threads, tuple(providers), any_shape, weights, bounded, fallback)


def _open(
    network: bytes,
    threads: int,
    providers: Sequence[str],
    any_shape: bool,
    weights: Mapping[str, NDArray[np.float32]] | None,
    bounded: bool,
    fallback: bool,
) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = min(threads, available_cores())
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
    # OpenVINO takes every core and, on some processors, bfloat16, unless it is told otherwise.
    hints = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": str(options.intra_op_num_threads)}
    given = {"OpenVINOExecutionProvider": {"load_config": json.dumps({"CPU": hints})}}
    chosen = [(name, given.get(name, {})) for name in providers]
    # Where there is nothing to fall back to, ONNX Runtime would print an error and load the file a second time.
    return onnxruntime.InferenceSession(network, options, providers=chosen, enable_fallback=fallback and len(chosen) > 1)


@cache
def _limit_runs() -> None:
    """Register the memory that bounded networks share: the activations of their runs, not their weights."""
    memory = onnxruntime.OrtMemoryInfo(
        "Cpu", onnxruntime.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, onnxruntime.OrtMemType.DEFAULT
    )
    limit = RUN_BYTES + CORE_BYTES * available_cores()
    onnxruntime.create_and_register_allocator(memory, onnxruntime.OrtArenaCfg({"max_mem": limit}))
