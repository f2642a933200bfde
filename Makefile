# The commands of a checkout; `make` alone lists them. Each makes or repairs the environment it needs.
PYTHON ?= python3
BIN := .venv/bin
DEVICE_PYTHONS := 3.10 3.13
DEVICE_TESTS := tests/agent
SKIP_ALLOWANCE = $(if $(CI),--skip-allowance=$(1))
export PATH := $(PATH):/usr/sbin:/sbin

# The version is asked for in a way that any Python understands.
define python_is_new_enough
@command -v $(PYTHON) >/dev/null || { echo "edge-agent: $(PYTHON) is missing; run: sudo apt-get install -y python3 python3-venv" >&2; exit 1; }
@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { echo "edge-agent: needs Python 3.10 or newer, $(PYTHON) is $$($(PYTHON) -V 2>&1); say \`make $@ PYTHON=/path/to/python3.11\`" >&2; exit 1; }
endef

# Usage: $(call environment,PURPOSE)
define environment
$(python_is_new_enough)
@$(PYTHON) .ci/environment.py $(1)
endef

.PHONY: help
help: ## list the commands
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1|\2/p' $(MAKEFILE_LIST) | while IFS='|' read -r name text; do printf '%-20s %s\n' "$$name" "$$text"; done

.PHONY: demo
demo: ## a broker, a synthetic camera and the demo model, live in this terminal; SECONDS=20 ends it
	$(call environment,demo)
	@$(BIN)/edge-agent demo $(if $(SECONDS),--seconds $(SECONDS))

.PHONY: test
test: ## all tests, with the coverage of agent/ and the list of skips
	$(call environment,full)
	@$(BIN)/python -m pytest --cov --cov-report=term:skip-covered --cov-fail-under=90 $(call SKIP_ALLOWANCE,test)

.PHONY: test-device
test-device: ## the device side's tests on the other supported Pythons, where they exist
	$(python_is_new_enough)
	@missing=0; for version in $(DEVICE_PYTHONS); do \
	  python=$$($(PYTHON) .ci/environment.py find $$version) || { echo "skipped: Python $$version was not found"; missing=$$((missing + 1)); continue; }; \
	  echo "the device tests on Python $$version"; \
	  $(PYTHON) .ci/environment.py device --python "$$python" --folder .venv-py$$version || exit 1; \
	  .venv-py$$version/bin/python -m pytest $(DEVICE_TESTS) $(call SKIP_ALLOWANCE,test-device) || exit 1; \
	done; \
	echo "interpreters skipped: $$missing of $(words $(DEVICE_PYTHONS))"; \
	[ -z "$(CI)" ] || [ $$missing = 0 ] || { echo "CI skips none of them: install them, or change DEVICE_PYTHONS" >&2; exit 1; }

.PHONY: test-arm64
test-arm64: ## the agent on emulated ARM64 CPUs, and its image; prints the table of docs/arm64.md (part of make test)
	$(call environment,full)
	@$(BIN)/python -m pytest tests/arm64

.PHONY: check
check: ## lint, format, types and the import contract
	$(call environment,full)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

.PHONY: demo-model
demo-model: ## train the demo models and build their signed bundles again (about 45 minutes)
	$(call environment,full)
	$(BIN)/python -m build_models.demo.train --out out/demo
	$(BIN)/python -m build_models.demo.train_classifier --out out/demo
	$(BIN)/python -m build_models.demo.train_segmenter --out out/demo
	cp $(addprefix out/demo/,weights.pt training.json classifier.pt classifier.json segmenter.pt segmenter.json) build_models/demo/
	@$(MAKE) --no-print-directory demo-bundle

.PHONY: demo-bundle
demo-bundle: ## build the demo models' bundles from the weights there are, signed with a key of your own
	$(call environment,full)
	$(BIN)/python -m build_models.demo.pictures --out out/demo/pictures
	$(BIN)/python -m build_models.demo.crops --out out/demo/crops
	$(BIN)/python -m build_models.demo.masks --out out/demo/masks
	@test -f out/demo/demo.private.pem || $(BIN)/build-models keygen out/demo/demo
	$(BIN)/build-models build configs/recipes/demo.yaml --key out/demo/demo.private.pem --out agent/demo/bundles/shapes
	$(BIN)/build-models build configs/recipes/demo-classifier.yaml --key out/demo/demo.private.pem --out agent/demo/bundles/kinds
	$(BIN)/build-models build configs/recipes/demo-segmenter.yaml --key out/demo/demo.private.pem --out agent/demo/bundles/areas
	cp out/demo/demo.public.pem agent/demo/

.PHONY: clean
clean: ## remove environments, caches and build output
	rm -rf .venv .venv-py* out build dist *.egg-info .coverage .coverage.* .hypothesis .mypy_cache .pytest_cache .ruff_cache .import_linter_cache
