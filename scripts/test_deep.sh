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

# Runs tests of the core under a checker. A filter that no longer matches a test is a failure.
checked() { # checker, RUSTFLAGS, arguments of cargo +nightly
    checker=$1 flags=$2
    shift 2
    printf '\n== %s: cargo +nightly %s\n' "$checker" "$*"
    log=target/$checker.log
    mkdir -p target
    RUSTFLAGS=$flags CARGO_TARGET_DIR=target/$checker cargo +nightly "$@" >"$log" 2>&1 ||
        { cat "$log"; exit 1; }
    grep '^test result: ok\. [1-9]' "$log" || { echo "no test ran under $checker"; exit 1; }
}

# Tests that can go further look at it.
run env SPFEMU_DEEP=1 cargo test --release --locked --workspace
run env SPFEMU_DEEP=1 "$python" -m pytest --hypothesis-profile=deep -m "deep or not deep" \
    --timeout=3600

# What switches stacks where no assembly was written by hand.
run env RUSTFLAGS="--cfg spfemu_portable" CARGO_TARGET_DIR=target/portable \
    cargo test --locked -p spfemu-core -- coroutine condition vtime explorer

host=$(rustc -vV | sed -n 's/^host: //p')
if cargo +nightly --version >/dev/null 2>&1; then
    checked address-sanitizer -Zsanitizer=address test --locked -p spfemu-core --target "$host"
else
    skip AddressSanitizer "no nightly toolchain" "rustup toolchain install nightly"
fi

# It reports false races unless the standard library is built with it too.
sysroot=$(rustc +nightly --print sysroot 2>/dev/null || true)
if [ -n "$sysroot" ] && [ -d "$sysroot/lib/rustlib/src/rust/library" ]; then
    checked thread-sanitizer -Zsanitizer=thread \
        test --locked -Zbuild-std -p spfemu-core --target "$host" -- native
else
    skip ThreadSanitizer "no nightly toolchain with its sources" \
        "rustup toolchain install nightly -c rust-src"
fi

# Coroutines switch stacks in assembly, which Miri cannot follow: it gets what runs without them.
if cargo +nightly miri --version >/dev/null 2>&1; then
    checked miri '' miri test --locked -p spfemu-core -- arena
else
    skip Miri "not installed" "rustup toolchain install nightly -c miri -c rust-src"
fi

# Elsewhere the engine `kernel` only says that it is not there; that much has to compile.
arm64=aarch64-unknown-linux-gnu
if rustc --print target-libdir --target "$arm64" 2>/dev/null | xargs -r ls >/dev/null 2>&1; then
    run cargo check --locked -p spfemu-oracle --target "$arm64"
else
    skip "spfemu-oracle on arm64" "the target is not installed" "rustup target add $arm64"
fi

if [ -n "$skipped" ]; then
    printf '\nskipped:%s\n' "$skipped"
fi
