from collections.abc import Iterator
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
