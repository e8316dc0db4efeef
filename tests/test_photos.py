"""Marked faces of photos: found or not, cropped as `mien predict` crops them."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mien.errors import DataError
from mien.photos import read_photos
from mien.predict.onnx_backend import OnnxBackend
from mien.predict.recognizer import Recognizer

ASTRONAUT = Path(__file__).parents[1] / "docs/assets/astronaut.jpg"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A photo of one face, one of two, and one of none."""
    folder = tmp_path_factory.mktemp("photos")
    with Image.open(ASTRONAUT) as image:
        one = image.convert("RGB").crop((96, 16, 352, 272))
    one.save(folder / "one.png")
    two = Image.new("RGB", (512, 256))
    two.paste(one, (0, 0))
    two.paste(one.transpose(Image.Transpose.FLIP_LEFT_RIGHT), (256, 0))
    two.save(folder / "two.png")
    Image.new("RGB", (90, 80)).save(folder / "none.png")
    return folder


def table(folder: Path, text: str) -> Path:
    path = folder / "faces.csv"
    path.write_text(text)
    return path


@pytest.fixture
def backend(tiny_onnx: Path) -> OnnxBackend:
    return OnnxBackend(tiny_onnx)


def test_boxes_say_which_face_is_meant(folder: Path, backend: OnnxBackend):
    (face,) = Recognizer(backend).predict(folder / "one.png")
    left, top, right, bottom = face.face.box_xyxy.tolist()
    lines = [
        f"two.png,{512 - right},{top},{512 - left},{bottom},Happiness,right",
        f"two.png,{left - 3},{top},{right},{bottom + 3},,left",  # not labelled
        "two.png,0,200,60,256,sad,corner",  # no face is there
        "none.png,10,10,60,60,sad,nobody",
    ]
    path = table(folder, "path,left,top,right,bottom,label,place\n" + "\n".join(lines))
    corpus, groups = read_photos(backend, path, ["place"])
    assert (corpus.classes, corpus.files, corpus.splits) == (("happy",), ("two.png",), ("all",))
    assert groups.columns == {"place": ["right"]}
    assert groups.faces == {"place": ["right", "left", "corner", "nobody"]}
    assert groups.found is not None
    assert groups.found.tolist() == [True, True, False, False]
    seen = Recognizer(backend).predict(folder / "two.png")
    mirrored = next(each for each in seen if each.face.box_xyxy[0] > 256)
    probs = Recognizer(backend).probabilities(list(corpus.images))
    np.testing.assert_allclose(probs[0], mirrored.probs, atol=1e-6)


def test_without_boxes_a_photo_has_one_face(folder: Path, backend: OnnxBackend):
    path = table(folder, "path,label\none.png,happy\nnone.png,sad\ngone.png,sad\n")
    corpus, groups = read_photos(backend, path)
    assert corpus.files == ("one.png",)
    assert groups.found is not None
    assert groups.found.tolist() == [True, False]  # a photo that cannot be read is neither found nor missed
    (skipped,) = corpus.skipped
    assert "gone.png" in skipped
    assert read_photos(backend, path)[0].fingerprint == corpus.fingerprint
    assert read_photos(backend, table(folder, "path,label\none.png,sad\n"))[0].fingerprint != corpus.fingerprint


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "path,label\none.png,happy\n./one.png,sad\n",
            "row 3 names one.png again, after row 2; mark each face .* with its box",
        ),
        ("path,left,label\none.png,3,happy\n", "has the column 'left' but not all of left, top, right, bottom"),
        ("path,left,top,right,bottom,label\none.png,9,9,5,20,x\n", "row 2: its box is empty or infinite"),
        ("path,left,top,right,bottom,label\none.png,a,9,5,20,x\n", "row 2: its box is not four numbers of px"),
        ("path,left,top,right,bottom,label\none.png,,,,,x\n", "row 2 has no box; give one for every face, or for none"),
        ("path,label\n,happy\n", "row 2 has no path of a photo"),
        ("path,label\n", "contains no rows after its header"),
        ("path,labels\none.png,happy\n", "has no column 'label'; did you mean 'labels'"),
        ("path,label\nnone.png,happy\n", "no face with a label was found in its 1 photos"),
        ("path,label\ngone.png,happy\n", "no face with a label was found in its 1 photos; the first problem: .*gone.png"),
    ],
)
def test_a_bad_table_is_named(folder: Path, backend: OnnxBackend, text: str, message: str):
    with pytest.raises(DataError, match=rf"faces\.csv: {message}|faces\.csv: .*{message}"):
        read_photos(backend, table(folder, text))
