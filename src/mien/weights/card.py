"""The card of a model as Markdown, in the format of Hugging Face: front matter in YAML with a `model-index`, then the text.

It is written from the model file and the `.json` card next to it alone, so an installed package can print it. The figures in
the cards of bundled models come from results files, see `scripts/model_cards.py`.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from mien import weights
from mien.model_info import ModelInfo

MAX_DEFAULT_PARAMETERS = 2_000_000
"""Most parameters of the default model, so that it is fast on every computer."""

DATA = {
    "private_test": ("FER2013 private_test", "fer2013", None, "private_test"),
    "public_test": ("FER2013 public_test", "fer2013", None, "public_test"),
    "ferplus_private_test": ("FER+ private_test", "ferplus", None, "private_test"),
    "ferplus_public_test": ("FER+ public_test", "ferplus", None, "public_test"),
    "ckplus48": ("CK+48, frames as given", "ckplus48", "as given", "all"),
    "ckplus48_padded": ("CK+48, frames padded by 4 px", "ckplus48", "padded by 4 px", "all"),
}
"""Name, dataset, configuration and split of what the bundled models are measured on, by its key in `results`."""

METRICS = {
    "accuracy": ("accuracy", "Accuracy"),
    "accuracy_twin_free": ("accuracy", "Accuracy on images without a copy in the training data"),
    "macro_f1": ("f1", "Macro-F1"),
    "uar": ("recall", "Balanced accuracy (UAR)"),
    "ece": ("ece", "Expected calibration error"),
    "votes_agreement": ("votes_agreement", "Expected agreement with FER+ votes"),
}
"""Type and name of the metrics, by their key in `results`."""

FER2013 = """
- **Training data**: the train split of FER2013 (Goodfellow et al. 2013), 28,709 grey pictures of 48x48 px. They come from a web
  search and were labelled quickly, so some labels are wrong. Fingerprint of our copy: `{fingerprint}`.
- **Selection**: the epoch, the smoothing of the input and the calibration were chosen on public_test. private_test chose
  nothing.
""".strip()

FERPLUS = """
- **Training data**: the train split of FER+ (Barsoum et al. 2016): the pictures of FER2013, 48x48 px and grey, each labelled
  again by ten people. The target of a picture is the distribution of their votes over eight classes. Fingerprint of our copy:
  `{fingerprint}`.
- **Accuracy** counts the class with more than half of the votes, after single votes are removed. Pictures without such a class,
  and those called unknown or "not a face", are left out, as in the FER+ paper.
- **Selection**: the epoch and the calibration were chosen on public_test. private_test chose nothing.
""".strip()

FER2013_TERMS = """
- **FER2013** was published for a competition on Kaggle, under the rules of that competition. Its pictures come from a web
  search, and their copyright stays with their owners. None of them is in the model file. Whether a model that learned from such
  pictures may be used for a purpose is a legal question that this card does not answer.
- **CK+48** was only used to measure the model, never to train it.
""".strip()

DATA_TEXTS = {"fer2013": FER2013, "ferplus": FERPLUS}

NOT_FOR = """
- Do not use it to decide about people: hiring, grading, credit, insurance, policing, borders, courts, diagnosis, lie detection.
- Do not use it on people who do not know about it or cannot refuse, and do not rank or profile people with it.
- In the European Union, inferring emotions at work or in education is prohibited, except for medical or safety reasons
  (Regulation (EU) 2024/1689, Article 5(1)(f)).
- A label is not a feeling. It is the word that the people who labelled the training data would most likely choose for the face.
""".strip()

LIMITS = """
- Every face gets one of the words, even if none fits.
- The figures are about cropped faces, without a face detector. Faces that a detector misses are not part of them.
- It is less accurate on small, turned, covered or badly lit faces, and on people and situations that are rare in the training
  data.
""".strip()


YAML_WORDS = ("true", "false", "yes", "no", "on", "off", "null")
"""Words that YAML does not read as text."""


def uses() -> dict[str, str]:
    """Return what each bundled model is for, by name: the default, contempt, speed, the best on FER2013 and on CK+48."""
    cards = {name: weights.read_card(path) for name, path in weights.files().items()}
    found = {weights.DEFAULT: ["default"]}
    for name, card in cards.items():
        if "contempt" in card.get("classes", []):
            found.setdefault(name, []).append("with contempt")
    scores = {
        "fastest": {name: max(card.get("crops_per_second", {"": 0}).values()) for name, card in cards.items()},
        "best on FER2013": {name: accuracy(card, "public_test") or 0 for name, card in cards.items()},
        "best on CK+48": {name: card.get("selection", {}).get("ckplus48", 0) for name, card in cards.items()},
    }
    for use, score in scores.items():
        best = max(score, key=lambda name: score[name], default="")
        if score.get(best):
            found.setdefault(best, []).append(use)
    return {name: ", ".join(words) for name, words in found.items()}


def accuracy(card: dict[str, Any], data: str) -> float | None:
    """Return the accuracy on some data that a card has, or None."""
    figures = (card.get("results") or {}).get(data)
    value = figures.get("accuracy") if isinstance(figures, dict) else None
    return value if isinstance(value, float) else None


def chosen() -> str:
    """Return the name of the bundled model that the rule makes the default: the best mean of at most 2 million parameters."""
    cards = {name: weights.read_card(path) for name, path in weights.bundled().items()}
    means = {
        name: card["selection"]["mean"]
        for name, card in cards.items()
        if "selection" in card and card["parameters"] <= MAX_DEFAULT_PARAMETERS
    }
    return max(means, key=lambda name: means[name])


def markdown(path: Path, info: ModelInfo, address: str | None = None) -> str:
    """Return the card of a model file or of the ensemble; what is not known about it is left out.

    Args:
        path: The file; the figures come from the `.json` card next to it.
        info: The facts stored in the file.
        address: Where it is on the Hub, `hf://user/model`, if this card is for there.
    """
    card, name = weights.read_card(path), address.rpartition("/")[2] if address else path.stem
    bundled, corpus = path in weights.files().values(), (info.recipe.get("data") or {}).get("corpus", info.label_set)
    results = {key: card["results"][key] for key in DATA if "images" in card.get("results", {}).get(key, {})}
    model, package = (address, "'mien[hub]'") if address else (name if bundled else path.name, "mien")
    sections = {
        f"# {name}": _about(name, path, info, card, bundled),
        "## Use": f"```bash\npip install {package}\nmien predict photo.jpg --model {model}\n```\n\n"
        f'```python\nimport mien\n\nmien.Recognizer("{model}").predict("photo.jpg")\n```',
        "## Accuracy": _accuracy(results, card, info),
        "## Accuracy by class": _by_class(results, info),
        "## Calibration": _calibration(results, info),
        "## Robustness": _robustness(card),
        "## Groups of people": _groups(card),
        "## Data": DATA_TEXTS.get(corpus, f"Trained on `{corpus}`.").format(fingerprint=info.data_fingerprint[:16]),
        "## Training": _training(info, card),
        "## Licences": _licences(card) if bundled else "",
        "## What it must not be used for": NOT_FOR,
        "## Limits": LIMITS,
    }
    body = "\n\n".join(f"{title}\n\n{text}" for title, text in sections.items() if text)
    return f"---\n{_yaml(_metadata(name, info, results, bundled))}\n---\n\n{body}\n"


def _metadata(name: str, info: ModelInfo, results: dict[str, Any], bundled: bool) -> dict[str, Any]:
    """Return the front matter."""
    index = []
    for key, figures in results.items():
        title, dataset, config, split = DATA[key]
        about = {"type": dataset, "name": title, "config": config, "split": split, "revision": figures["fingerprint"]}
        metrics = [
            {"type": kind, "value": round(figures[metric], 4), "name": shown}
            for metric, (kind, shown) in METRICS.items()
            if figures.get(metric) is not None
        ]
        task = {"type": "image-classification", "name": "Facial expression recognition"}
        index.append({"task": task, "dataset": {k: v for k, v in about.items() if v is not None}, "metrics": metrics})
    return {
        **({"license": "apache-2.0"} if bundled else {}),
        "library_name": "mien",
        "pipeline_tag": "image-classification",
        "tags": ["facial-expression-recognition", "emotion-recognition", "face", "onnx"],
        "datasets": [info.label_set],
        "metrics": ["accuracy", "f1"],
        **({"model-index": [{"name": name, "results": index}]} if index else {}),
    }


def _about(name: str, path: Path, info: ModelInfo, card: dict[str, Any], bundled: bool) -> str:
    spec, parameters = info.preprocess, card.get("parameters")
    size = f" of {parameters / 1e6:.1f} million parameters" if parameters else ""
    what = f"This model names which of {len(info.classes)} expressions a face shows: {', '.join(info.classes)}."
    if info.arch == weights.ENSEMBLE:
        members = "\n".join(f"- `{name}`" for name in info.arguments["members"])
        mirrored = ", each of which also looks at the mirrored face" if info.arguments["mirror"] else ""
        what += f" It is the mean answer of several models{mirrored}. It takes as long as all of them together"
        return f"{what}{size.replace(' of', ', and has', 1)}:\n\n{members}"
    use = uses().get(path.stem) if bundled else None
    what += f" It is a `{info.arch}` network{size} in {info.precision}."
    what += " It belongs to mien, a Python toolkit for facial expression recognition." if bundled else ""
    what += f" Among the models of mien it is the {use}." if use else ""
    rows = [
        ["input", f"{spec.size[0]} x {spec.size[1]} px, {'grey' if spec.channels == 1 else 'RGB'}"],
        ["normalisation", f"scaled to 0-1, minus {_joined(spec.mean)}, divided by {_joined(spec.std)}"],
        ["least contrast", f"{spec.min_contrast:g}; darker or paler faces are spread to it" if spec.min_contrast else "none"],
        ["smoothing", f"a blur of {spec.smooth:g} px after resizing" if spec.smooth else "none"],
        ["crop", f"a square, {spec.crop_scale:g} times the longer side of the face's box"],
        ["output, by index", ", ".join(f"{index} {name}" for index, name in enumerate(info.classes))],
        ["file", f"`{name}.onnx`, {path.stat().st_size:,} bytes"],
        ["SHA-256", f"`{weights.sha256(path)}`"],
        *([f"speed, {cores}", f"{speed:,} face crops per second"] for cores, speed in card.get("crops_per_second", {}).items()),
    ]
    return f"{what}\n\n{_table(['fact', 'value'], rows)}"


def _accuracy(results: dict[str, Any], card: dict[str, Any], info: ModelInfo) -> str:
    if not results:
        return ""
    keys = ("accuracy", "accuracy_twin_free", "macro_f1", "uar", "ece")
    rows = [
        [DATA[key][0], f"{each['images']:,}", *(_per_cent(each.get(name)) for name in keys)] for key, each in results.items()
    ]
    head = ["data", "images", "accuracy", "accuracy without twins", "macro-F1", "UAR", "ECE"]
    text = [
        _table(head, rows),
        "*Without twins* leaves out test images that have a byte-identical copy in the training data. *UAR* is the mean of the "
        "recalls of the classes. *ECE* is the expected calibration error: how far confidence and accuracy differ. The model "
        "was not trained on CK+48"
        + (", which has no neutral faces." if "contempt" in info.classes else ", and has no class for its contempt."),
    ]
    if (votes := results.get("public_test", {}).get("votes_agreement")) is not None:
        text.append(
            "**Agreement with people.** On public_test, the model gives the answer of a randomly chosen FER+ voter in "
            f"{_per_cent(votes)} of cases."
        )
    if rule := card.get("selection"):
        text.append(
            "**How mien chooses its default.** Among the bundled models of at most 2 million parameters, it takes the one with "
            "the best mean of FER2013 public_test and CK+48; the two framings of CK+48 count as one. private_test takes no "
            f"part. This model has {_per_cent(rule['ckplus48'])} on CK+48 and a mean of {_per_cent(rule['mean'])}."
        )
    return "\n\n".join(text)


def _by_class(results: dict[str, Any], info: ModelInfo) -> str:
    shown = {key: each for key, each in results.items() if key in ("private_test", "ferplus_private_test", "ckplus48")}
    rows = [[name, *(_per_cent(each["recall"].get(name)) for each in shown.values())] for name in info.classes]
    return _table(["share that is recognised", *(DATA[key][0] for key in shown)], rows) if shown else ""


def _calibration(results: dict[str, Any], info: ModelInfo) -> str:
    values = info.calibration
    if not values:
        return ""
    text = [
        f"Its probabilities were calibrated on {values.get('images', 0):,} images of {values.get('split') or 'its data'}: "
        f"temperature {values.get('temperature', 1):g}, power {values.get('power', 1):g}, lead {values.get('lead', 0):g}."
    ]
    if "bias" in values:
        biases = ", ".join(f"{name} {bias:+.2f}" for name, bias in zip(info.classes, values["bias"], strict=True))
        text.append(f"Classes that are rare in training are made more probable. The log probabilities change by: {biases}.")
    if test := results.get("private_test") or results.get("ferplus_private_test"):
        text.append(f"On private_test, confidence and accuracy differ by {_per_cent(test['ece'])} (ECE, 15 bins).")
        if test["sets"]:
            rows = [
                [_per_cent(float(each), 0), _per_cent(found["coverage"]), f"{found['size']:.2f}"]
                for each, found in test["sets"].items()
            ]
            head = ["sets of answers for", "contain the label in", "answers per set"]
            text.append(f"Sets of answers on private_test:\n\n{_table(head, rows)}")
    return "\n\n".join(text)


def _robustness(card: dict[str, Any]) -> str:
    if not (found := card.get("robustness")):
        return ""
    rows = [["none", f"**{100 * found['clean']:.1f}**"]]
    for each in found["changes"]:
        points = ", ".join(f"{label}: **{100 * value:.1f}**" for label, value in each["accuracy"].items())
        rows.append([each["change"] + (f" ({each['unit']})" if each["unit"] else ""), points])
    return f"{_table(['change', 'strength: **accuracy, %**'], rows)}\n\n{found['images']:,} faces of FER2013 {found['split']}."


def _groups(card: dict[str, Any]) -> str:
    unknown = (
        "The corpora above do not record age, skin colour or origin, so the error of this model for groups of people is not "
        "known. Measure it on people like yours before you rely on it."
    )
    if not (found := card.get("groups")):
        return unknown
    rows = []
    for name, group in found["skin"].items():
        low, high = group["accuracy_interval"]
        share = f"{_per_cent(group['accuracy'], 1)} ({100 * low:.0f} to {100 * high:.0f})"
        rows.append([name, f"{group['faces']}", _per_cent(group["detection_rate"], 1), f"{group['images']}", share])
    table = _table(["skin", "faces", "found by the detector", "found and labelled", "accuracy (95 % interval)"], rows)
    gap = "A gap is more than chance" if found["more_than_chance"] else "No gap is more than chance, but the groups are small"
    return f"{unknown}\n\nWhat could be measured, on {found['data']}:\n\n{table}\n\n{gap}."


def _training(info: ModelInfo, card: dict[str, Any]) -> str:
    lines = []
    for step, each in enumerate(card.get("training", [])):
        start = f"`{each['start']}`" if "/" in str(each["start"]) else each["start"] or "random weights"
        teachers = f" Teachers: {', '.join(f'`{name}`' for name in each['teachers'])}." if each["teachers"] else ""
        lines.append(f"{step + 1}. `{each['recipe']}`: {each['summary']}. Start: {start}.{teachers} Epochs: {each['epochs']}.")
    if lines:
        lines.insert(0, "The trainings that led to this model, the last one first:\n")
        if any(each["teachers"] for each in card["training"]):
            lines.append("\nA teacher that is named like a bundled model is that model as it was at the time.")
    elif info.arch == weights.ENSEMBLE:
        lines.append("The cards of its members say how they were trained.")
    if info.commit and info.arch != weights.ENSEMBLE:
        lines.append(
            f"\nThe last training had seed {info.recipe.get('seed')} and ran with commit `{info.commit[:12]}` of mien."
        )
    return "\n".join(lines).strip()


def _licences(card: dict[str, Any]) -> str:
    lines = ["- **This file** is part of mien and has its licence, Apache-2.0."]
    for each in card.get("origins", []):
        way = "The training began from" if each["as"] == "start" else "Its teachers began from"
        lines.append(f"- {way} **{each['network']}** ({each['licence']}).")
    return "\n".join([*lines, FER2013_TERMS])


def _joined(values: tuple[float, ...]) -> str:
    return ", ".join(f"{value:g}" for value in values)


def _per_cent(share: float | None, digits: int = 2) -> str:
    return "" if share is None else f"{100 * share:.{digits}f} %"


def _table(head: list[str], rows: list[list[str]]) -> str:
    return "\n".join(f"| {' | '.join(cells)} |" for cells in [head, ["---"] * len(head), *rows])


def _yaml(value: dict[str, Any] | list[Any], indent: str = "") -> str:
    """Return a dictionary or list as YAML; base installs have no library for it."""
    lines = []
    for start, each in (
        [(f"{key}:", each) for key, each in value.items()] if isinstance(value, dict) else [("-", x) for x in value]
    ):
        if isinstance(each, dict | list):
            inner = _yaml(each, f"{indent}  ")
            lines.append(f"{indent}- {inner.lstrip()}" if start == "-" else f"{indent}{start}\n{inner}")
        else:
            plain = isinstance(each, str) and re.fullmatch(r"[A-Za-z][\w .+/-]*\w", each) and each.lower() not in YAML_WORDS
            lines.append(f"{indent}{start} {each if plain else json.dumps(each)}")
    return "\n".join(lines)
