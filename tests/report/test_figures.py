import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pytest
from matplotlib.collections import PolyCollection
from matplotlib.container import ErrorbarContainer
from matplotlib.figure import Figure
from PIL import Image
from sklearn.metrics import multilabel_confusion_matrix

from mien import weights
from mien.errors import DataError, OutputError, UnknownNameError
from mien.languages import use_language
from mien.models import create_model
from mien.report import (
    confusion_figure,
    cost,
    cost_figure,
    curves_figure,
    measure_latencies,
    pool_folds,
    rates_figure,
    read_latencies,
    read_runs,
    sweep_figure,
    write_figure,
)
from mien.report.cost import Latencies
from mien.report.style import look

ROOT = Path(__file__).parents[2]
Write = Callable[..., Path]


def title(figure: Figure) -> str:
    return figure.get_suptitle()


def legend(figure: Figure) -> list[str]:
    return [text.get_text() for each in figure.legends for text in each.get_texts()]


def points(axes: Any) -> list[np.ndarray]:
    """Return x and y of each series with error bars, (2, N)."""
    return [np.array(each.lines[0].get_data(), float) for each in axes.containers if isinstance(each, ErrorbarContainer)]


def bars(axes: Any) -> list[np.ndarray]:
    """Return lower and upper end of the bars of each series, (N, 2)."""
    return [np.array(each.lines[2][0].get_segments())[:, :, 1] for each in axes.containers if each.lines[2]]


def words(path: Path) -> list[str]:
    return re.findall(r"<text[^>]*>([^<]*)</text>", path.read_text(encoding="utf-8"))


# Confusion matrices -----------------------------------------------------------------------------------------------------


def test_a_confusion_matrix_shows_counts_and_shares(write_results: Write) -> None:
    (measured,) = pool_folds([write_results("r.json")])
    figure = confusion_figure(measured)
    counts, shares = figure.axes
    assert [text.get_text() for text in counts.texts] == ["6", "1", "3", "0", "18", "2", "4", "1", "5"]
    assert [text.get_text() for text in shares.texts][:6] == ["60.0", "10.0", "30.0", "0.0", "90.0", "10.0"]
    assert [label.get_text() for label in counts.get_yticklabels()] == ["angry", "happy", "sad"]
    assert title(figure).split("\n") == ["sa_csp_ca on fer2013 private_test, n = 40", "accuracy 72.50 %, twin-free 50.00 %"]
    assert {text.get_color() for text in shares.texts if text.get_text() in ("90.0", "0.0")} == {"white", "black"}


def test_one_panel_is_one_column_wide(write_results: Write) -> None:
    (measured,) = pool_folds([write_results("r.json")])
    for show, name in (("counts", "counts"), ("normalised", "row-normalised, %")):
        (axes,) = (figure := confusion_figure(measured, show)).axes
        assert axes.get_title() == name
        assert figure.get_figwidth() == pytest.approx(8.5 / 2.54, abs=0.01)


def test_a_class_without_images_has_no_shares(write_results: Write) -> None:
    (measured,) = pool_folds([write_results("r.json", ((6, 1, 0), (0, 0, 0), (0, 1, 2)))])
    assert [text.get_text() for text in confusion_figure(measured, "normalised").axes[0].texts][3:6] == ["–"] * 3


def test_the_title_names_folds_protocol_precision_and_scale(write_fold: Write) -> None:
    (measured,) = pool_folds([write_fold(fold, precision="int8") for fold in (0, 1)])
    assert title(confusion_figure(measured)).split("\n")[:3] == [
        "sa_csp_ca on fer2013 private_test, n = 80",
        "split: 10-fold by subject, seed 0, 2 folds pooled, int8",
        "CPU scale: 40 px, 15 epochs",
    ]


# Rates ------------------------------------------------------------------------------------------------------------------


def test_rates_are_those_of_scikit_learn(write_results: Write) -> None:
    (measured,) = pool_folds([write_results("r.json")])
    pairs = [(i, j) for i, j in np.ndindex(3, 3) for _ in range(measured.confusion[i, j])]
    tn, fp, fn, tp = multilabel_confusion_matrix(*zip(*pairs, strict=True)).reshape(3, 4).T
    figure = rates_figure([measured])
    for axes, expected in zip(figure.axes, (tp / (tp + fn), fp / (fp + tn)), strict=True):
        ((_, rates),) = points(axes)
        np.testing.assert_allclose(rates, 100 * expected)
        (ends,) = bars(axes)
        assert (ends[:, 0] <= rates).all()
        assert (rates <= ends[:, 1]).all()
        assert [text.get_text() for text in axes.texts] == [f"{rate:.1f}" for rate in 100 * expected]
        assert axes.get_ylim()[0] == 0
    assert [axes.get_ylabel() for axes in figure.axes] == ["true positive rate, %", "false positive rate, %"]


def test_networks_are_drawn_next_to_each_other(write_results: Write) -> None:
    measured = pool_folds([write_results("a.json"), write_results("b.json", model__arch="vgg16")])
    figure = rates_figure(measured)
    (first, _), (second, _) = points(figure.axes[0])
    assert (first < second).all()
    assert (second < first + 0.5).all()
    assert legend(figure) == ["sa_csp_ca", "vgg16"]
    with pytest.raises(DataError, match="another split"):
        rates_figure(pool_folds([write_results("a.json"), write_results("c.json", data__split="val")]))


def test_a_class_without_images_has_no_rate(write_results: Write) -> None:
    (measured,) = pool_folds([write_results("r.json", ((6, 1, 0), (0, 0, 0), (0, 1, 2)))])
    ((_, rates),) = points(rates_figure([measured]).axes[0])
    assert np.isnan(rates).tolist() == [False, True, False]


# Curves -----------------------------------------------------------------------------------------------------------------


def test_curves_are_means_over_seeds_with_a_band(tmp_path: Path, write_run: Write) -> None:
    write_run("s/cpu/slow/seed0", {"optim.lr": 0.01, "train.epochs": 3}, [0.1, 0.2, 0.3])
    write_run("s/cpu/slow/seed1", {"optim.lr": 0.01, "train.epochs": 3, "seed": 1}, [0.3, 0.4])
    write_run("s/cpu/fast/seed0", {"optim.lr": 0.1, "train.epochs": 3}, [0.5, 0.5, 0.6])
    figure = curves_figure(read_runs([tmp_path / "s"]))
    train, val = figure.axes
    fast, slow = (np.array(line.get_data()) for line in val.lines)
    np.testing.assert_allclose(fast, [[1, 2, 3], [50, 50, 60]])
    np.testing.assert_allclose(slow, [[1, 2], [20, 30]])  # the epochs that both seeds have
    np.testing.assert_allclose(train.lines[1].get_ydata(), [30, 40])
    (band,) = (each for each in val.collections if isinstance(each, PolyCollection))
    heights = band.get_paths()[0].vertices[:, 1]
    assert (heights.min(), heights.max()) == pytest.approx((10, 40))
    assert (train.get_ylabel(), val.get_ylabel()) == (
        "train accuracy, %\n(augmented images)",
        "public_test accuracy, %\n(selection split)",
    )
    assert legend(figure) == ["0.1", "0.01"]
    assert figure.legends[0].get_title().get_text() == "optim.lr"
    assert title(figure).split("\n") == [
        "sa_csp_ca on fer2013",
        "CPU scale: 40 px, 3 epochs",
        "mean of 1 to 2 runs per line, band: ± 1 SD",
    ]


def test_one_run_has_no_band_and_no_legend(write_run: Write) -> None:
    figure = curves_figure(read_runs([write_run("run", val=[0.1, 0.2])]))
    assert not figure.legends
    assert not figure.axes[0].collections
    assert title(figure) == "sa_csp_ca on fer2013\n1 run per line"


def test_the_title_of_curves_names_the_protocol(tmp_path: Path, write_run: Write) -> None:
    for fold in (0, 1):
        protocol = {"name": "kfold", "folds": 2, "fold": fold, "by": "subject"}
        write_run(f"fold{fold}", {"data.protocol": protocol, "data.select": None}, val=[0.1])
    assert title(curves_figure(read_runs([tmp_path]))).split("\n") == [
        "sa_csp_ca on fer2013",
        "split: kfold, folds 2, by subject",
        "mean of 2 runs per line, band: ± 1 SD",
    ]


def test_without_a_selection_split_there_is_one_panel(write_run: Write) -> None:
    folder = write_run("run", {"data.select": None}, val=[float("nan")] * 2)
    assert len(curves_figure(read_runs([folder])).axes) == 1


def test_curves_of_other_data_are_refused(tmp_path: Path, write_run: Write) -> None:
    write_run("a", val=[0.1])
    write_run("b", {"data.select": "val"}, val=[0.1])
    with pytest.raises(DataError, match=r"b: its data\.select is val, not public_test"):
        curves_figure(read_runs([tmp_path]))


def test_runs_without_an_epoch_are_left_out(tmp_path: Path, write_run: Write) -> None:
    write_run("a")
    (write_run("b", {"optim.lr": 0.01}) / "history.csv").write_text("epoch,train_accuracy,val_accuracy\n")
    with pytest.raises(DataError, match="none of these runs has a history"):
        curves_figure(read_runs([tmp_path]))
    write_run("c", {"optim.lr": 0.02}, val=[0.1])
    assert len(curves_figure(read_runs([tmp_path])).axes[0].lines) == 1


def test_many_lines_differ_in_more_than_colour() -> None:
    looks = [tuple(look(number).values()) for number in range(56)]
    assert len(set(looks)) == 56
    assert all(len({each[part] for each in looks[:4]}) == 4 for part in range(3))


# Sweeps -----------------------------------------------------------------------------------------------------------------


def sweep(tmp_path: Path, write_run: Write, key: str, values: list[Any], seeds: int = 1) -> list[Any]:
    for number, value in enumerate(values):
        for seed in range(seeds):
            study = {"name": "s", "row": str(number), "scale": "cpu", "fold": None}
            write_run(f"s/cpu/{number}/seed{seed}", {key: value, "seed": seed}, right=50 + number + 4 * seed, study=study)
    return read_runs([tmp_path / "s"])


def test_a_sweep_over_decades_has_a_log_axis(tmp_path: Path, write_run: Write) -> None:
    figure = sweep_figure(sweep(tmp_path, write_run, "optim.lr", [0.05, 0.0005, 0.01], seeds=2))
    (axes,) = figure.axes
    ((x, y),) = points(axes)
    np.testing.assert_allclose(x, [0.0005, 0.01, 0.05])
    np.testing.assert_allclose(y, [53, 54, 52])
    np.testing.assert_allclose(bars(axes)[0], np.stack([y - 2, y + 2], axis=1))  # over N, as the papers compute it
    assert axes.get_xscale() == "log"
    assert [label.get_text() for label in axes.get_xticklabels()] == ["0.0005", "0.01", "0.05"]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("optim.lr", "accuracy on private_test, %")
    assert title(figure).split("\n") == [
        "sa_csp_ca on fer2013 private_test, n = 100",
        "CPU scale: 40 px, 66 epochs",
        "mean of 2 runs per point, bars: ± 1 SD",
    ]


def test_a_sweep_from_1_to_10_has_a_linear_axis_and_one_seed_no_bars(tmp_path: Path, write_run: Write) -> None:
    figure = sweep_figure(sweep(tmp_path, write_run, "train.epochs", [1, 5, 10]))
    assert figure.axes[0].get_xscale() == "linear"
    assert not bars(figure.axes[0])
    assert "1 run per point" in title(figure)


def test_names_have_places_and_no_line(tmp_path: Path, write_run: Write) -> None:
    (axes,) = sweep_figure(sweep(tmp_path, write_run, "optim.name", ["sgd", "adam", "nadam"])).axes
    ((x, y),) = points(axes)
    assert x.tolist() == [0, 1, 2]
    assert y.tolist() == [50, 51, 52]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["sgd", "adam", "nadam"]
    assert axes.containers[0].lines[0].get_linestyle() == "None"


def test_a_second_value_that_differs_makes_lines(tmp_path: Path, write_run: Write) -> None:
    for lr in (0.1, 0.2):
        for epochs in (1, 2):
            write_run(f"{lr}-{epochs}", {"optim.lr": lr, "train.epochs": epochs}, right=round(10 * lr + epochs))
    runs = read_runs([tmp_path])
    with pytest.raises(DataError, match=r"differ in optim\.lr, train\.epochs; choose the swept one with --field"):
        sweep_figure(runs)
    figure = sweep_figure(runs, "train.epochs")
    assert [each.tolist() for each in points(figure.axes[0])] == [[[1, 2], [2, 3]], [[1, 2], [3, 4]]]
    assert legend(figure) == ["0.1", "0.2"]


def test_a_field_that_cannot_be_swept_is_named(tmp_path: Path, write_run: Write) -> None:
    runs = sweep(tmp_path, write_run, "optim.lr", [0.1, 0.2])
    with pytest.raises(UnknownNameError, match=r"has the field 'optim\.rl'; did you mean 'optim\.lr'"):
        sweep_figure(runs, "optim.rl")
    with pytest.raises(DataError, match=r"optim\.name is the same in all"):
        sweep_figure(runs, "optim.name")
    with pytest.raises(DataError, match="every value is the same"):
        sweep_figure(runs[:1])


def test_the_split_is_chosen_where_there_are_several(tmp_path: Path, write_run: Write) -> None:
    runs = sweep(tmp_path, write_run, "optim.lr", [0.1, 0.2])
    write_run("s/cpu/0/seed0", {"optim.lr": 0.1}, right=1, split="public_test")
    write_run("s/cpu/1/seed0", {"optim.lr": 0.2}, right=2, split="public_test")
    runs = read_runs([tmp_path / "s"])
    with pytest.raises(DataError, match="results on private_test, public_test; choose one with --split"):
        sweep_figure(runs)
    with pytest.raises(DataError, match="has results on 'privat'; did you mean 'private_test'"):
        sweep_figure(runs, split="privat")
    assert points(sweep_figure(runs, split="public_test").axes[0])[0][1].tolist() == [1, 2]


def test_runs_without_results_are_left_out(tmp_path: Path, write_run: Write) -> None:
    with pytest.raises(DataError, match="write them with mien evaluate"):
        sweep_figure(read_runs([write_run("a")]))
    sweep(tmp_path, write_run, "optim.lr", [0.1, 0.2])
    write_run("s/cpu/2/seed0", {"optim.lr": 0.3})
    assert len(points(sweep_figure(read_runs([tmp_path / "s"])).axes[0])[0][0]) == 2


def test_the_twin_free_figure_can_be_drawn(tmp_path: Path, write_run: Write) -> None:
    runs = sweep(tmp_path, write_run, "optim.lr", [0.1, 0.2])
    (axes,) = (figure := sweep_figure(runs, part="twin_free")).axes
    assert points(axes)[0][1].tolist() == [50, 50]
    assert "twin-free" in axes.get_ylabel()
    assert "n = 20" in title(figure)
    write_run("a", {"optim.lr": 0.1}, right=50, twin_free=None)
    write_run("b", {"optim.lr": 0.2}, right=50)
    with pytest.raises(DataError, match="has no twin-free accuracy"):
        sweep_figure(read_runs([tmp_path / "a", tmp_path / "b"]), part="twin_free")


# Cost -------------------------------------------------------------------------------------------------------------------

SMALL = {"model__arch": "dlib_resnet", "model__arguments": {"in_channels": 1, "depth": 1}, "model__input": [40, 40]}


def test_accuracy_is_drawn_against_parameters_and_latency(write_results: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cost, "MEASURED_SECONDS", 0)
    measured = pool_folds([write_results("a.json"), write_results("b.json", ((9, 1, 0), (0, 9, 1), (1, 0, 9)), **SMALL)])
    steps: list[tuple[int, int]] = []
    latencies = measure_latencies(measured, lambda *step: steps.append(step))
    figure = cost_figure(measured, latencies)
    left, right = figure.axes
    models = create_model("sa_csp_ca", num_classes=3, in_channels=1), create_model("dlib_resnet", 3, in_channels=1, depth=1)
    sizes = [sum(parameter.numel() for parameter in model.parameters()) / 1e6 for model in models]
    np.testing.assert_allclose(np.hstack(points(left)), [sizes, [72.5, 90]])
    np.testing.assert_allclose(np.hstack(points(right)), [[latencies.of(each) for each in measured], [72.5, 90]])
    assert left.get_xscale() == "log"  # 1.9 M against 0.02 M
    assert 0 < latencies.of(measured[1]) < latencies.of(measured[0])
    assert steps == [(1, 2), (2, 2)]
    assert right.get_xlabel().startswith("latency of one face in the network, ms\n(torch, float32, 1 thread, ")
    assert legend(figure) == ["sa_csp_ca", "dlib_resnet"]


def test_seeds_of_a_row_are_one_point(write_fold: Write) -> None:
    paths = [write_fold(0, seed=0, **SMALL), write_fold(0, seed=1, confusion=((9, 1, 0), (0, 9, 1), (1, 0, 9)), **SMALL)]
    measured = pool_folds(paths)
    latencies = Latencies({cost._network(measured[0]): 2.0}, "a machine")
    figure = cost_figure(measured, latencies)
    ((x, y),) = points(figure.axes[1])
    assert (x.tolist(), y.tolist()) == ([2.0], [pytest.approx((72.5 + 90) / 2)])
    assert bars(figure.axes[1])[0].tolist() == [[pytest.approx(72.5), pytest.approx(90)]]
    assert "mean of 2 runs per point" in title(figure)


def test_quantized_networks_are_not_timed_in_torch(write_results: Write) -> None:
    with pytest.raises(DataError, match="its network is quantized"):
        measure_latencies(pool_folds([write_results("r.json", precision="int8")]))


@pytest.fixture
def bundled(write_results: Write) -> dict[str, Any]:
    """What makes results those of the default model, and the newest benchmark of it."""
    from mien.predict.onnx_backend import OnnxBackend

    info = OnnxBackend(weights.resolve(weights.DEFAULT), threads=1).info
    return {
        "model__arch": info.arch,
        "model__arguments": info.arguments,
        "model__input": list(info.preprocess.size),
        "backend": "onnx",
    }


def test_latencies_come_from_a_benchmark(write_results: Write, bundled: dict[str, Any]) -> None:
    benchmark = max((ROOT / "benchmarks/runs").glob("*-inference.json"))
    measured = pool_folds([write_results("a.json", **bundled), write_results("b.json", precision="int8", **bundled)])
    found = read_latencies(measured, [benchmark])
    values = json.loads(benchmark.read_text())
    times = values["one_face_one_thread"]["ms"]
    assert [found.of(each) for each in measured] == [times["fp32 network"]["median"], times["int8 network"]["median"]]
    assert found.machine == f"ONNX Runtime, 1 thread, {values['hardware']['processor']}"
    with pytest.raises(DataError, match=r"no file given with --latency timed its network \(sa_csp_ca, eager\)"):
        read_latencies(pool_folds([write_results("c.json")]), [benchmark])
    values["hardware"]["processor"] = "another one"
    second = write_results("second.json")
    second.write_text(json.dumps(values))
    with pytest.raises(DataError, match="several machines"):
        read_latencies(measured, [benchmark, second])


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"name": "video"}', '{"name": "inference", "hardware": {"processor": "x"}}'])
def test_what_is_not_a_benchmark_is_named(tmp_path: Path, write_results: Write, text: str) -> None:
    path = tmp_path / "bench.json"
    path.write_text(text)
    with pytest.raises(DataError, match=r"bench\.json: is not a run of benchmarks/inference\.py"):
        read_latencies(pool_folds([write_results("r.json")]), [path])


# Files ------------------------------------------------------------------------------------------------------------------


def test_text_in_svg_stays_text_and_names_are_not_formulas(tmp_path: Path, write_results: Write) -> None:
    (measured,) = pool_folds([write_results("r.json", model__arch="net_$x$")])
    write_figure(tmp_path / "f.svg", confusion_figure(measured))
    found = words(tmp_path / "f.svg")
    assert {"angry", "happy", "sad", "18", "90.0", "true class", "net_$x$ on fer2013 private_test, n = 40"} <= set(found)


def test_the_same_figure_gives_the_same_bytes_whatever_matplotlibs_settings_are(tmp_path: Path, write_results: Write) -> None:
    (measured,) = pool_folds([write_results("r.json")])
    for ending in (".svg", ".png"):
        write_figure(tmp_path / f"a{ending}", confusion_figure(measured, "counts"))
        with matplotlib.rc_context({"font.size": 30, "svg.fonttype": "path", "axes.facecolor": "red"}):
            before = dict(matplotlib.rcParams)
            write_figure(tmp_path / f"b{ending}", confusion_figure(measured, "counts"))
            assert dict(matplotlib.rcParams) == before
        assert (tmp_path / f"a{ending}").read_bytes() == (tmp_path / f"b{ending}").read_bytes()
    assert "<dc:date>" not in (tmp_path / "a.svg").read_text()
    with Image.open(tmp_path / "a.png") as picture:
        assert picture.width == pytest.approx(300 * 8.5 / 2.54, abs=4)


def test_unknown_endings_are_refused(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"must end in \.png or \.svg"):
        write_figure(tmp_path / "f.pdf", Figure())


def test_classes_and_axes_follow_the_language(write_results: Callable[..., Path]) -> None:
    (measured,) = pool_folds([write_results("r.json")])
    with use_language("de"):
        axes = confusion_figure(measured, "counts").axes[0]
    assert [text.get_text() for text in axes.get_yticklabels()] == ["Wut", "Freude", "Trauer"]
    assert (axes.get_xlabel(), axes.get_ylabel(), axes.get_title()) == ("vorhergesagte Klasse", "wahre Klasse", "Anzahlen")
