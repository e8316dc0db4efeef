"""A corpus with the classes of another label set."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mien.datasets import Corpus, Rows, apply_protocol, load_corpus, mapped, read_protocol, write_protocol
from mien.datasets.protocols.mapped import NO_CLASS
from mien.errors import DataError, LabelError
from mien.labels import LABEL_SETS, canonical, label_set

CK48 = Path(__file__).parents[3] / "shared" / "data" / "ckplus48" / "CK+48.zip"
SEVEN = label_set("fer2013")


def small(classes: tuple[str, ...], times: int = 10, **more: Any) -> Corpus:
    """A corpus of empty images: the classes in turn, two thirds for training; row 3 was in no split before."""
    count = times * len(classes)
    split = np.array([-1 if i == 3 else int(i >= count * 2 // 3) for i in range(count)], np.int8)
    rows = Rows(classes, np.arange(count) % len(classes), split, ("train", "test"), **more)
    return Corpus("small", np.zeros((count, 2, 2), np.uint8), rows, fingerprint="f00d")


def names(corpus: Corpus) -> list[str | None]:
    """The class of each image by name."""
    return [None if i == NO_CLASS else canonical(corpus.classes[i]) for i in corpus.target]


@settings(deadline=None)
@given(st.sampled_from(sorted(LABEL_SETS)), st.sampled_from(sorted(LABEL_SETS)))
def test_every_image_keeps_its_class_by_name(source: str, target: str):
    corpus = small(label_set(source))
    drop = [name for name in corpus.classes if name not in label_set(target)]
    made = mapped(corpus, target, drop)
    assert made.classes == label_set(target)
    assert names(made) == [None if name in drop else name for name in names(corpus)]
    assert made.target.dtype == np.int64
    gone = np.isin(names(corpus), drop)
    assert made.rows.split.dtype == np.int8
    assert (made.rows.split == np.where(gone, -1, corpus.rows.split)).all()  # nobody else's split changes
    assert (made is corpus) == (source == target)
    assert (made.fingerprint == corpus.fingerprint) == (source == target)
    if drop:
        with pytest.raises(DataError, match=f"{target} does not have {', '.join(drop)}, but small does; .* drop: "):
            mapped(corpus, target, drop=())


def test_other_spellings_are_the_same_class():
    made = mapped(small(("Happiness", "Anger", "Contempt")), "fer2013", ["contempt"])
    assert names(made)[:4] == ["happy", "angry", None, "happy"]
    assert made.protocol == "labels of fer2013 without Contempt; official"


def test_rows_pictures_and_people_stay_where_they_are():
    people = tuple(f"S{i:03}" for i in range(80))
    corpus = small(label_set("ferplus"), subjects=people, sequences=people)
    made = mapped(corpus, "fer2013", ["contempt"])
    assert made.images is corpus.images
    assert made.rows.subjects == made.rows.sequences == people
    assert made.origin(7) == "row 7"
    assert made.rows.split[7] == made.rows.split[3] == -1
    assert (corpus.rows.split >= 0).sum() == 79  # the corpus it came from is left alone
    assert mapped(corpus, "fer2013", ["contempt"]).fingerprint == made.fingerprint
    others = (mapped(corpus, "fer2013", ["contempt", "fear"]), mapped(corpus, "rafdb", ["contempt"]), corpus)
    assert len({made.fingerprint, *(other.fingerprint for other in others)}) == 4


def test_a_class_that_both_have_can_be_dropped():
    made = mapped(small(SEVEN), "fer2013", ["Neutral"])
    assert made.classes == SEVEN
    assert (made.target[made.rows.split >= 0] != SEVEN.index("neutral")).all()
    assert made.protocol == "labels of fer2013 without neutral; official"


def test_votes_are_moved_and_shared_anew():
    classes = label_set("ferplus")
    votes = np.random.default_rng(0).dirichlet(np.ones(8), 80).astype(np.float32)
    votes[7] = np.eye(8)[7]  # all of them for contempt, which is the class of row 7
    made = mapped(small(classes, votes=votes), "fer2013", ["contempt"])
    found = made.rows.votes
    assert found is not None
    assert found.dtype == np.float32
    kept = votes[:, :7] / np.maximum(votes[:, :7].sum(1, keepdims=True), 1e-9)
    for i, name in enumerate(classes[:7]):
        np.testing.assert_allclose(found[:, SEVEN.index(name)], kept[:, i], rtol=1e-5)
    used = made.rows.split >= 0
    np.testing.assert_allclose(found[used].sum(1), 1, rtol=1e-6)
    assert found[7].tolist() == [0] * 7


def test_votes_of_one_class_in_two_spellings_are_summed():
    votes = np.tile(np.array([[0.5, 0.25, 0.25]], np.float32), (30, 1))
    made = mapped(small(("happiness", "happy", "sad"), votes=votes), "fer2013")
    assert made.rows.votes is not None
    assert made.rows.votes[0].tolist() == [0, 0, 0, 0.75, 0.25, 0, 0]


@pytest.mark.parametrize(
    "part",
    [
        {"name": "random_split", "val": 0.2},
        {"name": "kfold", "folds": 4, "fold": 1, "val": 0.2},
        {"name": "kfold", "folds": 4, "by": "subject"},
        {"name": "leave_one_subject_out", "subject": "S2"},
        {"name": "official", "val": 0.2},
    ],
)
def test_dropped_images_stay_out_of_every_protocol(part: dict[str, Any]):
    corpus = small(label_set("ferplus"), 20, subjects=tuple(f"S{i % 10}" for i in range(160)))
    made = apply_protocol(mapped(corpus, "fer2013", ["contempt"]), part)
    assert set(np.flatnonzero(made.rows.split < 0)) == {3, *range(7, 160, 8)}
    assert made.protocol.startswith("labels of fer2013 without contempt; ")
    plain = apply_protocol(corpus, part).protocol
    assert made.protocol == f"labels of fer2013 without contempt; {plain}"
    subset = apply_protocol(made, {"name": "random_split"})  # row 3 was taken out before, and still is
    assert subset.protocol == f"{made.protocol}; random 20 % test by image, seed 0"
    whole = replace(made, rows=replace(made.rows, split=np.where(made.target < 0, -1, 0).astype(np.int8)))
    again = apply_protocol(whole, {"name": "random_split"})  # dropped images alone are no subset
    assert again.protocol == "labels of fer2013 without contempt; random 20 % test by image, seed 0"


def test_it_comes_before_or_after_a_split():
    corpus = small(label_set("ferplus"), 20)
    before = mapped(apply_protocol(corpus, {"name": "kfold", "folds": 4}), "fer2013", ["contempt"])
    assert before.protocol == "labels of fer2013 without contempt; 4-fold by image, fold 0, seed 0"
    twice = apply_protocol(mapped(before, "rafdb"), {"name": "random_split"})
    assert names(twice) == names(before)
    assert twice.protocol.startswith("labels of rafdb; labels of fer2013 without contempt; ")
    assert (twice.rows.split[7::8] == -1).all()
    assert apply_protocol(mapped(before, "rafdb"), {"name": "balanced", "per_class": 4}).protocol.endswith(
        "fold 0, seed 0; 4 images a class in train, seed 0"
    )


def test_a_protocol_file_is_of_the_labels_it_was_written_for(tmp_path: Path):
    corpus = small(label_set("ferplus"), 20)
    step = {"name": "map_to", "label_set": "fer2013", "drop": ["contempt"]}
    made = apply_protocol(apply_protocol(corpus, step), {"name": "kfold", "folds": 4, "val": 0.2})
    write_protocol(tmp_path / "p.json", made)
    again = apply_protocol(apply_protocol(corpus, step), {"name": "file", "path": str(tmp_path / "p.json")})
    assert (again.rows.split == made.rows.split).all()
    assert (again.protocol, again.splits, again.classes) == (made.protocol, made.splits, SEVEN)
    with pytest.raises(
        DataError, match=r"fingerprint .* this small has f00d; read it with the same options, and after the same"
    ):
        read_protocol(tmp_path / "p.json", corpus)
    forged = replace(apply_protocol(corpus, {"name": "kfold", "folds": 4}), fingerprint=made.fingerprint)
    write_protocol(tmp_path / "q.json", forged)
    with pytest.raises(DataError, match="has a row whose class was dropped"):
        read_protocol(tmp_path / "q.json", made)


@pytest.mark.parametrize(
    ("step", "error", "message"),
    [
        ({"label_set": "fer2013"}, DataError, r"fer2013 does not have contempt, but small does; .* drop: \[contempt\]"),
        ({"label_set": "fer2014"}, LabelError, "unknown label set 'fer2014'; did you mean 'fer2013'"),
        ({"label_set": ["angry"]}, DataError, r"label_set is \['angry'\]; give the name of one"),
        ({"label_set": "fer2013", "drop": "contempt"}, DataError, r"drop is 'contempt'; give a list of classes"),
        ({"label_set": "fer2013", "drop": [7]}, DataError, r"drop is \[7\]; give a list of classes"),
        ({"label_set": "fer2013", "drop": ["contemt"]}, DataError, "no class 'contemt' to drop; did you mean 'contempt'"),
        ({"label_set": "fer2013", "drop": ["calm"]}, DataError, "small has no class 'calm' to drop"),
        ({"label_set": "fer2013", "drop": list(label_set("ferplus"))}, DataError, "no image remains"),
        ({}, DataError, "map_to needs the argument 'label_set'"),
    ],
)
def test_a_mapping_that_cannot_be_is_refused(step: dict[str, Any], error: type[Exception], message: str):
    with pytest.raises(error, match=message):
        apply_protocol(small(label_set("ferplus")), {"name": "map_to", **step})


@pytest.mark.skipif(not CK48.is_file(), reason="the real CK+48 is not next to this checkout")
def test_the_real_ckplus_as_fer2013():
    steps = [
        {"name": "map_to", "label_set": "fer2013", "drop": ["contempt"]},
        {"name": "kfold", "folds": 10, "by": "subject", "val": 0.1},
    ]
    plain = load_corpus("ckplus", CK48)
    made = load_corpus("ckplus", CK48, protocol=steps)
    assert np.bincount(made.target[made.rows.split >= 0], minlength=7).tolist() == [135, 177, 75, 207, 84, 249, 0]
    assert (made.rows.split < 0).sum() == 54
    assert [name for name in names(made) if name] == [name for name in names(plain) if name != "contempt"]
