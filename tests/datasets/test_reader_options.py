from pathlib import Path

import pytest

from mien.datasets import CORPORA, load_corpus
from mien.datasets.corpus import check_options
from mien.errors import DataError, MienError

ANYTHING = (
    {},
    {1: 2, "a": 3},
    [8],
    [],
    (8,),
    8,
    8.5,
    "8",
    "no",
    True,
    None,
    Path("x"),
    float("nan"),
    10**400,
    "x" * 5000,
    "\0",
)


@pytest.mark.parametrize(
    ("corpus", "options", "message"),
    [
        ("ferplus", {"classes": [8]}, r"ferplus: classes is \[8\]; give a whole number"),
        ("ferplus", {"classes": True}, "classes is True; give a whole number"),
        ("ferplus", {"classes": 8.0}, r"classes is 8\.0; give a whole number"),
        ("ferplus", {"votes": 5}, "ferplus: votes is 5; give text"),
        ("ferplus", {"targets": ["majority"]}, "targets is .*; give text"),
        ("ferplus", {"min_agreement": True}, "min_agreement is True; give a number"),
        ("affectnet", {"classes": [7]}, r"affectnet: classes is \[7\]; give a whole number"),
        ("affectnet", {"classes": 7.0}, r"classes is 7\.0; give a whole number"),
        ("ckplus", {"neutral": "no"}, "ckplus: neutral is 'no'; give true or false"),
        ("ckplus", {"contempt": 0}, "contempt is 0; give true or false"),
        ("ckplus", {"frames": 3.0}, r"frames is 3\.0; give a whole number"),
        ("folder", {"label_set": 7}, "folder: label_set is 7; give text"),
        ("manifest", {"label_set": {1: 2, "a": 3}}, "manifest: label_set is .*; give text"),
        ("rafdb", {"colour": "no"}, "rafdb: colour is 'no'; give true or false"),
        ("ckplus", {"faces": "no way"}, "ckplus: faces is 'no way'; give true or false"),
        ("folder", {"colour": 1}, "colour is 1; give true or false"),
        ("folder", {"size": {1: 2, "a": 3}}, "size is .*; give the side"),
        ("folder", {"pad": -1}, "pad is -1; give a number of px from 0 to 512"),
        ("folder", {1: 2, "colour": True}, "folder has no option 1"),
        ("fer2013", {"source": "x"}, "fer2013 has no option 'source'"),
        ("fer2013", {"votes": True}, "fer2013: votes is True; give text"),
        ("fer2013", {"faces": None}, "faces is None; give true or false"),
    ],
)
def test_an_option_of_another_type_is_named_before_anything_is_read(tmp_path: Path, corpus: str, options, message: str):
    """The folder is empty, so what is said of an option is said before its files are missed."""
    with pytest.raises(DataError, match=message):
        load_corpus(corpus, tmp_path, options=options)
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize("corpus", CORPORA.names())
def test_any_value_of_any_option_is_taken_or_refused(tmp_path: Path, corpus: str):
    names = (
        "classes",
        "targets",
        "min_agreement",
        "votes",
        "frames",
        "contempt",
        "neutral",
        "label_set",
        "size",
        "colour",
        "faces",
        "pad",
    )
    for key in (*names, "x", 1, None, ("size",)):
        for value in ANYTHING:
            with pytest.raises(MienError):  # nothing is there to be read, whatever the options are
                load_corpus(corpus, tmp_path, options={key: value})


def test_good_options_are_taken():
    for corpus, options in (
        ("ferplus", {"classes": 10, "targets": "distribution", "min_agreement": 1, "votes": None}),
        ("ferplus", {"min_agreement": 0.5, "votes": "votes.csv", "size": (48, 48), "colour": False, "faces": True}),
        ("ckplus", {"frames": 3, "contempt": False, "neutral": True}),
        ("ckplus", {"frames": None, "size": 96}),
        ("manifest", {"label_set": "rafdb", "size": [30, 20]}),
    ):
        check_options(corpus, options)
