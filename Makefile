# Each target makes the environment first where it is missing or older than what it is made from.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
TOOLS := build/tools

# Three processes test at once on two cores: much of a test is waiting for a worker or a job to start.
PYTEST := $(BIN)/python -m pytest -n 3 --dist loadgroup --no-loadscope-reorder

.DEFAULT_GOAL := help
.PHONY: help install demo bench docs docs-gallery docs-serve test test-fast test-slurm-slow torture torture-map fuzz damage lint format lock sbom gpu-wheels clean

help: ## Show the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-15s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: $(STAMP) ## Make .venv and install the package; PYTHON=python3.12 chooses another interpreter

demo: $(STAMP) ## Map a small made-up country from delivery to national Zarr, into build/demo
	$(BIN)/landcover demo --out build/demo

bench: $(STAMP) ## Measure engines, feed, run, halo and int8 on this machine, into build/bench (some 20 minutes on 2 cores)
	$(BIN)/landcover bench --out build/bench

docs: $(STAMP) ## Build the documentation into build/site; fails on broken links and on names without documentation
	$(BIN)/python -m docs.builder

docs-gallery: $(STAMP) ## Execute the notebooks on the demo (make demo first), and draw the README's picture
	rm -rf build/gallery
	$(BIN)/jupyter nbconvert --to notebook --execute --output-dir build/gallery notebooks/*.ipynb
	$(BIN)/python -m docs.builder.demo_picture

docs-serve: docs ## Show the documentation on http://127.0.0.1:8000
	$(BIN)/python -m http.server --bind 127.0.0.1 --directory build/site 8000

test: lint docs ## Lint, build the documentation, then all tests
	$(PYTEST)

test-fast: $(STAMP) ## All tests but the slow ones: within three minutes on 2 cores
	$(PYTEST) -m "not slow and not slurm_slow"

test-slurm-slow: $(STAMP) ## The tests that wait for SLURM's own clocks, and training on two nodes
	$(BIN)/python -m pytest -m slurm_slow

torture-map: $(STAMP) ## Kill `landcover map` KILLS=10 times at random moments (SEED=n repeats one); a few minutes
	$(BIN)/python -m tests.runs.workflow.map_kills $(or $(KILLS),10) $(SEED)

torture: $(STAMP) ## Kill a small campaign KILLS=200 times at random moments (SEED=n repeats one); within 50 minutes
	$(BIN)/python -m tests.runs.mapping.torture $(or $(KILLS),200) $(SEED)

fuzz: $(STAMP) ## Damage files of every format for MINUTES=30 and sort what comes of it (SEED=n FORMAT=… INPUT=n repeats one)
	$(BIN)/python -m tests.untrusted.fuzz --minutes $(or $(MINUTES),30) $(if $(SEED),--seed $(SEED)) \
	  $(if $(FORMAT),--format '$(FORMAT)') $(if $(INPUT),--input $(INPUT))

damage: $(STAMP) ## Damage a small published campaign at PLACES=200 random places (SEED=n repeats one); within 20 minutes
	$(BIN)/python -m tests.runs.quality.damage $(or $(PLACES),200) $(SEED)

lint: $(STAMP) ## Style, types and layers
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(STAMP) ## Put the code into its format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Linux and CPython up to 3.13 are in the header; without these markers, and with one line a package, grep can leave
# packages out. uv keeps the versions that the present file has and constraints.txt lacks: CUDA's libraries.
lock: $(TOOLS)/.installed ## Write requirements.lock anew from constraints.txt, with the SHA-256 of each file
	$(TOOLS)/bin/uv pip compile pyproject.toml --quiet --universal --no-python-downloads --python-version 3.11.5 \
	  -c constraints.txt --extra cpu --extra cuda --extra train --extra vectors \
	  --generate-hashes --no-annotate --no-header --no-emit-index-url --no-emit-find-links -o requirements.lock
	sed -i -e ':join' -e '/\\$$/{N;s/ *\\\n */ /;bjoin' -e '}' \
	  -e "s/ ; python_full_version < '3.14' and platform_[a-z_]* == 'CPython' and sys_platform == 'linux'//" requirements.lock
	sed -i '1i # Made by `make lock`, for CPython 3.11.5 to 3.13 on Linux: constraints.txt and the CUDA libraries of PyTorch.' \
	  requirements.lock

sbom: $(TOOLS)/.installed ## Write build/sbom.cdx.json: what requirements.lock installs, as CycloneDX; ENVIRONMENT=.venv lists that instead
	mkdir -p build
	sed "s/^dynamic = .*/version = \"$$(sed -n 's/^__version__ = "\(.*\)"/\1/p' pipeline/__init__.py)\"/" pyproject.toml > build/pyproject.toml
	$(TOOLS)/bin/cyclonedx-py $(if $(ENVIRONMENT),environment $(ENVIRONMENT),requirements requirements.lock) \
	  --pyproject build/pyproject.toml --output-reproducible --output-file build/sbom.cdx.json

gpu-wheels: $(STAMP) ## Collect what `landcover bench gpu` needs beside PyTorch, for a machine without internet: build/gpu-wheels.tar.xz
	$(BIN)/python -m pipeline.bench.development.gpu_wheels

clean: ## Remove .venv, build/, dist/ and the tools' caches
	rm -rf $(VENV) build dist .cache .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "landcover-pipeline needs Python 3.11 or newer, and '$(PYTHON)' is $$($(PYTHON) --version 2>&1)." >&2; \
	  echo "Name another one, for example: make install PYTHON=python3.12" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); exit 1; }

# Apart from .venv, so that they are in no list of what is installed.
$(TOOLS)/.installed: constraints.txt
	$(PYTHON) -m venv $(TOOLS)
	$(TOOLS)/bin/python -m pip install --disable-pip-version-check --quiet -c constraints.txt cyclonedx-bom uv
	@touch $@

$(STAMP): pyproject.toml constraints.txt hatch_build.py $(shell find pipeline/products/map_page/web -type f) | $(BIN)/python
	@echo 'installing into $(VENV), once: some 3 GB'
	$(BIN)/python -m pip install --disable-pip-version-check --quiet -c constraints.txt -e '.[cpu,dev,docs,notebooks,train,vectors]'
	@touch $@
