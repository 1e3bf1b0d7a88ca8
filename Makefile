# One word for everything a developer does. PYTHON=... picks another interpreter.
PYTHON ?= python
COG = $(PYTHON) -m cogapp -I . -I cli -I docs
PAGES = README.md docs/help.md docs/methods.md docs/plugins.md docs/quickstart.md docs/results.md

.PHONY: test fast lint fix docs site output bench lower-bounds ci

test:
	$(PYTHON) -m pytest

fast:
	$(PYTHON) -m pytest -m "not slow"

lint:
	$(PYTHON) -m ruff check .
	$(PYTHON) -m ruff format --check .
	$(PYTHON) -m mypy
	$(COG) --check $(PAGES)

fix:
	$(PYTHON) -m ruff check --fix .
	$(PYTHON) -m ruff format .
	$(COG) -r $(PAGES)

docs:
	$(COG) -r $(PAGES)

site:
	$(PYTHON) -m mkdocs build --strict

output:
	PYTHONPATH=.:cli:adapters $(PYTHON) docs/pages.py output
	$(COG) -r $(PAGES)

bench:
	for one in training selectors probe bins refinement reconstruction; do $(PYTHON) benchmarks/$$one.py || exit 1; done

lower-bounds:
	bash .ci/lower-bounds

ci:
	bash .ci/run
