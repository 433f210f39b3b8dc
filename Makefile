# `make study` repeats the report's study from nothing and says where its page is; `make test` is all that is checked, here and elsewhere;
# `make gallery` draws the pictures of docs/gallery.md anew.
PYTHON ?= python3
# Options for pip where PyTorch is installed, such as an index with builds for the CPU, which are smaller and all that predicting needs.
TORCH_INDEX ?=
VENV := .venv
BIN := $(VENV)/bin
# DeepSpeed builds itself against the PyTorch that is there, with the tools that are there.
FIRST := torch==2.13.0 setuptools wheel py-cpuinfo ninja hatchling editables
# A file's tests share what it captures and trains, so they stay in one process; tests/conftest.py has long files begin first.
TWO := -n 2 --dist loadfile --no-loadscope-reorder

.PHONY: study test gallery format clean

study: $(VENV)/all
	$(BIN)/membound study hbm-fine-tuning --out build/hbm-fine-tuning

test: $(VENV)/all
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy --strict membound
	$(BIN)/pytest $(TWO)

gallery: $(VENV)/all
	$(BIN)/python examples/gallery/build.py

format: $(VENV)/all
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

$(VENV)/all: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --constraint constraints.txt $(TORCH_INDEX) $(FIRST)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --no-build-isolation --editable '.[all,dev]'
	touch $@

clean:
	rm -rf $(VENV) build
