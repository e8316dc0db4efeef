"""Exported networks on ONNX Runtime: the default backend."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mien.errors import CheckpointError, InputError
from mien.model_info import METADATA_KEY, ModelInfo, check_digest
from mien.onnx_session import Session, default_providers, find_providers, open_session
from mien.provenance import available_cores
from mien.weights import check_card

CHUNK = 8
"""Images per chunk of a large batch. Chunks that run on one thread each stay in the cache; threads that share a run do not."""

MAX_FILE_BYTES = 2**31
"""Size from which protobuf refuses a file."""

PROVIDER_TOLERANCE = 0.5
"""Largest accepted difference of a logit between an execution provider and the CPU. OpenVINO rounds int8 files by up to 0.1."""


class OnnxBackend:
    """An exported network, ready to run.

    Args:
        path: An `.onnx` file that `mien export` wrote.
        threads: Threads of one run; None takes every core this process may use.
        providers: Execution providers of ONNX Runtime in order of preference, as `mien.onnx_session.find_providers` takes
            them; None takes CUDA if it works, else the CPU.

    Attributes:
        path: The file.
        info: The network's classes, preprocessing and provenance.
        providers: The execution providers in use.
        threads: Threads in use.

    Raises:
        CheckpointError: The file is missing, damaged, not written by mien, or of another format version; or its shapes do not
            match its metadata, or the card next to it describes another file.
        InputError: `threads` is below 1; or the network does not run on one of `providers`, or its logits there differ from the
            CPU's.
        MissingExtraError: The installed ONNX Runtime does not have one of `providers`.
        UnknownNameError: No ONNX Runtime has one of `providers`.
    """

    def __init__(self, path: str | Path, threads: int | None = None, providers: str | Sequence[str] | None = None) -> None:
        if threads is not None and threads < 1:
            raise InputError(f"threads must be at least 1, got {threads}; leave it out to use every core")
        asked = [] if providers is None else find_providers(providers)
        self.path = Path(path)
        self.threads = threads or available_cores()
        if not self.path.is_file():
            raise CheckpointError(f"{path}: no such model file")
        try:
            if self.path.stat().st_size >= MAX_FILE_BYTES:
                raise CheckpointError(f"{path}: is larger than 2 GiB, so it is not an ONNX file with its weights inside")
            self._file = self.path.read_bytes()  # once, so that all sessions run the same network
        except OSError as error:
            raise CheckpointError(f"{path}: cannot be read ({error.strerror})") from None
        has_digest = check_digest(self._file, str(path))  # before ONNX Runtime reads it
        self._session = _open(self._file, self.path, self.threads, asked)
        self._single: Session | None = None
        self._process = 0  # the process whose threads are in `_pool`; 0 before the first large batch
        self.providers: list[str] = self._session.get_providers()
        if unused := [name for name in asked if name not in self.providers]:
            raise InputError(
                f"{path}: ONNX Runtime cannot use {', '.join(unused)} on this machine and would run on {self.providers[0]} "
                "instead; check its drivers and libraries, or leave it out of the providers"
            )
        try:
            metadata = self._session.get_modelmeta().custom_metadata_map
            found = [
                (node.name, node.type, list(node.shape)) for node in (*self._session.get_inputs(), *self._session.get_outputs())
            ]
        except UnicodeDecodeError:
            raise CheckpointError(f"{path}: has a name or metadata that is not UTF-8; export or download it again") from None
        self.info = ModelInfo.from_json(metadata.get(METADATA_KEY), str(path), has_digest)
        self._check_shapes(found)
        check_card(self.path, self._file, self.info)
        if asked and self.providers[0] != "CPUExecutionProvider":
            self._compare_with_cpu()

    def _check_shapes(self, found: list[tuple[str, str, list[Any]]]) -> None:
        """Check that the network takes any number of images of the stored size and returns a logit for each class."""
        spec = self.info.preprocess
        expected = [("image", [spec.channels, *spec.size]), ("logits", [len(self.info.classes)])]
        if [(name, shape[1:]) for name, _, shape in found] != expected or any(kind != "tensor(float)" for _, kind, _ in found):
            raise CheckpointError(f"{self.path}: its inputs and outputs {found} do not match its metadata; export it again")
        if fixed := [shape[0] for _, _, shape in found if isinstance(shape[0], int)]:
            raise CheckpointError(
                f"{self.path}: takes or returns batches of exactly {fixed[0]}; export it again with a first axis of any length"
            )

    def _compare_with_cpu(self) -> None:
        """Check the logits of the providers on noise: they do not all implement every operator alike."""
        spec = self.info.preprocess
        noise = np.random.default_rng(0).normal(size=(4, spec.channels, *spec.size)).astype(np.float32)
        expected = self._run(_open(self._file, self.path, self.threads, ["CPUExecutionProvider"]), noise)
        difference = float(np.abs(self._run(self._session, noise) - expected).max())
        if difference > PROVIDER_TOLERANCE:
            raise InputError(
                f"{self.path}: on {self.providers[0]} a logit differs from the CPU's by {difference:.2g}, so one of the two is "
                "wrong; upgrade ONNX Runtime, or choose another provider or model"
            )

    @property
    def device(self) -> str:
        """`cpu`, or the execution provider it runs on."""
        return "cpu" if self.providers[0] == "CPUExecutionProvider" else self.providers[0]

    def logits(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the logits of preprocessed crops.

        Args:
            batch: Preprocessed crops, float32 (N, C, h, w), as `mien.preprocess.preprocess` returns them; N may be 0.

        Returns:
            Logits, float32 (N, K), in the order of `info.classes`.

        Raises:
            InputError: The batch is not float32 or does not have this network's input shape.
            CheckpointError: The network fails, takes too much memory, or does not return one finite row per crop.
        """
        spec = self.info.preprocess
        shape = (spec.channels, *spec.size)
        if batch.dtype != np.float32 or batch.ndim != 4 or batch.shape[1:] != shape:
            raise InputError(
                f"the network takes float32 of shape (N, {', '.join(map(str, shape))}), got {batch.dtype} {batch.shape}"
            )
        if not len(batch):
            return np.empty((0, len(self.info.classes)), np.float32)
        if len(batch) < 2 * CHUNK or self.threads == 1 or self.providers != ["CPUExecutionProvider"]:
            return self._run(self._session, batch)
        pool, lock = self._workers()
        with lock:  # a large batch is run in small chunks, each on one thread
            if self._single is None:
                self._single = _open(self._file, self.path, 1, self.providers)
        single = self._single
        chunks = [batch[i : i + CHUNK] for i in range(0, len(batch), CHUNK)]
        return np.concatenate(list(pool.map(lambda chunk: self._run(single, chunk), chunks)))

    def _run(self, session: Session, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        try:
            logits = session.run(["logits"], {"image": batch})[0]
        except Exception as error:  # onnxruntime's own errors share no base class
            no_memory = "bfc_arena" in str(error)
            if no_memory and len(batch) > 1:  # a large network, or many threads: less at a time may fit
                half = len(batch) // 2
                return np.concatenate([self._run(session, batch[:half]), self._run(session, batch[half:])])
            if no_memory:
                raise CheckpointError(f"{self.path}: needs too much memory for one face ({_reason(error)})") from None
            raise CheckpointError(f"{self.path}: fails when it runs ({_reason(error)}); export or download it again") from None
        check_logits(logits, len(batch), self.info, str(self.path))
        return logits

    def _workers(self) -> tuple[ThreadPoolExecutor, Lock]:
        """Return this process's pool and the lock for `_single`; in a forked process the parent's pool has no threads."""
        if self._process != os.getpid():
            self._pool, self._lock, self._process = ThreadPoolExecutor(self.threads), Lock(), os.getpid()
        return self._pool, self._lock

    def __getstate__(self) -> dict[str, Any]:  # for pickle and copy
        state = vars(self) | {"_single": None, "_process": 0}
        return {name: value for name, value in state.items() if name not in ("_pool", "_lock")}


def check_logits(logits: NDArray[np.float32], rows: int, info: ModelInfo, source: str) -> None:
    """Check that a network returned one row of finite logits per face.

    Raises:
        CheckpointError: It did not.
    """
    if logits.shape != (rows, len(info.classes)):
        raise CheckpointError(
            f"{source}: returned logits of shape {logits.shape} for {rows} faces and {len(info.classes)} classes; "
            "the file is damaged or is not a classifier of single faces"
        )
    if not np.isfinite(logits).all():
        raise CheckpointError(
            f"{source}: returned logits that are not finite (nan or infinity); the file is damaged, or its input was not finite"
        )


def _open(file: bytes, path: Path, threads: int, asked: Sequence[str]) -> Session:
    """Return a session on the providers that the user asked for, or else on the default ones."""
    try:
        return open_session(file, threads, providers=asked or default_providers(), bounded=True, fallback=not asked)
    except Exception as error:  # onnxruntime's own errors share no base class
        if asked and asked != ["CPUExecutionProvider"]:
            raise InputError(
                f"{path}: cannot be opened with {', '.join(asked)} ({_reason(error)}); check its drivers, or choose cpu"
            ) from None
        raise CheckpointError(
            f"{path}: is damaged or not an ONNX file ({_reason(error)}); export or download it again"
        ) from None


def _reason(error: Exception) -> str:
    return " ".join(str(error).split())[:160]
