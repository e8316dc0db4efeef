# The only verbs to remember: demo, test, check, fuzz, bench, tables, docs, web, wheel.
# Everything is installed into .venv; the stamps in it let a second call start at once.

PYTHON ?= python3
PIP = .venv/bin/python -m pip install -qq --disable-pip-version-check -c constraints.txt
BIN = .venv/bin

.DEFAULT_GOAL := help
WEB = src/mien/server/page/device/ort/VERSION

.PHONY: help demo test lowest lowest-train check fuzz bench tables docs web wheel clean

help:
	@echo "make demo    install mien and recognise the expressions in a photo"
	@echo "make test    install what tests need and run them all"
	@echo "make lowest  run the tests that need no torch with the lowest allowed versions;"
	@echo "             make lowest-train: those of training, with torch (6 GB)"
	@echo "make check   format, lint, types, imports, generated pages; under a minute"
	@echo "make fuzz    read 20,000 damaged files of every kind; MIEN_FUZZ=1000000 make fuzz runs for hours"
	@echo "make bench   measure speed; writes benchmarks/runs/"
	@echo "make tables  write the generated tables and pictures of README.md and docs/ again"
	@echo "make web     fetch onnxruntime-web, with which the page recognises in the browser; needs npm"
	@echo "make wheel   build the wheel, with onnxruntime-web, into dist/"
	@echo "make docs    build the documentation into site/"
	@echo "Another Python: make demo PYTHON=python3.12"

demo: .venv/base.stamp
	@$(BIN)/mien predict docs/assets/astronaut.jpg --annotate demo.png
	@echo "The annotated picture: $(CURDIR)/demo.png"

test: .venv/dev.stamp
	@$(BIN)/python -m pytest -n 2 --dist loadfile --durations=20

TORCHLESS = $(addprefix tests/, predict output video faces cli/test_predict.py cli/test_camera.py cli/test_doctor.py test_atomic.py \
	test_errors.py test_image.py test_labels.py test_model_info.py test_offline.py test_onnx_session.py test_preprocess.py \
	test_provenance.py test_registry.py test_structures.py test_weights.py)

TORCH = $(addprefix tests/, datasets engine layers losses models cli/test_training.py test_augment.py test_checkpoint.py \
	test_evaluate.py test_metrics.py test_recipe.py test_transfer.py)

lowest: EXTRAS = tables,heic,detectors,camera
lowest: TESTS = $(TORCHLESS)
lowest-train: EXTRAS = train,tables,heic,detectors,camera
lowest-train: TESTS = $(TORCH)
lowest lowest-train: .venv/python.stamp
	@$(PIP) uv
	@$(BIN)/uv venv -q --clear .venv/$@
	@$(BIN)/uv pip install -q --python .venv/$@ --resolution lowest-direct '.[$(EXTRAS)]'
	@$(BIN)/uv pip freeze --python .venv/$@ | grep -v '^mien' > .venv/$@.txt
	@$(BIN)/uv pip install -q --python .venv/$@ -c .venv/$@.txt pytest hypothesis onnx scikit-image tifffile
	@PYTHONPATH=src .venv/$@/bin/python -m pytest -o filterwarnings= $(TESTS)

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

wheel: $(WEB) .venv/dev.stamp
	@$(BIN)/python -m build --outdir dist .

clean:
	@rm -rf .venv site build dist demo.png

$(WEB): scripts/vendor_web.py | .venv/base.stamp
	@$(BIN)/python scripts/vendor_web.py

.venv/python.stamp:
	@$(PYTHON) -c 'import sys; v = sys.version_info; (3, 11) <= v < (3, 14) or sys.exit("mien needs Python 3.11, 3.12 or 3.13; $(PYTHON) is %d.%d. Name another: make PYTHON=python3.12" % v[:2])'
	@$(PYTHON) -m venv .venv || { echo "$(PYTHON) cannot make a virtual environment; on Debian or Ubuntu: apt install python3-venv"; exit 1; }
	@touch $@

.venv/base.stamp: .venv/python.stamp pyproject.toml constraints.txt
	@echo "Installing mien into .venv (about 350 MB) ..."
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
