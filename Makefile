# Two commands: `make demo` and `make test`. Each sets up what it needs, once.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
DEMO_DIR ?= demo

.PHONY: demo test test-all lint install install-dev benchmark-speed benchmark-accuracy clean

demo: $(VENV)/.installed  ## Train, predict and score on synthetic images; writes demo/report.html
	$(BIN)/segnetr demo --out $(DEMO_DIR)

test: lint  ## Lint, types, import layers and the tests
	$(BIN)/pytest -n 2 --dist worksteal -m "not exhaustive"

test-all: lint  ## `make test`, and the same properties on every network; before a release
	$(BIN)/pytest -n 2 --dist worksteal

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

install: $(VENV)/.installed
install-dev: $(VENV)/.installed-dev

benchmark-speed: $(VENV)/.installed-dev  ## Time the networks beside the U-Net and MONAI's
	$(BIN)/python benchmarks/speed.py

benchmark-accuracy: $(VENV)/.installed-dev  ## Train SegNetr and MONAI's BasicUNet, three seeds each
	$(BIN)/python benchmarks/accuracy.py

# torch first and from constraints.txt: a looser requirement would pull the CUDA packages of a newer build.
$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet torch -c constraints.txt
	$(BIN)/python -m pip install --quiet -e . -c constraints.txt
	touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet -e '.[dev,dicom,export,samples]' -c constraints.txt
	touch $@

clean:
	rm -rf $(VENV) $(DEMO_DIR) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
