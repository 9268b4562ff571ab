# Everything a checkout can do.  `make demo` and `make test` install what they need first:
# Debian's packages with apt-get (as root, or through sudo), Python's into .venv.

PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python

DEBIAN := python3-venv gcc g++ clang \
  gcc-arm-none-eabi libnewlib-arm-none-eabi libstdc++-arm-none-eabi-newlib \
  gcc-riscv64-unknown-elf picolibc-riscv64-unknown-elf \
  gcc-xtensa-lx106 picolibc-xtensa-lx106-elf \
  qemu-system-arm qemu-system-misc

.PHONY: help demo test test-wide lint format bench bench-update packages install clean

help:
	@echo "make demo       build firmware for the bundled network, run it in emulators, verify it"
	@echo "make test       the quick tests (under ten minutes on two cores)"
	@echo "make test-wide  the slow, wide tests"
	@echo "make lint       ruff and mypy"
	@echo "make format     rewrite Python files in the project's format"
	@echo "make bench      measure models and peers on all emulated cores: benchmarks/RESULTS.md"
	@echo "                (MODELS=folder, ONLY=\"names\", BOARDS=\"qemu_m4 ...\" measure less)"
	@echo "make bench-update  the same without the peers, whose figures stay"

demo: install
	@$(RUN) examples/digits/demo.py

test: install
	$(RUN) -m pytest

test-wide: install
	$(RUN) -m pytest -m wide $(WIDE)

lint: install
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

format: install
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .

# MODELS=folder, ONLY="names of models", BOARDS="qemu_m4 ...": what to measure; otherwise everything.
BENCH := $(RUN) -m benchmarks $(if $(MODELS),--models $(MODELS)) $(if $(ONLY),--only $(ONLY)) \
  $(if $(BOARDS),--boards $(BOARDS))
bench: install
	$(BENCH)

bench-update: install
	$(BENCH) --engines tinygen

packages:
	@if command -v apt-get >/dev/null; then \
	  missing=; \
	  for package in $(DEBIAN); do \
	    dpkg-query -W -f '$${Status}' $$package 2>/dev/null | grep -q '^install ok installed' \
	      || missing="$$missing $$package"; \
	  done; \
	  if [ -n "$$missing" ]; then \
	    echo "installing:$$missing" >&2; \
	    root=; [ "$$(id -u)" = 0 ] || root=sudo; \
	    $$root apt-get update && \
	    $$root env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends $$missing; \
	  fi; \
	else \
	  echo "no apt-get here: install compilers and QEMU as README.md says; tinygen doctor lists them" >&2; \
	fi

$(VENV)/ready: pyproject.toml
	@$(MAKE) --no-print-directory packages
	$(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --upgrade pip
	$(RUN) -m pip install --quiet --editable '.[dev]'
	@touch $@

install: packages $(VENV)/ready

clean:
	rm -rf build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
