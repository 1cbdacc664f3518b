# All that a person or a continuous-integration machine runs. As root, on Debian.

help: ## this list
	@sed -n 's/^\([a-z]*\):.*## /\1\t/p' $(MAKEFILE_LIST)

up: ## install what is missing, build, start tritiumd, run and trace a container
	@.ci/up

down: ## stop tritiumd; its containers go on
	@.ci/down

build: ## build everything in release mode
	@.ci/build

check: ## formatting, lints, documentation
	@.ci/check

test: ## every check and every test, on this kernel and in a guest
	@.ci/test

guest: ## only the tests that run in a guest with a stock kernel
	@.ci/test guest

conformance: ## the conformance suite, against a real Docker Engine and against Tritium
	@.ci/conformance

sdk: ## Docker's SDKs, unchanged, against Tritium
	@.ci/conformance sdk

fuzz: ## the API, fuzzed from Docker's own description of it
	@.ci/conformance fuzz

bench: ## the promises of the README, measured; ONLY=network a part, see .ci/bench
	@.ci/bench $(if $(ONLY),--only $(ONLY))

clean: ## remove what was built
	cargo clean

.PHONY: help up down build check test guest conformance sdk fuzz bench clean
