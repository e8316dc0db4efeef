"""Results files, as `mien evaluate` writes them: how they are read and checked."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from mien.errors import DataError


def read_results(path: Path) -> dict[str, Any]:
    """Return the content of a results file.

    Raises:
        DataError: The file is missing, is not a results file, or was changed after `mien evaluate` wrote it.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        values = None
    if not isinstance(values, dict) or not all(isinstance(values.get(key), dict) for key in ("model", "data", "standard")):
        raise DataError(f"{path}: is not a results file; give a .json file that mien evaluate wrote")
    text = json.dumps({key: value for key, value in values.items() if key != "digest"}, sort_keys=True, separators=(",", ":"))
    if "digest" in values and values["digest"] != hashlib.sha256(text.encode()).hexdigest():
        raise DataError(f"{path}: was edited by hand after mien evaluate wrote it; evaluate the model again")
    return values
