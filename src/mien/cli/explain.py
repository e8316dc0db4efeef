"""`mien explain`: where a network looked, over a photo or over a corpus, and whether the map is faithful."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mien.cli import options
from mien.cli.options import FACES, FILES, TERMINAL, option
from mien.errors import InputError, MienError
from mien.text import printable

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from mien import Recognizer
    from mien.explain import Explanation, Faithfulness

CORPUS = "Corpus"
"""A group of options in the help."""


def explain(
    photos: Annotated[
        list[str],
        typer.Argument(metavar="PHOTO...", help="Photos, folders or patterns; with --corpus, its DATA.", show_default=False),
    ],
    model: Annotated[
        str | None, option("A bundled model, an .onnx file, a checkpoint or a run.", "NAME|RUN|FILE", FACES)
    ] = None,
    method: Annotated[
        list[str] | None,
        option(
            "How to explain: rise, occlusion; of a checkpoint also attention, grad_cam, grad_cam_plusplus, layer_cam. "
            "Repeat it for several. Default: rise, or attention and grad_cam.",
            "NAME",
            FACES,
            "--method",
            "-m",
        ),
    ] = None,
    expression: Annotated[
        str | None,
        option("The class to explain. Default: the answer, and in a corpus the true class.", "NAME", FACES, "--class"),
    ] = None,
    out: Annotated[Path, option("Folder for the pictures and explain.json.", "FOLDER", FILES, "--out", "-o")] = Path(
        "explained"
    ),
    faithfulness: Annotated[
        bool, option("Measure deletion and insertion curves.", None, TERMINAL, "--faithfulness/--no-faithfulness")
    ] = True,
    seed: Annotated[int, option("Seed of random masks and controls.", "N", FACES)] = 0,
    detector: options.DetectorName = "centerface",
    no_detect: Annotated[bool, option("Treat each picture as one cropped face.", None, FACES, "--no-detect")] = False,
    min_face: options.MinFace = None,
    max_faces: options.MaxFaces = None,
    align: options.Align = None,
    corpus: Annotated[
        str | None, option("Explain a corpus, such as fer2013: a montage with a row per class.", "NAME", CORPUS)
    ] = None,
    corpus_option: Annotated[list[str] | None, option("Set an option of this corpus.", "KEY=VALUE", CORPUS)] = None,
    split: Annotated[str, option("The split to explain.", "NAME", CORPUS)] = "public_test",
    images: Annotated[int, option("Faces of each class, drawn at random.", "N", CORPUS)] = 10,
) -> None:
    """Show where a network looked in each face, and say by number whether that is so."""
    from mien.explain import METHODS, load_backend
    from mien.predict.recognizer import Recognizer

    for name in method or []:
        METHODS.get(name)  # before anything is loaded
    detects: Any = None if no_detect or corpus is not None else detector
    recognizer = Recognizer(load_backend(model), detector=detects, min_face=min_face, max_faces=max_faces, align=align)
    if corpus is not None:
        if len(photos) != 1 or images < 1:
            raise InputError("--corpus takes one file or folder of data, and --images at least 1")
        _explain_corpus(
            recognizer, photos[0], corpus, corpus_option, split, images, method, expression, out, seed, faithfulness
        )
    else:
        _explain_photos(recognizer, photos, method, expression, out, seed, faithfulness)


def _explain_photos(
    recognizer: Recognizer,
    photos: Sequence[str],
    method: Sequence[str] | None,
    expression: str | None,
    out: Path,
    seed: int,
    faithfulness: bool,
) -> None:
    from mien.explain import explain_faces, sheet
    from mien.explain.picture import photo_overlay
    from mien.image import read_image
    from mien.output.annotate import write_picture
    from mien.output.paths import OutputPaths
    from mien.video.sources import expand

    sources = list(expand(photos))
    out.mkdir(parents=True, exist_ok=True)
    paths = OutputPaths(out, sources, (".png",), {"picture": ".png"})
    records, failed = list[dict[str, Any]](), 0
    for source in sources:
        try:
            if source.error is not None:
                raise source.error
            if source.kind != "picture":
                raise InputError(f"{source.name}: is not a picture; save a frame of the video and explain that")
            image = read_image(source.value, source.name)
            found = explain_faces(recognizer, image, method, target=expression, seed=seed)
            if not found:
                raise InputError(f"{source.name}: no face found; lower --min-face, or use --no-detect if it is a face crop")
        except MienError as error:
            if len(sources) == 1:
                raise
            typer.echo(f"error: {error}", err=True)
            failed += 1
            continue
        scores: list[dict[str, Faithfulness]] = []
        controls: list[Any] = []
        for each in found:
            measured, control = _measure(recognizer, each, seed) if faithfulness else ({}, None)
            scores.append(measured)
            controls.append(control)
        target = paths.path(source.name)
        write_picture(target, sheet(image, found, scores))
        written = [target]
        for name in found[0].crop_maps:
            if name in (method or ("grad_cam", "rise")):
                written.append(target.with_name(f"{target.stem}-{name}.png"))
                write_picture(written[-1], photo_overlay(image, found, name))
        _show(source.name, found, scores, controls)
        for path in written:
            typer.echo(f"wrote {printable(str(path))}")
        records.append(
            {
                "source": source.name,
                "faces": [_record(*each) for each in zip(found, scores, controls, strict=True)],
            }
        )
    _write_json(out / "explain.json", _facts(recognizer, seed) | {"photos": records})
    if failed:
        typer.echo(f"{failed:,} of {len(sources):,} photos could not be explained", err=True)
        raise typer.Exit(3)


def _measure(recognizer: Recognizer, each: Explanation, seed: int) -> tuple[dict[str, Faithfulness], Faithfulness]:
    """Return how faithful each map of a face is, by name, and the control."""
    from mien.explain import measure_faithfulness, random_faithfulness

    index = recognizer.classes.index(each.target)
    measured = {
        name: measure_faithfulness(recognizer.backend, each.inputs, values, index, seed)
        for name, values in each.crop_maps.items()
    }
    return measured, random_faithfulness(recognizer.backend, each.inputs, index, seed)


def _show(
    source: str, found: Sequence[Explanation], scores: Sequence[Mapping[str, Faithfulness]], controls: Sequence[Any]
) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False, emoji=False, markup=False)
    for number, (each, measured, control) in enumerate(zip(found, scores, controls, strict=True), 1):
        answer = f"{printable(each.prediction.label)} {each.prediction.confidence:.0%}"
        console.print(f"{printable(source)}, face {number}: {answer}; explained: {printable(each.target)}", soft_wrap=True)
        if control is not None:
            table = Table("Map", "Deletion", "Insertion", "Better than random maps")
            for name, score in measured.items():
                table.add_row(name, f"{score.deletion:.3f}", f"{score.insertion:.3f}", _verdict(score, control))
            table.add_row("random maps", f"{control.deletion:.3f}", f"{control.insertion:.3f}", "")
            console.print(table)


def _verdict(score: Faithfulness, control: Faithfulness) -> str:
    better = [score.deletion < control.deletion, score.insertion > control.insertion]
    return {(True, True): "yes", (True, False): "in deletion only", (False, True): "in insertion only"}.get(
        (better[0], better[1]), "no"
    )


def _record(each: Explanation, measured: Mapping[str, Faithfulness], control: Faithfulness | None) -> dict[str, Any]:
    from dataclasses import asdict

    return {
        "prediction": each.prediction.to_dict(),
        "explained": each.target,
        "maps": {
            name: {"range": list(each.ranges[name]), **(asdict(measured[name]) if name in measured else {})}
            for name in each.crop_maps
        },
        "random": None if control is None else asdict(control),
        "channels": {name: [round(float(value), 4) for value in values] for name, values in each.channels.items()},
        "box": None if each.box is None else each.box.round(2).tolist(),
    }


def _explain_corpus(
    recognizer: Recognizer,
    data: str,
    name: str,
    corpus_options: Sequence[str] | None,
    split: str,
    images: int,
    method: Sequence[str] | None,
    expression: str | None,
    out: Path,
    seed: int,
    faithfulness: bool,
) -> None:
    """Draw a montage for each map, with a row for each class, and compare the maps with random maps over all faces."""
    import numpy as np

    from mien.cli.options import parse_pairs
    from mien.datasets import load_corpus
    from mien.errors import DataError
    from mien.explain import explain_crops, montage
    from mien.labels import mapping
    from mien.output.annotate import write_picture

    loaded = load_corpus(name, data, options=parse_pairs(corpus_options, "--corpus-option", "size=48", DataError))
    rows, random = loaded.where(split), np.random.default_rng(seed)
    drawn: dict[str, dict[str, Any]] = {}
    scores: dict[str, list[Any]] = {}
    controls: list[Any] = []
    for index, column in enumerate(mapping(loaded.classes, recognizer.classes)):
        chosen = rows[loaded.target[rows] == index]
        if column is None or not len(chosen):
            continue
        chosen = np.sort(random.choice(chosen, min(images, len(chosen)), replace=False))
        faces = list(loaded.read(chosen))
        explained = expression or recognizer.classes[column]
        found = explain_crops(recognizer, faces, method, target=explained, seed=seed)
        for each in found:
            if faithfulness:
                measured, control = _measure(recognizer, each, seed)
                controls.append(control)
                for key, score in measured.items():
                    scores.setdefault(key, []).append(score)
        for key in found[0].crop_maps:
            drawn.setdefault(key, {})[loaded.classes[index]] = (faces, [each.crop_maps[key] for each in found])
    if not drawn:
        raise DataError(f"{name} has no image of the model's classes in {split}; choose another split")
    out.mkdir(parents=True, exist_ok=True)
    for key, by_class in drawn.items():
        path = out / f"{name}-{split}-{key}.png"
        write_picture(path, montage(by_class))
        typer.echo(f"wrote {printable(str(path))}")
    result = _facts(recognizer, seed) | {
        "corpus": {"name": loaded.name, "split": split, "fingerprint": loaded.fingerprint},
        "images": sum(len(faces) for faces, _ in next(iter(drawn.values())).values()),
        "maps": {key: _compared(each, controls) for key, each in scores.items()},
    }
    _show_compared(result)
    _write_json(out / "explain.json", result)


def _facts(recognizer: Recognizer, seed: int) -> dict[str, Any]:
    from mien.predict.onnx_backend import OnnxBackend
    from mien.provenance import current_commit
    from mien.weights import sha256

    backend = recognizer.backend
    file = sha256(backend.path) if isinstance(backend, OnnxBackend) else None
    return {"model": backend.info.arch, "weights_sha256": file, "seed": seed, "commit": current_commit()}


def _compared(scores: Sequence[Faithfulness], controls: Sequence[Faithfulness]) -> dict[str, Any]:
    """Return the mean areas of a map and of its controls, and their mean difference with its 95 % interval."""
    import numpy as np

    found: dict[str, Any] = {}
    for curve in ("deletion", "insertion"):
        ours, random = (np.array([getattr(each, curve) for each in group]) for group in (scores, controls))
        difference = ours - random
        half = 1.96 * difference.std(ddof=1) / np.sqrt(len(difference)) if len(difference) > 1 else 0.0
        found[curve] = {
            "mean": float(ours.mean()),
            "random": float(random.mean()),
            "difference": float(difference.mean()),
            "interval": [float(difference.mean() - half), float(difference.mean() + half)],
        }
    return found


def _show_compared(result: Mapping[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    if not result["maps"]:
        return
    table = Table("Map", "Curve", "Area", "Random maps", "Difference (95 %)", title=f"{result['images']:,} faces")
    for name, curves in result["maps"].items():
        for curve, values in curves.items():
            low, high = values["interval"]
            difference = f"{values['difference']:+.3f} ({low:+.3f} to {high:+.3f})"
            table.add_row(name, curve, f"{values['mean']:.3f}", f"{values['random']:.3f}", difference)
    Console(highlight=False, emoji=False, markup=False).print(table)


def _write_json(path: Path, values: Mapping[str, Any]) -> None:
    import json

    from mien.atomic import atomic_path

    with atomic_path(path) as tmp_path:
        tmp_path.write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")
    typer.echo(f"wrote {printable(str(path))}")
