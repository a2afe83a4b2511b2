# The few things a person types. What each does is in scripts/; CI runs .ci/run.
.PHONY: help demo test bench fuzz

help: ## this list
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /  make \1\t/' | expand -t 18

demo: ## a proxy and a database on this machine with 300 invented patients; ARGS=--once ends by itself
	@scripts/demo $(ARGS)

test: ## every test: Rust, end to end against a real mongod, Node driver; says what could not run
	@scripts/test $(ARGS)

bench: ## figures for sealing, rewriting and the whole path; results under bench/
	@scripts/bench $(ARGS)

fuzz: ## every fuzz target for SECONDS each (default 60)
	@for target in frames plan_apply envelope config; do scripts/fuzz $$target $(or $(SECONDS),60) || exit 1; done
