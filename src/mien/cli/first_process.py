"""Which of the processes of one training speaks to the user."""

from __future__ import annotations

import os


def is_first_process() -> bool:
    """Return whether this is the process the user began, not one that Fabric began beside it."""
    return os.environ.get("LOCAL_RANK", "0") == "0"
