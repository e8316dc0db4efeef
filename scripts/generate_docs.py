"""Write the generated parts of README.md and docs/: tables, the tree, the command line reference, pictures, model cards.

    python scripts/generate_docs.py            write them (make tables)
    python scripts/generate_docs.py --check    write nothing; exit 1 and name what is out of date (make check)

A generated part is between `<!-- generated: NAME -->` and `<!-- end -->`. Measured figures come from `results/` and
`benchmarks/runs/`, reported ones from the recipes, facts about a model from its file.
"""

from __future__ import annotations

import argparse
import ast
import inspect
import json
import re
import statistics
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import docs_claims as claims
import docs_pictures as pictures
import typer
import yaml
from docs_claims import markdown_table
from model_cards import results_of, update_cards

from mien import weights
from mien.audit import KINDS
from mien.audit.statistics import Statistics
from mien.cli import app
from mien.labels import label_set
from mien.output.table import SCHEMA
from mien.predict.backend import open_backend
from mien.recipe import load_recipe, recipe_names
from mien.results import predictions_path, read_results
from mien.server.settings import LIMITS, Settings
from mien.weights.card import chosen, markdown

ROOT = Path(__file__).parents[1]
NOT_RUN = claims.NOT_RUN["yet"]

MARK = re.compile(r"(<!-- generated: ([a-z-]+) -->\n).*?(<!-- end -->)", re.DOTALL)

WIDTH = 118
DESCRIPTIONS = {
    "Makefile": "commands for developers: make demo, test, check, bench, tables, docs",
    "pyproject.toml": "dependencies, optional parts and tool settings",
    ".ci/run": "the checks that every change must pass",
    "src/mien/": None,
    "tests/": "tests, in the same folders as src/mien",
    "docs/": "these pages",
    "benchmarks/": "scripts that measure speed, detection and robustness; they write to benchmarks/runs/",
    "results/": "output of mien evaluate and mien audit; never edited by hand",
    "scripts/": "tools for maintainers",
}
"""Lines of the tree that no docstring gives, in order. src/mien/ is followed by its folders."""
PACKAGES = {"recipes/": "Recipes: one YAML file per training, or per sweep", "weights/": "The bundled models"}
"""Folders of src/mien/ whose description is not the first line of their `__init__.py`."""


def main() -> None:
    """Write the generated parts, or compare them with --check."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if something is out of date")
    check = parser.parse_args().check
    stale = [f"the card of {name}" for name in update_cards(check)]
    for name in pictures.PICTURES:
        if not pictures.is_current(name):
            stale.append(f"docs/assets/{name}")
            if not check:
                pictures.write(name)
    pages = {page: render(page.read_text(encoding="utf-8")) for page in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]}
    for name, path in weights.files().items():
        pages[ROOT / f"docs/cards/{name}.md"] = markdown(path, open_backend(path, threads=1).info)
    for page, new in sorted(pages.items()):
        if not page.is_file() or page.read_text(encoding="utf-8") != new:
            stale.append(page.relative_to(ROOT).as_posix())
            if not check:
                page.write_text(new, encoding="utf-8")
    names = ", ".join(stale)
    if stale and check:
        sys.exit(f"out of date: {names}; run: make tables")
    print(f"written: {names}" if stale else "generated parts are up to date")


def render(text: str) -> str:
    """Return a page with its generated parts regenerated."""
    return MARK.sub(lambda mark: f"{mark[1]}{BLOCKS[mark[2]]()}\n{mark[3]}", text)


# The tree and the command line ------------------------------------------------------------------------------------------


def tree() -> str:
    """Return the annotated tree: DESCRIPTIONS, and for folders of src/mien/ the first line of their docstring."""
    lines: list[str] = []
    for name, text in DESCRIPTIONS.items():
        if not (ROOT / name).exists():
            continue
        lines.append(_branch(name, text, 0))
        if name == "src/mien/":
            for path in sorted(path for path in (ROOT / "src/mien").iterdir() if path.is_dir()):
                if text := PACKAGES.get(f"{path.name}/") or _first_line(path / "__init__.py"):
                    lines.append(_branch(f"{path.name}/", text, 1))
    return "\n".join(["```", *lines, "```"])


def _first_line(source: Path) -> str:
    if not source.is_file():
        return ""
    return (ast.get_docstring(ast.parse(source.read_text(encoding="utf-8"))) or "").split("\n")[0]


def _branch(name: str, text: str | None, depth: int) -> str:
    start = "  " * depth + name
    if text is None:
        return start
    room = WIDTH - 18
    text = text.rstrip(".").replace("`", "")
    while len(text) > room:  # shorten at a pause, or else between words
        pause = max(text.rfind(mark, 0, room) for mark in (": ", "; ", " ("))
        text = text[:pause] if pause > 0 else textwrap.shorten(text, room, placeholder=" ...")
    return f"{start:<17} {text}"


def command_line() -> str:
    """Return a section for each command of the Typer app: what it does, its arguments and its options."""
    sections = []
    for name, command in _commands(typer.main.get_command(app)):
        arguments = [option for option in command.params if not option.opts[0].startswith("-")]
        panels: dict[str, list[list[str]]] = {}
        for option in command.params:
            if getattr(option, "hidden", False):
                continue
            title = "Arguments" if option in arguments else getattr(option, "rich_help_panel", None) or "Options"
            panels.setdefault(title, []).append(_option(option))
        usage = " ".join(_value(option) if option.required else f"[{_value(option)}]" for option in arguments)
        parts = [f"## mien {name}", command.help, f"```\nmien {name} {usage} [OPTIONS]\n```".replace("  ", " ")]
        for title, rows in panels.items():
            width = 3 if any(row[2] for row in rows) else 2
            parts.append(markdown_table([title.lower(), "meaning", "default"][:width], [row[:width] for row in rows]))
        sections.append("\n\n".join(parts))
    return "\n\n".join(sections)


def _commands(group: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the commands of a Typer app by name; those of `mien figure` as `figure NAME`."""
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from _commands(command, f"{prefix}{name} ")
        else:
            yield f"{prefix}{name}", command


def _option(option: Any) -> list[str]:
    """Return the row of an argument or option: its names, what it does, its default."""
    if not option.opts[0].startswith("-"):
        names = _value(option)
    else:
        names = ", ".join(sorted(option.opts, key=len)) + "".join(f" / {name}" for name in option.secondary_opts)
        names += "" if option.is_flag else f" {_value(option)}"
    default = option.opts[0] if option.default is True else option.default  # --sound / --no-sound: `--sound`, not `True`
    default = "required" if option.required else "" if default is False or default in (None, (), []) else f"`{default}`"
    return [f"`{names}`".replace("|", " or "), (option.help or "").replace("|", " or ").replace("<", "&lt;"), default]


def _value(option: Any) -> str:
    return option.metavar or option.name.upper()


def columns() -> str:
    """Return the columns of the table that `mien predict --out` writes."""
    rows = [[f"`{name}`", kind, unit, meaning] for name, kind, unit, meaning in SCHEMA]
    return markdown_table(["column", "type", "unit", "meaning"], rows) + "\n"


def limits() -> str:
    """Return the limits of `mien serve`, from the docstring and the defaults of its settings."""
    lines = inspect.getdoc(Settings).splitlines()  # type: ignore[union-attr]
    meaning = dict(line.strip().split(": ", 1) for line in lines if re.match(r"    \w+: ", line))
    values = {name: Settings.model_fields[name].default for name in LIMITS}
    rows = [[f"`{name}`", f"{value:,}", meaning[name].rstrip(".")] for name, value in values.items()]
    return markdown_table(["limit", "default", "meaning"], rows)


# Figures ----------------------------------------------------------------------------------------------------------------


def results() -> list[tuple[str, dict[str, Any]]]:
    """Return every evaluation in results/, by its path; other commands write JSON there too, but no predictions."""
    paths = [path for path in sorted((ROOT / "results").rglob("*.json")) if predictions_path(path).is_file()]
    return [(path.relative_to(ROOT).as_posix(), read_results(path)) for path in paths]


def headline() -> str:
    """Return one row per bundled model: size, accuracy with and without twins, macro-F1, calibration error, and CK+48."""
    rows, sources = [], []
    for name, path in weights.files().items():
        measured, card = results_of(path, "private_test"), weights.read_card(path)
        if name.endswith("-int8") or not measured:  # the model of FER+ has other classes
            continue
        sources.append(f"`{Path(measured[0]).parent.relative_to('results/fer2013')}`")
        all_images, twin_free = measured[1]["standard"], measured[1]["twin_free"]
        figures = [
            _per_cent(value)
            for value in (all_images["accuracy"], twin_free["accuracy"], all_images["macro_f1"], all_images["ece"])
        ]
        figures.append(_per_cent(card["selection"]["ckplus48"]))
        shown = f"`{name}`" + " (default)" * (name == weights.DEFAULT)
        rows.append([shown, f"{card['parameters'] / 1e6:.1f} M", *figures])
    head = ["model", "parameters", "accuracy", "accuracy without twins", "macro-F1", "calibration error", "CK+48"]
    return f"{markdown_table(head, rows)}\n\nOne run each, in `results/fer2013/`: {', '.join(sources)}."


def recall() -> str:
    """Return the share of each class that the default model recognises."""
    measured = results_of(weights.bundled()[weights.DEFAULT], "private_test")
    parts = [measured[1].get(key) if measured else None for key in ("standard", "twin_free")]
    rows = []
    for name in label_set("fer2013"):
        values = [part["recall"].get(name) if part else None for part in parts]
        rows.append([name, *(NOT_RUN if value is None else _per_cent(value) for value in values)])
    note = f"\n\nFER2013 private_test, from `{measured[0]}`." if measured else ""
    return markdown_table(["expression", "recall, all test images", "recall, test images without twins"], rows) + note


def selection() -> str:
    """Return the figures that choose the default, one row per bundled model with figures on CK+48, and what is chosen."""
    rows = []
    cards = {name: card for name, path in weights.files().items() if "selection" in (card := weights.read_card(path))}
    for name, card in sorted(cards.items(), key=lambda item: -item[1]["selection"]["mean"]):
        found, rule = card["results"], card["selection"]
        figures = [found[data]["accuracy"] for data in ("public_test", "ckplus48", "ckplus48_padded")]
        mean, votes = f"**{_per_cent(rule['mean'])}**", _per_cent(found["public_test"]["votes_agreement"])
        size = f"{card['parameters'] / 1e6:.1f} M"
        rows.append([f"[`{name}`](cards/{name}.md)", size, *map(_per_cent, figures), _per_cent(rule["ckplus48"]), mean, votes])
    head = [
        "model",
        "parameters",
        "FER2013 public_test",
        "CK+48, as given",
        "CK+48, padded",
        "CK+48, mean",
        "mean",
        "FER+ votes",
    ]
    note = f"Of the models with at most 2.0 M parameters, `{chosen()}` has the best mean. The default is `{weights.DEFAULT}`"
    if chosen() != weights.DEFAULT:
        new, now = (
            [share for row in cards[name]["robustness"]["changes"] for share in row["accuracy"].values()]
            for name in (chosen(), weights.DEFAULT)
        )
        worse = sum(a < b for a, b in zip(new, now, strict=True))
        note += f", because on degraded faces `{chosen()}` is less accurate in {worse} of {len(new)} conditions"
    note += "."
    return f"{markdown_table(head, rows)}\n\n{note}"


def balance() -> str:
    """Return what the correction for uneven classes costs and gains: the newest run of benchmarks/balance.py."""
    run = pictures.newest_run("balance")
    read = json.loads(run.read_text(encoding="utf-8"))
    rows = []
    for name, model in read["models"].items():
        for strength, each in model["strengths"].items():
            public, ckplus48 = each["public_test"], (each["ckplus48"], each["ckplus48 padded"])
            shares = [public["accuracy"], public["uar"], public["ece"], sum(one["accuracy"] for one in ckplus48) / 2]
            shares += [each["degraded"]["accuracy"], each["degraded"]["uar"]]
            shown = f"**{strength}**" if float(strength) == read["chosen"] else strength
            rows.append([f"`{name}`", shown, *map(_per_cent, shares)])
    head = ["model", "strength", "public_test, accuracy", "balanced accuracy", "calibration error", "CK+48, mean accuracy"]
    table = markdown_table([*head, "degraded faces, accuracy", "balanced accuracy"], rows)
    return f"{table}\n\nFrom `{run.relative_to(ROOT).as_posix()}`."


def contrast() -> str:
    """Return what spreading dark and pale faces costs and gains: the newest run of benchmarks/contrast.py."""
    run = pictures.newest_run("contrast")
    read = json.loads(run.read_text(encoding="utf-8"))
    columns = {
        "public_test": "public_test",
        "dark 0.3": "30 % of the light",
        "dark 0.1": "10 %",
        "contrast 0.3": "30 % of the contrast",
        "contrast 0.1": "10 %",
    }
    rows = []
    for name, model in read["models"].items():
        for value, found in model["values"].items():
            shown = f"**{value}**" if float(value) == read["chosen"] else "none" if float(value) == 0 else value
            rows.append([f"`{name}`", shown, *(_per_cent(found[key]) for key in columns)])
    table = markdown_table(["model", "least contrast", *columns.values()], rows)
    return f"{table}\n\nFrom `{run.relative_to(ROOT).as_posix()}`; the last four columns are of {read['degraded_faces']} faces."


def all_results() -> str:
    """Return a table per split with one row per evaluation in results/."""
    tables: dict[str, list[list[str]]] = {}
    for name, values in results():
        model, data, parts = values["model"], values["data"], [values["standard"], values.get("twin_free")]
        figures = [_per_cent(part[key]) if part else "" for key in ("accuracy", "macro_f1") for part in parts]
        size = "x".join(map(str, model["input"])) if model.get("input") else ""
        backend = f"{model.get('backend') or values.get('backend', '')} {model.get('precision') or values.get('precision', '')}"
        run = (ROOT / name).parent
        backend += {"mirror": ", with the mirror image", "ten": ", ten views"}.get(str(values.get("view")), "")
        cells = [cell.strip().replace(" ", "\N{NO-BREAK SPACE}") for cell in (size, _epochs(run), backend)]
        row = [f"`{run.relative_to(ROOT / 'results').as_posix()}`", *cells, *figures]
        tables.setdefault(f"{data['corpus']} {data['split']}", []).append(row)
    head = ["run", "input, px", "epochs", "backend", "accuracy", "accuracy without twins", "macro-F1", "macro-F1 without twins"]
    return "\n\n".join(f"### {title}\n\n{markdown_table(head, rows)}" for title, rows in tables.items())


def _epochs(run: Path) -> str:
    """Return how many epochs a run did, and of how many; nothing for a folder without a run."""
    if not (run / "history.csv").is_file():
        return ""
    done = len((run / "history.csv").read_text(encoding="utf-8").splitlines()) - 1
    planned = yaml.safe_load((run / "recipe.yaml").read_text(encoding="utf-8"))["train"]["epochs"]
    return f"{done}" if done == planned else f"{done} of {planned}"


def recipes() -> str:
    """Return one row per bundled recipe."""
    rows = []
    for name in recipe_names():
        recipe = load_recipe(name)
        paper = recipe.paper
        reported = ", ".join(f"{value:.2f} % on {corpus}" for corpus, value in paper.reported.items()) if paper else ""
        row = f"{paper.table}: {reported}" if paper and reported else paper.table if paper else ""
        rows.append([f"`{name}`", recipe.summary, row])
    return markdown_table(["recipe", "what it trains", "row of the paper, and what it reports"], rows)


def crop() -> str:
    """Return what the crop changes, without and with a detector: the newest run of benchmarks/crop.py."""
    run = pictures.newest_run("crop")
    read = json.loads(run.read_text(encoding="utf-8"))
    frame, found = read["whole_frame"], read["detected"]
    zoom, aligned = (max(rows, key=lambda row: row["accuracy"]) for rows in (frame["margin"], found["aligned"]))
    crops = [
        ("no detector: FER2013's picture as it is", frame["as_it_is"]),
        (f"no detector: the best zoom ({zoom['margin']:g})", zoom),
        ("the faces that the detector finds: FER2013's picture as it is", found["whole_frame"]),
        (f"the same faces: upright square, the model's crop {_square(found['models_crop'])}", found["models_crop"]),
        (f"the same faces: upright square, the best crop {_square(found['best_crop'])}", found["best_crop"]),
        (f"the same faces: aligned, the default margin ({found['default']['margin']:g})", found["default"]),
        (f"the same faces: aligned, the best margin ({aligned['margin']:g})", aligned),
    ]
    rows = [[what, f"{100 * row['accuracy']:.1f} %"] for what, row in crops]
    rows += [
        ["aligned with the default margin, compared with the model's upright square", _gain(found["default_over_models_crop"])],
        ["the best crop of all, compared with the default", _gain(found["best_of_all_over_default"])],
    ]
    alone = read["data"]["images"]
    faces = f"{alone:,} faces without a detector; with MTCNN, the {found['found']:,} faces that it finds of {found['faces']:,}."
    return f"{markdown_table(['crop', 'accuracy'], rows)}\n\n{faces} {_origin(run, read)}"


def _square(row: dict[str, float]) -> str:
    return f"(`crop_scale` {row['crop_scale']:g}, `crop_shift` {row['crop_shift']:g})"


def _gain(row: dict[str, float]) -> str:
    return f"{100 * row['mean']:+.1f} points (standard error {100 * row['standard_error']:.1f})"


def robustness() -> str:
    """Return how accuracy falls with degraded pictures: the newest run of benchmarks/robustness.py."""
    run = pictures.newest_run("robustness", weights.DEFAULT)
    read = json.loads(run.read_text(encoding="utf-8"))
    clean = read["clean"]
    free = f" ({100 * clean['accuracy_twin_free']:.1f} without twins)"
    rows = [["none", f"**{100 * clean['accuracy']:.1f}**{free}"]]
    for curve in read["curves"].values():
        points = ", ".join(f"{point['label']}: **{100 * point['accuracy']:.1f}**" for point in curve["points"])
        rows.append([curve["title"] + (f" ({curve['unit']})" if curve["unit"] else ""), points])
    table = markdown_table(["change", "strength: **accuracy, %**"], rows)
    return f"{table}\n\n{read['data']['images']:,} faces. {_origin(run, read)}"


def browser() -> str:
    """Return how the browser compares with the server: the newest run of benchmarks/browser.py."""
    run = pictures.newest_run("browser")
    read = json.loads(run.read_text(encoding="utf-8"))
    titles = {
        "fer2013": "faces of FER2013",
        "ckplus": "faces of CK+",
        "photos": "photos, as PNG",
        "photos_as_jpeg": "the photos as JPEG",
    }
    parity = [
        [titles[name], f"{found['faces']:,}", f"{found['largest_probability_difference']:.5f}", f"{found['other_label']}"]
        for name, found in read["parity"].items()
    ]
    same = {name: found for name, found in read["parity"].items() if name != "photos_as_jpeg"}
    faces, over = (sum(found[key] for found in same.values()) for key in ("faces", "faces_over_0.001"))
    worst, largest = max(
        ((name, found["largest_probability_difference"]) for name, found in same.items()), key=lambda at: at[1]
    )
    gpu_run = pictures.newest_run("browser_webgpu")
    gpu = [at for name, at in json.loads(gpu_run.read_text(encoding="utf-8"))["parity"].items() if name in same]
    ways = ("server", "wasm_1", "wasm_2")
    times = [
        [what, *(f"{read['processor_ms'][f'{kind}, {way}']:.0f} ms" for way in ways)]
        for kind, what in (
            ("picture", "a picture with one face, 640 x 480"),
            ("video", "a frame of a video, its face followed"),
        )
    ]
    return "\n\n".join(
        (
            "Differences from the server's answers, in Chromium. As JPEG, the browser's decoder differs from Pillow's:",
            markdown_table(["pictures", "faces", "largest difference of a probability", "other labels"], parity),
            f"If both see the same pixels, {faces - over:,} of {faces:,} faces agree within 0.001. The largest difference, "
            f"{largest:.5f}, is that of a face among the {titles[worst].removesuffix(', as PNG')}.",
            f"On WebGPU, computed by SwiftShader, the largest difference of {sum(at['faces'] for at in gpu)} faces is "
            f"{max(at['largest_probability_difference'] for at in gpu):.5f}, with {sum(at['other_label'] for at in gpu)} other "
            f"labels (`{gpu_run.relative_to(ROOT).as_posix()}`).",
            "Processor time on one machine; on an idle one, one thread takes about as long:",
            markdown_table(["", "server", "WebAssembly, 1 thread", "WebAssembly, 2 threads"], times),
            f"Model `{read['options'].get('model', weights.DEFAULT)}`, from `{run.relative_to(ROOT).as_posix()}`.",
        )
    )


def load() -> str:
    """Return how fast the server is under load, and its memory: the newest run of benchmarks/server_load.py."""
    run = pictures.newest_run("server_load")
    read = json.loads(run.read_text(encoding="utf-8"))
    rates, times = read["faces"]["faces_per_second"], read["faces"]["times_one_at_a_time"]
    photos, steady = read["photos"], read["steady"]
    lost = steady["requests"] - steady["answers"].get("same", 0)
    rows = [
        ["from the command to the first answer of `/ready`", f"{statistics.median(read['start_seconds']):.1f} s"],
        [
            "ready faces per second, one per request, from 32 clients",
            f"{rates['batches, 32 clients']:,}, which is {times['batches, 32 clients']:.1f} times as many as without batches",
        ],
        ["32 ready faces in one request", f"{rates['32 faces in a request, 1 clients']:,} faces per second"],
        [
            "photos per second",
            f"{photos['server_per_second']}; `Recognizer.stream` reads {photos['stream_per_second']} in one process",
        ],
        [
            f"32 clients for {float(read['options']['minutes']):g} minutes, one request in eight a photo",
            f"{steady['requests']:,} answers, {lost or 'none'} lost or different; half within "
            f"{steady['ms']['p50'] / 1000:.2f} s, 99 % within {steady['ms']['p99'] / 1000:.2f} s",
        ],
        [
            "memory meanwhile",
            f"{steady['peak_mb']:.0f} MB at most; {steady['second_fifth_mb']:.0f} MB in the second fifth of the time and "
            f"{steady['last_fifth_mb']:.0f} MB in the last",
        ],
    ]
    return f"{markdown_table(['', 'figure'], rows)}\n\nFrom `{run.relative_to(ROOT).as_posix()}`."


SHARD_READS, SHARD_WRITES = 6, 2
"""Requests for a shard of 65 MB and its part, by price: GET and HEAD; PUT and LIST. tests/label/test_stores.py counts them."""


def labelling() -> str:
    """Return how fast `mien label` is, and a plan for a billion pictures: the newest run of benchmarks/label.py."""
    run = pictures.newest_run("label")
    read = json.loads(run.read_text(encoding="utf-8"))
    measured = [[row["what"], row["measured"], row["aim"]] for row in read["summary"]]
    rates = sorted(each["per_processor_second"] for each in read["rounds"]["label_1"])
    count, cores, rate = 10**9, 256, rates[len(rates) // 2]
    hours = count / rate / 3600
    size, result = read["picture_bytes"] / 1000, read["result_bytes"]
    plan = [
        ["work", f"{count:,} pictures / {rate:.0f} per second and core", f"{hours:,.0f} core hours"],
        ["time", f"{cores} cores in machines of 16", f"{hours / cores:,.0f} hours"],
        ["processors", "0.02 USD per core hour (spot), 0.05 (on demand)", f"{hours * 0.02:,.0f} or {hours * 0.05:,.0f} USD"],
        [
            "reading",
            f"{size:.0f} kB per picture: {rate * cores * size * 8 / 1e6:.1f} Gbit/s in all; free within the region",
            "0 USD",
        ],
        [
            "requests",
            f"for each shard of 1,000 pictures {SHARD_READS} reads and {SHARD_WRITES} writes or lists; "
            "0.0004 and 0.005 USD per 1,000",
            f"{count / 1000 * (SHARD_READS * 4e-7 + SHARD_WRITES * 5e-6):,.0f} USD",
        ],
        ["requests", "single objects instead of shards: a read for each picture", f"{count * 4e-7:,.0f} USD more"],
        [
            "end",
            "the job reads what each part says about errors: a request of 20 ms, 8 at a time",
            f"{count / 1000 * 0.02 / 8 / 3600:.1f} hours",
        ],
        [
            "result",
            f"{result:.0f} bytes per picture, less in larger parts; 0.023 USD per GB and month",
            f"{count * result / 1e9 * 0.023:,.0f} USD a month",
        ],
    ]
    return "\n\n".join(
        (
            f"Measured with {read['pictures']:,} photos of {size:.0f} kB with one face each, while other programs kept "
            f"{read['others_cores']} of {read['hardware']['cores']} cores busy. From `{run.relative_to(ROOT).as_posix()}`:",
            markdown_table(["", "measured", "aim"], measured),
            "A plan for a billion such pictures, on paper; nobody has run it. Rates are measured, prices are assumptions:",
            markdown_table(["", "assumption", "result"], plan),
        )
    )


DETECTORS = ("centerface", "mtcnn", "mtcnn, first search only", "haar")
"""The columns of the tables of detectors."""

PHOTO_ROWS = (
    "upright, 40 px and more", "under 40 px", "sunglasses, hand or hair", "turned by more than 20 degrees", "view: profile",
    "light: dark", "skin: dark", "skin: medium", "skin: light", "kind: drawn",
)  # fmt: skip
"""The groups of faces that the documentation shows."""


def detection() -> str:
    """Return the faces that each detector finds: the newest run of benchmarks/detection.py."""
    run = pictures.newest_run("detection")
    read = json.loads(run.read_text(encoding="utf-8"))
    photos, changed = read["photos"], read["changed"]
    counts = [photos["detectors"][name] for name in DETECTORS]
    groups = [group for group in PHOTO_ROWS if group in photos["faces"]]
    rows = [[f"{group} ({photos['faces'][group]})", *(str(each["found"][group]) for each in counts)] for group in groups]
    rows.append(["**boxes without a face**", *(str(each["false"]) for each in counts)])
    slowest = photos["detectors"]["mtcnn, first search only"]["ms_per_picture"]
    rows.append(
        ["**time, relative to the first search of `mtcnn`**", *(f"{each['ms_per_picture'] / slowest:.2f}" for each in counts)]
    )
    head = [*(f"`{name}`" for name in DETECTORS[:2]), "`mtcnn`, first search only", "`haar`"]
    first = markdown_table([f"faces in {photos['pictures']} photos", *head], rows)
    rows = [[change, *(str(by[name]["found"]) for name in DETECTORS)] for change, by in changed["by_change"].items()]
    false = [str(sum(by[name]["false"] for by in changed["by_change"].values())) for name in DETECTORS]
    rows.append(["**boxes without a face, all rows**", *false])
    turned = [by for change, by in changed["by_change"].items() if change.startswith("turned")]
    sums = [[sum(by[name].get(key, 0) for by in turned) for key in ("same_label", "comparable")] for name in DETECTORS]
    rows.append(["**turned faces with the label of the upright one**", *(f"{same} of {all_}" for same, all_ in sums)])
    second = markdown_table([f"{changed['faces']} faces, each", *head], rows)
    return f"{first}\n\n{second}\n\nFrom `{run.relative_to(ROOT).as_posix()}`."


def unsure() -> str:
    """Return how accuracy and sure answers fall on degraded faces: the newest run of benchmarks/unsure.py."""
    run = pictures.newest_run("unsure")
    read = json.loads(run.read_text(encoding="utf-8"))
    head = ["faces", "accuracy", "sure", "accuracy of sure answers", "left of the accuracy", "left of the sure answers"]

    def row(title: str, each: dict[str, Any]) -> list[str]:
        known = each | ({} if each["sure"] >= FEW else {"accuracy_of_sure": None})  # of a handful of answers
        keys = ("accuracy", "sure", "accuracy_of_sure", "accuracy_left", "sure_left")
        return [title, *(_share(known.get(key)) for key in keys)]

    rows = [row("FER2013, as they are", read["clean"])]
    rows += [row(title, read["degraded"][name]) for name, title in UNSURE.items()]
    rows += [row(f"no face: {name}", {"sure": each["sure"]}) for name, each in read["no_face"].items()]
    real = {name: each for name, each in (read["photos"] or {}).items() if isinstance(each, dict)}
    rows += [row(f"real photos: {name.replace('none', 'as they are')}", each) for name, each in real.items()]
    table, slower = markdown_table(head, rows), read["sure_falls_slower"]
    number = real["none"]["faces"] if real else 0
    rules = markdown_table(
        ["rule", "area under the risk-coverage curve", "sure", "accuracy of sure answers"],
        [
            [name, f"{each['aurc']:.4f}", _share(each["coverage"]), _share(each["accuracy"])]
            for name, each in read["rules"].items()
        ],
    )
    origin = f"{read['data']['images']:,} faces of {_origin(run, read)[:-1]}; real photos: {number} faces."
    exceptions = (
        f"In {len(slower)} of {len(read['degraded'])} degradations, the sure answers fall more slowly: {', '.join(slower)}."
    )
    return f"{table}\n\n{origin} {exceptions}\n\nThe rules that were compared, on all degraded faces together:\n\n{rules}\n"


FEW = 0.02
"""Share of sure answers below which their accuracy is not shown."""

UNSURE = {
    "size 24": "24 px",
    "size 16": "16 px",
    "size 10": "10 px",
    "blur 1": "blurred, 1 px of 48",
    "blur 2": "blurred, 2 px",
    "noise 20": "noise of 20 grey levels",
    "noise 60": "noise of 60",
    "dark 0.3": "30 % of the light",
    "dark 0.1": "10 % of the light",
    "contrast 0.1": "10 % of the contrast",
    "square 0.3": "a square of 30 % covered",
    "part eyes": "eyes covered",
    "part mouth": "mouth covered",
    "sunglasses 10": "sunglasses",
    "mask 150": "mask",
    "patterned mask stripes": "mask with stripes",
    "patterned mask checks": "mask with checks",
    "patterned mask dots": "mask with dots",
    "hand 1": "hand on the mouth",
    "cut left 45": "45 % cut off left",
    "cut bottom 45": "45 % cut off below",
    "turned 180": "upside down",
}
"""Rows of `unsure`, by their names in the run."""


def _share(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.0f} %"


def _origin(run: Path, read: dict[str, Any]) -> str:
    model = Path(read["model"]["file"]).stem
    return f"FER2013 {read['data']['split']}, model `{model}`, from `{run.relative_to(ROOT).as_posix()}`."


def audits() -> list[tuple[str, dict[str, Any]]]:
    """Return every audit in results/audit/, by the name of its file."""
    return [
        (path.stem, json.loads(path.read_text(encoding="utf-8"))) for path in sorted((ROOT / "results/audit").glob("*.json"))
    ]


def corpus_facts() -> str:
    """Return the facts of ResEmoteNet's Table I for the audited corpora."""
    found = [(name, dict(_statistics(report).characteristics())) for name, report in audits()]
    head = ["", *(f"`{name}`" for name, _ in found)]
    return markdown_table(head, [[key, *(facts[key] for _, facts in found)] for key in found[0][1]])


def class_counts() -> str:
    """Return images of each class in each split of the audited corpora, as in ResEmoteNet's Table II."""
    parts = []
    for name, report in audits():
        head, *rows = [[cell.replace("together", "total") for cell in row] for row in _statistics(report).table()]
        parts += [
            f"From `results/audit/{name}.json`, fingerprint `{report['data']['fingerprint'][:16]}`:",
            markdown_table(head, rows),
        ]
    return "\n\n".join(parts)


def brightness() -> str:
    """Return mean and standard deviation of the pixels of each split of each audited corpus."""
    rows = [[f"`{name}`", *row] for name, report in audits() for row in _statistics(report).brightness()[1:]]
    return markdown_table(["corpus", "split", "mean", "standard deviation"], rows)


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
    return markdown_table(["corpus", "test split", "images", *KINDS.values()], cells)


def zero_shot() -> str:
    """Return one row per bundled model measured on CK+48, on which none was trained: as given, padded, and with six answers."""
    rows = []
    for path in sorted((ROOT / "results/ckplus48").glob("*-six-classes.json")):
        name = path.name.removesuffix("-six-classes.json")
        parts = [read_results(path.with_name(f"{name}{end}.json"))["standard"] for end in ("", "-padded", "-six-classes")]
        cells = [
            f"{_per_cent(part['accuracy'])} ({', '.join(f'{100 * x:.1f}' for x in part['accuracy_interval'])})"
            for part in parts
        ]
        rows.append([f"`{name}`", f"{parts[0]['images']:,}", *cells, _per_cent(parts[0]["uar"]), _per_cent(parts[0]["ece"])])
    head = ["model", "images", "accuracy", "accuracy, padded", "accuracy, six answers", "uar", "ece"]
    note = "In brackets: 95 % interval. Padded: `--option pad=4`. Six answers: `--map-to ckplus`. From `results/ckplus48/`."
    return f"{markdown_table(head, rows)}\n\n{note}"


def explanations() -> str:
    """Return how faithful the maps of the bundled models are, next to random maps."""
    rows = []
    for path in sorted((ROOT / "results/explain").glob("*.json")):
        found = json.loads(path.read_text(encoding="utf-8"))
        for name, curves in found["maps"].items():
            cells = [f"{c['mean']:.3f}, {c['random']:.3f}, {_signed(c)}" for c in (curves["deletion"], curves["insertion"])]
            rows.append([f"`{path.stem}`", str(found["images"]), f"`{name}`", *cells])
    head = ["model", "faces", "map", "deletion: map, random, difference", "insertion: map, random, difference"]
    return f"{markdown_table(head, rows)}\n\nFrom `results/explain/`."


def _signed(curve: dict[str, Any]) -> str:
    low, high = curve["interval"]
    return f"{curve['difference']:+.3f} ({low:+.3f} to {high:+.3f})"


def groups() -> str:
    """Return the figures by group of the default model on photos whose faces were marked by eye, and the largest gaps."""
    results, note = _photos()
    rows, gaps = [], []
    for column, found in results["groups"].items():
        rows += [[f"{column}: {name}", *_group_cells(group)] for name, group in found["groups"].items()]
        for metric, title in (("detection_rate", "found"), ("accuracy", "accuracy"), ("overconfidence", "too sure")):
            if gap := found["gaps"].get(metric):
                points, (low, high) = f"{100 * gap['largest']:.1f} points", (f"{100 * end:.1f}" for end in gap["interval"])
                certain = "yes" if gap["more_than_chance"] else "no"
                gaps.append([column, title, " and ".join(gap["between"]), f"{points} ({low}, {high})", certain])
    head = ["column", "figure", "largest gap between", "gap", "more than chance"]
    return f"{markdown_table(['group', *GROUP_HEAD], rows)}\n\n{markdown_table(head, gaps)}\n\n{note}"


def skin() -> str:
    """Return the part of `groups` about skin."""
    results, note = _photos()
    found = results["groups"]["skin"]["groups"]
    return f"{markdown_table(['skin', *GROUP_HEAD], [[name, *_group_cells(group)] for name, group in found.items()])}\n\n{note}"


GROUP_HEAD = ["marked faces", "found", "found and labelled", "accuracy", "too sure"]


def _group_cells(group: dict[str, Any]) -> list[str]:
    cells = []
    for key in ("detection_rate", "accuracy", "overconfidence"):
        ends = group[f"{key.removesuffix('_rate')}_interval"]
        cells.append(
            "" if group[key] is None else f"{100 * group[key]:.1f} % ({', '.join(f'{100 * end:.1f}' for end in ends)})"
        )
    return [f"{group['faces']:,}", cells[0], f"{group['images']:,}", *cells[1:]]


def _photos() -> tuple[dict[str, Any], str]:
    path = ROOT / "results/photos/dlib_resnet-fer2013-small.json"
    results = read_results(path)
    labels = f"{results['standard']['images']} of {results['detection']['faces']} marked faces have a label"
    return results, f"In brackets: 95 % interval. {labels}. From `{path.relative_to(ROOT)}`."


def imbalance() -> str:
    """Return the metrics of each method for uneven classes: mean and standard deviation over the seeds."""
    parts = []
    for path in sorted((ROOT / "results/imbalance").glob("*.json")):
        read = json.loads(path.read_text(encoding="utf-8"))
        head = ["method", "accuracy", "macro-F1", "balanced accuracy", "recall of disgust"]
        rows = [
            [name, *(f"{value['mean']:.1f} ± {value['std']:.1f} %" for value in figures.values())]
            for name, figures in read["rows"].items()
        ]
        seeds = ", ".join(map(str, read["seeds"]))
        note = (
            "Each row is a `sa_csp_ca` trained on FER2013 and fine-tuned with this method for one more epoch (learning rate "
            f"{read['budget']['optim.lr']}), measured on {read['split']}. Mean and standard deviation over the seeds {seeds}, "
            f"from `{path.relative_to(ROOT)}`."
        )
        parts.append(f"{markdown_table(head, rows)}\n\n{note}")
    return "\n\n".join(parts) or NOT_RUN


def suspects() -> str:
    """Return how many of the most suspect labels FER+'s voters disagree with, by model and split."""
    rows = []
    for path in sorted((ROOT / "results/suspects").glob("*.json")):
        read = json.loads(path.read_text(encoding="utf-8"))
        shares = [f"{100 * value:.0f} %" for value in read["votes_differ"].values()]
        model = path.stem.removesuffix(f"-{read['data']['split']}")
        rows.append([f"`{model}`", read["data"]["split"], f"{read['images']:,}", f"{read['label_issues']:,}", *shares])
    head = ["model", "split", "labels", "wrong by cleanlab", "worst 1 %", "worst 5 %", "worst 10 %", "all"]
    return markdown_table(head, rows) if rows else NOT_RUN


def _statistics(report: dict[str, Any]) -> Statistics:
    return Statistics.from_dict(report["statistics"])


def _per_cent(share: float) -> str:
    if not 0 <= share <= 1:
        raise ValueError(f"results hold shares from 0 to 1, got {share}")
    return f"{100 * share:.2f}\N{NO-BREAK SPACE}%"


BLOCKS: dict[str, Callable[[], str]] = {
    "tree": tree,
    "command-line": command_line,
    "columns": columns,
    "limits": limits,
    "headline": headline,
    "recall": recall,
    "selection": selection,
    "balance": balance,
    "contrast": contrast,
    "all-results": all_results,
    "recipes": recipes,
    "crop": crop,
    "robustness": robustness,
    "detection": detection,
    "unsure": unsure,
    "browser": browser,
    "load": load,
    "labelling": labelling,
    "corpus-facts": corpus_facts,
    "class-counts": class_counts,
    "brightness": brightness,
    "twins": twins,
    "zero-shot": zero_shot,
    "explanations": explanations,
    "groups": groups,
    "groups-skin": skin,
    "imbalance": imbalance,
    "suspects": suspects,
    "claims-overview": claims.overview,
    "claims": claims.tables,
    "claims-traps": claims.traps,
    "claims-contradictions": claims.contradictions,
}

if __name__ == "__main__":
    main()
