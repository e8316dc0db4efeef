"""Corpora by name: `load_corpus("fer2013", "fer2013.csv")`.

A corpus is its file here and one line below.
"""

from __future__ import annotations

from mien.datasets.corpus import CORPORA, Corpus, load_corpus
from mien.datasets.fer2013 import read_fer2013

__all__ = ["CORPORA", "Corpus", "load_corpus", "read_fer2013"]
