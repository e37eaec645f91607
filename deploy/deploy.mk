# Targets for what stands around a replica: proxies, supervisors, images, releases. Included by the Makefile.

.PHONY: test-nginx
test: test-nginx
test-tools: test-tools-deploy

.PHONY: test-tools-deploy
test-tools-deploy:
	@deploy/install.sh haproxy caddy systemd-analyze

test-nginx: ## the proxy's tests with a newer nginx than the distribution's; NGINX_PROGRAM=/path/to/nginx names another one
	@nginx=$${NGINX_PROGRAM:-$$(deploy/local/nginx)}; $$nginx -v; export TIDEGATE_TEST_NGINX=$$nginx; set -x; \
	cargo test --locked --test nginx; \
	cargo test --locked --test proxies -- nginx_limits each_event

.PHONY: test-deploy
test: test-deploy

test-deploy: binary ## are the units of systemd valid, and as closed as they can be?
	deploy/systemd/check

.PHONY: test-kubernetes
test-kubernetes: binary ## do the manifests fit Kubernetes, each other and the program? (needs Go)
	deploy/kubernetes/check

.PHONY: dist
dist: ## a static binary with licences, a list of its parts and checksums, in target/dist
	@deploy/dist/build
