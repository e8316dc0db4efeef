"""Parse `--set key=value` and `--option key=value`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mien.errors import MienError, require


def parse_pairs(texts: Sequence[str] | None, flag: str, example: str, error: type[MienError]) -> dict[str, Any]:
    """Return the keys and values of a repeated option; values are read as YAML.

    Args:
        texts: The option's arguments, each `key=value`.
        flag: Name of the option, for error messages.
        example: A valid argument, for error messages.
        error: The error to raise for an invalid argument.
    """
    yaml = require("yaml", "train")
    from mien.recipe import read_yaml

    found: dict[str, Any] = {}
    for text in texts or []:
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise error(f"{flag} {text}: write it as key=value, for example {flag} {example}")
        try:
            found[key] = read_yaml(value)
        except (yaml.YAMLError, ValueError):  # YAML takes 2024-13-45 for a date
            raise error(f"{flag} {text}: the value cannot be read") from None
    return found
