# Two commands do everything on a machine with Python 3.11 or newer, make and g++:  make repro   and   make test
PYTHON ?= python3
VENV ?= .venv
TORCH ?= pinned
P ?= default
SET ?=
MODEL ?=
JOBS ?= 0
M ?= .*[.](similarity|phoneme_error)_5|(.*adapt.*:)?validation_loss

BIN := $(abspath $(VENV))/bin
export PATH := $(BIN):$(PATH)
# as pipelines' cmd in dvc.yaml: the sources here, not those of another checkout
export PYTHONPATH := src
# set in many container images: every stage would compile all that it imports anew, which takes seconds
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help setup repro check plan experiments test test-all fuzz lint audit format smoke profile pretrained study ui clean clean-all

help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{ printf "  make %-11s %s\n", $$1, $$2 }'

setup: ## build or update .venv (TORCH=own keeps an installed torch, VENV=... another environment)
	@$(PYTHON) tools/setup.py --venv "$(VENV)" --torch "$(TORCH)"

check: setup ## look over params.yaml and the corpus without running anything
	@python -m pipelines.check

plan: setup ## predict time and memory of every meta-training that params.yaml asks for (needs dvc repro episodes)
	@python -m pipelines.plan

repro: setup check ## run the pipeline: whatever changed since the last time, up to reports/index.html [JOBS=2]
	@python -m pipelines.repro --jobs $(JOBS)

test: setup ## run the tests but for a few that take minutes
	OMP_NUM_THREADS=1 python -m pytest -n 2 --dist loadfile --no-loadscope-reorder -m "not slow"

test-all: setup ## and those: nodes and processes of a Ray cluster killed, queued experiments
	OMP_NUM_THREADS=1 python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

fuzz: setup ## hostile input to the C++ sampler under AddressSanitizer (needs g++)
	METASPEECH_WAVENET_LIBRARY="$$(python src/metaspeech/models/wavenet/sampling/build.py --sanitize | tail -n 1)" \
	ASAN_OPTIONS=detect_leaks=0 LD_PRELOAD="$$(g++ -print-file-name=libasan.so) $$(g++ -print-file-name=libstdc++.so)" \
	OMP_NUM_THREADS=1 python -m pytest -s -p no:cacheprovider tests/test_native_fuzz.py

lint: setup ## ruff, and mypy --strict on src/
	ruff check .
	ruff format --check .
	mypy

audit: setup ## hold constraints.txt against the known vulnerabilities of its packages (pip-audit; needs the network)
	@python tools/audit.py

format: setup ## let ruff put the code in form
	ruff check --fix .
	ruff format .

smoke: setup ## the whole pipeline at toy sizes, in a copy (build/smoke) that leaves your results alone
	python tools/smoke.py build/smoke

profile: setup ## set params.yaml to a profile: make profile P=smoke|default|protocol|real|gpu [SET="corpus.path=/my/voices"]
	python -m pipelines.profile apply $(P) $(foreach one,$(SET),--set '$(one)')

pretrained: setup ## make the starts that ship (assets/starts) from nothing, which takes hours: make pretrained [MODEL=tacotron]
	python -m pipelines.pretrained train $(MODEL)

study: setup ## run the study and write reports/study.md: hours [RUNS="default ..."] [CORPORA="speechocean762=/full/path"]
	python -m pipelines.study $(RUNS) $(foreach one,$(CORPORA),--corpus '$(one)') --jobs $(JOBS)

# of dvc exp show: params that differ, and the figures M; a name that ends in _to_nearest is no param
SECTIONS := corpus|prepare|episodes|tacotron|wavenet|pretrain|represent|inner|meta_train|per_algorithm|per_model|adapt|evaluate
experiments: setup ## the table of DVC experiments: what differs in params, similarity and phoneme error (M='.*mcd_5' for others)
	dvc exp show --only-changed --drop \
	'^(?!Experiment|Created|State|(seeds?|data_seed|models|algorithms)$$|($(SECTIONS))[.](?!.*_to_nearest)[a-z_.]+$$|$(M)).*'

ui: setup ## MLflow's pages at http://127.0.0.1:5000
	mlflow ui --host 127.0.0.1 --port 5000 --backend-store-uri "$${MLFLOW_TRACKING_URI:-sqlite:///$(CURDIR)/mlflow.db}"

clean: ## remove caches of tools and scratch copies; results stay
	rm -rf build .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +

clean-all: clean ## remove everything that was made: .venv, data, models, results, reports, DVC's cache, MLflow's runs
	rm -rf "$(VENV)" data models results reports .dvc/cache .dvc/tmp mlflow.db mlartifacts .metaspeech
