import pytest

from mien.errors import LabelError
from mien.labels import LABEL_SETS, canonical, label_set, mapping


def test_the_orders_are_the_corpora_s_own() -> None:
    """Written out again on purpose: a changed order is the most frequent silent error of this field."""
    assert label_set("fer2013") == ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")
    assert label_set("ferplus")[:4] == ("neutral", "happy", "surprise", "sad")
    assert label_set("ferplus10")[:8] == label_set("ferplus")
    assert label_set("rafdb") == ("surprise", "fear", "disgust", "happy", "sad", "angry", "neutral")
    assert label_set("affectnet8") == (*label_set("affectnet7"), "contempt")
    assert label_set("ckplus") == tuple(sorted(label_set("ckplus")))


@pytest.mark.parametrize("name", LABEL_SETS)
def test_every_set_is_distinct_and_canonical(name: str) -> None:
    classes = label_set(name)
    assert len(set(classes)) == len(classes)
    assert [canonical(word) for word in classes] == list(classes)


@pytest.mark.parametrize("source", LABEL_SETS)
@pytest.mark.parametrize("target", LABEL_SETS)
def test_mappings_go_by_name(source: str, target: str) -> None:
    for word, index in zip(label_set(source), mapping(label_set(source), label_set(target)), strict=True):
        assert word not in label_set(target) if index is None else label_set(target)[index] == word


def test_synonyms_meet() -> None:
    assert mapping([" Happiness", "ANGER", "NF"], label_set("ferplus10")) == [1, 4, 9]


def test_two_spellings_of_an_accent_are_one_word() -> None:
    assert canonical(" De\u0301gou\u0302t") == canonical("D\u00c9GO\u00dbT") == "d\u00e9go\u00fbt"
    assert mapping(["de\u0301gou\u0302t"], ["joie", "d\u00e9go\u00fbt"]) == [1]


def test_an_unknown_set_names_the_nearest() -> None:
    with pytest.raises(LabelError, match="did you mean 'fer2013'"):
        label_set("fer2012")
