#!/bin/sh
# Looks for the tools that building (`build`) or testing (`test`) spfemu needs. Prints the Python to
# use on standard output. Names everything missing, and how to get it, on standard error; exit 1 then.
set -u
purpose=${1:-build}
missing=0

lacks() { # what, how to get it
    printf 'spfemu: missing: %s\n' "$1" >&2
    printf '    %s\n' "$2" >&2
    missing=1
}

have() { command -v "$1" >/dev/null 2>&1; }

# $PYTHON wins; else the first new enough of the usual names.
python=
for name in ${PYTHON:-python3 python3.14 python3.13 python3.12 python3.11}; do
    if have "$name" && "$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
        python=$name
        break
    fi
done
if [ -z "$python" ]; then
    lacks "Python 3.11 or later${PYTHON:+ (PYTHON=$PYTHON is not one)}" \
        "Debian, Ubuntu: apt-get install python3 python3-venv; Fedora: dnf install python3; else https://www.python.org/downloads/"
elif ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
    lacks "the venv module of $python" \
        "Debian, Ubuntu: apt-get install python3-venv (or python3.N-venv for the version in use)"
fi

have cc || lacks "cc, a C compiler (Rust links with it)" \
    "Debian, Ubuntu: apt-get install gcc libc6-dev; Fedora: dnf install gcc"

if ! have cargo || ! have rustc; then
    if [ -x "${CARGO_HOME:-${HOME:-}/.cargo}/bin/cargo" ]; then
        lacks "cargo on PATH" "export PATH=\"${CARGO_HOME:-$HOME/.cargo}/bin:\$PATH\""
    else
        lacks "cargo and rustc (Rust)" \
            "curl https://sh.rustup.rs -sSf | sh (https://rustup.rs), then open a new shell"
    fi
elif [ "$purpose" = test ]; then
    for tool in fmt clippy; do
        component=$([ $tool = fmt ] && echo rustfmt || echo clippy)
        cargo "$tool" --version >/dev/null 2>&1 || lacks "cargo $tool" \
            "rustup component add $component (without rustup: the package manager has it as $component)"
    done
fi

[ $missing -eq 0 ] || exit 1
command -v "$python"
