"""What `--help` shows of every command."""

import re
from collections.abc import Iterator
from typing import Any

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from mien.cli import app


def commands(group: Any, *words: str) -> Iterator[tuple[str, ...]]:
    yield words
    for name, command in group.commands.items():
        yield from commands(command, *words, name) if hasattr(command, "commands") else [(*words, name)]


@pytest.mark.parametrize("words", list(commands(get_command(app))), ids=" ".join)
def test_help_says_what_values_are_called_and_fits_the_terminal(words: tuple[str, ...]) -> None:
    done = CliRunner().invoke(app, [*words, "--help"], env={"COLUMNS": "80"})
    assert done.exit_code == 0
    assert not re.search(r"<(bool|str|int|float|path|file|list)\b|\bTEXT\.\.\.", done.output, re.IGNORECASE)
    assert "…" not in done.output  # nothing is cut
    assert max(map(len, done.output.splitlines())) <= 80


def test_every_command_is_in_a_group() -> None:
    assert all(command.rich_help_panel for command in get_command(app).commands.values())
    shown = CliRunner().invoke(app, ["--help"]).output
    assert "─ Photos and videos ─" in shown
    assert "─ Commands ─" not in shown


def test_the_usage_line_starts_with_the_arguments() -> None:
    assert "explain PHOTO... [OPTIONS]" in CliRunner().invoke(app, ["explain", "--help"]).output
    assert "models [NAME] [OPTIONS]" in CliRunner().invoke(app, ["models", "--help"]).output
