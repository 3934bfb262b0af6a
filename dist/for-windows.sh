# shellcheck shell=bash
# How everything is built for Windows on Debian; to be sourced, in the top folder.
# shellcheck disable=SC2034
target=x86_64-pc-windows-gnu

# Debian's compiler, for its sources of the standard library are at hand and build for Windows.
export RUSTC=/usr/bin/rustc RUSTDOC=/usr/bin/rustdoc RUSTC_BOOTSTRAP=1
export CARGO_TARGET_DIR=target/windows
export CARGO_TARGET_X86_64_PC_WINDOWS_GNU_LINKER=x86_64-w64-mingw32-gcc
# What tests run may be slow, and is soon built.
cargo=(/usr/bin/cargo --config 'build.warnings="deny"' --config 'profile.dev.debug=false')
for package in fyrd-core fyrd-keys fyrd-sim; do
    cargo+=(--config "profile.dev.package.$package.opt-level=0")
done
standard=(--locked --target "$target" "-Zbuild-std=std,panic_unwind,test" -Zwarnings)
