# Two commands on a fresh clone: `make demo` (the main job) and `make test` (everything that is checked).
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
# An editable install knows the modules of its day: a new one makes a new stamp, so that the next build sees it.
MODULES := $(shell find python -name '*.py' | sort | cksum | cut -d' ' -f1)
STAMP := $(VENV)/.installed-$(MODULES)
CXX_SOURCES := $(shell find csrc -name '*.hpp' -o -name '*.cpp' -o -name '*.cu' -o -name '*.cuh' | grep -v gaussian_tables.hpp)
CORE_SOURCES := $(shell find csrc cmake -type f) CMakeLists.txt pyproject.toml constraints.txt
PYTHON_SOURCES := python tests benchmarks csrc

# What `make bench` measures: weights per operation, threads, and further options of `pppml bench`.
SIZE ?= 8388608
THREADS ?= 1
SCALING ?= 2
BENCH_OPTIONS ?=
BENCH_STAMP := $(STAMP)-bench

.PHONY: build demo test lint format test-python test-versions bench bench-suite bench-compare bench-baseline clean help

help:
	@echo "make build   create $(VENV) and install the package with everything it needs"
	@echo "make demo    the main job: an encrypted personalised federation on synthetic CT, report in runs/demo"
	@echo "make demo-network   five sites as five processes with TLS, one killed on the way: identical=5/5"
	@echo "make test    lint, types and all tests (PPPML_DATA=DIR adds the real-data tests)"
	@echo "make lint, test-python   the two halves of make test"
	@echo "make test-versions   the core's tests on CPython 3.10, 3.12 and 3.13, where they are installed"
	@echo "make bench   encryption beside the peers that are installed: table in runs/bench (SIZE=N weights, THREADS=T)"
	@echo "make bench-network   the encrypted ring against plain bytes, between processes, over 1 Gbit/s and loopback"
	@echo "make bench-suite     every primitive, operation and round with pytest-benchmark, into runs/bench/suite.json"
	@echo "make bench-compare   the gate against regressions: instructions, bytes, ratios within one run"
	@echo "make bench-baseline  write benchmarks/baseline.json anew"
	@echo "make test-openfhe    exchange with OpenFHE, where a CPython 3.10 is installed; make bench-openfhe measures it"
	@echo "make test-seal       exchange with SEAL, through TenSEAL"
	@echo "make fuzz    every parser on 10^7 inputs (FUZZ_EXECUTIONS=N); make fuzz-smoke is the short run of CI"
	@echo "make test-faults     real federations under faults, from a seed: ROUNDS=1000 SEED=N; the short run is CI's"
	@echo "make test-cpp, test-sanitize, test-constant-time, dudect   the tools of trust (csrc/README.md)"
	@echo "make build-cuda  the kernels for CUDA devices (needs nvcc); make test-cuda-host runs them on the processor"
	@echo "make test-gpu, bench-gpu   on a machine with a GPU, with PYTHON=python3: bits, sanitizers, figures in runs/gpu (docs/gpu.md)"
	@echo "make test-samplers   10^8 draws from every sampler"
	@echo "make levels  every preset's security level anew"
	@echo "make stubs   write the extension's types from the built extension"
	@echo "make format  rewrite sources in the project's style"
	@echo "make clean   remove what was built, run and cached here; the environments stay"

build: $(STAMP)

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip

# torch comes first and pinned, so that no later requirement can choose another build of it.
$(STAMP): $(CORE_SOURCES) | $(BIN)/python
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch numpy "scikit-build-core>=0.10" "pybind11>=2.13" "cmake>=3.24" "ninja>=1.11"
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --no-build-isolation --editable ".[dev]"
	@touch $@

demo: build
	$(BIN)/pppml demo --out runs/demo

# Five processes on loopback with TLS, one killed and started again: the last line is identical=5/5.
# DEMO_OPTIONS="--topology star --kill-coordinator": through a coordinator, which is killed as well.
DEMO_OPTIONS ?=
.PHONY: demo-network
demo-network: build
	rm -rf runs/demo-network
	$(BIN)/pppml demo-network --out runs/demo-network $(DEMO_OPTIONS)

test: lint test-python test-cuda-host

lint: build
	$(BIN)/ruff check $(PYTHON_SOURCES)
	$(BIN)/ruff format --check $(PYTHON_SOURCES)
	$(BIN)/clang-format --dry-run --Werror $(CXX_SOURCES)
	$(BIN)/mypy
	$(BIN)/mypy --strict --package pppml_fast.cipher --package pppml_fast.cuda --package pppml_fast.doctor --package pppml_fast.aggregation --package pppml_fast.transport --package pppml_fast.site --module pppml_fast.params --module pppml_fast.quantize --module pppml_fast.tensors --module pppml_fast.layout --module pppml_fast.privacy --module pppml_fast.discrete_noise
	$(BIN)/python csrc/bindings/stubs.py --check
	$(BIN)/stubtest pppml_fast._native --allowlist csrc/bindings/stubtest_allowed.txt --mypy-config-file pyproject.toml --concise

test-python: build
	$(BIN)/python -m pytest
	$(BIN)/python -m pytest benchmarks --benchmark-disable

# The core alone (NumPy and the test tools) on every other CPython that is here, but for the tests that need an extra.
test-versions:
	@for version in 3.10 3.12 3.13; do \
	  python=$$(for candidate in python$$version $${PYENV_ROOT:-$$HOME/.pyenv}/versions/$$version.*/bin/python; do \
	    $$candidate --version >/dev/null 2>&1 && echo $$candidate && break; done); \
	  [ -n "$$python" ] || { echo "CPython $$version: not here"; continue; }; \
	  $$python -m venv .venv-$$version && \
	  .venv-$$version/bin/python -m pip install --quiet . pytest hypothesis && \
	  .venv-$$version/bin/python --version && \
	  .venv-$$version/bin/python -m pytest tests/core -p no:cacheprovider $(addprefix --ignore=tests/core/test_,aes.py layout.py quantize.py torch_inputs.py vetted.py) || exit 1; \
	done

# The peers are an extra of their own: neither `make demo` nor `make test` needs them.
$(BENCH_STAMP): $(STAMP)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --no-build-isolation --editable ".[bench]"
	@touch $@

# OpenFHE runs beside TenSEAL when .venv-openfhe, $$PPPML_OPENFHE_PYTHON or python3.10 has it.
bench: $(BENCH_STAMP)
	$(BIN)/pppml bench --against found --size $(SIZE) --threads $(THREADS) --scaling $(SCALING) --json runs/bench/bench.json --markdown runs/bench/bench.md --plot runs/bench/bench.svg $(BENCH_OPTIONS)

# The ring over networks: shaped links need root, `ip` and `tc`; without them loopback alone. NETWORK_OPTIONS="--weights 2e7".
NETWORK_OPTIONS ?=
.PHONY: bench-network
bench-network: build
	$(BIN)/python -m pppml_fast.bench.network --json runs/bench/network.json $(NETWORK_OPTIONS)

bench-suite: build
	@mkdir -p runs/bench
	$(BIN)/python -m pytest benchmarks --benchmark-only --benchmark-json=runs/bench/suite.json --benchmark-columns=median,iqr,rounds

# After `make bench` its ratios are compared as well.
BENCH_REPORT = $(if $(wildcard runs/bench/bench.json),--report runs/bench/bench.json)
bench-compare: build
	$(BIN)/python -m pppml_fast.bench.compare benchmarks/baseline.json $(BENCH_REPORT)

bench-baseline: build
	$(BIN)/python -m pppml_fast.bench.compare benchmarks/baseline.json --write $(BENCH_REPORT)

format: build
	$(BIN)/ruff check --fix --quiet $(PYTHON_SOURCES) || true
	$(BIN)/ruff format $(PYTHON_SOURCES)
	$(BIN)/clang-format -i $(CXX_SOURCES)

clean:
	rm -rf build runs .pytest_cache .mypy_cache .ruff_cache .hypothesis

# Every preset's level: a sanity bound at once, and the lattice estimator's estimates (minutes) where it is importable.
.PHONY: levels
levels: build
	$(BIN)/python -m pppml_fast.levels

# All samplers on all backends at 10^8 draws each: some minutes, most of them for `scalar`.
.PHONY: test-samplers
test-samplers: build
	$(BIN)/python tests/core/sampler_run.py

# The types of the extension, read from the extension that was built.
.PHONY: stubs
stubs: build
	$(BIN)/python csrc/bindings/stubs.py

# --- Faults: real processes that are killed, stopped, cut off, rolled back; their messages altered (tests/faults/run.py) ---
.PHONY: test-faults

ROUNDS ?= 12
SEED ?=
LANES ?= 3
test-faults: build
	$(BIN)/python tests/faults/run.py --rounds $(ROUNDS) --lanes $(LANES) $(if $(SEED),--seed $(SEED))

# --- Tools of trust (csrc/README.md): sanitizers, constant time, what is left of secrets -------------------------------
.PHONY: test-cpp test-sanitize test-constant-time dudect

CPP_TESTS := build/tests
CONFIGURE_TESTS = $(BIN)/cmake -S . -B $(CPP_TESTS) -G Ninja -DPPPML_TESTS=ON -DPPPML_CUDA=OFF -DCMAKE_MAKE_PROGRAM=$(abspath $(BIN))/ninja -DPython_EXECUTABLE=$(abspath $(BIN))/python -Dpybind11_DIR=$$($(BIN)/python -m pybind11 --cmakedir) -DCMAKE_CXX_FLAGS=-g

# The C++ tests of the build that ships; memcheck's among them where valgrind is installed.
test-cpp: build
	$(CONFIGURE_TESTS) > /dev/null
	$(BIN)/cmake --build $(CPP_TESTS) --target pppml_tests
	$(BIN)/ctest --test-dir $(CPP_TESTS) --output-on-failure

# PPPML_SANITIZE_TESTS="tests/core/test_cipher.py ..." runs fewer of the Python tests.
test-sanitize: build
	$(BIN)/python csrc/tests/sanitize.py

# Needs Debian's package valgrind, headers included.
test-constant-time: build
	$(CONFIGURE_TESTS) > /dev/null
	$(BIN)/cmake --build $(CPP_TESTS) --target test_constant_time
	$(BIN)/python csrc/tests/constant_time.py $(CPP_TESTS)/csrc/tests/test_constant_time

# Prints t values; says how to read them. BACKENDS="avx512 avx2" picks some.
dudect: build
	$(CONFIGURE_TESTS) > /dev/null
	$(BIN)/cmake --build $(CPP_TESTS) --target dudect
	$(CPP_TESTS)/csrc/tests/dudect $(BACKENDS)

# --- CUDA (docs/gpu.md) --------------------------------------------------------------------------------------------------
.PHONY: build-cuda test-cuda-host test-gpu bench-gpu

CUDA_BUILD := build/cuda
CUDA_HOST_BUILD := build/cuda-host
# Of the environment, for builds that have their tools there; else of .venv.
CUDA_CONFIGURE = PATH="$(abspath $(BIN)):$$PATH" cmake -S . -G Ninja -DPython_EXECUTABLE=$(abspath $(BIN))/python -Dpybind11_DIR=$$($(BIN)/python -m pybind11 --cmakedir)

# The extension with kernels for sm_80, sm_90, sm_100 and PTX, in a folder of its own. Fails where a fused kernel spills.
build-cuda: build
	$(CUDA_CONFIGURE) -B $(CUDA_BUILD) -DPPPML_CUDA=ON > /dev/null
	PATH="$(abspath $(BIN)):$$PATH" $(BIN)/python csrc/tests/cuda_build.py $(CUDA_BUILD)

# The functions that a GPU runs, run by the processor thread by thread, against the scalar backend: the last line counts.
# PPPML_NATIVE names the extension under test; vector instructions would only make it longer to build. First go the tests
# whose memory is the library's own, on streams that do their work as late as they may.
CUDA_HOST_TEST = PPPML_NATIVE=$$(ls $(CUDA_HOST_BUILD)/_native*.so) PYTHONPATH=tests/interop $(BIN)/python -m pytest -p counts -p no:cacheprovider
CUDA_QUEUED_TESTS = $(foreach name,pieces aggregation own_faults face bits errors properties,tests/cuda/device/test_$(name).py)
test-cuda-host: build
	$(CUDA_CONFIGURE) -B $(CUDA_HOST_BUILD) -DPPPML_CUDA=HOST -DPPPML_TESTS=ON -DPPPML_HAS_AVX2=OFF -DPPPML_HAS_AVX512=OFF > /dev/null
	PATH="$(abspath $(BIN)):$$PATH" cmake --build $(CUDA_HOST_BUILD) --target _native test_cuda_host > $(CUDA_HOST_BUILD)/build.log || { cat $(CUDA_HOST_BUILD)/build.log; exit 1; }
	$(CUDA_HOST_BUILD)/csrc/tests/test_cuda_host
	PPPML_CUDA_HOST=queued=1 $(CUDA_HOST_TEST) $(CUDA_QUEUED_TESTS)
	$(CUDA_HOST_TEST) tests/cuda/device

# On a machine with a GPU and no network: PYTHON has torch, pybind11, scikit-build-core, CMake, ninja and pytest. JSON and
# logs go to GPU_RESULTS.
GPU_RESULTS ?= runs/gpu
GPU_PYTHON = $(if $(filter file,$(origin PYTHON)),python3,$(PYTHON))
test-gpu:
	$(GPU_PYTHON) benchmarks/gpu/run.py test --results $(GPU_RESULTS)
bench-gpu:
	$(GPU_PYTHON) benchmarks/gpu/run.py bench --results $(GPU_RESULTS)

# --- Other libraries (docs/interoperation.md) --------------------------------------------------------------------------
.PHONY: test-openfhe bench-openfhe test-seal

# OpenFHE's wheel serves CPython 3.10 alone, so it has an environment of its own, with the core and NumPy. `pppml bench`
# finds OpenFHE there too.
OPENFHE := .venv-openfhe
OPENFHE_STAMP := $(OPENFHE)/.installed-$(MODULES)
PYTHON310 := $(shell for candidate in python3.10 $${PYENV_ROOT:-$$HOME/.pyenv}/versions/3.10*/bin/python; do \
	$$candidate --version >/dev/null 2>&1 && echo $$candidate && break; done)

$(OPENFHE_STAMP): $(CORE_SOURCES)
	[ -x $(OPENFHE)/bin/python ] || $(PYTHON310) -m venv $(OPENFHE)
	$(OPENFHE)/bin/python -m pip install --quiet --constraint constraints.txt "scikit-build-core>=0.10" "pybind11>=2.13" "cmake>=3.24" "ninja>=1.11" pytest hypothesis
	$(OPENFHE)/bin/python -m pip install --quiet --constraint constraints.txt --no-build-isolation --editable ".[openfhe]"
	@touch $@

ifeq ($(PYTHON310),)
test-openfhe bench-openfhe:
	@echo "CPython 3.10 is not here, neither on the path nor under pyenv; OpenFHE's wheel needs it: nothing was run"
else
test-openfhe: $(OPENFHE_STAMP)
	PYTHONPATH=tests/interop $(OPENFHE)/bin/python -m pytest -p counts -p no:cacheprovider tests/interop/openfhe tests/interop/test_*.py

bench-openfhe: $(OPENFHE_STAMP)
	OMP_NUM_THREADS=$(THREADS) $(OPENFHE)/bin/python -m pppml_fast.interop.openfhe.bench
endif

# SEAL through TenSEAL.
SEAL_STAMP := $(STAMP)-seal

$(SEAL_STAMP): $(STAMP)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --no-build-isolation --editable ".[seal]"
	@touch $@

test-seal: $(SEAL_STAMP)
	PYTHONPATH=tests/interop $(BIN)/python -m pytest -p counts -p no:cacheprovider tests/interop/seal

# --- fuzzing: the last line is executions=... targets=... crashes=0 ---------------------------------------------------
# Clang with libFuzzer and atheris are installed where that is possible; else mutation drivers run the same targets.
FUZZ_EXECUTIONS ?= 10500000
FUZZ_OPTIONS ?=
.PHONY: fuzz fuzz-smoke

fuzz: build
	$(BIN)/python tests/fuzz/run.py --install --executions $(FUZZ_EXECUTIONS) $(FUZZ_OPTIONS)

# The same inputs every time, in a minute, with GCC alone: for CI.
fuzz-smoke: build
	$(BIN)/python tests/fuzz/run.py --smoke $(FUZZ_OPTIONS)
