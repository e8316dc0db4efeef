"""How people spell splits: the tables for every reader and for `mien prepare`."""

from __future__ import annotations

SPLIT_NAMES: dict[str, str] = {
    "train": "train", "training": "train",
    "val": "val", "valid": "val", "validation": "val", "eval": "val", "evaluation": "val",
    "publictest": "public_test", "public_test": "public_test",
    "test": "test", "testing": "test",
    "privatetest": "private_test", "private_test": "private_test",
}  # fmt: skip
"""mien's name of a split by its folder's name, lower case, in the order splits have: training first, what is reported last."""

USAGE = {"Training": 0, "PublicTest": 1, "PrivateTest": 2}
"""The words of FER2013's table and of FER+'s votes for its splits, by the split's number."""


def split_name(word: str) -> str | None:
    """Return the split a folder's name or a table's word means; None if it means none.

    >>> split_name("Valid"), split_name("PublicTest"), split_name("happy")
    ('val', 'public_test', None)
    """
    return SPLIT_NAMES.get(word.lower())
