"""Requests that schemathesis makes up from the server's own description: each answer conforms to it, and none is a failure."""

import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings

from mien.server.app import create_app

schemathesis = pytest.importorskip("schemathesis", reason="install mien[dev]")
from schemathesis.specs.openapi.checks import positive_data_acceptance  # noqa: E402

Running = Callable[..., AbstractContextManager[tuple[subprocess.Popen[bytes], str, Path]]]

app = create_app()
schema = schemathesis.openapi.from_dict(app.openapi())
app.state.service.close()


@pytest.fixture(scope="module")
def address(running: Running, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with running(tmp_path_factory.mktemp("server")) as (_, address, log):
        yield address
        assert "Traceback" not in log.read_text()


@schema.parametrize()
@settings(
    max_examples=10, deadline=None, derandomize=True, database=None, phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)  # fmt: skip
def test_every_answer_is_as_described(case: Any, address: str) -> None:
    # A schema cannot say which bytes are a picture, so a valid request may be refused.
    case.call_and_validate(base_url=address, excluded_checks=[positive_data_acceptance])
