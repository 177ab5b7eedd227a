# Every target makes the environment first where it is missing or stale. A fresh machine needs Python 3.11 and make.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
LOCK_FLAGS := --universal --python-version 3.11 --generate-hashes --no-annotate --no-header --no-emit-index-url --quiet
# Studies whose records are committed in experiments/, each the name of its experiment.
EXPERIMENTS ?= softmax_mnist lenet_mnist convnet_fashion_mnist mlp_mnist convnet_cifar10 stn_mnist depth_cifar10 depth_mnist perceptron_xor perceptron_digits mlp_xor polynomial_diabetes svm_mnist kernels_mnist gated_cifar10 transfer_fashion_mnist vgg_cifar10 alexnet_cifar10 resnet20_cifar10 zfnet_cifar10 attention_cifar10 googlenet_cifar10 perceptron_and perceptron_or resnet_cifar10 senet_cifar10 googlenet_bn_cifar10 maxout_mnist
# transfer_fashion_mnist begins with the result of a short lenet_mnist, which is not the committed one: both in a store of their own.
STORE_transfer_fashion_mnist := .cache/transfer
BEFORE_transfer_fashion_mnist = $(BIN)/dlsearch -m experiment=lenet_mnist study.n_trials=4 trainer.max_epochs=3 paths.store=$(STORE_transfer_fashion_mnist);
IN_STORE = $(if $(STORE_$(name)),paths.store=$(STORE_$(name)))
# What differs from the recipe, by name: without it these take hours on two cores, and some ask for a GPU.
SIZE_convnet_fashion_mnist := trainer.precision=bf16-mixed
SIZE_convnet_cifar10 := trainer.precision=bf16-mixed
SIZE_kernels_mnist := data.train_size=20000 study.confirm.top=1 study.confirm.seeds=3
SIZE_maxout_mnist := data.train_size=20000 study.n_trials=6 study.confirm.top=1 study.confirm.seeds=3
SMALL := trainer.precision=bf16-mixed data.train_size=5000 data.val_size=2000 trainer.max_epochs=8 study.n_trials=4 study.confirm.top=1 study.confirm.seeds=3
$(foreach name,alexnet zfnet vgg googlenet resnet20 gated attention,$(eval SIZE_$(name)_cifar10 := $(SMALL)))
# The three that ask for a GPU, in a size that says no more than that they learn.
LARGE := trainer.precision=bf16-mixed data.batch_size=64 optimizer.lr=0.05 trainer.max_epochs=5 study.n_trials=2 study.confirm.top=1 study.confirm.seeds=3
SIZE_resnet_cifar10 := $(LARGE) data.train_size=2000 data.val_size=1000
$(foreach name,senet googlenet_bn,$(eval SIZE_$(name)_cifar10 := $(LARGE) data.train_size=1500 data.val_size=500))
# Each worker imports torch and Lightning for itself, which takes ten seconds of a core.
TEST_WORKERS ?= 2

unexport PYTHONPATH PYTHONHOME
.DEFAULT_GOAL := help
# Set in some containers; without compiled modules every start costs seconds more.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help env demo test test-storms check format bench experiments ui docs lock clean

help:  ## Say what there is to make
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-11s %s\n", $$1, $$2}' Makefile

$(READY): requirements.lock pyproject.toml
	@command -v $(PYTHON) >/dev/null || { echo "make: no $(PYTHON) here: install Python 3.11 or newer, or name one: make PYTHON=..." >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "make: $$($(PYTHON) --version) is too old: install Python 3.11 or newer, or name one: make PYTHON=..." >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { echo "make: $(PYTHON) has no venv module: install it (Debian: apt install python3-venv)" >&2; exit 1; }
	@echo "environment: installing the locked packages into $(VENV)"
	@rm -f $@
	@$(BIN)/python -c 'import pip, sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || $(PYTHON) -m venv --clear $(VENV)
	@awk '/^uv==/ {on = 1} on {print} on && !/\\$$/ {exit}' requirements.lock > $(VENV)/uv.txt
	@$(BIN)/python -m pip install -qq --disable-pip-version-check --no-deps --require-hashes -r $(VENV)/uv.txt
	@$(BIN)/uv pip sync --quiet --python $(BIN)/python --require-hashes requirements.lock
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --editable .
	@touch $@

env: $(READY)  ## Make the environment in .venv from requirements.lock
	@:

demo: $(READY)  ## Run a study of 24 trials on real digits and write its report
	@$(BIN)/dlsearch -m experiment=quickstart

test: $(READY)  ## Run all tests; those on MNIST and CIFAR-10 need DLSEARCH_DATA
	@$(BIN)/python -m pytest -q -n $(TEST_WORKERS) --dist loadfile --no-loadscope-reorder $(ARGS)

test-storms: $(READY)  ## Run the tests that make test leaves out: storms, clusters and outages
	@$(BIN)/python -m pytest -q -n $(TEST_WORKERS) --dist loadfile --no-loadscope-reorder -m storm $(ARGS)

check: $(READY)  ## Check format, style, types, layers and measures
	@$(BIN)/ruff format --check --quiet --output-format concise . || { echo "make: some files are not formatted: make format" >&2; exit 1; }
	@$(BIN)/ruff check --quiet --output-format concise .
	@$(BIN)/mypy --no-error-summary
	@$(BIN)/lint-imports --no-cache > $(VENV)/layers.txt 2>&1 || { cat $(VENV)/layers.txt; exit 1; }
	@$(BIN)/python .ci/measures
	@echo "check: format, style, types, layers and measures are fine"

format: $(READY)  ## Format the code and mend what can be mended
	@$(BIN)/ruff check --quiet --fix-only .
	@$(BIN)/ruff format --quiet .

bench: $(READY)  ## Run the short benchmarks (DLSEARCH_DATA names the data); the others are in benchmarks/README.md
	@set -e; for name in journal_row loader startup step_overhead; do echo "== $$name"; $(BIN)/python benchmarks/$$name.py; done

# Records hold the paths as given, so these are relative; a study that is finished in mlruns/ is only written again.
# They are written after all studies have run: a study notes what differs from the last commit.
experiments: $(READY)  ## Run the studies in experiments/ and write their records there (hours; EXPERIMENTS names some)
	@set -e; unset DLSEARCH_STORE; \
	if [ -n "$$DLSEARCH_DATA" ]; then \
	  mkdir -p .cache; ln -sfn "$$(cd "$$DLSEARCH_DATA" && pwd)" .cache/experiments-data; \
	  export DLSEARCH_DATA=./.cache/experiments-data; \
	fi; \
	$(foreach name,$(EXPERIMENTS),$(BEFORE_$(name)) $(BIN)/dlsearch -m experiment=$(name) $(SIZE_$(name)) $(IN_STORE) $(ARGS);) \
	$(foreach name,$(EXPERIMENTS),$(BIN)/dlsearch report $(name) --out experiments/$(name) $(IN_STORE); \
	  cp $(or $(STORE_$(name)),mlruns)/studies/$(name)/config.yaml experiments/$(name)/config.yaml;) true

ui: $(READY)  ## Open MLflow and the Optuna dashboard on what is in mlruns/
	@$(BIN)/dlsearch ui

docs: $(READY)  ## Write the reference of the Python modules to build/docs/
	@$(BIN)/pdoc --docformat google --output-directory build/docs dlsearch '!dlsearch._hydra'
	@echo "docs: build/docs/index.html; the guides are in docs/"

lock: $(READY)  ## Resolve the newest versions in range into requirements.lock
	@$(BIN)/uv pip compile pyproject.toml --group dev --extra postgres --extra joblib --extra plotly --extra onnx $(LOCK_FLAGS) --upgrade --output-file requirements.lock > /dev/null

clean:  ## Remove the environment, caches and build outputs; mlruns/ stays
	@rm -rf $(VENV) .cache .ruff_cache .mypy_cache .pytest_cache .import_linter_cache build dist
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
