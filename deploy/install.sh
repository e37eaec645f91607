#!/usr/bin/env bash
#
# Installs programs that are missing, from the packages of a Debian-like system:
#
#     deploy/install.sh redis-server nginx promtool
#
# Names are those of the commands. What is there already is left alone, in whatever version. Without root or without apt
# it only says what to install, and fails.

set -euo pipefail

readonly policy=/usr/sbin/policy-rc.d
readonly policy_before=$policy.before-tidegate

main() {
    local name packages=()
    for name in "$@"; do
        is_there "$name" || packages+=("$(package_of "$name")")
    done
    [[ ${#packages[@]} -gt 0 ]] || return 0
    mapfile -t packages < <(printf '%s\n' "${packages[@]}" | sort --unique)

    if [[ $EUID -ne 0 ]] || ! command -v apt-get >/dev/null; then
        echo "install: missing on this machine; install it by your system's means (names as in Debian):" >&2
        printf '    %s\n' "${packages[@]}" >&2
        exit 1
    fi
    echo "install: ${packages[*]}"
    # One at a time: two runs that change the policy below would each restore the other's.
    mkdir -p /run/lock
    exec {lock}>/run/lock/tidegate-install
    flock "$lock"
    trap restore_policy EXIT
    forbid_daemons
    install "${packages[@]}"
}

is_there() {
    case $1 in
        python3-venv) python3 -c 'import ensurepip, venv' 2>/dev/null ;;
        *) PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin command -v "$1" >/dev/null ;;
    esac
}

package_of() {
    case $1 in
        redis-cli) echo redis-tools ;;
        promtool) echo prometheus ;;
        cc) echo build-essential ;;
        systemd-analyze) echo systemd ;;
        musl-gcc) echo musl-tools ;;
        xz) echo xz-utils ;;
        node) echo nodejs ;;
        *) echo "$1" ;;
    esac
}

# Debian starts a daemon as soon as its package is installed, on the very ports that the cluster wants. This file is
# Debian's own way to say no: 101 means "forbidden by policy".
forbid_daemons() {
    # A run that was killed has left its file behind: that one is not worth keeping.
    if [[ -e $policy ]] && ! grep -q tidegate "$policy"; then
        mv "$policy" "$policy_before"
    fi
    printf '#!/bin/sh\n# Put here by tidegate/deploy/install.sh, for as long as it runs.\nexit 101\n' >"$policy"
    chmod +x "$policy"
}

restore_policy() {
    rm -f "$policy"
    [[ ! -e $policy_before ]] || mv "$policy_before" "$policy"
}

install() {
    local apt=(apt-get --yes --quiet -o Acquire::Retries=3 -o DPkg::Lock::Timeout=300)
    local try
    export DEBIAN_FRONTEND=noninteractive
    for try in 1 2 3; do
        # One dead source among many fails the update, and need not matter: the install decides.
        "${apt[@]}" update </dev/null || true
        if "${apt[@]}" install --no-install-recommends "$@" </dev/null; then
            keep_daemons_off_at_boot "$@"
            return 0
        fi
        echo "install: attempt $try failed" >&2
        sleep $((try * 5))
    done
    return 1
}

# They were installed for their programs. Started at the next boot, they would hold the ports after all.
keep_daemons_off_at_boot() {
    [[ -d /run/systemd/system ]] || return 0
    local package
    for package in "$@"; do
        systemctl --quiet disable "$package" 2>/dev/null || true
    done
}

main "$@"
