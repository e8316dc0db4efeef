"""Recipes report what the papers print, and every row of the papers that can be run has its recipes.

The tables below were copied from the papers, not from the recipes. They leave out tables without accuracies, and rows
that quote other authors' figures unless the network is one of ours.
"""

from dataclasses import dataclass
from statistics import mode

import pytest

from mien.recipe import Recipe, load_recipe, recipe_names

TITLES = {
    "resemotenet": "ResEmoteNet: Bridging Accuracy and Loss Reduction in Facial Emotion Recognition",
    "resnet50_cbam_erf": "Facial Expression Recognition method based on residual network and attention mechanism",
    "sa_csp_ca": "Face Expression Recognition with Embedded Attention Mechanism and Channel Shuffle",
    "stn_resnet50": "Facial Expression Recognition Using Convolutional Neural Network with Attention Module",
    "vgg16_gcca": "A Framework for Facial Expression Recognition Combining Contextual Information and Attention Mechanism",
}
STN_COLUMNS = ("fer2013_random_split_train", "ferplus10_random_split_train", "fer2013_random_split", "ferplus10_random_split")
TRAIN = "_train"
"""End of the name of a column with accuracies on training images."""


@dataclass(frozen=True)
class Table:
    """A paper's table: `rows` gives the printed values by column. A column is a corpus, or other figures on a corpus."""

    paper: str
    name: str
    columns: tuple[str, ...]
    rows: dict[str, tuple[float | None, ...]]


TABLES = [
    Table("resemotenet", "Table III", ("fer2013", "rafdb", "affectnet7"), {"Proposed ResEmoteNet": (79.79, 94.76, 72.93)}),
    Table("resnet50_cbam_erf", "Table 1", ("fer2013",), {"EfficientNet": (71.02,), "Ours": (73.45,)}),
    Table("resnet50_cbam_erf", "Table 2", ("ckplus",), {"ResNet+CBAM": (94.58,), "ResNet+SE": (95.25,), "Ours": (96.97,)}),
    Table(
        "sa_csp_ca",
        "Table 2",
        ("fer2013",),
        {
            "Base": (69.82,),
            "Base(g=1)": (70.27,),
            "Base(g=2)": (69.23,),
            "Base(g=4)": (70.30,),
            "Base(g=8)": (69.57,),
            "SA+Base+CA": (70.97,),
            "SA+Base(g=4)+CA": (71.80,),
        },
    ),
    Table("sa_csp_ca", "Table 3", ("fer2013", "ckplus"), {"Ours": (71.80, 99.66)}),
    Table(
        "stn_resnet50",
        "Table I",
        STN_COLUMNS,
        {
            "ResNet50": (86.4833, 91.6081, 77.1539, 82.3987),
            "VGGFace": (86.0744, 91.3236, 76.0199, 81.2477),
            "Vanilla CNN": (81.9416, 87.3216, 75.5404, 80.9351),
        },
    ),
    Table(
        "stn_resnet50",
        "Table II",
        STN_COLUMNS,
        {
            "ResNet50 + SGD": (39.0426, 44.1912, 48.5793, 53.8031),
            "ResNet50 + Adam": (86.0744, 91.3236, 77.1539, 82.3987),
            "ResNet50 + NAdam": (88.3262, 93.7226, 76.7787, 82.2016),
            "ResNet50 + RMSprop": (87.1164, 92.4262, 74.1632, 79.2464),
        },
    ),
    Table(
        "stn_resnet50",
        "Table III",
        STN_COLUMNS,
        {
            "ResNet50 + Adam + 0.03": (24.9039, 30.1279, 36.3293, 41.6162),
            "ResNet50 + Adam + 0.0003": (88.5839, 93.7684, 73.9576, 79.1338),
            "ResNet50 + Adam + 0.01": (80.3197, 85.5602, 73.2255, 78.7116),
            "ResNet50 + Adam + 0.0001": (88.3957, 93.6064, 67.7038, 73.0544),
            "ResNet50 + Adam + 0.001": (86.0744, 91.3236, 77.1539, 82.3987),
        },
    ),
    Table(
        "stn_resnet50",
        "Table IV",
        STN_COLUMNS,
        {
            "ResNet50 + Adam + 0.001": (86.0744, 91.3236, 77.1539, 82.3987),
            "ResNet50 + Adam + 0.001 + Attention": (89.5158, 94.7883, 77.8905, 83.2741),
            "ResNet50 + Adam + 0.001 + Attention + Transfer Learning": (90.7992, 95.8873, 79.5948, 84.6896),
        },
    ),
    Table(
        "vgg16_gcca",
        "Table 1",
        ("fer2013", "fer2013 stability", "ckplus", "ckplus stability"),
        {
            "model 1": (69.79, 0.38, 92.14, 0.31),
            "model 2": (71.53, 0.35, 93.01, 0.27),
            "model 3": (73.85, 0.34, 96.72, 0.24),
            "model 4": (73.84, 0.26, 96.72, 0.16),
            "model 5": (73.97, 0.25, 97.94, 0.13),
            "model 6": (74.08, 0.24, 98.66, 0.11),
        },
    ),
    Table(
        "vgg16_gcca",
        "Table 2",
        ("fer2013", "fer2013 stability", "ckplus", "ckplus stability"),
        {"Proposed method": (74.08, 0.24, 98.66, 0.11)},
    ),
    # Drawn or mentioned, without an accuracy on a test split.
    Table("resnet50_cbam_erf", "Section 4.2", ("fer2013", "ckplus"), {"baseline": (None, None)}),
    Table("stn_resnet50", "Section III-B", STN_COLUMNS, {"RAdam": (88.3573, None, None, None)}),
    Table("stn_resnet50", "Section III-C", STN_COLUMNS, {"0.003": (88.5839, 93.76684, None, None)}),
    Table(
        "vgg16_gcca", "Fig. 6(a)", ("fer2013",), {f"lambda {x}": (None,) for x in ("0.0005", "0.001", "0.005", "0.01", "0.05")}
    ),
    Table("vgg16_gcca", "Fig. 6(b)", ("fer2013",), {f"lambda_1 {x}": (None,) for x in range(1, 11)}),
]

CELLS = {
    (table.paper, f"{table.name}, {row}", column): value
    for table in TABLES
    for row, values in table.rows.items()
    for column, value in zip(table.columns, values, strict=True)
}
"""Printed values by paper, table and row, and column."""

RUNS = {
    "fer2013": ["official"],
    "fer2013_random_split": ["official", "random_split"],
    "ferplus10_random_split": ["random_split"],
    "ckplus": ["kfold image", "kfold subject"],
    "rafdb": ["official"],
    "affectnet7": ["official"],
}
"""Protocols that need a recipe, by column. Where a paper's split leaks, there is also one that does not."""

SETTINGS = {
    ("sa_csp_ca", "Table 2, Base"): {"spatial_attention": False, "channel_attention": False, "groups": None},
    ("sa_csp_ca", "Table 2, SA+Base+CA"): {"spatial_attention": True, "channel_attention": True, "groups": None},
    ("sa_csp_ca", "Table 2, SA+Base(g=4)+CA"): {"spatial_attention": True, "channel_attention": True, "groups": 4},
    ("sa_csp_ca", "Table 3, Ours"): {"spatial_attention": True, "channel_attention": True, "groups": 4},
    **{
        ("sa_csp_ca", f"Table 2, Base(g={g})"): {"spatial_attention": False, "channel_attention": False, "groups": g}
        for g in (1, 2, 4, 8)
    },
    ("resnet50_cbam_erf", "Table 1, Ours"): {"activation": "prelu", "shortcut": "hierarchical", "attention": "cbam_erf"},
    ("resnet50_cbam_erf", "Table 2, Ours"): {"activation": "prelu", "shortcut": "hierarchical", "attention": "cbam_erf"},
    **{
        ("vgg16_gcca", f"Table 1, model {k}"): {
            "multi_feature": k >= 2,
            "gcca": k >= 3,
            "partial_decoder": k >= 4,
            "reverse_attention": k >= 5,
        }
        for k in range(1, 7)
    },
}
"""Arguments of the network that a row stands for."""

NETWORKS = {
    "Table 1, EfficientNet": "efficientnet_b0",
    "Table 2, ResNet+CBAM": "resnet50_cbam",
    "Table 2, ResNet+SE": "resnet50_se",
    "Section 4.2, baseline": "resnet50",
    "Table I, VGGFace": "vggface",
    "Table I, Vanilla CNN": "vanilla_cnn",
}
"""Networks of rows whose network is not the paper's own."""

OPTIMIZERS = {"Adam": "adam", "SGD": "sgd", "NAdam": "nadam", "RMSprop": "rmsprop"}
RECIPES = {name: load_recipe(name) for name in recipe_names()}
OF_PAPERS = [name for name, recipe in RECIPES.items() if recipe.paper is not None]


def rows_of(recipe: Recipe) -> list[str]:
    """Return the rows a recipe stands for."""
    assert recipe.paper is not None
    return recipe.paper.table.split("; ")


def column_of(recipe: Recipe) -> str:
    """Return the column a recipe stands for: its corpus and, where the paper names them, its classes and split."""
    corpus = recipe.data.corpus
    if corpus in ("ferplus", "affectnet"):
        corpus += str(recipe.data.options.get("classes", 8))
    return f"{corpus}_random_split" if recipe.name.startswith("stn_resnet50/") else corpus


def protocol_of(recipe: Recipe) -> str:
    part = recipe.data.protocol
    return " ".join([part.get("name", "official"), *([part["by"]] if part.get("name") == "kfold" else [])])


@pytest.mark.parametrize("name", OF_PAPERS)
def test_a_recipe_reports_what_its_paper_prints(name: str):
    recipe, folder = RECIPES[name], name.split("/")[0]
    assert recipe.paper is not None
    assert recipe.paper.title.startswith(TITLES[folder])
    known = {row for paper, row, _ in CELLS if paper == folder}
    assert [row for row in rows_of(recipe) if row not in known] == [], "the paper has no such row"
    expected = {}
    for column in (column_of(recipe), column_of(recipe) + TRAIN):
        printed = [value for row in rows_of(recipe) if (value := CELLS.get((folder, row, column))) is not None]
        if len(set(printed)) > 1:  # the paper contradicts itself: the recipe reports what most rows have, and names both
            assert all(f"{value} %" in " ".join(recipe.deviations) for value in printed)
        if printed:
            expected[column] = mode(printed)
    assert recipe.paper.reported == expected


def test_only_one_run_has_contradicting_figures():
    """Training accuracy of ResNet-50 with Adam at 0.001, in Table I and in Tables II to IV."""
    rows = ("Table I, ResNet50", "Table II, ResNet50 + Adam", "Table III, ResNet50 + Adam + 0.001")
    for column in STN_COLUMNS:
        found = [CELLS["stn_resnet50", row, column] for row in rows]
        assert len(set(found)) == (2 if column.endswith(TRAIN) else 1)


@pytest.mark.parametrize(("paper", "row", "column"), [cell for cell in CELLS if " " not in cell[2] and TRAIN not in cell[2]])
def test_every_row_has_its_recipes(paper: str, row: str, column: str):
    found = [
        protocol_of(RECIPES[name])
        for name in OF_PAPERS
        if name.startswith(f"{paper}/") and row in rows_of(RECIPES[name]) and column_of(RECIPES[name]) == column
    ]
    readings = 2 if paper == "sa_csp_ca" and row.startswith("Table 2, ") else 1  # of the CSP block
    assert sorted(found) == sorted(RUNS[column] * readings)


@pytest.mark.parametrize("name", OF_PAPERS)
def test_a_recipe_sets_what_its_row_means(name: str):
    recipe, folder = RECIPES[name], name.split("/")[0]
    for row in rows_of(recipe):
        assert recipe.model.name == NETWORKS.get(row, expected_network(folder, row))
        wanted = SETTINGS.get((folder, row), {})
        assert {key: recipe.model.arguments.get(key) for key in wanted} == wanted


def test_each_row_of_sa_csp_ca_table_2_has_a_recipe_of_each_block():
    blocks = {
        (row, recipe.model.arguments["block"]): name
        for name, recipe in RECIPES.items()
        if name in OF_PAPERS and name.startswith("sa_csp_ca/")
        for row in rows_of(recipe)
        if row.startswith("Table 2, ")
    }
    assert {row for row, block in blocks if block == "fuse"} == {row for row, block in blocks if block == "gate"}
    assert len(blocks) == 2 * 7
    assert {name.startswith("sa_csp_ca/table2-gate-") == (block == "gate") for (_, block), name in blocks.items()} == {True}


def expected_network(paper: str, row: str) -> str:
    return "resnet50" if paper == "stn_resnet50" and "Attention" not in row else paper


@pytest.mark.parametrize("name", [name for name in OF_PAPERS if name.startswith("resemotenet/")])
def test_resemotenet_trains_as_its_paper_says(name: str):
    """Section III-B: batch of 16, 80 epochs, cross-entropy, SGD, flips, rate x 0.1 when accuracy does not improve."""
    recipe = RECIPES[name]
    optim, train = recipe.optim, recipe.train
    assert (train.batch_size, train.epochs) == (16, 80)
    assert (recipe.loss.name, recipe.loss.arguments) == ("cross_entropy", {})
    assert (optim.name, optim.schedule, optim.plateau_factor, optim.plateau_metric) == ("momentum", "plateau", 0.1, "accuracy")
    others = recipe.augment.model_dump(exclude={"flip", "scale", "erase_area", "views"})
    assert (recipe.augment.flip, recipe.augment.scale, recipe.augment.views) == (0.5, (1.0, 1.0), 1)
    assert not any(others.values())


@pytest.mark.parametrize("name", [name for name in OF_PAPERS if name.startswith("stn_resnet50/")])
def test_a_row_of_stn_resnet50_names_its_optimizer_rate_and_start(name: str):
    recipe = RECIPES[name]
    for row in rows_of(recipe):
        parts = row.split(", ")[1].split(" + ")
        optimizer = next((part for part in parts if part in OPTIMIZERS), "Adam")  # the paper's choice, and its rate
        rate = next((float(part) for part in parts if part.startswith("0.")), 0.001)
        assert recipe.optim.name == ("radam" if parts == ["RAdam"] else OPTIMIZERS[optimizer])
        assert recipe.optim.lr == rate
        assert recipe.optim.momentum == (0 if recipe.optim.name in ("sgd", "rmsprop") else 0.9)  # the frameworks' defaults
        assert recipe.model.start == ("imagenet" if "Transfer Learning" in parts else None)


SIDES = {"resnet50": 112, "stn_resnet50": 112, "vggface": 224, "vanilla_cnn": 48}


@pytest.mark.parametrize("name", [name for name in OF_PAPERS if name.startswith("stn_resnet50/")])
def test_a_network_of_stn_resnet50_gets_images_that_suit_it(name: str):
    recipe = RECIPES[name]
    assert recipe.preprocess.size == (SIDES[recipe.model.name],) * 2
    assert any(f"{SIDES[recipe.model.name]} px" in line for line in recipe.deviations)


@pytest.mark.parametrize("name", [name for name, recipe in RECIPES.items() if recipe.model.name == "stn_resnet50"])
def test_a_recipe_with_the_transformer_says_what_is_ours(name: str):
    said = " ".join(RECIPES[name].deviations)
    assert all(words in said for words in ("two convolutions of 64 filters", "4x4", "damped", "0.01"))


@pytest.mark.parametrize("name", [name for name in OF_PAPERS if name.startswith("vgg16_gcca/")])
def test_vgg16_gcca_counts_epochs_of_fifteen_fixed_views(name: str):
    """Three epochs without a lower loss halve the rate (section 3.3); an epoch shows each of the 15 views once."""
    recipe = RECIPES[name]
    assert (recipe.augment.views, recipe.augment.flip, recipe.augment.degrees) == (15, 0, 0)
    optim = recipe.optim
    assert (optim.schedule, optim.plateau_metric, optim.plateau_factor, optim.plateau_patience) == ("plateau", "loss", 0.5, 2)


@pytest.mark.parametrize("name", [name for name in OF_PAPERS if name.startswith("vgg16_gcca/")])
def test_a_row_of_vgg16_gcca_names_its_loss_and_stability(name: str):
    recipe = RECIPES[name]
    for row in rows_of(recipe):
        table, _, value = row.rpartition(" ")
        island, pair = 0.005, 7.0
        if table == "Fig. 6(a), lambda":
            island = float(value)
        elif table == "Fig. 6(b), lambda_1":
            island, pair = 0.01, float(value)
        joint = row not in {f"Table 1, model {k}" for k in range(1, 6)}
        assert recipe.loss.name == ("joint" if joint else "cross_entropy")
        assert recipe.loss.arguments == ({"island_weight": island, "pair_weight": pair} if joint else {})
        stability = CELLS.get(("vgg16_gcca", row, f"{column_of(recipe)} stability"))
        said = [line for line in recipe.deviations if "standard deviation" in line]
        assert stability is None or said == [f"The standard deviation of the paper's ten runs is {stability:.2f}."]


def test_no_recipe_of_a_split_that_leaks_claims_the_standard_one():
    for name, recipe in RECIPES.items():
        said = " ".join([recipe.summary, *recipe.deviations])
        if recipe.data.protocol.get("name") == "random_split":
            assert "twins" in said, name
        if recipe.data.protocol.get("by") == "image" and recipe.data.corpus == "ckplus":
            assert "frames of one sequence into training and test" in said, name
        if recipe.data.protocol.get("name") == "kfold":
            assert "--set data.protocol.fold=" in said, name
            assert load_recipe(name, {"data.protocol.fold": 3}).data.protocol["fold"] == 3
