#!/bin/sh
#
# Installs this release of Tidegate: the program, completions of three shells, and an example of the configuration; as root
# the configuration itself and the units of systemd as well. Again is no harm: what you have changed in /etc stays.
#
#     ./install.sh [--prefix DIR]      /usr/local as root, else ~/.local
#     ./install.sh --uninstall [--prefix DIR]
#
# Where the archive and its SHA256SUMS lie beside the folder that this stands in, both are checked first. DESTDIR=/somewhere
# puts everything below another root, for whoever makes a package of it; nothing of the running system is touched then.

set -eu

here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
name=$(basename -- "$here")
root=${DESTDIR:-}
prefix=
uninstall=

main() {
    while [ $# -gt 0 ]; do
        case $1 in
            --prefix) [ $# -gt 1 ] || usage "--prefix wants a folder"; prefix=$2; shift ;;
            --prefix=*) prefix=${1#--prefix=} ;;
            --uninstall) uninstall=yes ;;
            -h | --help) sed -n '3,/^$/s/^#\( \|$\)//p' "$0"; exit 0 ;;
            *) usage "what is $1?" ;;
        esac
        shift
    done
    [ -n "$prefix" ] || if is_root; then prefix=/usr/local; else prefix=${HOME:?}/.local; fi
    case $prefix in
        /*) ;;
        *) usage "--prefix wants a path that begins at /, not $prefix" ;;
    esac
    list=$prefix/share/tidegate/installed
    if [ -n "$uninstall" ]; then
        remove
    else
        verify
        install_all
    fi
}

# --- what is unpacked here is what was released -----------------------------------------------------------------------

verify() {
    [ -x "$here/tidegate" ] || fail "no program lies in $here: run this from the unpacked archive"
    said=$("$here/tidegate" --version 2>&1) || fail "the program does not run on this machine ($(uname -sm)): $said"
    sums=$here/../SHA256SUMS archive=$here/../$name.tar.xz
    [ -f "$sums" ] && [ -f "$archive" ] || return 0
    grep -q "  $name.tar.xz\$" "$sums" || fail "SHA256SUMS says nothing of $name.tar.xz"
    (cd "$here/.." && grep "  $name.tar.xz\$" SHA256SUMS | sha256sum -c - >/dev/null 2>&1) ||
        fail "$name.tar.xz is not the one that SHA256SUMS tells of: fetch both again"
    tar -xJOf "$archive" "$name/tidegate" | cmp -s - "$here/tidegate" ||
        fail "the program in $here is not the one of $name.tar.xz: unpack it again"
    echo "install: the archive and the program are those of SHA256SUMS"
}

# --- installing -------------------------------------------------------------------------------------------------------

install_all() {
    [ -w "$(nearest "$root$prefix")" ] || fail "you may not write to $root$prefix: as root, or with --prefix DIR"
    files=
    draft=$(mktemp)
    trap 'rm -f "$draft"' EXIT
    put 755 "$here/tidegate" "$prefix/bin/tidegate"
    completion bash "$prefix/share/bash-completion/completions/tidegate"
    completion zsh "$prefix/share/zsh/site-functions/_tidegate"
    completion fish "$prefix/share/fish/vendor_completions.d/tidegate.fish"
    put 644 "$here/deploy/tidegate.toml" "$prefix/share/doc/tidegate/tidegate.toml"
    for file in README.md CHANGELOG.md LICENSE-MIT LICENSE-APACHE THIRD-PARTY-LICENCES.txt; do
        put 644 "$here/$file" "$prefix/share/doc/tidegate/$file"
    done
    if is_root && { [ -n "$root" ] || [ -d /etc/systemd/system ]; }; then install_units; fi
    # What an earlier release had, and this one has not.
    drop_files_but "$files"
    folder "$root$(dirname "$list")"
    printf '%s' "$files" >"$root$list"
    echo "install: $said is installed as $root$prefix/bin/tidegate"
    case :$PATH: in
        *":$prefix/bin:"*) ;;
        *) echo "install: $prefix/bin is not on your PATH" ;;
    esac
}

install_units() {
    for unit in tidegate.service tidegate.socket; do
        sed "s|^ExecStart=[^ ]*|ExecStart=$prefix/bin/tidegate|" "$here/deploy/systemd/$unit" >"$draft"
        put 644 "$draft" "/etc/systemd/system/$unit"
    done
    if [ ! -e "$root/etc/tidegate/tidegate.toml" ]; then
        folder "$root/etc/tidegate"
        cp "$here/deploy/tidegate.toml" "$root/etc/tidegate/tidegate.toml"
        chmod 644 "$root/etc/tidegate/tidegate.toml"
    fi
    [ -z "$root" ] || return 0
    # Who may read the keys; the head of the unit tells which files those are.
    if command -v groupadd >/dev/null; then groupadd --system --force tidegate-keys; fi
    if [ -d /run/systemd/system ]; then systemctl daemon-reload; fi
    echo "install: the head of /etc/systemd/system/tidegate.service says what is left to do"
}

# put MODE FROM TO: a running program may be replaced, so never into the file that is there.
put() {
    folder "$root$(dirname "$3")"
    cp "$2" "$root$3.new"
    chmod "$1" "$root$3.new"
    mv -f "$root$3.new" "$root$3"
    files="$files$3
"
}

completion() {
    "$here/tidegate" completions "$1" >"$draft"
    put 644 "$draft" "$2"
}

# --- removing ---------------------------------------------------------------------------------------------------------

remove() {
    [ -f "$root$list" ] || fail "nothing of Tidegate is installed below $root$prefix ($list is not there)"
    [ -w "$root$prefix" ] || fail "you may not write to $root$prefix: as root"
    if [ -z "$root" ] && [ -d /run/systemd/system ] && grep -q '^/etc/systemd/system/' "$list"; then
        systemctl disable --now tidegate.socket tidegate.service 2>/dev/null || :
    fi
    drop_files_but ""
    rm -f "$root$list"
    prune "$(dirname "$list")"
    if [ -z "$root" ] && [ -d /run/systemd/system ]; then systemctl daemon-reload; fi
    echo "install: Tidegate is removed from $root$prefix"
    [ ! -d "$root/etc/tidegate" ] || ! is_root || echo "install: $root/etc/tidegate stays: it is yours"
}

# Removes what was installed and is not in this list.
drop_files_but() {
    [ -f "$root$list" ] || return 0
    while IFS= read -r file; do
        case "
$1" in
            *"
$file
"*) ;;
            *) rm -f "$root$file"; prune "$(dirname "$file")" ;;
        esac
    done <"$root$list"
}

# Folders that are empty now, up to the prefix.
prune() {
    folder=$1
    while [ "$folder" != "$prefix" ] && [ "$folder" != / ] && [ "$folder" != /etc/systemd/system ]; do
        rmdir "$root$folder" 2>/dev/null || return 0
        folder=$(dirname "$folder")
    done
}

# --- words ------------------------------------------------------------------------------------------------------------

is_root() { [ "$(id -u)" -eq 0 ]; }

# Without a umask of the caller's that would lock others out.
folder() { [ -d "$1" ] || (umask 022 && mkdir -p "$1"); }

# The folder itself, or the first one above it that is there.
nearest() {
    path=$1
    while [ ! -d "$path" ]; do path=$(dirname "$path"); done
    echo "$path"
}

fail() { echo "install: $1" >&2; exit 1; }

usage() { echo "install: $1; --help says how this is used" >&2; exit 64; }

main "$@"
