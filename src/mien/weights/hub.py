"""Models on the Hugging Face Hub: `download` for the address `hf://user/model`, and `push`.

Nothing else in mien reaches the Hub. Only `.onnx` files are loaded, never a pickle, whose opening can run any code.
huggingface_hub keeps the downloaded files in its own cache, and knows the user's token.
"""

from __future__ import annotations

import logging
import os
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mien.errors import CheckpointError, InputError, OutputError, reason, require
from mien.model_info import ModelInfo
from mien.weights import card_path, read_card
from mien.weights.card import markdown

ADDRESS = re.compile(r"hf://(?P<repo>[\w.-]+/[\w.-]+)(?:@(?P<revision>[^@/]+))?(?:/(?P<file>[^@]+))?")
COMMIT = re.compile(r"[0-9a-f]{40}")
OTHER_WEIGHTS = (".bin", ".ckpt", ".h5", ".pkl", ".pt", ".pth", ".safetensors")
TIMEOUT = 10
"""Seconds to wait for the Hub's list of files."""


def download(address: str) -> Path:
    """Return the local copy of a model's `.onnx` file, with the card next to it if the repository has one.

    The cache answers alone if the revision is a commit, if the Hub cannot be reached (then a note is logged), and if
    `MIEN_OFFLINE` is set.

    Args:
        address: `hf://user/model`, `hf://user/model@revision` with a branch, tag or commit, and with `/FILE.onnx` at the end if
            the repository has several.

    Raises:
        CheckpointError: The address is not valid; there is no such repository, revision or file, or the user may not read it;
            it has no `.onnx` file, or several; or the Hub cannot be reached and the file is not in the cache.
        MissingExtraError: huggingface_hub is not installed.
    """
    found = ADDRESS.fullmatch(address)
    if found is None:
        raise CheckpointError(f"{address}: is not an address of a model; write hf://user/model or hf://user/model@revision")
    repo, revision, file = found["repo"], found["revision"], found["file"]
    offline = os.environ.get("MIEN_OFFLINE", "0") not in ("", "0")
    with _library() as hub:
        cached = _cached_models(hub, repo, revision, file)
        if cached and (offline or COMMIT.fullmatch(revision or "")):
            return cached[_choose(address, file, list(cached))]
        if offline:
            raise CheckpointError(f"{address}: is not in the cache; unset MIEN_OFFLINE to download it")
        try:
            api = hub.HfApi(library_name="mien")
            names = [each.rfilename for each in api.model_info(repo, revision=revision, timeout=TIMEOUT).siblings or ()]
            name = _choose(address, file, names)
            card = card_path(Path(name)).as_posix()
            if card in names:
                api.hf_hub_download(repo, card, revision=revision)
            return Path(api.hf_hub_download(repo, name, revision=revision))
        except hub.errors.RepositoryNotFoundError:
            raise CheckpointError(
                f"{address}: there is no such model on the Hub, or it is private and your token may not read it; check the "
                "name, or log in with: hf auth login"
            ) from None
        except hub.errors.RevisionNotFoundError:
            raise CheckpointError(f"{address}: the model has no revision {revision}; name a branch, tag or commit") from None
        except hub.errors.HFValidationError as error:
            raise CheckpointError(f"{address}: {reason(error)}") from None
        except (hub.errors.HTTPError, OSError) as error:  # no network, a timeout, or the Hub's own trouble
            if not cached:
                raise CheckpointError(
                    f"{address}: cannot be downloaded and is not in the cache ({_why(error)}); check your connection, and try "
                    "again"
                ) from None
            path = cached[_choose(address, file, list(cached))]
            logging.getLogger("mien").warning(
                "note: the Hub cannot be reached (%s); using the cached %s", _why(error), path.relative_to(path.parents[2])
            )
            return path


def push(model: Path, info: ModelInfo, repo: str, private: bool = False) -> str:
    """Upload a model with its cards and its recipe, and return its address.

    The file is named after the repository, so that another push replaces it.

    Args:
        model: The `.onnx` file.
        info: The facts stored in it.
        repo: `user/model`; created if it does not exist.
        private: Create the repository as a private one.

    Raises:
        InputError: `repo` is not `user/model`.
        OutputError: The user is not logged in or may not write there, or the Hub cannot be reached.
        MissingExtraError: huggingface_hub is not installed.
    """
    address = f"hf://{repo}"
    found = ADDRESS.fullmatch(address)
    if found is None or found["repo"] != repo:
        raise InputError(f"{repo}: is not the name of a repository; write user/model")
    name = repo.partition("/")[2]
    files: dict[str, bytes] = {f"{name}.onnx": model.read_bytes(), "README.md": markdown(model, info, address).encode()}
    if read_card(model):
        files[f"{name}.json"] = card_path(model).read_bytes()
    if info.recipe:
        files["recipe.yaml"] = require("yaml", "hub").safe_dump(info.recipe, sort_keys=False, width=120).encode()
    with _library() as hub:
        api = hub.HfApi(library_name="mien")
        try:
            api.create_repo(repo, private=private or None, exist_ok=True)
            if private and not api.model_info(repo).private:
                raise OutputError(f"{address}: exists and is public; make it private on the Hub first, or leave out --private")
            changes = [hub.CommitOperationAdd(path, content) for path, content in files.items()]
            done = api.create_commit(repo, changes, commit_message=f"Upload {name} with mien")
        except (hub.errors.HTTPError, OSError, ValueError, RuntimeError) as error:
            status = getattr(getattr(error, "response", None), "status_code", None)
            advice = "log in with a token that may write there: hf auth login" if status in (401, 403) else "try again"
            raise OutputError(f"{address}: cannot be uploaded ({_why(error)}); {advice}") from None
    return f"{address}@{done.oid}"


@contextmanager
def _library() -> Iterator[Any]:
    """Yield huggingface_hub. Meanwhile it sends no telemetry and warns of nothing; its settings are restored afterwards."""
    hub, constants, _ = (require(f"huggingface_hub{part}", "hub") for part in ("", ".constants", ".errors"))
    log = logging.getLogger("huggingface_hub")
    telemetry, level = constants.HF_HUB_DISABLE_TELEMETRY, log.level
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of its own use of httpx, and of systems without symbolic links
        try:
            constants.HF_HUB_DISABLE_TELEMETRY = True  # type: ignore[attr-defined]
            log.setLevel(logging.ERROR)
            yield hub
        finally:
            constants.HF_HUB_DISABLE_TELEMETRY = telemetry  # type: ignore[attr-defined]
            log.setLevel(level)


def _why(error: Exception) -> str:
    """Return what the Hub answered, or what huggingface_hub wraps in an error that does not say why."""
    return getattr(error, "server_message", None) or reason(error.__cause__ or error)


def _cached_models(hub: Any, repo: str, revision: str | None, file: str | None) -> dict[str, Path]:
    """Return the cached `.onnx` files of a revision by their name in the repository; none if `file` is not among them."""
    try:
        folder = Path(hub.snapshot_download(repo, revision=revision, local_files_only=True))
    except (OSError, ValueError):  # nothing is cached; not a valid name
        return {}
    found = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*.onnx")}
    return found if file is None or file in found else {}


def _choose(address: str, file: str | None, names: Sequence[str]) -> str:
    """Return the name of the file to load: the one that the address names, or the only `.onnx` file."""
    models = [name for name in names if name.endswith(".onnx")]
    if file is not None and not file.endswith(".onnx"):
        raise CheckpointError(f"{address}: mien loads only .onnx files from the Hub; name one of {', '.join(models) or 'none'}")
    if file is not None and file not in models:
        raise CheckpointError(f"{address}: the repository has no such file; its .onnx files: {', '.join(models) or 'none'}")
    if len(models) > 1 and file is None:
        raise CheckpointError(f"{address}: has {len(models)} .onnx files; name one, as in {address}/{models[0]}")
    if not models:
        others = [name for name in names if name.endswith(OTHER_WEIGHTS)]
        why = f", only {', '.join(others[:3])}, which mien does not load because a pickle can run any code" if others else ""
        raise CheckpointError(f"{address}: has no .onnx file{why}; its author can upload one with: mien push")
    return file or models[0]
