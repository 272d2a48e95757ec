# make demo: the main job on a sample image.   make test: everything that is checked.
PYTHON ?= python3
VENV ?= .venv
PY := $(VENV)/bin/python
PIP := $(PY) -m pip install --quiet --disable-pip-version-check -c constraints.txt

# What an installation is built from; Python files are used in place.
BUILT_FROM := pyproject.toml constraints.txt runtime/buffer_checks.h \
  $(wildcard runtime/*/_*.c runtime/*/*_kernel.h)

# Files whose tests share exported models stay with one worker; tests/conftest.py names them.
WORKERS := -n 2 --dist loadgroup --no-loadscope-reorder

TENSORRT_VERSIONS := 10.16.1.11 11.4.0.106
TENSORRT_CODE := -p export.builders -p runtime.sessions -m export.engine

.PHONY: demo test test-all lint typecheck typecheck-tensorrt results soak clean

demo: $(VENV)/.demo
	@$(PY) examples/demo.py

test: $(VENV)/.dev lint typecheck
	$(PY) -m pytest $(WORKERS) -m "not slow and not gpu"

test-all: $(VENV)/.dev
	$(PY) -m pytest $(WORKERS)

lint: $(VENV)/.dev
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .

typecheck: $(VENV)/.dev
	$(PY) -m mypy

# The builder and the session against the bindings of TensorRT itself, which cannot be installed on
# every machine: stubs are generated from its wheels, and from TensorRT-RTX under the same name.
typecheck-tensorrt: $(VENV)/.dev
	@for version in $(TENSORRT_VERSIONS); do \
	  $(PY) tests/typing/tensorrt_stubs.py --version $$version --out $(VENV)/stubs/$$version && \
	  echo "against TensorRT $$version:" && \
	  MYPYPATH=$(VENV)/stubs/$$version $(PY) -m mypy --no-warn-unused-ignores $(TENSORRT_CODE) || exit 1; \
	done
	@$(PY) tests/typing/tensorrt_stubs.py --module tensorrt_rtx --package tensorrt --out $(VENV)/stubs/rtx
	@echo "against TensorRT-RTX:"
	@MYPYPATH=$(VENV)/stubs/rtx $(PY) -m mypy --no-warn-unused-ignores $(TENSORRT_CODE)

results: $(VENV)/.dev
	$(PY) bench/parity.py --json docs/results/parity.json --markdown docs/results/parity.md
	$(PY) bench/paste.py --json docs/results/paste.json --markdown docs/results/paste.md
	$(PY) bench/evaluate.py --json docs/results/evaluate.json --markdown docs/results/evaluate.md
	$(PY) bench/end_to_end.py --json docs/results/end_to_end.json --markdown docs/results/end_to_end.md
	$(PY) bench/masks.py --json docs/results/masks.json --markdown docs/results/masks.md
	$(PY) bench/label_readers.py --against db22482 --json docs/results/labels.json --markdown docs/results/labels.md
	$(PY) bench/runtime.py --photos 2 --json docs/results/runtime.json --markdown docs/results/runtime.md
	$(PY) bench/runtime.py --only "R50 800" --photos 2 --repeats 8 --json docs/results/runtime_r50_800.json --markdown docs/results/runtime_r50_800.md
	$(PY) bench/resize.py --json docs/results/resize.json --markdown docs/results/resize.md
	$(PY) bench/import_time.py --json docs/results/import_time.json --markdown docs/results/import_time.md
	$(PY) bench/export.py --against 4fb7c12 --repeats 2 --json docs/results/export.json --markdown docs/results/export.md
	$(PY) bench/negative_controls.py --json docs/results/negative_controls.json --markdown docs/results/negative_controls.md
	$(PY) bench/native.py --json docs/results/native.json --markdown docs/results/native.md
	$(PY) bench/rounds.py --json docs/results/rounds.json --markdown docs/results/rounds.md
	$(PY) bench/engine.py --json docs/results/engine.json --markdown docs/results/engine.md
	$(PY) bench/precision.py --json docs/results/precision.json --markdown docs/results/precision.md
	$(PY) bench/precision_techniques.py --json docs/results/precision_techniques.json --markdown docs/results/precision_techniques.md
	$(PY) bench/precision_half.py --lowering standard --json docs/results/precision_half.json --markdown docs/results/precision_half.md
	$(PY) bench/precision_half.py --lowering native --json docs/results/precision_half_native.json --markdown docs/results/precision_half_native.md
	$(PY) bench/precision_speed.py --json docs/results/precision_speed.json --markdown docs/results/precision_speed.md
	$(PY) bench/precision_budget.py --qdq tensorrt --picture docs/images/precision_tradeoff.png --groups docs/images/precision_groups.png --json docs/results/precision_budget.json --markdown docs/results/precision_budget.md
	$(PY) bench/precision_engines.py --models demo,keypoint,r50 --json docs/results/precision_engines.json --markdown docs/results/precision_engines.md
	$(PY) bench/precision_engines.py --models c4 --json docs/results/precision_engines_c4.json --markdown docs/results/precision_engines_c4.md
	$(PY) bench/calibration.py --json docs/results/calibration.json --markdown docs/results/calibration.md
	$(PY) bench/cost.py --json docs/results/cost.json --markdown docs/results/cost.md

# Every reliability check in full: about half an hour. After an interrupt: make soak SOAK=--resume
soak: $(VENV)/.dev
	$(PY) bench/soak.py $(SOAK) --json docs/results/soak.json --markdown docs/results/soak.md

$(VENV)/.made:
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "error: Python 3.11 or newer is needed, this is %d.%d; set PYTHON=python3.x" % sys.version_info[:2])'
	@$(PYTHON) -m venv --clear $(VENV)
	@touch $@

$(VENV)/.demo: $(BUILT_FROM) | $(VENV)/.made
	@echo "Setting up $(VENV): PyTorch, ONNX and ONNX Runtime from the package index."
	@echo "About 6 GB on disk, 2 to 5 minutes, once. Nothing outside this folder is changed."
	@$(PIP) -e '.[export,eval]'
	@touch $@

$(VENV)/.dev: $(BUILT_FROM) | $(VENV)/.made
	@echo "Setting up $(VENV) for the tests: PyTorch, ONNX Runtime, OpenVINO, pycocotools, linters."
	@echo "About 6 GB on disk, 2 to 5 minutes, once. Nothing outside this folder is changed."
	@$(PIP) -e '.[dev]'
	@touch $@ $(VENV)/.demo

clean:
	rm -rf $(VENV) demo-out soak-out
