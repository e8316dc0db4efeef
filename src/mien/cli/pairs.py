"""`--set key=value` and `--option key=value`: values on the command line, read as YAML."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mien.errors import MienError, require


def parse_pairs(texts: Sequence[str] | None, flag: str, example: str, error: type[MienError]) -> dict[str, Any]:
    """Return keys and values of a repeated flag.

    Args:
        texts: What was given, each `key=value`.
        flag: Its name, for the message.
        example: A good one, for the message.
        error: What to raise of a bad one.
    """
    yaml = require("yaml", "train")
    from mien.recipe import read_yaml

    found: dict[str, Any] = {}
    for text in texts or []:
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise error(f"{flag} {text}: write it as key=value, such as {flag} {example}")
        try:
            found[key] = read_yaml(value)
        except (yaml.YAMLError, ValueError):  # 2024-13-45 is a date to YAML
            raise error(f"{flag} {text}: the value cannot be read") from None
    return found
