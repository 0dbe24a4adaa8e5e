#!/bin/sh
# What takes too long for `make test`: long exploration, large property suites, native stress. Then
# the checkers of memory and ordering that this machine's toolchain has. Says what it skipped.
# usage: test_deep.sh PYTHON
set -eu
python=$1
skipped=

skip() { # checker, why, how to get it
    skipped="$skipped
  $1: $2 ($3)"
}

run() {
    printf '\n== %s\n' "$*"
    "$@"
}

# Tests that can go further read this.
export SPFEMU_DEEP=1

run cargo test --release --locked --workspace
run "$python" -m pytest --hypothesis-profile=deep -m "deep or not deep" --timeout=3600

# Coroutines switch stacks in assembly, which Miri cannot follow: it takes the platform-free tests.
nightly='cargo +nightly'
if $nightly miri --version >/dev/null 2>&1; then
    run env -u SPFEMU_DEEP $nightly miri test -p spfemu-core -- arena word sync::
else
    skip Miri "not installed" "rustup toolchain install nightly -c miri -c rust-src"
fi

target=$(rustc -vV | sed -n 's/^host: //p')
sources=$(rustc +nightly --print sysroot 2>/dev/null || true)
if [ -n "$sources" ] && [ -d "$sources/lib/rustlib/src/rust/library" ]; then
    run env RUSTFLAGS=-Zsanitizer=thread $nightly test -Zbuild-std --target "$target" \
        -p spfemu-core -- native
else
    skip ThreadSanitizer "no nightly toolchain with rust-src" \
        "rustup toolchain install nightly -c rust-src"
fi

if [ -n "$skipped" ]; then
    printf '\nskipped:%s\n' "$skipped"
fi
