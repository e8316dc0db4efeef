"""Corpora by name: `load_corpus("fer2013", "fer2013.csv")`.

A corpus is its file here and one line below.
"""

from __future__ import annotations

from mien.datasets.affectnet import read_affectnet
from mien.datasets.balance import class_weights, epoch_order, sampling_weights
from mien.datasets.cache import load_corpus
from mien.datasets.ckplus import read_ckplus
from mien.datasets.corpus import CORPORA, Corpus, Listing, Rows
from mien.datasets.fer2013 import read_fer2013
from mien.datasets.ferplus import read_ferplus
from mien.datasets.folder import read_folder
from mien.datasets.manifest import read_manifest
from mien.datasets.protocols.mapped import mapped
from mien.datasets.protocols.protocol_file import read_protocol, write_protocol
from mien.datasets.protocols.splits import PROTOCOLS, apply_protocol
from mien.datasets.rafdb import read_rafdb

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
    "read_affectnet",
    "read_ckplus",
    "read_fer2013",
    "read_ferplus",
    "read_folder",
    "read_manifest",
    "read_protocol",
    "read_rafdb",
    "sampling_weights",
    "write_protocol",
]
