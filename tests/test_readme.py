"""What README and the guides tell people to run, run."""

import contextlib
import itertools
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import av
import numpy as np
import pytest
import yaml
from _pytest.mark import ParameterSet
from PIL import Image
from safetensors.torch import save_file
from typer.testing import CliRunner

from mien import cli, weights
from mien.models import create_model
from mien.recipe import load_recipe
from mien.yaml_files import read_yaml

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"(?:<!-- run: (\w+) -->\n)?```(bash|python)\n(.*?)```", re.DOTALL)
OUTPUT = re.compile(r"<!-- run: output -->\n```bash\n(.+?)\n```\n\n```text\n(.*?)```", re.DOTALL)
NUMBER = re.compile(r"\d[\d,]*(?:\.\d+)?")
QUICK = ["--epochs", "1", "--set", "train.batch_size=16", "--set", "train.compile=false"]
"""What makes a training of the docs short; the rest of its command runs as printed."""


def blocks(kind: str) -> list[ParameterSet]:
    """Return the code blocks of a kind; one that several pages show is run once."""
    found = {match[3]: page for page in PAGES for match in BLOCK.finditer(page.read_text()) if match[1] == kind}
    return [pytest.param(text, id=f"{page.stem}-{number}") for number, (text, page) in enumerate(found.items())]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The runs of this module: a training that several pages name is run once."""
    return tmp_path_factory.mktemp("trained")


@pytest.fixture
def folder(tmp_path: Path, trained: Path) -> Path:
    """A folder with what the commands name: photos, videos, and a FER2013 file of the real layout with few random images."""
    (tmp_path / "trained").symlink_to(trained)
    shutil.copytree(ROOT / "docs/assets", tmp_path / "docs/assets")
    write_fer2013(tmp_path / "fer2013.csv", public_test=14)
    write_video(tmp_path / "talk.mp4")
    (tmp_path / "interviews").mkdir()
    shutil.copy(tmp_path / "talk.mp4", tmp_path / "interviews/first.mp4")
    (tmp_path / "photos/train/happy").mkdir(parents=True)
    shutil.copy(ROOT / "docs/assets/astronaut.jpg", tmp_path / "photos/train/happy")
    return tmp_path


def write_fer2013(path: Path, public_test: int) -> None:
    random = np.random.default_rng(0)
    rows = ["emotion,pixels,Usage"]
    for usage, number in (("Training", 70), ("PublicTest", public_test), ("PrivateTest", 14)):
        images = random.integers(0, 256, (number, 48 * 48))
        rows += [f"{i % 7},{' '.join(map(str, image))},{usage}" for i, image in enumerate(images)]
    path.write_text("\n".join(rows) + "\n")


def write_video(path: Path, frames: int = 5, rate: int = 10, side: int = 512) -> None:
    """Write the astronaut, standing still; half a second by default."""
    picture = np.asarray(Image.open(ROOT / "docs/assets/astronaut.jpg").convert("RGB").resize((side, side)))
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=rate)
        stream.width, stream.height, stream.pix_fmt = picture.shape[1], picture.shape[0], "yuv420p"
        for _ in range(frames):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, "rgb24")))
        container.mux(stream.encode())


def run(folder: Path, command: list[str]) -> str:
    """Return what a Python command printed; a command that fails fails the test."""
    environment = os.environ | {"MIEN_CACHE": str(folder / "cache"), "OMP_NUM_THREADS": "1", "COLUMNS": "100"}
    done = subprocess.run([sys.executable, *command], cwd=folder, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, f"{shlex.join(command)}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def run_here(folder: Path, words: list[str]) -> str:
    """Return what a command of mien prints, run in this process: starting torch anew takes seconds."""
    with contextlib.chdir(folder), pytest.MonkeyPatch.context() as patch:
        patch.setenv("MIEN_CACHE", str(folder / "cache"))
        done = CliRunner(env={"COLUMNS": "100"}).invoke(cli.app, words, catch_exceptions=False)
    assert done.exit_code == 0, f"{shlex.join(words)}\n{done.output}"
    return done.output


def train(folder: Path, words: list[str]) -> None:
    """Train, or copy what the same words trained before."""
    kept, out = folder / "trained" / shlex.join(words).replace("/", "_"), folder / words[words.index("--out") + 1]
    if not kept.exists():
        run_here(folder, [*words, *QUICK])
        shutil.copytree(out, kept)
    elif not out.exists():
        shutil.copytree(kept, out)


def run_lines(folder: Path, text: str, here: bool = False) -> None:
    """Run the commands of a block, each as a process of its own or in this one; trainings always in this one."""
    call = run_here if here else (lambda folder, words: run(folder, ["-m", "mien", *words]))
    for line in text.splitlines():
        program, *words = shlex.split(line, comments=True) or [""]
        assert program in ("mien", ""), f"only mien's own commands are run, not: {line}"
        if program and words[0] == "train":
            train(folder, words)
        elif ">" in words:
            (folder / words[-1]).write_text(call(folder, words[: words.index(">")]))
        elif program:
            call(folder, words)
            for option, name in itertools.pairwise(words):
                assert (
                    option not in ("--annotate", "--events", "--out", "--summary", "--timeline") or (folder / name).exists()
                ), f"{line}: wrote no {name}"


def need_model() -> None:
    if weights.DEFAULT not in weights.bundled():
        pytest.skip(f"no model is bundled yet ({weights.DEFAULT})")


def test_every_block_is_run_or_is_a_make_verb() -> None:
    makefile = (ROOT / "Makefile").read_text()
    for page in PAGES:
        for kind, _, text in BLOCK.findall(page.read_text()):
            if not kind:
                commands = [shlex.split(line, comments=True) for line in text.splitlines()]
                assert all(program == "make" for program, _ in commands), f"{page}: mark this block with <!-- run: ... -->"
                assert all(re.search(rf"^{verb}:", makefile, re.MULTILINE) for _, verb in commands)


@pytest.mark.parametrize("text", blocks("python"))
def test_python(folder: Path, text: str) -> None:
    need_model()
    run(folder, ["-W", "error", "-c", text])


@pytest.mark.parametrize("text", blocks("predict"))
def test_recognising(folder: Path, text: str) -> None:
    need_model()
    run_lines(folder, text)


@pytest.mark.parametrize("text", blocks("chart"))
def test_chart(folder: Path, text: str) -> None:
    run_lines(folder, "mien predict talk.mp4 --out talk.csv")
    run(folder, ["-W", "error", "-c", text])
    assert (folder / "chart.png").is_file()


def test_observing(folder: Path) -> None:
    """The commands of docs/observational.md, one after the other, on two sessions of 12 seconds."""
    (folder / "sessions").mkdir()
    for name in ("P01", "P02"):
        write_video(folder / f"sessions/{name}.mp4", frames=25, rate=2, side=256)
    shown = re.search(r"```csv\n(.*?)```", (ROOT / "docs/observational.md").read_text(), re.DOTALL)
    assert shown
    (folder / "windows.csv").write_text(shown[1])
    (folder / "participants.csv").write_text("source,participant\nsessions/P01.mp4,P01\nsessions/P02.mp4,P02\n")
    for block in blocks("observe"):
        run_lines(folder, block.values[0])
    for block in blocks("observe_python"):
        assert run(folder, ["-W", "error", "-c", block.values[0]]) == "4 of 6 rows kept\n"


@pytest.mark.parametrize("text", blocks("observe_model"))
def test_a_mixed_model(folder: Path, text: str) -> None:
    pytest.importorskip("statsmodels", reason="not a part of mien")
    random = np.random.default_rng(0)
    own = random.normal(size=12)
    rows = [f"P{i % 12},{('funny', 'sad')[i // 12 % 2]},{i // 12 % 2 + own[i % 12] + random.normal() / 3}" for i in range(96)]
    (folder / "for-the-model.csv").write_text("\n".join(["participant,condition,change_happy", *rows]) + "\n")
    assert "condition[T.sad]" in run(folder, ["-W", "error", "-c", text])


@pytest.fixture
def results(folder: Path) -> Path:
    """The folder with this repository's results, and with two runs that differ in their learning rate."""
    (folder / "results").symlink_to(ROOT / "results")
    for lr in (0.01, 0.1):
        run = shutil.copytree(ROOT / "results/fer2013/stn_resnet50/small-seed0", folder / f"runs/learning-rates/{lr}")
        recipe = (run / "recipe.yaml").read_text()
        (run / "recipe.yaml").write_text(recipe.replace("  lr: 0.01\n", f"  lr: {lr}\n"))
    return folder


@pytest.mark.parametrize("text", blocks("figure"))
def test_figures(results: Path, text: str) -> None:
    run_lines(results, text)


@pytest.mark.parametrize("text", blocks("figure_python"))
def test_figures_in_python(results: Path, text: str) -> None:
    run(results, ["-W", "error", "-c", text])
    assert (results / "rates.svg").is_file()


def outputs() -> list[ParameterSet]:
    found = [(page, match) for page in PAGES for match in OUTPUT.finditer(page.read_text())]
    return [pytest.param(match[1], match[2], id=f"{page.stem}-{number}") for number, (page, match) in enumerate(found)]


@pytest.mark.parametrize(("command", "printed"), outputs())
def test_outputs_are_what_the_commands_print(folder: Path, command: str, printed: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The words must be equal; numbers may differ a little from one processor to another, and bars with them."""
    monkeypatch.syspath_prepend(ROOT / "scripts")
    import docs_pictures

    if "clip.mp4" in command:
        docs_pictures.write_clip(folder / "clip.mp4")
    shown, real = (
        re.sub(r"[█▉▊▋▌▍▎▏\s]+", " ", text).strip() for text in (printed, run(folder, ["-m", *shlex.split(command)]))
    )
    assert NUMBER.sub("N", real) == NUMBER.sub("N", shown)
    pairs = zip(NUMBER.findall(real), NUMBER.findall(shown), strict=True)
    for found, stated in pairs:
        assert float(found.replace(",", "")) == pytest.approx(float(stated.replace(",", "")), abs=2), (found, stated)


@pytest.mark.slow
@pytest.mark.parametrize("text", blocks("train"))
def test_training(folder: Path, text: str) -> None:
    if "train" not in {command.callback.__name__ for command in cli.app.registered_commands if command.callback}:
        pytest.skip("this version has no mien train yet")
    run_lines(folder, text, here=True)


@pytest.mark.slow
@pytest.mark.parametrize("text", blocks("train_variant"))
def test_training_a_variant(folder: Path, text: str) -> None:
    """The variants that docs/recipes.md shows, with the sections that it leaves out."""
    shown = re.search(r"```yaml\n(.*?)```", (ROOT / "docs/recipes.md").read_text(), re.DOTALL)
    assert shown
    values = load_recipe("sa_csp_ca/fer2013").to_dict() | read_yaml(shown[1])
    (folder / "my.yaml").write_text(yaml.safe_dump(values))
    run_lines(folder, text, here=True)


@pytest.mark.slow
@pytest.mark.parametrize("text", blocks("study"))
def test_studies(folder: Path, text: str) -> None:
    """Studies take hours, so their tables are printed instead: names, options and the page's YAML files are right."""
    page = (ROOT / "docs/studies.md").read_text()
    for shown in re.findall(r"```yaml\n(.*?)```", page, re.DOTALL):
        if "mine/ckplus" not in shown:
            (folder / ("mine.yaml" if shown.startswith("name") else "queue.yaml")).write_text(shown)
    for line in text.splitlines():
        words = shlex.split(line.replace("--plan", ""), comments=True)[1:]
        run_here(folder, [*words, *(["--table"] if len(words) > 1 else [])])


@pytest.mark.slow
@pytest.mark.parametrize("text", blocks("corpus"))
def test_corpora(folder: Path, text: str) -> None:
    run_lines(folder, text, here=True)


@pytest.mark.slow
@pytest.mark.parametrize("text", blocks("corpus_python"))
def test_corpora_in_python(folder: Path, text: str) -> None:
    run(folder, ["-W", "error", "-c", text])


@pytest.mark.slow
def test_export(folder: Path) -> None:
    """The commands of docs/export.md, on a run that is trained for one epoch."""
    write_fer2013(folder / "fer2013.csv", public_test=200)  # enough to calibrate on
    (folder / "trained").unlink()
    (folder / "trained").mkdir()  # runs of other tests were trained on other data
    run_lines(folder, "mien train sa_csp_ca/fer2013 --data fer2013.csv --out runs/first")
    for block in blocks("export"):
        run_lines(folder, block.values[0], here=True)


@pytest.mark.slow
def test_analysing(folder: Path) -> None:
    """The commands of docs/mistakes.md, one after the other."""
    for block in blocks("analyse"):
        run_lines(folder, block.values[0], here=True)
    for block in blocks("analyse_python"):
        run(folder, ["-W", "error", "-c", block.values[0]])


@pytest.mark.slow
@pytest.mark.parametrize("text", blocks("train_dlib"))
def test_training_from_dlib(folder: Path, text: str) -> None:
    lines = text.splitlines()
    assert [line.split()[0] for line in lines[:3]] == ["pip", "tar", "python"], "they make what random weights stand for here"
    state = create_model("dlib_resnet").state_dict()
    save_file({name: value for name, value in state.items() if "classifier" not in name}, folder / lines[2].split()[-1])
    run_lines(folder, "\n".join(lines[3:]), here=True)


@pytest.mark.slow
def test_fine_tuning(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The commands of docs/fine-tune.md, on pictures named and sorted like those of CK+48, for one epoch.

    They run in this process, because each start of torch takes seconds.
    """
    random = np.random.default_rng(0)
    for number, name in enumerate(("anger", "contempt", "happy")):
        (folder / "faces" / name).mkdir(parents=True)
        for i in range(16):
            picture = Image.fromarray(random.integers(0, 256, (48, 48)).astype(np.uint8))
            picture.save(folder / f"faces/{name}/S{i % 8:03}_00{number}_{i:08}.png")
    shutil.copy(ROOT / "docs/assets/astronaut.jpg", folder / "portrait.jpg")
    monkeypatch.chdir(folder)
    commands = [block.values[0].strip() + " --epochs 1 --threads 1" for block in blocks("finetune")]
    commands += [line for block in blocks("finetuned") for line in block.values[0].splitlines()]
    for command in commands:
        done = CliRunner().invoke(cli.app, shlex.split(command, comments=True)[1:], catch_exceptions=False)
        assert done.exit_code == 0, f"{command}: {done.output}"
    assert re.search("angry|contempt|happy", done.output)
    assert (folder / "runs/mine/finetune.json").is_file()
    assert "contempt" in (folder / "mine.html").read_text()
