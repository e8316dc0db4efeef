"""From a recipe's `data` section and the files on disk to a corpus that is split as the recipe says."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any

from mien.datasets.cache import load_corpus
from mien.datasets.corpus import Corpus
from mien.datasets.protocols.splits import apply_protocol

SOFTENING = {"fer2013": ("votes",)}
"""Options of a reader that change `Rows.votes` alone, which only training looks at."""


def load_data(
    data: Mapping[str, Any],
    source: str | os.PathLike[str],
    on_step: Callable[[int, int], None] | None = None,
    *,
    soften: bool = True,
) -> Corpus:
    """Return the corpus of a recipe.

    Args:
        data: `corpus`, and if given `options` and `protocol`, as in `mien.recipe.DataPart`.
        source: The file or folder.
        on_step: Called with the pictures decoded and their number while the cache is built.
        soften: Obey the options that only soften what is learnt; a model is measured without them, and without their files.

    Raises:
        UnknownNameError: No such corpus or protocol.
        DataError: The source cannot be read, or not split so.
    """
    dropped = () if soften else SOFTENING.get(data["corpus"], ())
    options = {key: value for key, value in (data.get("options") or {}).items() if key not in dropped}
    corpus = load_corpus(data["corpus"], source, options=options, on_step=on_step)
    protocol = data.get("protocol") or []
    for step in protocol if isinstance(protocol, list) else [protocol]:
        corpus = apply_protocol(corpus, step)
    return corpus
