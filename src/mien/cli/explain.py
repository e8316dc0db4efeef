"""`mien explain`: where a network looked, over a photo or over a corpus, and whether the map is faithful."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mien.cli import options
from mien.cli.options import FACES, FILES, TERMINAL, option
from mien.cli.terminal import echo, print_table
from mien.errors import InputError, MienError

if TYPE_CHECKING:
    from mien.datasets import Corpus
    from mien.explain import Explanation, Faithfulness
    from mien.predict.recognizer import Recognizer

    Score = Callable[[Explanation], Mapping[str, Faithfulness]]

CORPUS = "Corpus"
"""A group of options in the help."""

VERDICTS = {
    (True, True): "yes",
    (True, False): "in deletion only",
    (False, True): "in insertion only",
    (False, False): "no",
}
"""Whether a map is better than random maps, by whether it is in deletion and in insertion."""


def explain(
    photos: Annotated[
        list[str], typer.Argument(metavar="PHOTO...", help="Photos, folders or patterns; with --corpus, its DATA.")
    ],
    model: Annotated[
        str | None, option("A bundled model, an .onnx file, hf://user/model, a checkpoint or a run.", "NAME|RUN|FILE", FACES)
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
    option: Annotated[
        list[str] | None, option("Set an option of this corpus. Repeat it to set several.", "KEY=VALUE", CORPUS)
    ] = None,
    split: Annotated[str, option("The split to explain.", "NAME", CORPUS)] = "public_test",
    images: Annotated[int, option("Faces of each class, drawn at random.", "N", CORPUS)] = 10,
) -> None:
    """Show where a network looked in each face, and measure whether the map is right."""
    from mien.atomic import write_json
    from mien.explain import METHODS, load_backend, score_maps
    from mien.predict.recognizer import Recognizer
    from mien.provenance import current_commit
    from mien.weights import sha256

    for name in method or []:
        METHODS.get(name)  # before anything is loaded
    if corpus is not None and (len(photos) != 1 or images < 1):
        raise InputError("--corpus takes one file or folder of data, and --images at least 1")
    backend = load_backend(model)
    detects: Any = None if no_detect or corpus is not None else detector
    recognizer = Recognizer(backend, detector=detects, min_face=min_face, max_faces=max_faces, align=align)
    how = {"method": method, "target": expression, "seed": seed}
    score: Score = partial(score_maps, backend, seed=seed) if faithfulness else lambda each: {}
    failed = 0
    if corpus is not None:
        from mien.datasets import load_corpus

        loaded = load_corpus(corpus, photos[0], options=options.parse_pairs(option))
        found = _explain_corpus(recognizer, loaded, split, images, how, score, out)
    else:
        found, failed = _explain_photos(recognizer, photos, how, score, out)
    facts = {"model": backend.info.arch, "weights_sha256": sha256(backend.path), "seed": seed, "commit": current_commit()}
    write_json(out / "explain.json", facts | found)
    echo(f"wrote {out / 'explain.json'}")
    if failed:
        typer.echo(f"{failed:,} of {failed + len(found['photos']):,} photos could not be explained", err=True)
        raise typer.Exit(3)


def _explain_corpus(
    recognizer: Recognizer, corpus: Corpus, split: str, images: int, how: Mapping[str, Any], score: Score, out: Path
) -> dict[str, Any]:
    """Write a montage for each map, print how faithful the maps are, and return what explain.json says about the corpus."""
    from mien.explain import compare_scores, explain_corpus, montage
    from mien.output.annotate import write_picture

    classes = explain_corpus(recognizer, corpus, split, images, **how)
    found = [each for _, explanations in classes.values() for each in explanations]
    result = {
        "corpus": {"name": corpus.name, "split": split, "fingerprint": corpus.fingerprint},
        "images": len(found),
        "maps": compare_scores(list(map(score, found))),
    }
    out.mkdir(parents=True, exist_ok=True)
    for name in found[0].crop_maps:
        rows = {title: (faces, [each.crop_maps[name] for each in own]) for title, (faces, own) in classes.items()}
        write_picture(path := out / f"{corpus.name}-{split}-{name}.png", montage(rows))
        echo(f"wrote {path}")
    _show_comparison(result)
    return result


def _explain_photos(
    recognizer: Recognizer, photos: Sequence[str], how: Mapping[str, Any], score: Score, out: Path
) -> tuple[dict[str, Any], int]:
    """Write pictures of each photo; return what explain.json says about the photos, and how many could not be explained."""
    from mien.explain import explain_faces, photo_overlay, sheet
    from mien.image import read_image
    from mien.output.annotate import write_picture
    from mien.output.paths import OutputPaths
    from mien.video.sources import expand

    sources, explained, failed = list(expand(photos)), list[dict[str, Any]](), 0
    out.mkdir(parents=True, exist_ok=True)
    paths = OutputPaths(out, sources, (".png",), {"picture": ".png"})
    taken = set(paths.files)
    for source in sources:
        try:
            if source.error is not None:
                raise source.error
            if source.kind != "picture":
                raise InputError(f"{source.name}: is not a picture; save a frame of the video and explain that")
            image = read_image(source.value, source.name)
            found = explain_faces(recognizer, image, **how)
            if not found:
                raise InputError(f"{source.name}: no face found; lower --min-face, or use --no-detect if it is a face crop")
        except MienError as error:
            if len(sources) == 1:
                raise
            typer.echo(f"error: {error}", err=True)
            failed += 1
            continue
        scores = list(map(score, found))
        target = paths.path(source.name)
        pictures = {target: sheet(image, found, scores)}
        for name in found[0].crop_maps:
            if name in (how["method"] or ("grad_cam", "rise")):
                path, number = target.with_name(f"{target.stem}-{name}.png"), 1
                while path in taken:
                    path, number = target.with_name(f"{target.stem}-{name}-{number + 1}.png"), number + 1
                taken.add(path)
                pictures[path] = photo_overlay(image, found, name)
        _show_faces(source.name, found, scores)
        for path, picture in pictures.items():
            write_picture(path, picture)
            echo(f"wrote {path}")
        explained.append({"source": source.name, "faces": list(map(_to_dict, found, scores))})
    return {"photos": explained}, failed


def _to_dict(each: Explanation, scores: Mapping[str, Faithfulness]) -> dict[str, Any]:
    """Return an explanation with the areas of its maps as JSON types."""
    from mien.explain.faithfulness import CONTROL

    found = each.to_dict()
    areas = {name: asdict(score) for name, score in scores.items()}
    for name, values in found["maps"].items():
        values.update(areas.get(name, {}))
    return found | {"random": areas.get(CONTROL)}


def _show_faces(source: str, found: Sequence[Explanation], scores: Sequence[Mapping[str, Faithfulness]]) -> None:
    """Print the answer for each face of a photo, and the areas under the curves of its maps."""
    from mien.explain.faithfulness import CONTROL

    for number, (each, areas) in enumerate(zip(found, scores, strict=True), 1):
        answer = f"{each.prediction.label} {each.prediction.confidence:.0%}"
        echo(f"{source}, face {number}: {answer}; explained: {each.target}")
        rows = []
        for name, score in areas.items():
            better = score.deletion < areas[CONTROL].deletion, score.insertion > areas[CONTROL].insertion
            verdict = "" if name == CONTROL else VERDICTS[better]
            rows.append([name, f"{score.deletion:.3f}", f"{score.insertion:.3f}", verdict])
        if rows:
            print_table(["Map", "Deletion", "Insertion", "Better than random maps"], rows, left=4)


def _show_comparison(result: Mapping[str, Any]) -> None:
    """Print the mean areas of each map and of random maps over the faces of a corpus."""
    rows = []
    for name, curves in result["maps"].items():
        for curve, values in curves.items():
            low, high = values["interval"]
            difference = f"{values['difference']:+.3f} ({low:+.3f} to {high:+.3f})"
            rows.append([name, curve, f"{values['mean']:.3f}", f"{values['random']:.3f}", difference])
    if rows:
        head = ["Map", "Curve", "Area", "Random maps", "Difference (95 %)"]
        print_table(head, rows, title=f"{result['images']:,} faces", left=5)
