"""Write the generated parts of README.md and docs/: tables, tree and annotated photo.

    python scripts/generate_docs.py            write them (make tables)
    python scripts/generate_docs.py --check    change nothing; exit 1 and name what is out of date (make check)

A generated part stands between `<!-- generated: NAME -->` and `<!-- end -->`. Measured figures come from `results/`, reported
ones from the recipes, a model's facts from its file; what no file states is shown as not run yet.
"""

from __future__ import annotations

import argparse
import ast
import json
import re
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from mien import weights
from mien.audit import KINDS
from mien.audit.statistics import Statistics
from mien.image import read_image
from mien.labels import label_set
from mien.model_info import ModelInfo
from mien.output.annotate import annotate
from mien.predict.onnx_backend import OnnxBackend
from mien.predict.recognizer import Recognizer
from mien.recipe import load_recipe, recipe_names

ROOT = Path(__file__).parents[1]
PHOTO = ROOT / "docs/assets/astronaut.jpg"
ANNOTATED = ROOT / "docs/assets/astronaut-annotated.png"
FIGURES = {name: ROOT / f"docs/assets/{name}.png" for name in ("crop", "robustness")}
PICTURE_KEY = "mien-weights-sha256"
NOT_RUN = "not run yet"
MARK = re.compile(r"(<!-- generated: ([a-z-]+) -->\n).*?(<!-- end -->)", re.DOTALL)

WIDTH = 118
DESCRIPTIONS = {
    "Makefile": "demo, test, check, bench, tables, docs: the only verbs to remember",
    "pyproject.toml": "the base install is the torch-free runtime; extras train, tables, heic, detectors, camera, dev, docs",
    "constraints.txt": "the versions mien is tested with",
    ".ci/run": "what every change must pass",
    "src/mien/": None,
    "tests/": "mirrors src/mien",
    "benchmarks/": "speed and detection, measured; each writes benchmarks/runs/",
    "results/": "what `mien evaluate`, `mien audit` and scripts wrote; figures are never edited by hand",
    "docs/": "guides, API, model card",
    "scripts/": "what maintainers run: generated pages, bundled weights, dlib's start, queues of trainings",
}
"""Lines of the tree that no docstring gives, in order; src/mien/ is followed by its modules."""
DESCRIPTIONS_INSIDE = {
    "__init__.py": "the public names, loaded when first used",
    "recipes/": "one YAML a training run, complete",
}


def main() -> None:
    """Write, or with --check compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="change nothing; exit 1 if something is out of date")
    check = parser.parse_args().check
    stale = [] if picture_is_current() else [ANNOTATED]
    if stale and not check:
        write_picture()
    for name, figure in FIGURES.items():
        if not figure_is_current(name):
            stale.append(figure)
            if not check:
                write_figure(name)
    for page in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]:
        old = page.read_text(encoding="utf-8")
        new = render(old)
        if new != old:
            stale.append(page)
            if not check:
                page.write_text(new, encoding="utf-8")
    names = ", ".join(str(page.relative_to(ROOT)) for page in stale)
    if stale and check:
        sys.exit(f"out of date: {names}; run: make tables")
    print(f"written: {names}" if stale else "generated parts are up to date")


def render(text: str) -> str:
    """Return a page with its generated parts made anew."""
    return MARK.sub(lambda mark: f"{mark[1]}{BLOCKS[mark[2]]()}\n{mark[3]}", text)


def default_model() -> Path | None:
    """Return the bundled default model, or None before there is one."""
    return weights.bundled().get(weights.DEFAULT)


def picture_is_current() -> bool:
    """Whether the annotated photo is the bundled model's; without a model, whether there is none."""
    model = default_model()
    if model is None or not ANNOTATED.is_file():
        return model is None and not ANNOTATED.is_file()
    with Image.open(ANNOTATED) as picture:
        return picture.info.get(PICTURE_KEY) == weights.sha256(model)


def write_picture() -> None:
    """Annotate the photo with the bundled model; without one, remove the picture."""
    model = default_model()
    if model is None:
        ANNOTATED.unlink()
        return
    facts = PngInfo()
    facts.add_text(PICTURE_KEY, weights.sha256(model))
    drawn = annotate(read_image(PHOTO), Recognizer(model).predict(PHOTO))
    Image.fromarray(drawn).save(ANNOTATED, pnginfo=facts, optimize=True)


def picture() -> str:
    """Return the annotated photo, or that there is none yet."""
    if default_model() is None:
        return f"*The annotated photo: {NOT_RUN}.*"
    return f"![The photo with a box around the face, its expression and the probabilities]({ANNOTATED.relative_to(ROOT)})"


def newest_run(benchmark: str) -> Path | None:
    """Return the newest JSON a benchmark left in benchmarks/runs/, by the date in its name, or None."""
    found = [path for path in (ROOT / "benchmarks/runs").glob(f"*-{benchmark}.json") if path.with_suffix(".png").is_file()]
    return max(found, key=lambda path: path.name, default=None)


def figure_is_current(benchmark: str) -> bool:
    """Whether the docs' copy of a benchmark's picture is the newest run's; without a run, whether there is none."""
    run, copy = newest_run(benchmark), FIGURES[benchmark]
    if run is None or not copy.is_file():
        return run is None and not copy.is_file()
    return copy.read_bytes() == run.with_suffix(".png").read_bytes()


def write_figure(benchmark: str) -> None:
    """Copy the picture of a benchmark's newest run; without one, remove the copy."""
    run, copy = newest_run(benchmark), FIGURES[benchmark]
    if run is None:
        copy.unlink()
    else:
        copy.write_bytes(run.with_suffix(".png").read_bytes())


def crop_figure() -> str:
    """Return what the crop decides: picture and figures of the newest run."""
    told = _run_figure(
        "crop", "Accuracy against zoom, shift and rotation of the crop, with and without a detector and alignment"
    )
    run = newest_run("crop")
    if run is None:
        return told
    rows = [[row["what"], row["measured"]] for row in json.loads(run.read_text(encoding="utf-8"))["summary"]]
    return f"{told}\n\n{_table(['crop', 'accuracy, unless said'], rows)}"


def robustness() -> str:
    """Return how accuracy falls: picture and table of the newest run."""
    told = _run_figure("robustness", "Accuracy and mean confidence against the strength of eight kinds of damage")
    run = newest_run("robustness")
    if run is None:
        return told
    read = json.loads(run.read_text(encoding="utf-8"))
    clean = read["clean"]
    free = f" ({100 * clean['accuracy_twin_free']:.1f} without the images that have a twin in training)"
    rows = [["none", f"**{100 * clean['accuracy']:.1f}**{free}"]]
    for curve in read["curves"].values():
        points = ", ".join(f"{point['label']}: **{100 * point['accuracy']:.1f}**" for point in curve["points"])
        rows.append([curve["title"] + (f" ({curve['unit']})" if curve["unit"] else ""), points])
    return f"{told}\n\n{_table(['damage', 'its strength, from mild to strong, and the accuracy under it, %'], rows)}"


def _run_figure(benchmark: str, about: str) -> str:
    run = newest_run(benchmark)
    if run is None:
        return f"*`benchmarks/{benchmark}.py`: {NOT_RUN}.*"
    data = json.loads(run.read_text(encoding="utf-8"))["data"]
    source = f"{data['images']:,} faces of FER2013 {data['split']}, one model, from `{run.relative_to(ROOT).as_posix()}`."
    return f"![{about}]({FIGURES[benchmark].relative_to(ROOT / 'docs')})\n\n{source}"


def tree() -> str:
    """Return the annotated tree: the modules' own first lines, and DESCRIPTIONS."""
    lines: list[str] = []
    for name, text in DESCRIPTIONS.items():
        if not (ROOT / name).exists():
            continue
        lines.append(_branch(name, text, 0))
        if name == "src/mien/":
            lines += [_branch(part, line, 1) for part, line in _modules()]
    return "\n".join(["```", *lines, "```"])


def _modules() -> list[tuple[str, str]]:
    found: dict[str, str] = {}
    for path in sorted((ROOT / "src/mien").iterdir()):
        name = path.name + "/" * path.is_dir()
        source = path / "__init__.py" if path.is_dir() else path
        if name in DESCRIPTIONS_INSIDE:
            found[name] = DESCRIPTIONS_INSIDE[name]
        elif source.suffix == ".py" and source.is_file() and path.name != "__main__.py":
            found[name] = (ast.get_docstring(ast.parse(source.read_text(encoding="utf-8"))) or "").split("\n")[0]
    return list(found.items())


def _branch(name: str, text: str | None, depth: int) -> str:
    start = "  " * depth + name
    if text is None:
        return start
    room = WIDTH - 26
    text = text.rstrip(".")
    while len(text) > room:  # shorten at a pause, or else between words
        pause = max(text.rfind(mark, 0, room) for mark in (": ", "; ", " ("))
        text = text[:pause] if pause > 0 else textwrap.shorten(text, room, placeholder=" ...")
    return f"{start:<25} {text}"


def results() -> list[tuple[str, dict[str, Any]]]:
    """Return every evaluation in results/, by its path."""
    found = []
    for path in sorted((ROOT / "results").rglob("*.json")):
        values = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(values, dict) and "standard" in values and "model" in values:
            found.append((path.relative_to(ROOT).as_posix(), values))
    return found


def results_of(model: Path | None, split: str = "private_test") -> tuple[str, dict[str, Any]] | None:
    """Return a model's evaluation on a split: of its very file, by sha256."""
    if model is None:
        return None
    digest = weights.sha256(model)
    same = [
        (name, values)
        for name, values in results()
        if values["model"].get("weights_sha256") == digest and values["data"]["split"] == split
    ]
    return max(same, key=lambda item: item[1]["date"], default=None)


def default_results() -> tuple[str, dict[str, Any]] | None:
    """Return the default model's evaluation on a test split."""
    return results_of(default_model())


def headline() -> str:
    """Return the bundled models' figures, the default's first, with those of their papers in a column of their own."""
    head = ["model", "test images", "number", "accuracy", "macro-F1", "calibration error", "accuracy the paper reports"]
    models = {name: path for name, path in weights.bundled().items() if not name.endswith("-int8")}
    rows, sources = [], []
    for name, path in sorted(models.items(), key=lambda item: item[0] != weights.DEFAULT):
        measured, paper = results_of(path), OnnxBackend(path, threads=1).info.recipe.get("paper") or {}
        sources += [f"`{measured[0]}`"] if measured else []
        for key, images in (("standard", "all"), ("twin_free", "without a twin in training")):
            part = measured[1].get(key) if measured else None
            figures = [_per_cent(part[figure]) for figure in ("accuracy", "macro_f1", "ece")] if part else [NOT_RUN] * 3
            told = paper.get("reported", {}).get("fer2013") if key == "standard" else None
            shown = f"`{name}`" + ", the default" * (name == weights.DEFAULT) if key == "standard" else ""
            rows.append([shown, images, f"{part['images']:,}" if part else "", *figures, f"{told:.2f} %" if told else ""])
    note = f"FER2013 private_test, one view an image, one run each, from {' and '.join(sources)}." if sources else ""
    return "\n".join([_table(head, rows), *(["", note] if note else [])])


def recall() -> str:
    """Return the share of each class that the bundled model recognises."""
    measured = default_results()
    parts = [measured[1].get(key) if measured else None for key in ("standard", "twin_free")]
    rows = []
    for name in label_set("fer2013"):
        values = [part["recall"].get(name) if part else None for part in parts]
        rows.append([name, *(NOT_RUN if value is None else _per_cent(value) for value in values)])
    note = f"\n\nFER2013 private_test, from `{measured[0]}`." if measured else ""
    return _table(["expression", "recognised, all test images", "recognised, without a twin in training"], rows) + note


def confusion() -> str:
    """Return the bundled model's confusion matrix."""
    measured = default_results()
    if measured is None:
        return f"*{NOT_RUN.capitalize()}.*"
    values = measured[1]
    classes = values.get("classes") or list(label_set(values["data"]["corpus"]))
    rows = [[f"**{name}**", *(f"{n:,}" for n in row)] for name, row in zip(classes, values["confusion"], strict=True)]
    return _table(["true, down; recognised, across", *classes], rows)


def model_facts() -> str:
    """Return what the bundled model's file says of itself."""
    model = default_model()
    if model is None:
        return "*No model is bundled yet.*"
    info, card = OnnxBackend(model, threads=1).info, weights.read_card(model)
    rows = [[name, value] for name, value in _facts(info, card) if value]
    rows += [["file", f"`{model.name}`, {model.stat().st_size:,} bytes"], ["sha256", f"`{weights.sha256(model)}`"]]
    deviations = [f"- {line}" for line in info.recipe.get("deviations", [])]
    about = "How it departs from the paper:" if info.recipe.get("paper") else "About its recipe:"
    told = ["", about, "", *deviations] if deviations else []
    return "\n".join([_table(["", ""], rows), *told])


def _facts(info: ModelInfo, card: dict[str, Any]) -> list[tuple[str, str]]:
    spec, recipe = info.preprocess, info.recipe
    parameters = card.get("parameters")
    return [
        ("network", f"`{info.arch}`" + (f", {parameters:,} parameters" if parameters else "")),
        ("precision", info.precision),
        ("classes, by index", ", ".join(f"{index} {name}" for index, name in enumerate(info.classes))),
        ("input", f"{spec.size[0]} x {spec.size[1]} px, " + ("grey" if spec.channels == 1 else "RGB")),
        ("normalisation", f"scaled to 0-1, minus {_plain(spec.mean)}, divided by {_plain(spec.std)}"),
        ("smoothing", f"a blur of {spec.smooth:g} px after the resize" if spec.smooth else ""),
        ("crop", f"a square, {spec.crop_scale:g} times the longer side of the face's box"),
        ("paper", (recipe.get("paper") or {}).get("title", "")),
        ("recipe", f"`{recipe['name']}`, seed {recipe['seed']}" if recipe else ""),
        ("trained on", f"{info.label_set}, fingerprint `{info.data_fingerprint[:16]}`" if info.data_fingerprint else ""),
        ("commit", f"`{info.commit[:12]}`" if info.commit else ""),
    ]


def all_results() -> str:
    """Return one row an evaluation in results/."""
    rows = []
    for name, values in results():
        model, data, parts = values["model"], values["data"], [values["standard"], values.get("twin_free")]
        backend = model.get("backend") or values.get("backend", "")
        figures = [_per_cent(part[key]) if part else "" for key in ("accuracy", "macro_f1") for part in parts]
        scale = f"{'x'.join(map(str, model['input']))} px, " if model.get("input") else ""
        scale += _length((ROOT / name).parent)
        precision = model.get("precision") or values.get("precision", "")
        run = f"{model['arch']}, {scale}seed {model.get('seed')}, {backend} {precision}"
        rows.append([run.strip(), f"{data['corpus']} {data['split']}", *figures, f"`{name}`"])
    head = ["model", "images", "accuracy", "accuracy, twin-free", "macro-F1", "macro-F1, twin-free", "file"]
    return _table(head, rows) if rows else f"*{NOT_RUN.capitalize()}.*"


def _length(folder: Path) -> str:
    """Return how many epochs the run of a folder did, of how many; nothing where the folder holds no run."""
    if not (folder / "history.csv").is_file():
        return ""
    done = len((folder / "history.csv").read_text(encoding="utf-8").splitlines()) - 1
    planned = yaml.safe_load((folder / "recipe.yaml").read_text(encoding="utf-8"))["train"]["epochs"]
    return f"{done} epochs, " if done == planned else f"{done} of {planned} epochs, "


def recipes() -> str:
    """Return one row a bundled recipe."""
    rows = []
    for name in recipe_names():
        recipe = load_recipe(name)
        paper = recipe.paper
        told = ", ".join(f"{value:.2f} % on {corpus}" for corpus, value in paper.reported.items()) if paper else ""
        rows.append([f"`{name}`", recipe.summary, paper.table if paper else "", told])
    return _table(["recipe", "what it trains", "stands for", "the paper reports"], rows)


def audits() -> list[tuple[str, dict[str, Any]]]:
    """Return every audit in results/audit/, by its file's name."""
    return [
        (path.stem, json.loads(path.read_text(encoding="utf-8"))) for path in sorted((ROOT / "results/audit").glob("*.json"))
    ]


def corpus_facts() -> str:
    """Return what Table I of ResEmoteNet says of its corpora, for the audited ones."""
    found = [(name, dict(_statistics(report).characteristics())) for name, report in audits()]
    head = ["", *(f"`{name}`" for name, _ in found)]
    return _table(head, [[key, *(facts[key] for _, facts in found)] for key in found[0][1]])


def class_counts() -> str:
    """Return, for each audited corpus, Table II of ResEmoteNet: images of each class in each split."""
    parts = []
    for name, report in audits():
        head, *rows = _statistics(report).table()
        parts += [f"From `results/audit/{name}.json`, fingerprint `{report['data']['fingerprint'][:16]}`:", _table(head, rows)]
    return "\n\n".join(parts)


def brightness() -> str:
    """Return mean and standard deviation of the pixels of each split of each audited corpus."""
    rows = [[f"`{name}`", *row] for name, report in audits() for row in _statistics(report).brightness()[1:]]
    return _table(["corpus", "split", "mean", "standard deviation"], rows)


def twins() -> str:
    """Return how many test images have a twin in training, in the official splits and in a random one."""
    rows = []
    for name, report in audits():
        numbers, across = _statistics(report), {kind: report["twins"][kind]["across"] for kind in KINDS}
        for index, split in enumerate(numbers.splits[1:], start=1):
            images = sum(row[index] for row in numbers.counts)
            rows.append([name, split, images, {kind: across[kind][split][numbers.splits[0]] for kind in KINDS}])
        if drawn := report["random_split"]:
            rows.append([name, drawn["protocol"], drawn["images"], drawn["twin_in_train"]])
    cells = [
        [f"`{name}`", split, f"{images:,}", *(f"{counts[kind]:,} ({_per_cent(counts[kind] / images)})" for kind in KINDS)]
        for name, split, images, counts in rows
    ]
    return _table(["corpus", "test split", "images", *KINDS.values()], cells)


def imbalance() -> str:
    """Return what each answer to uneven classes gave, mean and deviation over the seeds."""
    parts = []
    for path in sorted((ROOT / "results/imbalance").glob("*.json")):
        read = json.loads(path.read_text(encoding="utf-8"))
        head = ["answer", "accuracy", "macro-F1", "balanced accuracy", "recall of disgust"]
        rows = [
            [name, *(f"{value['mean']:.1f} ± {value['std']:.1f} %" for value in figures.values())]
            for name, figures in read["rows"].items()
        ]
        note = f"{read['what']}; seeds {', '.join(map(str, read['seeds']))}; `{path.relative_to(ROOT)}`."
        parts.append(f"{_table(head, rows)}\n\n{note[0].upper()}{note[1:]}")
    return "\n\n".join(parts) or NOT_RUN


def _statistics(report: dict[str, Any]) -> Statistics:
    return Statistics.from_dict(report["statistics"])


def _per_cent(share: float) -> str:
    if not 0 <= share <= 1:
        raise ValueError(f"results hold shares from 0 to 1, got {share}")
    return f"{100 * share:.2f} %"


def _plain(values: tuple[float, ...]) -> str:
    return ", ".join(f"{value:g}" for value in values)


def _table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


BLOCKS: dict[str, Callable[[], str]] = {
    "picture": picture,
    "tree": tree,
    "headline": headline,
    "recall": recall,
    "confusion": confusion,
    "model-facts": model_facts,
    "all-results": all_results,
    "recipes": recipes,
    "corpus-facts": corpus_facts,
    "class-counts": class_counts,
    "brightness": brightness,
    "twins": twins,
    "imbalance": imbalance,
    "crop": crop_figure,
    "robustness": robustness,
}

if __name__ == "__main__":
    main()
