# make up                                    serve the default profile: a real model on the CPU
# make up PROFILE=profiles/2x4090.yaml       serve another one
# make compile                               the gateway in machine code: less CPU a request; needs gcc
# make test                                  the tests, with a real vLLM on the CPU
# make test-cluster                          those of several real engines and of several hosts: minutes each
# make screenshots                           the README's pictures of the web page; ALL=folder: every state, to be looked at
# make fuzz SECONDS=600                      mutate what comes from outside, led by coverage, until something breaks

PYTHON  ?= python3
VENV    ?= .venv
PROFILE ?= profiles/cpu-smollm2.yaml
ARGS    ?=
SECONDS ?= 60

.PHONY: up compile test test-cluster fuzz screenshots lint clean

up:
	@$(PYTHON) deploy/bootstrap.py $(VENV) $(PROFILE)
	@exec $(VENV)/bin/launcher up $(PROFILE) $(ARGS)

compile:
	@$(PYTHON) deploy/bootstrap.py $(VENV) $(PROFILE) compile

test:
	@$(PYTHON) deploy/bootstrap.py $(VENV) cpu test
	@$(VENV)/bin/python -m pytest -n 2 -m "not cluster" $(ARGS)

test-cluster:
	@$(PYTHON) deploy/bootstrap.py $(VENV) cpu test
	@$(VENV)/bin/python -m pytest -m cluster $(ARGS)

fuzz:
	@$(PYTHON) deploy/bootstrap.py $(VENV) none test fuzz
	@$(VENV)/bin/python -m tests.fuzz --seconds $(SECONDS) $(ARGS)

screenshots:
	@$(PYTHON) deploy/bootstrap.py $(VENV) $(if $(filter real,$(ENGINE)),cpu,none) test
	@$(VENV)/bin/python -m tests.browser.screenshots $(if $(ENGINE),--engine $(ENGINE)) $(if $(ALL),--all $(ALL))

lint:
	@$(PYTHON) deploy/bootstrap.py $(VENV) none test
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .cache/fuzz
