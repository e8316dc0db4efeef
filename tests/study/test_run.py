"""Studies that run: from the file to the table, stopped, shared, and with files that do not fit."""

import csv
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from mien.cli import app
from mien.errors import MienError
from mien.results import read_predictions, read_results

Write = Callable[..., Path]


def run(*arguments: object, status: int = 0) -> str:
    result = CliRunner().invoke(app, ["study", *map(str, arguments)], catch_exceptions=False)
    assert result.exit_code == status, result.output
    return result.output


def refused(*arguments: object) -> str:
    with pytest.raises(MienError) as caught:
        CliRunner().invoke(app, ["study", *map(str, arguments)], catch_exceptions=False)
    return str(caught.value)


def rows_of(path: Path) -> dict[str, dict[str, str]]:
    with path.open(newline="") as file:
        return {row["row"]: row for row in csv.DictReader(file)}


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory, shared_fer2013_csv: Path, write_study: Write) -> Path:
    """A folder with a finished study of two rows and three seeds: `study.yaml`, `runs` and `results`."""
    folder = tmp_path_factory.mktemp("study")
    path = write_study(
        folder, "recipe: sa_csp_ca/fer2013\ngrid: {optim.lr: [0.05, 0.001]}\nreference: lr=0.001\nseeds: [0, 1, 2]\n"
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MIEN_CACHE", str(folder / "cache"))
        shown = run(path, "--data", shared_fer2013_csv, "--out", folder / "runs", "--results", folder / "results")
    assert re.search(r"lr=0.05\W+6?3\W+0\W+2\W", shown), shown  # the plan: runs, done, epochs
    assert shown.count("epoch 2/2") == 6
    return folder


def test_the_table_is_computed_from_the_predictions(done: Path):
    table = rows_of(done / "results/tiny/rates/full/table.csv")
    correct: dict[str, list[np.ndarray]] = {}
    for row in table:
        correct[row] = []
        for seed in range(3):
            _, target, probs = read_predictions(done / f"results/tiny/rates/full/{row}/seed{seed}/private_test.json")
            correct[row].append(probs.argmax(1) == target)
    for row, values in table.items():
        accuracies = [100 * seed.mean() for seed in correct[row]]
        assert float(values["standard"]) == pytest.approx(np.mean(accuracies), abs=0.01)
        assert float(values["deviation"]) == pytest.approx(np.std(accuracies), abs=0.01)
        assert values["runs"] == "3"
        assert float(values["balanced accuracy"]) == pytest.approx(float(values["standard"]), abs=2)  # 4 or 5 images a class
        assert 0 < float(values["macro F1"]) <= 100
        assert float(values["interval low"]) <= float(values["standard"]) <= float(values["interval high"])
    difference = float(table["lr=0.05"]["standard"]) - float(table["lr=0.001"]["standard"])
    assert float(table["lr=0.05"]["difference"]) == pytest.approx(difference, abs=0.02)
    assert 0 < float(table["lr=0.05"]["p"]) <= 1
    assert table["lr=0.001"]["difference"] == ""


def test_results_say_which_study_they_belong_to_and_hold_no_large_files(done: Path):
    folder = done / "results/tiny/rates/full/lr=0.05/seed1"
    assert read_results(folder / "private_test.json")["study"] == {
        "name": "tiny/rates", "row": "lr=0.05", "scale": "full", "fold": None, "split": None,
    }  # fmt: skip
    names = {path.name for path in folder.iterdir()}
    assert {"recipe.yaml", "history.csv", "curves.png", "private_test.json", "private_test-predictions.csv"} <= names
    assert not {"last.ckpt", "best.safetensors", ".lock"} & names


def test_a_finished_study_runs_nothing_and_its_results_are_enough(done: Path, tmp_path: Path, fer2013_csv: Path):
    shown = run(done / "study.yaml", "--data", fer2013_csv, "--out", tmp_path / "elsewhere", "--results", done / "results")
    assert "epoch" not in shown.split("in all")[1]
    assert "3 of 3" in shown
    assert "3 of 3" in run(done / "study.yaml", "--results", done / "results", "--table")


def test_tables_share_the_runs_of_one_recipe(done: Path, tmp_path: Path, fer2013_csv: Path):
    other = tmp_path / "study.yaml"
    other.write_text((done / "study.yaml").read_text().replace("tiny/rates", "tiny/other"))
    shown = run(other, "--data", fer2013_csv, "--out", tmp_path / "runs", "--results", done / "results", "--seed", 1)
    assert "epoch" not in shown.split("in all")[1]
    assert "1 of 1" in shown


def test_a_missing_seed_is_listed_and_continued(done: Path, tmp_path: Path, fer2013_csv: Path):
    one = ("--data", fer2013_csv, "--out", tmp_path / "runs", "--row", "lr=0.05")
    shown = run(done / "study.yaml", *one, "--minutes", 0, status=3)
    assert "stopped, the time is up" in shown
    assert "not measured yet: tiny/rates/full/lr=0.05/seed0, tiny/rates/full/lr=0.05/seed1" in shown
    shown = run(done / "study.yaml", *one)
    assert "seed0: epoch 1/2" not in shown  # it was kept
    assert "seed0: epoch 2/2" in shown
    here, there = (path / "tiny/rates/full/lr=0.05/seed0/private_test.json" for path in (tmp_path / "runs", done / "results"))
    assert read_results(here)["confusion"] == read_results(there)["confusion"]


def test_only_the_studys_own_measurement_counts(done: Path, tmp_path: Path, fer2013_csv: Path):
    """Also if it is one of a run that is not finished, of another split or corpus, or no results file."""
    study, one = done / "study.yaml", ("--out", tmp_path / "runs", "--row", "lr=0.05", "--seed", 0)
    run(study, "--data", fer2013_csv, *one, "--minutes", 0, status=3)
    folder = tmp_path / "runs/tiny/rates/full/lr=0.05/seed0"
    evaluated = CliRunner().invoke(app, ["evaluate", str(folder), "--data", str(fer2013_csv), "--split", "private_test"])
    assert evaluated.exit_code == 0, evaluated.output
    assert (folder / "private_test.json").is_file()
    (folder / "card.json").write_text("{}")
    assert "nothing is measured yet" in run(study, *one, "--table")
    shown = run(study, "--data", fer2013_csv, *one)
    assert "seed0: epoch 2/2" in shown
    there = done / "results/tiny/rates/full/lr=0.05/seed0/private_test.json"
    assert read_results(folder / "private_test.json")["confusion"] == read_results(there)["confusion"]


def test_the_file_of_the_table_has_all_rows_and_seeds(done: Path, tmp_path: Path):
    results = Path(shutil.copytree(done / "results", tmp_path / "results"))
    path = results / "tiny/rates/full/table.csv"
    whole = path.read_text()
    for part, left_out in ((("--row", "lr=0.05"), r"(?m)^\W*lr=0.001"), (("--seed", 1), "of 3")):
        shown = run(done / "study.yaml", "--results", results, "--table", *part)
        assert "lr=0.05" in shown
        assert not re.search(left_out, shown)
        assert path.read_text() == whole


def test_results_edited_by_hand_are_refused(done: Path, tmp_path: Path, fer2013_csv: Path):
    import shutil

    results = Path(shutil.copytree(done / "results", tmp_path / "results"))
    path = results / "tiny/rates/full/lr=0.05/seed0/private_test.json"
    values = json.loads(path.read_text())
    values["standard"]["accuracy"] = 0.99
    path.write_text(json.dumps(values))
    assert "was edited by hand" in refused(done / "study.yaml", "--results", results, "--table")


def test_other_data_and_another_recipe_are_refused(done: Path, tmp_path: Path, fer2013_csv: Path):
    lines = fer2013_csv.read_text().splitlines()
    other = tmp_path / "fer2013.csv"
    other.write_text("\n".join([*lines[:5], lines[7], *lines[6:]]) + "\n")
    where = ("--out", tmp_path / "runs", "--results", done / "results")
    assert "was measured on other data than this copy of fer2013" in refused(done / "study.yaml", "--data", other, *where)
    changed = tmp_path / "study.yaml"
    changed.write_text((done / "study.yaml").read_text().replace("train.epochs: 2", "train.epochs: 3"))
    assert "another recipe than the study has now" in refused(changed, "--data", fer2013_csv, *where)
    assert "another recipe than the study has now" in refused(changed, *where, "--table")


def test_a_copy_without_the_test_split_trains_and_another_measures(tmp_path: Path, fer2013_csv: Path, write_study: Write):
    lines = fer2013_csv.read_text().splitlines()
    short = tmp_path / "short.csv"
    short.write_text("\n".join(line for line in lines if "PrivateTest" not in line) + "\n")
    path = write_study(tmp_path, "rows:\n  a: {recipe: sa_csp_ca/fer2013}\n")
    where = ("--out", tmp_path / "runs")
    assert "trained, not measured: this copy of fer2013 has no private_test" in run(path, "--data", short, *where, status=3)


def test_a_diverging_row_does_not_stop_the_others(tmp_path: Path, fer2013_csv: Path, write_study: Write):
    path = write_study(tmp_path, "recipe: sa_csp_ca/fer2013\ngrid: {optim.lr: [1.0e+30, 0.01]}\n")
    path.write_text(path.read_text() + "  optim.clip_norm: 0\n  train.ema_decay: 0\n")
    shown = run(path, "--data", fer2013_csv, "--out", tmp_path / "runs", status=3)
    assert "lr=1e+30/seed0: failed: epoch 1 ended in nan or infinity" in shown
    assert "lr=0.01/seed0: " in shown
    assert "% on private_test" in shown


@pytest.mark.slow
def test_two_processes_share_a_study_and_one_may_be_killed(tmp_path: Path, fer2013_csv: Path, write_study: Write):
    path = write_study(tmp_path, "recipe: sa_csp_ca/fer2013\ngrid: {optim.lr: [0.05, 0.001]}\nseeds: [0, 1]\n")
    path.write_text(path.read_text().replace("train.epochs: 2", "train.epochs: 6"))
    command = [sys.executable, "-m", "mien", "study", str(path), "--data", str(fer2013_csv), "--out", str(tmp_path / "runs")]
    with (tmp_path / "first.txt").open("w") as first:
        victim = subprocess.Popen([*command, "--worker"], stdout=first, stderr=first)
        other = subprocess.Popen([*command, "--jobs", "2"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        while "epoch 2/6" not in (tmp_path / "first.txt").read_text() and victim.poll() is None:
            time.sleep(0.05)
        victim.send_signal(signal.SIGKILL)
        victim.wait()
        shown, _ = other.communicate(timeout=300)
    shown += run(path, "--data", fer2013_csv, "--out", tmp_path / "runs")
    epochs = re.findall(r"(lr=\S+): epoch (\d)/6", (tmp_path / "first.txt").read_text() + shown)
    assert len(epochs) == len(set(epochs)) == 24  # none twice, none lost
    assert len(rows_of(tmp_path / "runs/tiny/rates/full/table.csv")) == 2
    assert all(row["runs"] == "2" for row in rows_of(tmp_path / "runs/tiny/rates/full/table.csv").values())
    assert os.path.exists(tmp_path / "runs/tiny/rates/full/lr=0.05/seed0/last.ckpt")  # noqa: PTH110


def test_a_queue_leaves_out_what_it_has_no_data_for(tmp_path: Path, fer2013_csv: Path, write_study: Write):
    write_study(tmp_path, "rows:\n  a: {recipe: sa_csp_ca/fer2013}\n")
    queue = tmp_path / "queue.yaml"
    queue.write_text(
        f"- {{study: resnet50-cbam-erf/table2-image, rows: [resnet50_cbam_erf]}}\n- {{study: {tmp_path / 'study.yaml'}}}\n"
    )
    assert "--data fer2013=" in refused("--queue", queue, "--data", fer2013_csv, "--out", tmp_path / "runs")
    shown = run("--queue", queue, "--data", f"fer2013={fer2013_csv}", "--out", tmp_path / "runs")
    assert "left out of resnet50-cbam-erf/table2-image: 10 of 10 runs, no --data ckplus=PATH" in shown
    assert "% on private_test" in shown


def test_titles_and_paths_do_not_act_on_the_terminal(done: Path, tmp_path: Path):
    other = tmp_path / "study.yaml"
    text = (done / "study.yaml").read_text()
    other.write_text(text.replace("title: Two rates", r'title: "Two \e[2J rates [/b]"'))
    shutil.copytree(done / "results", tmp_path / "a\x1b[2J")
    shown = run(other, "--results", tmp_path / "a\x1b[2J", "--table")
    assert "Two \\x1b[2J rates [/b]" in " ".join(shown.split())
    assert all(line.isprintable() for line in shown.splitlines())


def test_a_study_is_reported(done: Path, tmp_path: Path, shared_fer2013_csv: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("MIEN_CACHE", str(done / "cache"))
    table, out = rows_of(done / "results/tiny/rates/full/table.csv"), tmp_path / "r.html"
    arguments = [done / "results", "--out", out, "--study", done / "study.yaml", "--data", shared_fer2013_csv]
    result = CliRunner().invoke(app, ["report", *map(str, arguments)], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    text = " ".join(re.sub(r"<[^>]*>", " ", out.read_text().replace("\xa0", " ").partition("</style>")[2]).split())
    assert (
        "Two rates tiny/rates, measured on fer2013 private_test: 6 of 6 runs are measured, and 2 of 2 rows are complete" in text
    )
    for name, row in table.items():  # reported and measured have a column each
        measured = f"{row['standard']} % ± {row['deviation']}"
        assert (
            f"{name} 71.80 (fer2013) {measured} {float(row['interval low']):.1f} to {float(row['interval high']):.1f} %" in text
        )
    assert f"{float(table['lr=0.05']['difference']):+.2f} {table['lr=0.05']['p']}" in text
    assert out.read_text().count('class="faces"') >= 2  # the hardest faces, and the easiest ones
    assert "This page contains pictures of people from fer2013" in text
    plain = tmp_path / "plain.md"
    CliRunner().invoke(app, ["report", str(done / "runs/tiny/rates"), "--out", str(plain)], catch_exceptions=False)
    assert "This study is not bundled with mien" in plain.read_text()
    assert not list((tmp_path / "plain-figures").glob("worst*"))


def test_a_renamed_or_foreign_study_is_not_reported(done: Path, tmp_path: Path, write_study: Write):
    shutil.copytree(done / "results/tiny/rates/full", tmp_path / "mine")
    with pytest.raises(MienError, match=r"were renamed; they should be tiny/rates/full/<row>/seed<N>"):
        CliRunner().invoke(app, ["report", str(tmp_path / "mine"), "--out", str(tmp_path / "r.html")], catch_exceptions=False)
    other = write_study(tmp_path)
    other.write_text(other.read_text().replace("tiny/rates", "tiny/other"))
    arguments = ["report", str(done / "results"), "--study", str(other), "--out", str(tmp_path / "r.html")]
    with pytest.raises(MienError, match="has runs of the study tiny/rates, but the file given is of tiny/other"):
        CliRunner().invoke(app, arguments, catch_exceptions=False)
