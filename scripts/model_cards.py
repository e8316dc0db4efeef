"""Write into the cards of the bundled models what was measured with them, and how they were trained.

    python scripts/model_cards.py      (part of make tables)

Figures come from results/ and benchmarks/runs/, of exactly the files that are bundled (by SHA-256). The trainings come from the
recipes. A card then contains everything that `mien info NAME --card` shows, so it needs no repository. Evaluate a new model on
FER2013 and CK+48 first (results/README.md has the commands).
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

from mien import weights
from mien.atomic import write_json
from mien.model_info import ModelInfo
from mien.predict.backend import open_backend
from mien.recipe import RENAMED, load_recipe, recipe_names
from mien.results import read_results
from mien.weights.card import DATA

ROOT = Path(__file__).parents[1]

PAD = 4
"""Pixels of padding in the second evaluation on CK+48, whose frames are cropped more tightly than FER2013's."""

FIGURES = ("images", "accuracy", "accuracy_interval", "macro_f1", "uar", "ece", "votes_agreement", "recall")

STARTS = {"dlib_resnet.safetensors": {"network": "dlib's face recognition network", "licence": "CC0-1.0"}}
"""Weights from elsewhere that trainings begin from."""


def update_cards(check: bool = False) -> list[str]:
    """Write the cards that change, or none with `check`; return their names."""
    changed = []
    for name, path in weights.files().items():
        before = weights.read_card(path)
        card = before | facts(path, open_backend(path, threads=1).info)
        if card == before:
            continue
        changed.append(name)
        if name == weights.ENSEMBLE:  # its card is the file itself
            card["former_sha256"] = [*card["former_sha256"], weights.sha256(path)]
        if not check:
            write_json(weights.card_path(path), card)
    return changed


def facts(path: Path, info: ModelInfo) -> dict[str, Any]:
    """Return what the card of a bundled model says about measurements and training."""
    found: dict[str, Any] = {"results": {}}
    for data in DATA:
        if measured := results_of(path, data):
            found["results"][data] = _figures(*measured)
    if {"public_test", "ckplus48", "ckplus48_padded"} <= found["results"].keys():
        found["selection"] = selection(found["results"])
    if info.precision == "int8":
        fp32 = weights.read_card(path.with_name(path.name.removesuffix("-int8.onnx") + ".onnx"))["results"]
        lost = {data: fp32[data]["accuracy"] - each["accuracy"] for data, each in found["results"].items() if data in fp32}
        found["points_lost"] = {data: round(100 * share, 3) for data, share in lost.items()}
    if path == weights.ensemble_file():
        members = [weights.read_card(weights.bundled()[name]) for name in info.arguments["members"]]
        found["parameters"] = sum(member["parameters"] for member in members)
        origins = [origin for member in members for origin in member.get("origins", [])]
        return found | {"origins": [each for i, each in enumerate(origins) if each not in origins[:i]]}
    found |= {"training": trainings(info.recipe), "origins": origins_of(info.recipe)}
    selected = [each for data, each in found["results"].items() if data.endswith("public_test")]
    if selected:  # their folder has the history of the last training
        history = (ROOT / selected[0]["file"]).with_name("history.csv")
        done = len(history.read_text(encoding="utf-8").splitlines()) - 1
        found["training"][0]["epochs"] = f"{done} of {info.recipe['train']['epochs']}"
    if photos := results_of(path, "photos"):
        found["groups"] = _groups(photos[1])
    if run := _newest(path, "robustness"):
        found["robustness"] = {
            "split": run["data"]["split"],
            "images": run["data"]["images"],
            "clean": run["clean"]["accuracy"],
            "changes": [
                {
                    "change": curve["title"],
                    "unit": curve["unit"],
                    "accuracy": {point["label"]: point["accuracy"] for point in curve["points"]},
                }
                for curve in run["curves"].values()
            ],
        }
    if speed := _speed(path):
        found["crops_per_second"] = speed
    return found


def selection(results: dict[str, Any]) -> dict[str, float]:
    """Return the figures that choose the default: the mean on CK+48, and the mean of that and FER2013's public_test."""
    ckplus48 = (results["ckplus48"]["accuracy"] + results["ckplus48_padded"]["accuracy"]) / 2
    return {"ckplus48": ckplus48, "mean": (results["public_test"]["accuracy"] + ckplus48) / 2}


# Measurements -----------------------------------------------------------------------------------------------------------


@cache
def evaluations() -> list[tuple[str, dict[str, Any]]]:
    """Return every evaluation in results/, by its path."""
    found = []
    for path in sorted((ROOT / "results").rglob("*.json")):
        if "standard" in json.loads(path.read_text(encoding="utf-8")):  # other commands write JSON there too
            found.append((path.relative_to(ROOT).as_posix(), read_results(path)))
    return found


def results_of(model: Path, data: str) -> tuple[str, dict[str, Any]] | None:
    """Return the newest evaluation of exactly this network (by the SHA-256 of its files) on some data, or None."""
    files = weights.known_sha256(model)
    same = [each for each in evaluations() if each[1]["model"].get("weights_sha256") in files and _data_of(each[1]) == data]
    return max(same, key=lambda item: item[1]["date"], default=None)


def _data_of(values: dict[str, Any]) -> str:
    """Return the name of what was measured: a key of `DATA`, `photos`, or nothing if a card has no place for it."""
    data = values["data"]
    if values.get("view", "single") != "single" or data["map_to"]:
        return ""
    if data["corpus"] == "ferplus":
        return f"ferplus_{data['split']}" if not data["options"] else ""
    if data["corpus"] != "ckplus":
        return str(data["split"] if data["corpus"] == "fer2013" else data["corpus"])
    return {"{}": "ckplus48", f'{{"pad": {PAD}}}': "ckplus48_padded"}.get(json.dumps(data["options"]), "")


def _figures(file: str, values: dict[str, Any]) -> dict[str, Any]:
    free = values["twin_free"] or {}
    return {
        **{key: values["standard"][key] for key in FIGURES},
        "accuracy_twin_free": free.get("accuracy"),
        "sets": values.get("sets"),
        "fingerprint": values["data"]["fingerprint"],
        "date": values["date"],
        "file": file,
    }


def _groups(values: dict[str, Any]) -> dict[str, Any]:
    """Return how faces of each skin colour were found and recognised, and whether a gap is more than chance."""
    skin = values["groups"]["skin"]
    keys = ("faces", "detection_rate", "images", "accuracy", "accuracy_interval")
    return {
        "data": f"{values['detection']['faces']} faces marked by eye in public photos",
        "skin": {name: {key: group[key] for key in keys} for name, group in skin["groups"].items()},
        "more_than_chance": any(gap["more_than_chance"] for gap in skin["gaps"].values()),
    }


def _newest(model: Path, benchmark: str) -> dict[str, Any] | None:
    """Return the newest run of a benchmark with exactly this network."""
    files, found = weights.known_sha256(model), []
    for path in sorted((ROOT / "benchmarks/runs").glob(f"*-{benchmark}*.json")):
        run = json.loads(path.read_text(encoding="utf-8"))
        if run["model"].get("sha256") in files:
            found.append((run["date"], run))
    return max(found, key=lambda item: item[0], default=(None, None))[1]


def _speed(model: Path) -> dict[str, int]:
    """Return the crops per second on each kind of processor on which this model was measured, in its newest run there."""
    found = {}
    for path in sorted((ROOT / "benchmarks/runs").glob("*-peer_fer.json")):
        run = json.loads(path.read_text(encoding="utf-8"))
        if figures := run["ways"].get(model.stem):
            found[f"2 cores of {run['hardware']['processor']}"] = round(figures["crops_per_second"])
    for path in sorted((ROOT / "benchmarks/runs").glob("*-inference*.json")):
        run = json.loads(path.read_text(encoding="utf-8"))
        names = str(run.get("model", "")).split(" and ")
        if model.stem in names:
            engine = ("fp32", "int8")[names.index(model.stem)]
            cores = f"{run['options']['threads']} cores of {run['hardware']['processor']}"
            found[cores] = round(run["batch"]["crops_per_second"][f"{engine} predict_faces"])
    return found


# Trainings --------------------------------------------------------------------------------------------------------------


def trainings(recipe: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the trainings that led to a model, the last one first: recipe, start, teachers, epochs."""
    steps = list[dict[str, Any]]()
    while True:
        start = recipe["model"].get("start")
        steps.append(
            {
                "recipe": RENAMED.get(recipe["name"], recipe["name"]),
                "summary": recipe["summary"],
                "epochs": f"up to {recipe['train']['epochs']}",
                "start": STARTS[start]["network"] if start in STARTS else _recipe_of(start) or start,
                "teachers": [each if each in weights.bundled() else _recipe_of(each) or each for each in _teachers(recipe)],
            }
        )
        if not (name := _recipe_of(start)):
            return steps
        recipe = load_recipe(name).model_dump(mode="json")


def origins_of(recipe: dict[str, Any]) -> list[dict[str, str]]:
    """Return the networks of others that a model began from, or learned from by a teacher's answers."""
    seen, found = set[str](), list[dict[str, str]]()

    def visit(values: dict[str, Any], through: str) -> None:
        if values["name"] in seen:
            return
        seen.add(values["name"])
        start = values["model"].get("start")
        if start in STARTS:
            found.append(STARTS[start] | {"as": through})
        elif start and not _recipe_of(start):
            raise SystemExit(f"{values['name']} starts from {start}: add it to STARTS with its licence")
        for each, way in ((start, through), *((teacher, "teacher") for teacher in _teachers(values))):
            if name := _recipe_of(each):
                visit(load_recipe(name).model_dump(mode="json"), way)

    visit(recipe, "start")
    return found


def _teachers(recipe: dict[str, Any]) -> list[str]:
    return list((recipe.get("distill") or {}).get("teachers", []))


def _recipe_of(start: str | None) -> str | None:
    """Return the bundled recipe of a bundled model or of the folder in which recipes expect their run; None for other files."""
    if start in weights.bundled():
        return str(weights.read_card(weights.bundled()[start])["recipe"])
    by_run = {f"runs/{name.replace('/', '-')}": name for name in recipe_names()}
    return by_run.get((start or "").removesuffix("/best.safetensors"))


if __name__ == "__main__":
    print("written:", ", ".join(update_cards()) or "nothing")
