# The local cluster: what a checkout and a release archive have in common. Included by the Makefile of each.

variables += TLS HTTPS_PORT NGINX_PORT NGINX_STATUS_PORT REPLICA_PORT PROMETHEUS_PORT REDIS_PORT REDIS_LINK_PORT REPLICAS CLUSTER_DIR \
	NGINX REDIS_SERVER PROMETHEUS TIDEGATE_BIN
prefixes += TIDEGATE_

# Where a program is built, if one is.
built :=

.PHONY: up down status
up: ## starts nginx, three replicas, Redis and Prometheus here: NGINX_PORT NGINX_STATUS_PORT REPLICA_PORT PROMETHEUS_PORT REDIS_PORT REPLICAS, and with TLS=1 HTTPS_PORT
	@program=$$(TIDEGATE_BIN='$(filter-out $(built),$(TIDEGATE_BIN))' deploy/local/program $(built)) && \
	TIDEGATE_BIN=$$program deploy/local/cluster up

down: ## ends exactly what `make up` started
	@deploy/local/cluster down

status: ## what of it is running
	@deploy/local/cluster status || true
