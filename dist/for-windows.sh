# shellcheck shell=bash
# How everything is built for Windows on Debian; to be sourced, in the top folder.
# shellcheck disable=SC2034
target=x86_64-pc-windows-gnu

# Debian's compiler, for its sources of the standard library are at hand and build for Windows.
export RUSTC=/usr/bin/rustc RUSTDOC=/usr/bin/rustdoc RUSTC_BOOTSTRAP=1
export CARGO_TARGET_DIR=target/windows
export CARGO_TARGET_X86_64_PC_WINDOWS_GNU_LINKER=x86_64-w64-mingw32-gcc
# Speed of what tests run does not matter here; the time of the build does.
export CARGO_PROFILE_DEV_OPT_LEVEL=0
cargo=(/usr/bin/cargo --config 'profile.dev.package."*".opt-level=0' --config 'build.warnings="deny"')
standard=(--locked --target "$target" "-Zbuild-std=std,panic_unwind,test" -Zwarnings)
