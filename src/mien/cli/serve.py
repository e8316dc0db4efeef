"""`mien serve`: the recogniser as a service over HTTP."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mien.cli import options
from mien.cli.options import option
from mien.errors import InputError, reason, require

if TYPE_CHECKING:
    from mien.server.settings import Settings

SERVER, LIMITS = "Server", "Limits"

LOOPBACK = ("127.0.0.1", "::1", "localhost")


def serve(
    host: Annotated[
        str, option("Address to listen at. 0.0.0.0 lets other machines in; give --keys then.", "ADDRESS", SERVER)
    ] = "127.0.0.1",
    port: Annotated[int, option("Port to listen at; 0 takes a free one.", "N", SERVER)] = 8000,
    workers: Annotated[int, option("Number of processes. Each has a model of its own.", "N", SERVER, min=1)] = 1,
    keys: Annotated[
        Path | None, option("Let only requests in that carry one of the keys in this file.", "FILE", SERVER)
    ] = None,
    allow_origin: Annotated[
        list[str] | None, option("Let pages of this origin call the server from a browser. Repeat it.", "URL", SERVER)
    ] = None,
    limit: Annotated[
        list[str] | None,
        option("Change a limit, such as max_bytes=5000000; docs/server.md lists them. Repeat it.", "NAME=N", LIMITS),
    ] = None,
    model: options.Model = None,
    detector: options.DetectorName = "centerface",
    min_face: options.MinFace = None,
    unsure_below: options.UnsureBelow = 0.5,
    providers: options.Providers = None,
    language: options.PageLanguage = None,
) -> None:
    """Answer requests over HTTP: pictures, faces, videos and cameras in, expressions out."""
    uvicorn = require("uvicorn", "serve")
    for module in ("fastapi", "python_multipart", "prometheus_client", "websockets"):
        require(module, "serve")
    from mien.server import app

    known = _read_keys(keys)
    if host not in LOOPBACK and not known:
        typer.echo("note: everyone who reaches this address may send pictures; --keys FILE lets only some in", err=True)
    settings = _settings(
        limit or [],
        model=model,
        detector=detector,
        min_face=min_face,
        unsure_below=unsure_below,
        providers=providers,
        keys=known,
        language=language,
        origins=tuple(allow_origin or ()),
    )
    app.check(settings)
    folder = tempfile.mkdtemp(prefix="mien-server-")
    os.environ[app.SETTINGS] = settings.model_copy(update={"jobs_folder": folder}).model_dump_json()
    if workers > 1:
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = tempfile.mkdtemp(prefix="metrics-", dir=folder)
    try:
        uvicorn.run(
            "mien.server.app:application",
            factory=True,
            http=app.HTTPProtocol,
            host=host,
            port=port,
            workers=workers,
            access_log=False,  # it would show what clients send in addresses
            log_level="info",
            ws_max_size=settings.max_bytes,
            limit_concurrency=settings.max_connections,
            timeout_keep_alive=5,
            timeout_worker_healthcheck=60,  # a worker of a busy machine may start slowly
            timeout_graceful_shutdown=int(settings.grace_seconds),
            server_header=False,
        )
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _read_keys(path: Path | None) -> tuple[str, ...]:
    """Return the API keys in a file, one per line."""
    if path is None:
        return ()
    try:
        keys = tuple(line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip())
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read ({reason(error)}); name a text file with one key per line") from None
    if not keys:
        raise InputError(f"{path}: has no key; write one key per line")
    return keys


def _settings(limits: list[str], **values: object) -> Settings:
    """Return the settings, with the limits that the user changed."""
    from pydantic import ValidationError

    from mien.registry import nearest
    from mien.server.settings import LIMITS as NAMES
    from mien.server.settings import Settings

    for text in limits:
        name, equals, value = text.partition("=")
        if not equals:
            raise InputError(f"--limit {text}: write it as NAME=N, for example max_bytes=5000000")
        if name not in NAMES:
            raise InputError(f"--limit {text}: unknown limit {name!r}{nearest(name, list(NAMES))}")
        values[name] = value
    try:
        return Settings.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        raise InputError(f"{'.'.join(map(str, first['loc']))}: {first['msg'].lower()}, got {first['input']}") from None
