"""The parts of a report on one measurement: tables and figures of its classes, confusions, confidence, training and origin."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mien.languages import translate
from mien.report.faces import Predictions
from mien.report.figures import confusion_figure, curves_figure, rates_figure, reliability_figure
from mien.report.inputs import Measured, Run, show
from mien.report.page import Block, Bullets, Code, Drawing, Drawings, Facts, Table, Text
from mien.statistics import interval_of_images

MAX_CLASSES = 30
"""Classes up to which a confusion matrix can be read."""

VIEWS = {"mirror": "mean with the mirror image", "ten": "mean of ten views"}

METRICS = {
    "accuracy": "accuracy",
    "macro_f1": "macro F1",
    "uar": "balanced accuracy (UAR)",
    "kappa": "Cohen's kappa",
    "ece": "calibration error (ECE)",
    "votes_agreement": "agreement with FER+ votes",
}
"""Metrics of a results file, and their names in the table."""

KEPT = (1.0, 0.9, 0.8, 0.7, 0.5)
"""Shares of the answers, the most confident first, whose accuracy is shown."""


def metrics_table(measured: Measured) -> Table:
    """Return the table of the metrics, standard and twin-free."""
    parts = [measured.first[key] for key in ("standard", "twin_free")]
    rows = [["images", *("–" if part is None else f"{part['images']:,}" for part in parts)]]
    for key, name in METRICS.items():
        values = [part.get(key) if part else None for part in parts]
        shown = "{:.3f}".format if key == "kappa" else percent
        cells = ["–" if value is None else shown(value) for value in values]
        if key == "accuracy":
            ends = ["–" if part is None else interval(part["accuracy"], part["images"]) for part in parts]
            rows += [[name, *cells], ["95 % interval", *ends]]
        elif any(value is not None for value in values):
            rows.append([name, *cells])
    caption = "All images (standard), and those without a byte-identical twin in training (twin-free)"
    return Table(caption, ["figure", "standard", "twin-free"], rows)


def reported_blocks(recipe: dict[str, Any]) -> list[Block]:
    """Return what the paper reports for a recipe, in a table of its own: other conditions, other figures."""
    paper = recipe.get("paper")
    if not paper or not paper.get("reported"):
        return []
    rows = [[key.replace("_", " "), f"{value:.2f}\u00a0%"] for key, value in paper["reported"].items()]
    text = "What the paper reports for this row: {source}. Compare only figures of the same protocol"
    caption = translate(text, source=f"{paper['title']}, {paper['table']}")
    return [Table(caption, ["data and protocol", "reported accuracy"], rows)]


def class_blocks(measured: Measured) -> list[Block]:
    """Return the table of the classes and the figure of their rates."""
    counts, classes = measured.confusion, measured.first["classes"]
    right, true, predicted = np.diag(counts), counts.sum(1), counts.sum(0)
    free = (measured.first["twin_free"] or {}).get("recall") or {} if len(measured.results) == 1 else {}
    rows = []
    for i, name in enumerate(classes):
        recall = right[i] / true[i] if true[i] else None
        row = [name, f"{true[i]:,}", percent(recall), interval(recall, true[i])]
        row += [percent(free.get(name))] if free else []
        row += [_share(predicted[i] - right[i], counts.sum() - true[i]), _share(right[i], predicted[i])]
        rows.append([*row, _share(2 * right[i], true[i] + predicted[i]) if true[i] else "–"])
    head = ["class", "images", "recall", "95 % interval", *(["recall, twin-free"] if free else [])]
    blocks: list[Block] = [Table("Each class, on all images", [*head, "false positive rate", "precision", "F1"], rows)]
    if len(classes) <= MAX_CLASSES:
        alt = f"{translate('Recall and false positive rate of each class.')} {_best_and_worst(measured)}"
        caption = "Recall (true positive rate) and false positive rate of each class, with 95 % intervals (Wilson)."
        blocks.append(Drawings([Drawing("rates", caption, alt, rates_figure([measured]))]))
    return blocks


def _best_and_worst(measured: Measured) -> str:
    counts, classes = measured.confusion, measured.first["classes"]
    recall = {name: counts[i, i] / counts[i].sum() for i, name in enumerate(classes) if counts[i].sum()}
    best, worst = max(recall, key=lambda name: recall[name]), min(recall, key=lambda name: recall[name])
    shown = {"best": translate(best), "most": percent(recall[best]), "worst": translate(worst), "least": percent(recall[worst])}
    return translate("{best} is found most often ({most}), {worst} least often ({least}).", **shown)


def confusion_blocks(measured: Measured, name: str = "confusion") -> list[Block]:
    """Return the confusion matrices, as counts and row-normalised, and the most frequent confusions."""
    counts, classes = measured.confusion, measured.first["classes"]
    wrong = counts - np.diag(np.diag(counts))
    rows = []
    for index in np.argsort(-wrong, axis=None, kind="stable")[:6]:
        i, j = divmod(int(index), len(classes))
        if wrong[i, j]:
            pair = {"label": translate(classes[i]), "answer": translate(classes[j])}
            share = percent(wrong[i, j] / counts[i].sum())
            rows.append([translate("{label} taken for {answer}", **pair), f"{wrong[i, j]:,}", share])
    blocks: list[Block] = []
    if len(classes) <= MAX_CLASSES:
        alts = [translate("Confusion matrix of counts."), translate("Confusion matrix, row-normalised.")]
        if rows:
            alts[0] += " " + translate("Most frequent: {pair}, {count} times.", pair=rows[0][0], count=rows[0][1])
        alts[1] += " " + _best_and_worst(measured)
        captions = (
            "Counts. Rows are true classes.",
            "Row-normalised: each row sums to 100 %, so the diagonal is the recall.",
        )
        figures = confusion_figure(measured, "counts"), confusion_figure(measured, "normalised")
        names = f"{name}-counts", f"{name}-normalised"
        blocks.append(Drawings(list(map(Drawing, names, captions, alts, figures))))
    if rows:
        blocks.append(Table("Most frequent confusions", ["confusion", "images", "share of the true class"], rows))
    return blocks


def confidence_blocks(measured: Measured, predictions: Predictions | None) -> list[Block]:
    """Return the reliability diagram, the risk-coverage curve, and what the prediction sets hold."""
    blocks: list[Block] = []
    if predictions is not None:
        _, target, probs = predictions
        right, confidence = probs.argmax(1) == target, probs.max(1)
        gap = float(confidence.mean() - right.mean())
        trend = translate("overconfident") if gap > 0 else translate("underconfident")
        text = (
            "The mean confidence is {confidence} and the accuracy {accuracy}: the answers are {trend} by {points} points on "
            "average."
        )
        shown = {"confidence": percent(confidence.mean()), "accuracy": percent(right.mean())}
        summary = translate(text, trend=trend, points=f"{abs(100 * gap):.1f}", **shown)
        order = np.argsort(-confidence, kind="stable")
        rows = []
        for share in KEPT:
            kept = order[: max(1, round(share * len(order)))]
            accuracy = right[kept].mean()
            lowest = percent(confidence[kept[-1]])
            rows.append([f"{100 * share:.0f}\u00a0%", lowest, percent(accuracy), interval(accuracy, len(kept))])
        text = "The most confident half of the answers is {half} right, all of them {all}."
        half = translate(text, half=rows[-1][2], all=rows[0][2])
        head = ["answers kept", "lowest confidence kept", "accuracy of these", "95 % interval"]
        blocks += [
            Text(summary),
            reliability_drawings([measured], f". {summary}", f". {half}"),
            Table("Accuracy if only the most confident answers are kept", head, rows),
        ]
    if sets := measured.first.get("sets"):
        caption = "Prediction sets (--coverage): how often they hold the right class"
        rows = [
            [f"{100 * float(asked):.0f}\u00a0%", percent(found["coverage"]), f"{found['size']:.2f}"]
            for asked, found in sets.items()
        ]
        blocks.append(Table(caption, ["asked for", "measured", "classes per set"], rows))
    return blocks


def reliability_drawings(measured: Sequence[Measured], confidence: str, coverage: str) -> Drawings:
    """Return the reliability diagram and the risk-coverage curve; the texts complete their descriptions in words."""
    honest = "Reliability: on the diagonal, the confidence is honest."
    risk = "Risk and coverage: accuracy if only the most confident answers are kept."
    against = translate("Accuracy against confidence"), translate("Accuracy against coverage")
    alts = f"{against[0]}{confidence}", f"{against[1]}{coverage}"
    return Drawings(
        [
            Drawing("reliability", honest, alts[0], reliability_figure(measured, "reliability")),
            Drawing("coverage", risk, alts[1], reliability_figure(measured, "coverage")),
        ]
    )


def group_blocks(results: dict[str, Any]) -> list[Block]:
    """Return accuracy by group and the largest gaps, for each column that was given."""
    blocks: list[Block] = []
    for column, found in (results.get("groups") or {}).items():
        detected = any(each.get("detection_rate") is not None for each in found["groups"].values())
        rows = []
        for name, each in found["groups"].items():
            accuracy = [percent(each["accuracy"]), as_range(each.get("accuracy_interval"))]
            rest = ("uar", "ece", "detection_rate") if detected else ("uar", "ece")
            rows.append([name, f"{each['images']:,}", *accuracy, *(percent(each.get(key)) for key in rest)])
        head = [column, "images", "accuracy", "95 % interval", "balanced accuracy", "calibration error"]
        blocks.append(Table(translate("By {column}", column=column), [*head, *(["faces found"] if detected else [])], rows))
        text = "{metric}: {points} points between {first} and {second}"
        gaps = []
        for metric, gap in (found.get("gaps") or {}).items():
            between = dict(zip(("first", "second"), gap["between"], strict=True))
            name, points = translate(metric.replace("_", " ")), f"{100 * gap['largest']:.1f}"
            gaps.append(translate(text, metric=name, points=points, **between))
        if gaps:
            blocks += [Text(translate("Largest gaps by {column}:", column=column)), Bullets(gaps)]
        if missing := found.get("missing"):
            text = "{count} images have no value of {column} and are in no group."
            blocks.append(Text(translate(text, count=f"{missing:,}", column=column)))
    return blocks


def training_blocks(run: Run) -> list[Block]:
    """Return the curves of a run and how long it took; nothing without a finished epoch."""
    if run.history is None:
        return []
    from mien.engine.history import best_epoch, read_history

    epochs, data = read_history(run.folder), run.recipe["data"]
    best, seconds = best_epoch(epochs), sum(epoch.seconds for epoch in epochs)
    kept = translate("the best on {split}", split=data["select"]) if data["select"] else translate("the last")
    facts = [
        ("epochs", translate("{count} of {all}", count=len(epochs), all=run.recipe["train"]["epochs"])),
        ("kept epoch", f"{best.epoch}, {kept}"),
        ("training accuracy then", f"{percent(best.train_accuracy)} ({translate('on augmented images')})"),
    ]
    if not math.isnan(best.val_accuracy):
        facts.append((translate("accuracy on {split} then", split=data["select"]), percent(best.val_accuracy)))
    speed = float(np.median([epoch.images_per_second for epoch in epochs]))
    facts += [
        ("duration", duration(seconds)),
        ("speed", translate("{count} training images per second (median)", count=f"{speed:,.0f}")),
    ]
    alt = f"{translate('Accuracy by epoch.')} {', '.join(f'{translate(name)}: {value}' for name, value in facts[:4])}."
    caption = "Accuracy by epoch. The selection split chooses the epoch; it is not the test split."
    return [Drawings([Drawing("curves", caption, alt, curves_figure([run]))]), Facts(facts)]


def twin_blocks(results: dict[str, Any]) -> list[Block]:
    """Return how many images have a twin in training, and the accuracy on these."""
    twins, standard, free = results["twins"] or {}, results["standard"], results["twin_free"]
    blocks: list[Block] = []
    if "exact" in twins:
        names = (("exact", "byte-identical"), ("near", "nearly the same"), ("mirrored", "mirrored"), ("any", "any of these"))
        rows = [[name, f"{twins[key]:,}", percent(twins[key] / standard["images"])] for key, name in names if key in twins]
        blocks.append(Table("Images with a twin among the training images", ["kind of twin", "images", "share"], rows))
    if free and free["images"] < standard["images"]:
        count = standard["images"] - free["images"]
        right = standard["accuracy"] * standard["images"] - free["accuracy"] * free["images"]
        text = (
            "On the {count} images with a byte-identical twin the accuracy is {with}, on the others {without}. A model may "
            "remember the label of a training image, so the twin-free figure says more about new faces."
        )
        shares = {"with": percent(right / count), "without": percent(free["accuracy"])}
        blocks.append(Text(translate(text, count=f"{count:,}", **shares)))
    return blocks


def recipe_blocks(recipe: dict[str, Any]) -> list[Block]:
    """Return what a recipe is, how it differs from its paper, and all its values."""
    if not recipe:
        return []
    import yaml

    class Dumper(yaml.SafeDumper):
        """Writes lists on one line."""

    Dumper.add_representer(list, lambda self, value: self.represent_sequence("tag:yaml.org,2002:seq", value, flow_style=True))
    blocks: list[Block] = [
        Text(
            f"{recipe.get('name') or translate('A recipe without a name')}: {recipe.get('summary') or translate('no summary')}"
        )
    ]
    if recipe.get("deviations"):
        text = "Where it differs from its paper, or the paper does not say:" if recipe.get("paper") else "Remarks:"
        blocks += [Text(text), Bullets(list(map(show, recipe["deviations"])))]
    rest = {key: value for key, value in recipe.items() if key not in ("summary", "deviations")}
    return [*blocks, Code(yaml.dump(rest, Dumper=Dumper, sort_keys=False, allow_unicode=True, width=100).splitlines())]


def provenance(measured: Measured) -> list[tuple[str, str]]:
    """Return where a measurement comes from: files, hashes, versions, hardware."""
    results, path = measured.first, measured.paths[0]
    model, data, hardware = results["model"], results["data"], results["hardware"]
    training, versions = results["training"] or {}, results["versions"] or {}
    cores = ", " + translate("{count} cores", count=hardware.get("cores", "?"))
    checked = (
        "matches: the file is as mien evaluate wrote it"
        if results["digest"]
        else "none: the file is of an earlier version, so an edit by hand may go unnoticed"
    )
    view = translate(VIEWS.get(results.get("view") or "", "single view"))
    epochs = translate("{count} epochs", count=training.get("epochs"))
    values: list[tuple[str, Any]] = [
        ("results file", path.name),
        ("digest", checked),
        ("measured on", results.get("date")),
        ("measured with mien", f"{results.get('mien_version')}, commit {results.get('commit') or translate('unknown')}"),
        ("versions", ", ".join(f"{name} {version}" for name, version in versions.items() if version and name != "mien")),
        ("hardware", ", ".join(str(hardware[key]) for key in ("processor", "device", "system") if hardware.get(key)) + cores),
        ("backend", f"{engine_of(results)}, {results['precision']}, {view}"),
        ("corpus", f"{data['corpus']}, {data['split']}, {translate('protocol')}: {data['protocol']}"),
        ("data fingerprint", data.get("fingerprint")),
        ("split fingerprint", data.get("split_fingerprint")),
        ("split file", data.get("split_file")),
        ("options of the corpus", _pairs(data.get("options") or {})),
        ("images left out", f"{data['left_out']:,}" if data.get("left_out") else None),
        ("training images", (results["twins"] or {}).get("training")),
        ("network", f"{model['arch']} ({_pairs(model['arguments'])}), {translate('input')} {show(model.get('input'))} px"),
        ("weights, SHA-256", model.get("weights_sha256")),
        ("weights trained at commit", model.get("commit")),
        ("recipe", model.get("recipe")),
        ("recipe hash", model.get("recipe_hash")),
        ("seed", None if model.get("seed") is None else str(model["seed"])),
        ("training", f"{epochs}, {duration(training['seconds'])}" if training.get("seconds") else None),
    ]
    return [(name, str(value)) for name, value in values if value]


# Words ------------------------------------------------------------------------------------------------------------------


def percent(value: float | None) -> str:
    r"""Return a share in per cent with two decimals; a dash if there is none.

    >>> percent(0.70118), percent(None)
    ('70.12\xa0%', '–')
    """
    return "–" if value is None or math.isnan(value) else f"{100 * value:.2f}\u00a0%"


def _share(count: int, total: int) -> str:
    return percent(count / total if total else None)


def interval(accuracy: float | None, images: int) -> str:
    """Return the 95 % Wilson interval of an accuracy, such as `67.1 to 73.0 %`."""
    if accuracy is None or not images:
        return "–"
    return as_range(interval_of_images(round(float(accuracy) * int(images)), int(images)))


def engine_of(results: Mapping[str, Any]) -> str:
    """Return what ran the network."""
    return "ONNX Runtime" if results["backend"] == "onnx" else str(results["backend"])


def _pairs(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{key}={show(value)}" for key, value in values.items())


def as_range(ends: Sequence[float] | None) -> str:
    """Return an interval in per cent; a dash if there is none."""
    return translate("{low} to {high}", low=f"{100 * ends[0]:.1f}", high=f"{100 * ends[1]:.1f}\u00a0%") if ends else "–"


def duration(seconds: float) -> str:
    """Return a duration in words.

    >>> duration(20), duration(100), duration(10_000)
    ('20 seconds', '2 minutes', '2.8 hours')
    """
    if seconds < 90:
        return translate("{count} seconds", count=f"{seconds:.0f}")
    if seconds < 5400:
        return translate("{count} minutes", count=f"{seconds / 60:.0f}")
    return translate("{count} hours", count=f"{seconds / 3600:.1f}")
