# One word for everything a developer does. PYTHON=... picks another interpreter.
PYTHON ?= python
COG = $(PYTHON) -m cogapp -I . -I cli -I docs
PAGES = README.md docs/help.md docs/methods.md docs/plugins.md docs/quickstart.md docs/results.md docs/gpu.md

.PHONY: test fast lint fix docs site output bench oldest newest bare dist audit ci

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

oldest newest:
	bash .ci/bounds $@

bare:
	bash .ci/bare

dist:
	$(PYTHON) -m build
	$(PYTHON) -m twine check --strict dist/*

# --strict: a package that the service does not know is a failure, and not one without known vulnerabilities
audit:
	mkdir -p build
	$(PYTHON) -m pip freeze --exclude dqas >build/installed.txt
	$(PYTHON) -m pip_audit --strict --no-deps --disable-pip --progress-spinner off --requirement build/installed.txt

ci:
	bash .ci/run
