# Every target does its own set-up: a fresh clone needs Python 3.11 to 3.13 and make, nothing else.
SHELL := /bin/bash
.SHELLFLAGS := -o pipefail -c
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
LAB := $(VENV)/.lab

.DEFAULT_GOAL := help
.PHONY: help book pdf latex lab test fuzz bench lint lock records clean

help:  ## show this list
	@echo "quantskew: an executable book on how quantization disparately skews a model"
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

$(READY): requirements.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' \
		|| { echo "quantskew needs Python 3.11 to 3.13: name one, as in make PYTHON=python3.12"; exit 1; }
	@test -x $(BIN)/python || { echo "creating $(VENV)"; $(PYTHON) -m venv $(VENV); }
	@echo "installing requirements.txt into $(VENV) (one to three minutes)"
	@$(BIN)/python -m pip install --disable-pip-version-check --progress-bar off --requirement requirements.txt \
		| awk '/^Collecting/ {printf "  found %d packages\r", ++n} /^Installing/ {print "\n  installing them"}; fflush()'
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	@touch $@

book: $(READY)  ## execute the chapters and build the book: _build/html/index.html
	@$(BIN)/quantskew book
	@$(BIN)/jupyter-book build . -W -n --keep-going --quiet
	@echo "the book: $(CURDIR)/_build/html/index.html"

latex:
	@for tool in xelatex latexmk; do command -v $$tool >/dev/null || { \
		echo "make pdf needs LaTeX, and there is no $$tool here. On Debian or Ubuntu:"; \
		echo "  apt-get install --no-install-recommends texlive-xetex texlive-latex-extra \\"; \
		echo "    texlive-fonts-recommended fonts-freefont-otf latexmk"; \
		echo "elsewhere TeX Live has it. The rest of the book does without."; exit 1; }; done

pdf: latex $(READY)  ## build the book as one document: _build/latex/quantskew.pdf (needs LaTeX)
	@$(BIN)/quantskew book
	@$(BIN)/jupyter-book build . --builder latex -W -n --keep-going --quiet
	@cd _build/latex && latexmk -xelatex -halt-on-error -interaction=batchmode -silent quantskew.tex >/dev/null 2>&1 \
		|| { echo "LaTeX failed; its last words are in _build/latex/quantskew.log"; exit 1; }
	@echo "the book: $(CURDIR)/_build/latex/quantskew.pdf"

# JupyterLab opens text notebooks as text until it is told otherwise: told here for this environment alone.
$(LAB): $(READY) requirements-lab.txt
	@echo "installing requirements-lab.txt into $(VENV)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --progress-bar off --requirement requirements-lab.txt
	@JUPYTER_CONFIG_DIR=$(abspath $(VENV))/etc/jupyter $(BIN)/python -m jupytext_config set-default-viewer markdown
	@touch $@

lab: $(LAB)  ## open the chapters as notebooks in JupyterLab; OPTIONS are passed on
	@$(BIN)/python -m jupyterlab --LabApp.default_url=/lab/tree/notebooks/00_problem.md $(OPTIONS)

# A process for each processor, with one thread; a file stays in one process, which makes what its tests share.
test: $(READY)  ## run all tests
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses logical --maxprocesses 4 --dist loadfile
	@echo "all tests passed (their settings: pyproject.toml)"

fuzz: $(READY)  ## kill every kind of work at random moments, KILLS=300 times or for MINUTES=20
	@$(BIN)/python tests/fuzz/campaign.py --kills $(or $(KILLS),300) --minutes $(or $(MINUTES),20) --seed $(or $(SEED),0)

bench: $(READY)  ## run the benchmarks, and print their table, which is book/records/speed.csv
	@for script in tests/benchmarks/bench_*.py; do $(BIN)/python $$script || exit 1; done
	@$(BIN)/python tests/benchmarks/ratios.py

lint: $(READY)  ## check style and formatting
	@$(BIN)/ruff check src tests
	@$(BIN)/ruff format --check src tests

lock: $(READY)  ## pin requirements.txt anew from the ranges in pyproject.toml
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	@$(BIN)/uv pip compile pyproject.toml --extra book --extra test --universal --python-version 3.11 --quiet \
		--custom-compile-command "make lock" --output-file requirements.txt --upgrade
	@$(BIN)/uv pip compile pyproject.toml --extra lab --universal --python-version 3.11 --quiet \
		--constraint requirements.txt --custom-compile-command "make lock" --output-file requirements-lab.txt --upgrade
	@echo "pinned: requirements.txt, requirements-lab.txt"

records: $(READY)  ## make or resume book/records from DATA=path/to/UTKFace.tar.gz, for SEEDS=3
	@test -n "$(DATA)" || { echo "name the images: make records DATA=path/to/UTKFace.tar.gz"; exit 1; }
	@$(BIN)/quantskew records utkface --data-dir "$(DATA)" --seeds $(or $(SEEDS),3)
	@for name in utkface_gender utkface_mobilenet; do \
		$(BIN)/quantskew records $$name --data-dir "$(DATA)" --base-only || exit 1; done
	@OMP_NUM_THREADS=1 $(BIN)/quantskew records digits --base-only
	@$(BIN)/quantskew audit utkface --data-dir "$(DATA)"
	@cp runs/utkface/figures/group_accuracy.png book/images/utkface_accuracy.png

clean:  ## remove what was built here (not .venv, not the cache of models)
	@rm -rf _build book/chapters .cache runs .pytest_cache .ruff_cache
