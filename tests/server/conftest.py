import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from mien.server.app import create_app
from mien.server.settings import Settings

ASTRONAUT = Path(__file__).parents[2] / "docs/assets/astronaut.jpg"


@pytest.fixture(scope="session")
def photo() -> bytes:
    """A photo of one smiling face."""
    return ASTRONAUT.read_bytes()


@pytest.fixture(scope="module")
def client() -> Iterator[TestClient]:
    """A server with the default model and small limits."""
    settings = Settings(threads=2, max_bytes=2_000_000, max_pixels=1_000_000, max_pictures=3, max_jobs=2, max_cameras=1)
    with TestClient(create_app(settings)) as client:
        yield client


@contextmanager
def _running(folder: Path, *options: str) -> Iterator[tuple[subprocess.Popen[bytes], str, Path]]:
    """Start a server on a free port; yield its process, its address and its log."""
    log, temporary = folder / "log.txt", folder / "tmp"
    temporary.mkdir(exist_ok=True)
    with log.open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "mien", "serve", "--port", "0", *options],
            stdout=file,
            stderr=file,
            env=os.environ | {"TMPDIR": str(temporary)},
            start_new_session=True,
        )
    try:
        end = time.monotonic() + 60
        while (found := re.search(r"http://127\.0\.0\.1:\d+", log.read_text())) is None:
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < end
            time.sleep(0.05)
        yield process, found[0], log
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(30)


@pytest.fixture(scope="session")
def running() -> Callable[..., AbstractContextManager[tuple[subprocess.Popen[bytes], str, Path]]]:
    """Starts `mien serve` in a folder with options."""
    return _running
