"""The table of translations is complete, every text on it is used, and what people read follows the language."""

import ast
import csv
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import matplotlib.font_manager
import numpy as np
import pytest
from PIL import Image
from rich.cells import cell_len
from typer.testing import CliRunner

from mien.cli import app
from mien.errors import InputError, OutputError
from mien.labels import LABEL_SETS
from mien.languages import PLACEHOLDER, language_in_use, languages, page_languages, translate, use_language
from mien.output import fonts, timeline
from mien.output.annotate import annotate, write_picture
from mien.structures import Prediction

MIEN = Path(__file__).parents[1] / "src/mien"
ASTRONAUT = Path(__file__).parents[1] / "docs/assets/astronaut.jpg"
ROWS = list(csv.DictReader((MIEN / "languages.csv").read_text(encoding="utf-8").splitlines()))
ENGLISH = [row["en"] for row in ROWS]
PLACES = ("cli/*.py", "output/*.py", "report/*.py", "evaluate.py", "labels.py")
"""Where Python has texts that are translated."""


@pytest.fixture
def without_fonts(monkeypatch: pytest.MonkeyPatch) -> None:
    """A system whose only font is Pillow's own."""
    monkeypatch.setattr(fonts, "_candidates", lambda: iter([fonts.PILLOWS]))
    fonts.find_font.cache_clear()
    yield
    fonts.find_font.cache_clear()


def prediction(label: str = "happy") -> Prediction:
    classes = LABEL_SETS["fer2013"]
    probs = np.array([0.9 if name == label else 0.1 / 6 for name in classes], np.float32)
    return Prediction(classes, probs)


# The table ---------------------------------------------------------------------------------------------------------------


def test_every_text_has_every_language_with_its_placeholders() -> None:
    assert list(languages()) == ["en", "zh", "es", "fr", "de", "id"]
    assert list(ROWS[0]) == ["where", *languages()]
    assert len(ENGLISH) == len(set(ENGLISH))
    for row in ROWS:
        assert None not in row.values(), row["en"]
        assert all(text == text.strip() and text for text in row.values()), row["en"]
        for code in languages():
            assert sorted(PLACEHOLDER.findall(row[code])) == sorted(PLACEHOLDER.findall(row["en"])), (code, row["en"])
            assert translate(row[code], code) == row[code]  # a report may translate a text twice


def test_classes_of_every_label_set_have_words_of_their_own() -> None:
    classes = {name for names in LABEL_SETS.values() for name in names}
    assert classes <= set(ENGLISH)
    for code in languages():
        assert len({translate(name, code) for name in classes}) == len(classes), code


def python_texts() -> tuple[set[str], set[str]]:
    """Return the English texts given to `translate`, and all texts of the files in `PLACES`."""
    given, everything = set(), set()
    for path in [file for place in PLACES for file in MIEN.glob(place)]:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        everything |= {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)}
        for function in ast.walk(tree):
            if not isinstance(function, ast.FunctionDef):
                continue
            assigned: dict[str, set[str]] = {}
            for node in ast.walk(function):
                if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
                    assigned.setdefault(node.targets[0].id, set()).update(constants(node.value))
            for node in ast.walk(function):
                if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "translate" and node.args:
                    argument = node.args[0]
                    given |= assigned.get(argument.id, set()) if isinstance(argument, ast.Name) else constants(argument)
    return given, everything


def constants(node: ast.expr) -> set[str]:
    """Return the texts an expression may have, if it is a text or a choice between texts."""
    if isinstance(node, ast.IfExp):
        return constants(node.body) | constants(node.orelse)
    return {node.value} if isinstance(node, ast.Constant) and isinstance(node.value, str) else set()


def page_texts() -> set[str]:
    """Return the texts of the server's page: those of its HTML, and those given to `t` and `plural`."""
    found = set()

    class Texts(HTMLParser):
        def handle_data(self, data: str) -> None:
            found.add(" ".join(data.split()))

        def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
            named = dict(attributes)
            found.add(named.get("aria-label") or "")
            found.add(named["content"] or "" if named.get("name") == "description" else "")

    Texts().feed((MIEN / "server/page/index.html").read_text(encoding="utf-8"))
    for path in (MIEN / "server/page").glob("*.js"):
        script = path.read_text(encoding="utf-8")
        for call in re.finditer(r"(?<![\w.])(?:t|plural)\(", script):
            depth = 1
            for string, sign in re.findall(r'"([^"]*)"|([()])', script[call.end() :]):
                found |= {string} if depth == 1 else set()  # an argument of the call itself
                depth += {"(": 1, ")": -1}.get(sign, 0)
                if not depth:
                    break
        found |= set(re.findall(r'const text = "([^"]+)"', script))
    return {text for text in found if text.strip()}


def test_every_text_that_is_shown_is_in_the_table() -> None:
    given, _ = python_texts()
    assert len(given) > 100
    assert given - set(ENGLISH) == set()
    page = {row["en"] for row in ROWS if {"page", "label"} & {*row["where"].split()}}
    assert len(page_texts()) > 100
    assert page_texts() - page == set()


def test_every_text_of_the_table_is_shown_somewhere() -> None:
    _, everything = python_texts()
    elsewhere = {"English", "Face", "Person", "detection rate"}  # the last is the name of a metric in results files
    template = (MIEN / "report/page.html.j2").read_text(encoding="utf-8")
    assert {text for text in set(ENGLISH) - everything - page_texts() - elsewhere if text not in template} == set()


# Choosing a language -----------------------------------------------------------------------------------------------------


def test_a_language_is_used_in_its_block_only() -> None:
    assert translate("happy") == "happy"
    with use_language("fr"):
        assert translate("happy") == "joie"
        with use_language("es"):
            assert translate("{count} faces", count=3) == "3 rostros"
        assert language_in_use().code == "fr"
    assert language_in_use().code == "en"
    assert translate("a class {of} mine", "zh") == "a class {of} mine"


def test_a_table_of_your_own_adds_a_language_and_completes_one(tmp_path: Path) -> None:
    own = tmp_path / "pt.csv"
    own.write_text("en,pt\nhappy,alegria\nEnglish,Português\n", encoding="utf-8")
    assert translate("happy", str(own)) == "alegria"
    assert translate("sad", str(own)) == "sad"
    more = tmp_path / "more.csv"
    more.write_text("\ufeffen;de\r\nhappy;fröhlich\r\nbored;gelangweilt\r\n", encoding="utf-8")  # as Excel writes it
    assert [translate(name, str(more)) for name in ("happy", "bored", "sad")] == ["fröhlich", "gelangweilt", "Trauer"]
    page = page_languages(str(own))
    assert page["default"] == "pt"
    assert page["names"]["pt"] == "Português"
    assert page["texts"]["pt"]["happy"] == "alegria"
    assert page["texts"]["id"]["happy"] == "senang"
    assert page_languages(None)["default"] is None


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "no column named en"),
        ("english,pt\nhappy,alegria\n", "no column named en"),
        ("en\nhappy\n", "needs the column en and one other, such as pt, and has none"),
        ("en,pt,it\nhappy,alegria,gioia\n", "and has pt, it"),
        ("en,pt\n{count} faces,rostos\n", r"row 2, column pt: must have the placeholders of the English text \({count}\)"),
    ],
)
def test_what_is_no_table_is_refused(tmp_path: Path, text: str, reason: str) -> None:
    own = tmp_path / "own.csv"
    own.write_text(text)
    with pytest.raises(InputError, match=f"own.csv: .*{reason}"):
        translate("happy", str(own))


def test_an_unknown_language_names_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"unknown language 'xx'.*en, zh, es, fr, de, id\. For another one.*ends in \.csv"):
        translate("happy", "xx")
    with pytest.raises(InputError, match=r"none.csv: cannot be read \(No such file or directory\)"):
        translate("happy", str(tmp_path / "none.csv"))


# Fonts -------------------------------------------------------------------------------------------------------------------


def test_chinese_labels_are_drawn_with_letters() -> None:
    with use_language("zh"):
        file = fonts.find_font(language_in_use().letters)
        if file is None:
            pytest.skip("no font with Chinese letters is installed: apt install fonts-noto-cjk")
        image = np.full((300, 300, 3), 90, np.uint8)
        chinese = {label: annotate(image, [prediction(label)]).tobytes() for label in ("happy", "sad")}
    assert chinese["happy"] != chinese["sad"]
    assert chinese["happy"] != annotate(image, [prediction("happy")]).tobytes()
    masks = [bytes(fonts.load_font(file, 20).getmask(letter)) for letter in "高兴愤怒厌恶恐惧悲伤惊讶"]
    assert len(set(masks)) == 12  # missing letters would all be one box


def test_without_a_font_the_error_names_the_package(without_fonts: None, tmp_path: Path) -> None:
    image, out = np.full((300, 300, 3), 90, np.uint8), tmp_path / "a.png"
    with use_language("zh"):
        with pytest.raises(OutputError, match=r"letters of the language zh.*apt install fonts-noto-cjk.*MIEN_FONT"):
            annotate(image, [prediction()])
        with pytest.raises(OutputError, match="fonts-noto-cjk"):
            timeline.Timeline(LABEL_SETS["fer2013"]).draw(out)
    with use_language("de"), pytest.raises(OutputError, match=r"language de.*apt install fonts-dejavu-core"):
        annotate(image, [prediction()])
    write_picture(out, annotate(image, [prediction()]))  # English needs no font
    assert not CliRunner().invoke(app, ["predict", str(out), "--no-detect", "--language", "zh", "-q"]).exception
    drawn = CliRunner().invoke(app, ["predict", str(out), "--annotate", str(tmp_path / "b.png"), "--language", "zh"])
    assert isinstance(drawn.exception, OutputError)
    assert not (tmp_path / "b.png").exists()


def test_a_font_of_your_own_is_used(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    fonts.find_font.cache_clear()
    own = matplotlib.font_manager.findfont("DejaVu Serif")
    monkeypatch.setenv(fonts.FONT, own)
    assert fonts.find_font("äß") == (own, 0)
    monkeypatch.setenv(fonts.FONT, str(tmp_path / "none.ttf"))
    fonts.find_font.cache_clear()
    with pytest.raises(OutputError, match=r"none.ttf: is not a font that can be read .*; correct MIEN_FONT"):
        fonts.find_font("äß")
    fonts.find_font.cache_clear()


# Commands ----------------------------------------------------------------------------------------------------------------


def predict(*arguments: object, **environment: str) -> str:
    done = CliRunner().invoke(app, ["predict", *map(str, arguments)], env=environment, catch_exceptions=False)
    assert done.exit_code == 0
    return done.stdout


def test_the_terminal_follows_the_language_and_files_do_not(tmp_path: Path, tiny_onnx: Path) -> None:
    Image.open(ASTRONAUT).crop((96, 16, 352, 272)).save(tmp_path / "a.png")
    source = [tmp_path / "a.png", "--no-detect", "--model", tiny_onnx, "--unsure-below", "1"]
    german = predict(*source, "--language", "de")
    assert all(word in german for word in ("1 Gesicht", "Ausdruck", "ganzes Bild", "Überraschung", "unsicher"))
    chinese = predict(*source, MIEN_LANGUAGE="zh")
    assert "表情" in chinese
    assert len({cell_len(line) for line in chinese.splitlines()[1:]}) == 1  # the right edge is straight
    assert "Expression" in predict(*source)
    assert "Expression" in predict(*source, MIEN_LANGUAGE="")
    for more in (["--jsonl"], ["--out", tmp_path / "a.csv"], ["--summary", tmp_path / "a.json"]):
        written = []
        for language in ("en", "zh"):
            out = predict(*source, *more, "--language", language)
            written.append(out if more == ["--jsonl"] else Path(more[1]).read_text(encoding="utf-8"))
        assert written[0] == written[1]


def test_the_page_has_its_texts_from_the_table() -> None:
    texts = json.loads(json.dumps(page_languages(None)))
    assert set(texts["texts"]) == {*languages()}
    assert page_texts() <= set(texts["texts"]["zh"])
    assert "Provenance" not in texts["texts"]["zh"]  # of reports
