"""The generated parts of docs/claims.md: the papers' tables next to ours, what protocols are worth, what does not add up."""

from __future__ import annotations

import functools
import json
import statistics
from collections.abc import Iterator
from pathlib import Path

import yaml

from mien.audit.statistics import Statistics
from mien.recipe import Recipe, load_recipe, recipe_names
from mien.study.claims import AccuracyTable, Cell, Claims, NumbersTable, read_claims
from mien.study.measurements import Measurement, Run, find_runs, gaps, measure, read_history, selection_gain, view_gains

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "results"
CORPORA = {
    "fer2013": "FER2013",
    "fer2013_random_split": "FER2013",
    "ferplus10_random_split": "FER+, 10 classes",
    "ckplus": "CK+",
    "rafdb": "RAF-DB",
    "affectnet7": "AffectNet, 7 classes",
}
"""Names of the corpora, by their keys in claims.yaml."""
DATA = {"fer2013": "fer2013.csv", "ferplus": "FERPLUS", "ckplus": "CK+48", "rafdb": "RAF-DB", "affectnet": "AffectNet"}
"""What the commands call the copy of each corpus."""
NOT_RUN = {"yet": "not run yet", "gpu": "not run: needs a GPU", "licensed": "not run: licensed data"}
CHECKED = {
    "text": "the paper's text",
    "computed": "computed from its figures",
    "data": "compared with the data",
    "code": "the authors' code",
    "picture": "a picture, read by eye",
}
LONG = 20
"""Epochs that a run needs before its best epoch says something about choosing epochs."""
QUOTED = "quoted"
HEAD = ["row", "corpus, our split", "reported", "our recipe", "measured (95 % interval)", "without twins", "runs, scale"]


@functools.cache
def claims() -> Claims:
    """Return what the papers report."""
    return read_claims(RESULTS / "claims.yaml")


@functools.cache
def runs() -> list[Run]:
    """Return every run in results/ that was measured on a test split."""
    return find_runs(RESULTS)


@functools.cache
def measured() -> dict[str, list[Measurement]]:
    """Return the measurements of each recipe."""
    return measure(runs())


# The papers' tables ------------------------------------------------------------------------------------------------------


def overview() -> str:
    """Return one row per paper: its figure on FER2013, and all our full-scale runs in each kind of training."""
    rows = []
    for network, paper in claims().papers.items():
        for table in paper.tables.values():
            for cells in table.rows.values():
                for corpus, cell in cells.items():
                    if cell.other_training and corpus.startswith("fer2013"):
                        names = {"paper": [name for name in cell.recipes if _split(load_recipe(name)) == "official"]}
                        for name in _others(cell):
                            names.setdefault(_kind(load_recipe(name)), []).append(name)
                        kinds = ("paper", "good-faith training", "distilled")
                        rows.append(
                            [f"[`{network}`](#{network})", _reported(cell), *(_all(names.get(key, [])) for key in kinds)]
                        )
    return markdown_table(["network", "reported", "as published", "good-faith training", "distilled"], rows)


def _all(names: list[str]) -> str:
    found = [_percent(one.accuracy) for name in names for one in measured().get(name, []) if one.runs[0].scale == "full"]
    return ", ".join(found) or (NOT_RUN["yet"] if names else "no recipe")


def tables() -> str:
    """Return a section per paper with each of its tables."""
    parts = []
    for network, paper in claims().papers.items():
        parts += [f"### {network}", f"*{paper.title}.*", f"**Protocol, as far as the paper says.** {paper.protocol}"]
        for name, table in paper.tables.items():
            parts += [f"#### {name}: {_lower(table.title)}", *_accuracies(table)]
        for name, numbers in paper.numbers.items():
            parts += [f"#### {name}: {_lower(numbers.title)}", _numbers(numbers)]
    return "\n\n".join(part for part in parts if part)


def _accuracies(table: AccuracyTable) -> Iterator[str]:
    """Yield a table of accuracies, the folders its measurements are from, and the commands of what was not run."""
    rows: list[list[str]] = []
    used: list[Run] = []
    commands: list[str] = []
    for name, cells in table.rows.items():
        first = name.replace("|", "\\|")
        for corpus, cell in cells.items():
            reported = _reported(cell)
            if not cell.recipes:
                rows.append([first, CORPORA[corpus], reported, "", QUOTED, "", ""])
                first = ""
            for recipe in cell.recipes + _others(cell):
                own = recipe in cell.recipes
                found = measured().get(recipe, [])
                label = first if own else f"same network, {_kind(load_recipe(recipe))}"
                split = f"{CORPORA[corpus]}, {_split(load_recipe(recipe))}"
                for lines in _measurements(found) or [[NOT_RUN[cell.not_run if own else "yet"], "", ""]]:
                    rows.append([label, split, reported, f"`{recipe}`", *lines])
                    label, reported = ("" if own else label), ""
                first, reported = "", ""
                used += [run for one in found for run in one.runs]
                if not any(one.runs[0].scale == "full" for one in found):
                    commands.append(_command(load_recipe(recipe)))
    yield markdown_table(HEAD, rows)
    if folders := dict.fromkeys(run.path.parent.relative_to(ROOT).as_posix() for run in used):
        yield f"Measured in {', '.join(f'`{folder}`' for folder in folders)}."
    if commands:
        lines = "\n".join(dict.fromkeys(commands))
        title = "Commands for what was not run at full scale"
        yield f'<details markdown="1">\n<summary>{title}</summary>\n\n```text\n{lines}\n```\n\n</details>'


def _measurements(found: list[Measurement]) -> list[list[str]]:
    """Return the cells of each measurement of a recipe: accuracy, twin-free accuracy, number of runs and their scale."""
    lines = []
    several = len({one.runs[0].fingerprint for one in found}) > 1
    for one in found:
        run = one.runs[0]
        spread = "" if one.deviation is None else f" ± {one.deviation:.2f}"
        scale = [f"{one.seeds}", run.scale]
        if one.folds:
            scale.append(f"{one.folds} of {_folds(load_recipe(run.recipe))} folds")
        if run.scale == "full" and run.changed:
            changed = ", ".join(f"`{key}`" for key in run.changed[:3]) + " and others" * (len(run.changed) > 3)
            scale.append(f"changed: {changed}")
        if run.epochs and run.epochs[0] < run.epochs[1]:
            scale.append(f"{run.epochs[0]} of {run.epochs[1]} epochs")
        if several:
            scale.append(f"data `{run.fingerprint[:8]}`")
        accuracy = f"**{_percent(one.accuracy)}**{spread} ({one.interval[0]:.1f} to {one.interval[1]:.1f})"
        lines.append([accuracy, "" if one.twin_free is None else _percent(one.twin_free), ", ".join(scale)])
    return lines


def _reported(cell: Cell) -> str:
    text = "not printed" if cell.reported is None else _percent(cell.reported)
    text += "" if cell.deviation is None else f" ± {cell.deviation}"
    return text + (f" (training {cell.training:.2f})" if cell.training is not None else "")


def _others(cell: Cell) -> list[str]:
    """Return the recipes that train the network of a cell on its corpus in other ways than the paper."""
    if not cell.other_training:
        return []
    own = load_recipe(cell.recipes[0])
    recipes = [load_recipe(name) for name in recipe_names()]
    same = [one for one in recipes if (one.model.name, one.data.corpus) == (own.model.name, own.data.corpus)]
    return [one.name for one in sorted(same, key=_kind, reverse=True) if one.paper is None]


def _kind(recipe: Recipe) -> str:
    if recipe.name.startswith("good_faith/"):
        return "good-faith training"
    return "distilled" if recipe.distill else "fine-tuned"


def _split(recipe: Recipe) -> str:
    protocol = recipe.data.protocol
    step = (protocol[-1] if protocol else {}) if isinstance(protocol, list) else protocol
    if step.get("name") == "random_split":
        test = round(100 * step.get("test", 0.2))
        return f"random {100 - test}/{test}"
    if step.get("name") == "kfold":
        return f"{_folds(recipe)} folds by {step.get('by') or 'image'}"
    return "official"


def _folds(recipe: Recipe) -> int:
    protocol = recipe.data.protocol
    step = protocol[-1] if isinstance(protocol, list) else protocol
    return int(step.get("folds", 10))


def _command(recipe: Recipe) -> str:
    """Return the command that trains and measures a recipe: the first study with it, or else a training."""
    corpus, folds = recipe.data.corpus, _split(recipe).find("folds") > 0
    for study, recipes in _studies().items():
        if recipe.name in recipes:
            data = sorted({load_recipe(name).data.corpus for name in recipes})
            paths = [DATA[one] if len(data) == 1 else f"{one}={DATA[one]}" for one in data]
            return f"mien study {study} {' '.join(f'--data {path}' for path in paths)} --results results/studies"
    split = "private_test" if _split(recipe) == "official" and corpus == "fer2013" else "test"
    network, _, variant = recipe.name.partition("/")
    folder = f"results/{corpus}/{network}/{variant}-seed0" + "-fold$fold" * folds
    one = " --set data.protocol.fold=$fold" * folds
    train = f"mien train {recipe.name} --data {DATA[corpus]}{one} --out {folder}"
    both = f"{train} && mien evaluate {folder} --data {DATA[corpus]} --split {split}"
    return f"for fold in $(seq 0 {_folds(recipe) - 1}); do {both}; done" if folds else both


@functools.cache
def _studies() -> dict[str, list[str]]:
    """Return the bundled recipes of each bundled study."""
    found = {}
    for path in sorted((ROOT / "src/mien/studies").rglob("*.yaml")):
        study = yaml.safe_load(path.read_text(encoding="utf-8"))
        names = [row["recipe"] for row in (study.get("rows") or {"": study}).values()]
        found[study["name"]] = [name for name in names if name in recipe_names()]
    return found


def _numbers(table: NumbersTable) -> str:
    """Return a table of counts. A column that an audit counts too is followed by what it counted."""
    head, lines = [table.row], [[name] for name in table.rows]
    total = [["total"]] if table.total else []
    for index, (title, column) in enumerate(table.columns.items()):
        head.append(f"{title}, reported" if column.audit else title)
        for line, numbers in zip(lines, table.rows.values(), strict=True):
            line.append(f"{numbers[index]:,}")
        for line in total:
            line.append(f"{(table.total or [])[index]:,}")
        if column.audit and column.split:
            counts = _audit_counts(column.audit, column.split)
            head.append(f"{title}, counted")
            for line in lines:
                line.append(f"{counts[line[0].lower()]:,}")
            for line in total:
                line.append(f"{sum(counts.values()):,}")
    return f"{markdown_table(head, lines + total)}\n\n{table.note}".rstrip()


def _audit_counts(audit: str, split: str) -> dict[str, int]:
    """Return the number of images of each class in a split, as an audit counted them."""
    report = json.loads((RESULTS / f"audit/{audit}.json").read_text(encoding="utf-8"))
    numbers = Statistics.from_dict(report["statistics"])
    index = numbers.splits.index(split)
    return {name: row[index] for name, row in zip(numbers.classes, numbers.counts, strict=True)}


# Traps and contradictions ------------------------------------------------------------------------------------------------


def traps() -> str:
    """Return what each trap of a protocol is worth in points, on our own runs."""
    fer2013 = [run for run in runs() if load_recipe(run.recipe).data.corpus == "fer2013"]
    averaged, single = _selection_gains()
    rows = [
        _trap(
            "Twins: test images with a byte-identical copy in training",
            "FER2013, the accuracy on all test images minus that on images without a twin",
            [run.twin_cost for run in fer2013 if run.twin_cost is not None],
        ),
        _trap(
            "Choosing the epoch on the reported images, weights averaged (EMA)",
            "Accuracy on public_test of the best epoch minus the mean of the two epochs before and the two after it, which an "
            f"epoch chosen on other images would be expected to reach. Runs of {LONG} epochs or more; no test image is used",
            averaged,
        ),
        _trap(
            "The same, weights not averaged",
            "As above",
            single,
            "any recipe without `train.ema_decay`, such as `stn_resnet50/table1-vanilla_cnn`",
        ),
        _trap(
            "Folds by image instead of by person",
            "CK+48, the same recipe, ten folds pooled",
            gaps(measured(), "-image", "-subject"),
            "`mien train sa_csp_ca/ckplus-image` and `sa_csp_ca/ckplus-subject`, in full under [sa_csp_ca](#sa_csp_ca)",
        ),
        _trap(
            "A random 80/20 split instead of the official one",
            "FER2013, the same recipe",
            gaps(measured(), "-random", ""),
            "`mien train stn_resnet50/table1-vanilla_cnn-random` and `stn_resnet50/table1-vanilla_cnn`, in full under "
            "[stn_resnet50](#stn_resnet50)",
        ),
        _trap(
            "Ten views of each image instead of one",
            "FER2013, the same weights and split: corners and centre, mirrored or not, averaged",
            view_gains(RESULTS),
            "`mien evaluate MODEL --data fer2013.csv --view ten`",
        ),
    ]
    return markdown_table(["trap", "how it is measured", "worth in points: mean (range)", "runs or pairs"], rows)


def _trap(trap: str, how: str, values: list[float], command: str = "") -> list[str]:
    if not values:
        return [trap, how + (f". To measure it: {command}" if command else ""), NOT_RUN["yet"], ""]
    return [trap, how, f"**{statistics.fmean(values):+.2f}** ({min(values):+.2f} to {max(values):+.2f})", str(len(values))]


def _selection_gains() -> tuple[list[float], list[float]]:
    """Return the gain of choosing the epoch on the reported images, of runs on FER2013 with and without averaged weights."""
    averaged: list[float] = []
    single: list[float] = []
    for path in sorted(RESULTS.rglob("history.csv")):
        history = read_history(path.parent)
        if len(history) >= LONG and "val_accuracy" in history[0]:
            recipe = yaml.safe_load(path.with_name("recipe.yaml").read_text(encoding="utf-8"))
            if recipe["data"]["corpus"] == "fer2013":
                (averaged if recipe["train"].get("ema_decay") else single).append(selection_gain(history))
    return averaged, single


def contradictions() -> str:
    """Return a table per paper of what does not add up in it."""
    parts = []
    for network, paper in claims().papers.items():
        rows = [[one.where, one.says, one.but, CHECKED[one.checked]] for one in paper.contradictions]
        parts += [f"### In the paper of {network}", markdown_table(["where", "it says", "but", "checked with"], rows)]
    return "\n\n".join(parts)


def _lower(title: str) -> str:
    """Return a title as it continues a sentence; names such as FER2013 keep their capitals."""
    return title if title[:2].isupper() else title[0].lower() + title[1:]


def _percent(value: float) -> str:
    return f"{value:.2f}\N{NO-BREAK SPACE}%"


def markdown_table(head: list[str], rows: list[list[str]]) -> str:
    """Return a Markdown table."""
    return "\n".join("| " + " | ".join(cells) + " |" for cells in [head, ["---"] * len(head), *rows])
