# Short names for the commands that CONTRIBUTING.md explains.
BIN = .venv/bin

.venv: pyproject.toml constraints.txt
	python3 -m venv .venv
	$(BIN)/pip install -q -c constraints.txt -e '.[dev]'
	touch .venv

.PHONY: test newest check site probe facts lm causal-lm
test: .venv
	$(BIN)/pytest

# The tests on the newest transformers that pip finds; everything else as it is pinned.
newest:
	python3 -m venv .venv-newest
	grep -v '^transformers==' constraints.txt > .venv-newest/constraints.txt
	.venv-newest/bin/pip install -q -U -c .venv-newest/constraints.txt -e '.[dev]'
	.venv-newest/bin/pytest

check: .venv
	$(BIN)/ruff check
	$(BIN)/mypy

site: .venv
	$(BIN)/sphinx-build -W -q docs build/site

probe: .venv
	$(BIN)/ptune probe

# The built-in facts and LMs. FACTBOOK is a clone of github.com/factbook/factbook.json; TEXTS holds factbook.txt and
# eltec_novels.txt; MINILM is a folder with sentence-transformers/all-MiniLM-L6-v2.
facts: .venv
	$(BIN)/python scripts/make_facts.py $(FACTBOOK) src/ptune/builtin/facts

lm: .venv
	sh scripts/make_lm.sh $(TEXTS) $(MINILM)

causal-lm: .venv
	sh scripts/make_causal_lm.sh $(TEXTS)/factbook.txt
