# Everything from a fresh clone: `make demo`, `make test`. Needs Python 3.11 with its venv module, nothing else.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
CONTAINER_ENGINE ?= podman
IMAGE_BUILD ?= $(CONTAINER_ENGINE) build
IMAGE ?= sdlora:latest
# Noted in the image, and from there in every manifest; empty where this is no checkout.
COMMIT ?= $(shell git describe --always --abbrev=12 --exclude='*' --dirty=.dirty 2>/dev/null)
export HF_HUB_OFFLINE ?= 1
# Keeps the layer of the dependencies: without it, every change of the code would install them anew.
export BUILDAH_LAYERS ?= true

.DELETE_ON_ERROR:
.PHONY: help demo test test-unit test-integration test-stores test-gpu soak lint format image test-image benchmark lock readme clean

help:
	@echo "make demo        the whole chain on the miniature: data set, LoRA, images, decision"
	@echo "make test        unit and integration tests; test-unit and test-integration are its halves"
	@echo "make test-stores the stores that Debian has, Ceph and Swift: artifacts, promotions and the chain; installs them, as root"
	@echo "make test-gpu    training, exactness, drawing and memory on a GPU, one of which it needs"
	@echo "make soak        the chain stopped and killed at 50 random moments; some 5 minutes"
	@echo "make lint        ruff, mypy, hadolint"
	@echo "make image       the container image $(IMAGE)"
	@echo "make test-image  the built image and the Kubernetes manifests"
	@echo "make benchmark   the figures of the README, against the peers; some two hours"
	@echo "make readme      brings the README's exit codes and the pages of settings and formats up to date"
	@echo "make lock        resolves the dependencies anew into the two lock files"

$(VENV)/python:
	$(PYTHON) -m venv $(VENV)
	@touch $@

# pip alone: the lock files carry a hash for every wheel, and pip refuses any other.
$(VENV)/runtime: docker/requirements.txt pyproject.toml | $(VENV)/python
	$(BIN)/pip install --quiet --require-hashes -r docker/requirements.txt
	$(BIN)/pip install --quiet --no-deps --no-build-isolation --editable .
	@touch $@

$(VENV)/development: tests/requirements.txt $(VENV)/runtime
	$(BIN)/pip install --quiet --require-hashes -r tests/requirements.txt
	@touch $@

demo: $(VENV)/runtime
	$(BIN)/sdlora demo

# The tests run side by side, one core each.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist loadfile --no-loadscope-reorder --max-worker-restart=0

test: $(VENV)/development
	$(PYTEST)

test-unit test-integration: test-%: $(VENV)/development
	$(PYTEST) tests/$*

STORE_PACKAGES := ceph-mon ceph-osd ceph-common radosgw swift-proxy swift-account swift-container swift-object

test-stores: $(VENV)/development
	dpkg -s $(STORE_PACKAGES) >/dev/null 2>&1 || { apt-get update && apt-get install -y --no-install-recommends $(STORE_PACKAGES); }
	SDLORA_STORES=ceph,swift $(BIN)/python -m pytest -k "ceph or swift" \
	  tests/integration/test_artifacts.py tests/integration/test_registry_races.py tests/integration/test_chain.py

# Not side by side: they share the memory of one device.
test-gpu: $(VENV)/development
	@$(BIN)/python -m tests.gpu
	$(BIN)/python -m pytest tests/gpu

soak: $(VENV)/development
	SDLORA_SOAK=50 $(BIN)/python -m pytest --timeout=7200 -s tests/integration/test_disturbed.py

lint: $(VENV)/development
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/hadolint docker/Dockerfile

format: $(VENV)/development
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

image:
	$(IMAGE_BUILD) -f docker/Dockerfile --build-arg COMMIT=$(COMMIT) -t $(IMAGE) .

test-image: $(VENV)/development image
	CONTAINER_ENGINE=$(CONTAINER_ENGINE) SDLORA_IMAGE=$(IMAGE) $(BIN)/python -m pytest tests/container

benchmark: $(VENV)/development
	$(BIN)/python -m tests.benchmarks.fetching
	$(BIN)/python -m tests.benchmarks.screening
	$(BIN)/python -m tests.benchmarks.captioning
	$(BIN)/python -m tests.benchmarks.many_candidates
	$(BIN)/python -m tests.benchmarks.training
	$(BIN)/python -m tests.benchmarks.many_images
	$(BIN)/python -m tests.benchmarks.checkpoints
	$(BIN)/python -m tests.benchmarks.transfers
	$(BIN)/python -m tests.benchmarks.learning

readme: $(VENV)/runtime
	$(BIN)/python -m tests.readme
	$(BIN)/python -m tests.formats

lock: $(VENV)/development
	$(BIN)/pip-compile --quiet --generate-hashes --strip-extras --allow-unsafe --no-emit-index-url --no-emit-find-links \
	  --no-emit-options --extra heic --output-file docker/requirements.txt pyproject.toml
	$(BIN)/pip-compile --quiet --generate-hashes --strip-extras --allow-unsafe --no-emit-index-url --no-emit-find-links \
	  --no-emit-options --extra dev --constraint docker/requirements.txt --output-file tests/requirements.txt pyproject.toml

clean:
	rm -rf $(VENV) .cache build artifacts
