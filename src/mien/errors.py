"""The errors a user can cause, and nothing else.

Each message says what was wrong, where, and what to do. The command line prints it on one line and exits with status 2.

    MienError
    ├── InputError          a picture or video that cannot be read: missing, not an image, truncated, too large
    ├── DataError           a corpus or manifest that cannot be read; names the file and the row
    │   └── EditedError     a results file, or its predictions, that were changed by hand
    ├── LabelError          a class outside the label set, or two label sets that do not match
    ├── RecipeError         a recipe with an unknown key or a value out of range
    ├── CheckpointError     weights that are corrupt, of another version or of another architecture
    ├── UnknownNameError    a name that no registry has; lists the nearest ones
    ├── MissingExtraError   an optional dependency is not installed; names the pip command
    └── OutputError         a result that cannot be written: read-only folder, full disk
"""

from __future__ import annotations

import importlib
from types import ModuleType

from mien.text import printable


class MienError(Exception):
    """Base of every error a user can cause; `str(error)` is one line that a terminal shows as it is."""

    def __str__(self) -> str:
        return printable(" ".join(super().__str__().splitlines()))


class InputError(MienError):
    """A picture or video cannot be read."""


class DataError(MienError):
    """A corpus, manifest or cache cannot be read."""


class EditedError(DataError):
    """A results file, or its file of predictions, was changed by hand."""


class LabelError(MienError):
    """A class is outside its label set, or two label sets do not match."""


class RecipeError(MienError):
    """A recipe is not valid."""


class CheckpointError(MienError):
    """A weights file is corrupt, of another version or of another architecture."""


class UnknownNameError(MienError):
    """A name is in no registry."""


class MissingExtraError(MienError):
    """An optional dependency is not installed."""


class OutputError(MienError):
    """A result cannot be written."""


def reason(error: BaseException) -> str:
    """Return why something failed, on one line and without the path: `"No such file or directory"`.

    >>> reason(FileNotFoundError(2, "No such file or directory", "a.jpg"))
    'No such file or directory'
    """
    return " ".join(str(getattr(error, "strerror", None) or error).split()) or type(error).__name__


def require(module: str, extra: str) -> ModuleType:
    """Return an optional module, imported.

    Args:
        module: Dotted module name, such as `"torch"`.
        extra: The extra of this package that installs it, such as `"train"`.

    Raises:
        MissingExtraError: The module is not installed; the message names the pip command.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name and error.name.split(".")[0] == module.split(".")[0]:
            raise MissingExtraError(
                f"this needs {module.split('.')[0]}, which is not installed; run: pip install 'mien[{extra}]'"
            ) from None
        raise
