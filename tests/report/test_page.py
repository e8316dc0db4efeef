"""Reports: what they say about real results, and that the page is valid, complete in itself and safe."""

import csv
import itertools
import json
import re
import shutil
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from click.testing import Result
from typer.testing import CliRunner

from mien.cli import app
from mien.errors import DataError, EditedError, InputError, OutputError
from mien.languages import load_language
from mien.report import page
from mien.report.contents import create_report, read_subject
from mien.report.faces import Shown
from mien.report.page import Report, Section, Table, Text, write_report
from mien.results import digest, read_results

ROOT = Path(__file__).parents[2]
RUN = ROOT / "results/fer2013/dlib_resnet/distilled-seed0"
CKPLUS = ROOT / "results/ckplus48/sa_csp_ca-fer2013.json"
HOSTILE = "<script>alert(1)</script>\x1b[2J"
VOID = {"meta", "img", "br", "link", "input", "hr"}

Write = Callable[..., Path]


class Page(HTMLParser):
    """Reads a page as strictly as a validator would: elements are nested, and attributes are kept."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.text, self.open, self.tags, self.words = path.read_text(encoding="utf-8"), list[str](), list(), list[str]()
        self.feed(self.text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        assert len({name for name, _ in attributes}) == len(attributes), f"<{tag}> has an attribute twice"
        self.tags.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in ("style", "script"):
            self.words.append(data)

    def all(self, *tags: str) -> list[dict[str, str | None]]:
        return [attributes for tag, attributes in self.tags if tag in tags]

    @property
    def shown(self) -> str:
        return " ".join(" ".join(self.words).split())


def report(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["report", *map(str, arguments)], catch_exceptions=False)


def check(path: Path) -> Page:
    """Check everything that every page keeps, and return it."""
    found = Page(path)
    assert path.stat().st_size < 10_000_000
    assert found.text.startswith("<!DOCTYPE html>")
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", found.text)
    assert found.all("script", "link", "iframe", "object") == []
    for _, attributes in found.tags:
        for name in ("src", "href", "srcset", "action", "data", "background"):
            assert re.match(r"data:image/(svg\+xml|png|jpeg);base64,|#", attributes.get(name) or "#"), attributes
    style = found.text.partition("<style>")[2].partition("</style>")[0]
    assert "url(" not in style
    assert "@import" not in style
    levels = [int(tag[1]) for tag, _ in found.tags if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))
    ids = [attributes["id"] for _, attributes in found.tags if "id" in attributes]
    assert len(set(ids)) == len(ids)
    links = [str(attributes["href"]) for attributes in found.all("a")]
    assert {link.removeprefix("#") for link in links} <= set(ids)
    assert all(len(attributes["alt"] or "") > 20 for attributes in found.all("img"))
    assert all(attributes.get("scope") in ("row", "col") for attributes in found.all("th"))
    assert len(found.all("caption")) == len(found.all("table"))
    return found


@pytest.fixture(scope="module")
def run_page(tmp_path_factory: pytest.TempPathFactory) -> Page:
    """The page of the default model's run."""
    out = tmp_path_factory.mktemp("report") / "run.html"
    done = report(RUN, "--out", out)
    assert done.exit_code == 0, done.output
    assert done.stdout == f"wrote {out}\n"
    return check(out)


# Real results ---------------------------------------------------------------------------------------------------------------


def test_the_page_of_a_run_has_every_section(run_page: Page) -> None:
    titles = [attributes["id"] for attributes in run_page.all("h2")]
    assert titles == [
        *("key-figures", "classes", "confusion", "confidence", "training", "twins", "recipe", "provenance"),
        "what-was-not-measured",
    ]
    assert len(run_page.all("img")) == 6  # rates, two matrices, reliability, coverage, curves
    assert run_page.all("html") == [{"lang": "en"}]


def test_its_figures_are_those_of_the_results_file(run_page: Page) -> None:
    results = json.loads((RUN / "private_test-onnx.json").read_text())
    standard, free = results["standard"], results["twin_free"]
    assert f"dlib_resnet classifies {100 * standard['accuracy']:.2f} % of the 3,589 images" in run_page.shown
    low, high = (100 * end for end in standard["accuracy_interval"])
    assert f"(95 % interval {low:.1f} to {high:.1f} %)" in run_page.shown
    assert f"byte-identical twin among the training images it is {100 * free['accuracy']:.2f} %" in run_page.shown
    for name in results["classes"]:
        assert f"{name} " in run_page.shown
        assert f"{100 * standard['recall'][name]:.2f} %" in run_page.shown
        assert f"{100 * standard['fpr'][name]:.2f} %" in run_page.shown
    twins = results["twins"]
    assert f"byte-identical {twins['exact']} " in run_page.shown
    for value in (results["model"]["weights_sha256"], results["data"]["fingerprint"], results["commit"], "AMD EPYC"):
        assert value in run_page.shown
    assert "121 of 140" in run_page.shown
    assert "Other seeds." in run_page.shown


def test_the_split_of_a_run_is_the_one_that_did_not_choose_the_epoch(tmp_path: Path) -> None:
    assert read_subject(RUN).measured.paths[0].name == "private_test-onnx.json"
    assert report(RUN / "public_test-onnx.json", "--out", tmp_path / "r.html").exit_code == 0
    found = check(tmp_path / "r.html")
    assert "public_test also chose the epoch of this run, so its figure is optimistic." in found.shown


def test_a_result_without_predictions_and_run_says_what_is_missing(tmp_path: Path) -> None:
    assert report(CKPLUS, "--out", tmp_path / "r.html").exit_code == 0
    found = check(tmp_path / "r.html")
    for words in (
        "sa_csp_ca on ckplus all",
        "There is no twin-free figure, because the images that trained the model were not at hand.",
        "Recall of neutral: no image shows it.",
        "Images of contempt: the model has no such class",
        "Reliability and coverage: the predictions",
        "The fingerprints do not show that these are the data that trained the model",
        "sa_csp_ca/fer2013-finetune",  # the recipe, from the bundled weights
    ):
        assert words in found.shown, words


def test_a_run_without_results_is_reported_by_its_curves(tmp_path: Path, write_run: Write) -> None:
    folder = write_run("run", val=[0.25, 0.5, 0.375])
    assert report(folder, "--out", tmp_path / "r.html").exit_code == 0
    found = check(tmp_path / "r.html")
    assert "Its best epoch, 2, reaches 50.00 % on public_test. That split chose the epoch, so the figure is opt" in found.shown
    assert "No test split was measured" in found.shown
    assert "71.80 %" in found.shown  # reported by the paper


# Markdown -------------------------------------------------------------------------------------------------------------------


def test_markdown_has_its_figures_next_to_it(tmp_path: Path) -> None:
    done = report(CKPLUS, "--out", tmp_path / "a b.md")
    assert done.stdout == f"wrote {tmp_path / 'a b.md'} and 3 figures\n"
    text = (tmp_path / "a b.md").read_text()
    pictures = re.findall(r"!\[[^\]]{20,}\]\(([^)]+)\)", text)
    assert pictures == [f"a%20b-figures/{name}.png" for name in ("rates", "confusion-counts", "confusion-normalised")]
    assert all((tmp_path / name.replace("%20", " ")).is_file() for name in pictures)
    assert re.findall(r"^#+ ", text, re.MULTILINE)[:2] == ["# ", "## "]
    recall = read_results(CKPLUS)["standard"]["recall"]["angry"]
    assert f"| angry | 135 | {100 * recall:.2f}\N{NO-BREAK SPACE}% |" in text
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    assert all(len(re.findall(r"(?<!\\)\|", line)) > 2 for line in lines)


# Hostile content --------------------------------------------------------------------------------------------------------------


def test_names_from_files_are_escaped(tmp_path: Path, write_results: Write) -> None:
    name, mark = f"{HOSTILE}.json", "a|b*c_d`e[f](javascript:g)"
    path = write_results(tmp_path / "x.json", classes=["angry", HOSTILE.split("\x1b")[0], mark], model__recipe=HOSTILE)
    path = path.rename(tmp_path / name.replace("/", "∕"))
    assert report(path, "--out", tmp_path / "r.html").exit_code == 0
    found = check(tmp_path / "r.html")
    assert "<script>alert(1)</script>" in found.shown  # as text: the parser found no such element
    assert mark in found.shown
    assert r"\x1b[2J" in found.shown
    assert report(path, "--out", tmp_path / "r.md").exit_code == 0
    text = (tmp_path / "r.md").read_text()
    assert r"a\|b\*c\_d\`e\[f\](javascript:g)" in text
    assert "<script>" not in text.replace(r"\<script", "")
    assert "\x1b" not in text


def test_a_recipe_cannot_leave_its_block(tmp_path: Path) -> None:
    code = page.Code(["name: a", "```", "<b>", "</pre><script>"])
    content = Report("t", "l", sections=[Section("Recipe", [code])])
    write_report(tmp_path / "r.md", content)
    assert "````yaml\nname: a\n```\n<b>\n</pre><script>\n````" in (tmp_path / "r.md").read_text()
    write_report(tmp_path / "r.html", content)
    assert "</pre><script>" in check(tmp_path / "r.html").shown


def test_a_page_of_more_than_10_mb_is_not_written(tmp_path: Path) -> None:
    table = Table("c", ["a"], [["x" * 1000]] * 11_000)
    with pytest.raises(OutputError, match="would have 11 MB, and a page may have 10"):
        write_report(tmp_path / "r.html", Report("t", "l", sections=[Section("Big", [table])]))
    assert list(tmp_path.iterdir()) == []


def test_the_same_results_give_the_same_bytes(tmp_path: Path, run_page: Page) -> None:
    assert report(RUN, "--out", tmp_path / "r.html").exit_code == 0
    assert (tmp_path / "r.html").read_text() == run_page.text


# Groups and faces -----------------------------------------------------------------------------------------------------------


def test_groups_are_shown_with_their_gaps(tmp_path: Path, write_results: Write) -> None:
    group = {"images": 20, "accuracy": 0.75, "accuracy_interval": [0.5, 0.9], "uar": 0.7, "recall": {}, "ece": 0.1}
    groups = {"old": group | {"detection_rate": 0.95}, "young": group | {"accuracy": 0.5, "detection_rate": None}}
    found = {"age": {"groups": groups, "gaps": {"accuracy": {"largest": 0.25, "between": ["old", "young"]}}, "missing": 3}}
    assert report(write_results("r.json", groups=found), "--out", tmp_path / "r.html").exit_code == 0
    shown = check(tmp_path / "r.html").shown
    assert "old 20 75.00 % 50.0 to 90.0 % 70.00 % 10.00 % 95.00 %" in shown
    assert "accuracy: 25.0 points between old and young" in shown
    assert "3 images have no value of age" in shown


def test_faces_are_embedded_only_with_the_corpus(tmp_path: Path, fer2013_csv: Path) -> None:
    from mien.datasets import load_corpus

    corpus = load_corpus("fer2013", fer2013_csv)
    rows = corpus.where("private_test")
    classes, target = corpus.classes, corpus.target[corpus.where("private_test")]
    probs = np.full((len(rows), 7), 0.05, np.float32)
    probs[np.arange(len(rows)), (target + (np.arange(len(rows)) < 14)) % 7] = np.linspace(0.9, 0.5, len(rows))
    from mien.report.faces import faces_sections

    def explain(face: np.ndarray) -> dict[str, np.ndarray]:
        return {"inverted": np.stack([255 - face] * 3, 2)}

    sections = faces_sections(Shown(corpus, "train"), (rows, target, probs), classes, explain)
    path = tmp_path / "r.html"
    write_report(path, Report("t", "l", sections=sections))
    found = check(path)
    assert len(found.all("img")) == 12 + 7 + 2 * (3 + 3)  # mistakes, a right answer per class, explanations
    assert f"label: {classes[target[0]]}" in found.shown
    assert corpus.origin(int(rows[0])) in found.shown
    assert faces_sections(None, (rows, target, probs), classes) == []


# Bad input ------------------------------------------------------------------------------------------------------------------


def test_what_is_no_run_result_or_study_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("{}")
    for path, words in (
        (tmp_path, "is not a results file .* the folder of a run .* that of a study"),
        (tmp_path / "none", "is not a results file"),
        (tmp_path / "a.json", "is not a results file; give a .json file that mien evaluate wrote"),
        (ROOT / "results/fer2013/sa_csp_ca", "has no measured run of a study in it; give the folder of one run"),
    ):
        with pytest.raises(DataError, match=words):
            report(path, "--out", tmp_path / "r.html")
    assert not (tmp_path / "r.html").exists()


def test_a_result_edited_by_hand_is_refused(tmp_path: Path) -> None:
    for file in RUN.glob("private_test-onnx*"):
        shutil.copy(file, tmp_path)
    shutil.copy(RUN / "recipe.yaml", tmp_path)
    path = tmp_path / "private_test-onnx.json"
    path.write_text(path.read_text().replace('"images": 3589', '"images": 3590', 1))
    for given in (path, tmp_path):
        with pytest.raises(EditedError, match="was edited by hand"):
            report(given, "--out", tmp_path / "r.html")


def test_faces_need_the_predictions_and_the_copy_that_was_measured(tmp_path: Path, fer2013_csv: Path, write_run: Write) -> None:
    out = tmp_path / "r.html"
    with pytest.raises(DataError, match=r"sa_csp_ca-fer2013-predictions\.csv is not next to it"):
        report(CKPLUS, "--out", out, "--data", fer2013_csv)
    with pytest.raises(DataError, match="is another copy of fer2013 than was measured"):
        report(RUN, "--out", out, "--data", fer2013_csv)
    with pytest.raises(DataError, match="no such file or folder"):
        report(RUN, "--out", out, "--data", tmp_path / "missing.csv")
    with pytest.raises(DataError, match="this run has none; run mien evaluate first"):
        report(write_run("run", val=[0.5]), "--out", out, "--data", fer2013_csv)
    assert not out.exists()


def test_the_format_is_the_ending(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"must end in \.html or \.md"):
        report(RUN, "--out", tmp_path / "r.pdf")
    with pytest.raises(InputError, match=r"--format md needs a file that ends in \.md"):
        report(RUN, "--out", tmp_path / "r.html", "--format", "md")
    with pytest.raises(OutputError, match="is read by this run"):
        report(shutil.copy(CKPLUS, tmp_path / "r.md"), "--out", tmp_path / "r.md")


def test_a_report_is_made_in_python(tmp_path: Path, write_results: Write) -> None:
    path = write_results("r.json")
    values = json.loads(path.read_text()) | {"versions": {}}
    path.write_text(json.dumps(values | {"digest": digest(values)}))
    made = create_report(read_subject(path))
    assert made.title == "sa_csp_ca on fer2013 private_test"
    assert made.tiles[0][:2] == ("Accuracy, standard", "72.50\N{NO-BREAK SPACE}%")
    made = Report(made.title, made.lead, sections=[Section("Only this", [Text("a")])])
    assert write_report(tmp_path / "r.html", made) == [tmp_path / "r.html"]


def test_a_report_has_no_english_left(tmp_path: Path) -> None:
    """Every text of the table in guillemets: what is shown without them is not translated."""
    own = tmp_path / "xx.csv"
    with own.open("w", encoding="utf-8", newline="") as file:
        english = load_language("de").texts
        csv.writer(file).writerows([("en", "xx"), *((text, f"«{text}»") for text in english)])
    assert report(RUN, "--out", tmp_path / "r.html", "--language", own).exit_code == 0
    page = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert '<html lang="xx">' in page
    page = re.sub(r"<style>.*?</style>|<pre.*?</pre>|<dd>.*?</dd>", "", page, flags=re.DOTALL)  # dd: values of the files
    texts = [text for text in re.findall(r">([^<>]+)<", page) if re.search("[a-z]", text)]
    assert len(texts) > 100
    recipe = [text for text in texts if text.startswith(("dlib_resnet/", "Of no paper"))]
    left = {text for text in texts if "«" not in text}
    assert {text for text in left if " " in text} <= {*recipe, "fer2013 public_test", "fer2013 private_test"}
    assert all(text.endswith(".json") for text in left if " " not in text)
    assert "«The page is complete in itself: it loads nothing and runs nothing.»" in page
    assert 'aria-label="«Contents»"' in page
