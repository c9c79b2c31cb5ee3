# Two commands do all the set-up on a fresh machine with Python (3.10 or later) and pip:
#   make demo [PROMPT="a cat on a blue background"]     paints a picture and prints where it is
#   make test                                           runs the tests
PYTHON ?= python3
VENV   ?= .venv
PROMPT ?= a fox on a teal background
OUT    ?= output
export PROMPT

READY := $(VENV)/.ready

.PHONY: demo test test-slow bench previews pictures lint comfy-check registry-check wheel clean

demo: $(READY)
	@$(VENV)/bin/wegen run workflows/text_to_picture.json --set "WeGenChat.message=$$PROMPT" --out "$(OUT)"

test: $(READY)
	@$(VENV)/bin/python -m pytest -m "not slow"

test-slow: $(READY)
	@$(VENV)/bin/python -m pytest

# times of model, nodes, data and training, as ratios: benchmarks/README.md
bench: $(READY)
	@$(VENV)/bin/python -m wegen.benchmarks

# runs every example workflow and rewrites its preview: make previews [MODEL=folder]; WEGEN_COMFYUI=checkout for those with KSampler
previews: $(READY)
	@$(VENV)/bin/python -m wegen.tests.previews $(if $(MODEL),--model "$(MODEL)")

# draws the pictures of help pages and README anew: needs WEGEN_COMFYUI (tests/comfyui/conftest.py) and Chromium
pictures: $(READY)
	@$(VENV)/bin/pip install -q -c constraints.txt -e ".[comfyui]"
	@$(VENV)/bin/python -m wegen.tests.comfyui.pictures

# form, style and types; settings in pyproject.toml
lint: $(READY)
	@$(VENV)/bin/pip install -q --disable-pip-version-check -c constraints.txt -e ".[lint]"
	@$(VENV)/bin/ruff check .
	@$(VENV)/bin/ruff format --check .
	@mkdir -p $(VENV)/lint && ln -sfn $(CURDIR) $(VENV)/lint/wegen  # mypy knows a package by its folder's name
	@cd $(VENV)/lint && $(abspath $(VENV))/bin/mypy --config-file $(CURDIR)/pyproject.toml -p wegen.wegen_model -p wegen.nodes

# what the pack uses of ComfyUI, name by name, against checkouts: make comfy-check WEGEN_COMFYUI="~/ComfyUI ~/ComfyUI-older"
comfy-check: $(READY)
	@$(VENV)/bin/python -m wegen.tests.comfy_check $(or $(WEGEN_COMFYUI),$(error say where ComfyUI is: make comfy-check WEGEN_COMFYUI=folder))

# what the registry would refuse, and what its archive would hold
registry-check: $(READY)
	@$(VENV)/bin/python -m wegen.tests.registry

# dist/wegen-VERSION-py3-none-any.whl, the same bytes for the same commit
wheel: $(READY)
	@rm -rf build
	@SOURCE_DATE_EPOCH=$$(git log -1 --format=%ct) $(VENV)/bin/pip wheel -q --no-deps --no-build-isolation -w dist .

# the environment: pinned by constraints.txt, installed once and again when what it needs has changed
$(READY): pyproject.toml constraints.txt
	@test -x $(VENV)/bin/python || $(PYTHON) -m venv $(VENV)
	@echo "Installing the environment into $(VENV) …" >&2
	@$(VENV)/bin/pip install -q --disable-pip-version-check -c constraints.txt -e ".[test]"
	@touch $@

clean:
	rm -rf $(VENV) output
