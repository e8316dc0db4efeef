from dataclasses import replace

import numpy as np
import pytest
import torch

from mien.augment import Views
from mien.datasets import Corpus
from mien.engine import loader
from mien.engine.loader import Loader
from mien.preprocess import PreprocessSpec, preprocess

CPU = torch.device("cpu")


@pytest.mark.parametrize("limit", [1 << 29, 0], ids=["resident", "read from the cache"])
def test_batches_are_the_rows_asked_for(corpus: Corpus, monkeypatch: pytest.MonkeyPatch, limit: int):
    monkeypatch.setattr(loader, "RESIDENT_BYTES", limit)
    rows = corpus.where("public_test")
    split = Loader(corpus, rows, CPU)
    assert (split.resident is None) == (limit == 0)
    parts = [torch.tensor([3, 0, 31]), torch.tensor([7]), torch.tensor([7, 8, 9, 10])]
    for part, (images, indices) in zip(parts, split.batches(iter(parts)), strict=True):
        assert torch.equal(indices, part)
        assert np.array_equal(images.numpy(), corpus.images[rows[part.numpy()]])
        assert split.target[indices].tolist() == corpus.target[rows[part.numpy()]].tolist()


@pytest.mark.parametrize("limit", [1 << 29, 0], ids=["resident", "read from the cache"])
def test_fixed_views_make_the_split_longer(corpus: Corpus, monkeypatch: pytest.MonkeyPatch, limit: int):
    """Every image comes once in each version, with its label and votes."""
    monkeypatch.setattr(loader, "RESIDENT_BYTES", limit)
    votes = np.eye(7, dtype=np.float32)[corpus.target]
    corpus, rows = replace(corpus, rows=replace(corpus.rows, votes=votes)), corpus.where("public_test")
    split = Loader(corpus, rows, CPU, views=15)
    assert len(split) == len(split.target) == len(split.votes) == 15 * len(rows)
    seen = torch.zeros(len(rows), 15, dtype=torch.int64)
    for images, indices in split.batches(torch.randperm(len(split)).split(50)):
        row, view = rows[indices // 15], indices % 15
        assert torch.equal(images, Views(15)(torch.from_numpy(corpus.images[row]), view))
        assert split.target[indices].tolist() == split.votes[indices].argmax(1).tolist() == corpus.target[row].tolist()
        seen[indices // 15, view] += 1
    assert (seen == 1).all()


def test_images_in_memory_are_read_like_those_of_the_cache(corpus: Corpus, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(loader, "RESIDENT_BYTES", 0)
    held = replace(corpus, images=np.array(corpus.images))
    part = torch.arange(5)
    (images, _), *rest = Loader(held, held.where("train"), CPU).batches([part])
    assert not rest
    assert np.array_equal(images.numpy(), corpus.images[:5])


def test_no_batch_is_no_error(corpus: Corpus, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(loader, "RESIDENT_BYTES", 0)
    assert list(Loader(corpus, corpus.where("train"), CPU).batches([])) == []


def test_a_part_of_a_map_is_read_as_that_part(corpus: Corpus):
    part = replace(corpus, images=corpus.images[10:20])
    assert np.array_equal(part.read(np.array([3, 0])), np.array(corpus.images)[[13, 10]])
    assert np.array_equal(corpus.read(np.array([159, 3, 3])), np.array(corpus.images)[[159, 3, 3]])


def test_inputs_are_those_of_evaluation(corpus: Corpus, monkeypatch: pytest.MonkeyPatch):
    spec = PreprocessSpec(size=(40, 40), channels=1, mean=(0.5,), std=(0.25,))
    rows = corpus.where("train")
    monkeypatch.setattr(loader, "INPUT_BYTES", 40 * 4 * 40 * 40)
    parts = list(Loader(corpus, rows, CPU).inputs(spec))
    assert [len(part) for part in parts] == [40, 40, 16]
    assert [len(part) for part in Loader(corpus, rows, CPU).inputs(spec, 36)] == [36, 36, 24]
    assert np.array_equal(torch.cat(parts).numpy(), preprocess(list(corpus.images[rows]), spec))
