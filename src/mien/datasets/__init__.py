"""Corpora (datasets) by name: `load_corpus("fer2013", "fer2013.csv")`.

To add a corpus, write its file here and add it to the import below.
"""

from __future__ import annotations

from mien.datasets import affectnet, ckplus, fer2013, ferplus, folder, manifest, rafdb  # noqa: F401 (registers them)
from mien.datasets.balance import class_weights, epoch_order, sampling_weights
from mien.datasets.cache import load_corpus
from mien.datasets.corpus import CORPORA, Corpus, Listing, Rows
from mien.datasets.ferplus import vote_counts
from mien.datasets.protocols.mapped import mapped
from mien.datasets.protocols.protocol_file import read_protocol, write_protocol
from mien.datasets.protocols.splits import PROTOCOLS, apply_protocol
from mien.datasets.row_list import read_row_list, write_row_list

__all__ = [
    "CORPORA",
    "PROTOCOLS",
    "Corpus",
    "Listing",
    "Rows",
    "apply_protocol",
    "class_weights",
    "epoch_order",
    "load_corpus",
    "mapped",
    "read_protocol",
    "read_row_list",
    "sampling_weights",
    "vote_counts",
    "write_protocol",
    "write_row_list",
]
