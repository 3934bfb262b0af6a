#!/usr/bin/env bash
# The Windows side, as far as Linux can show it: builds everything for Windows with the distribution's own
# compiler, without warnings, and runs the unit tests under wine. What it leaves in target/ is what
# tests/windows/main.rs starts: the program, and a wine prefix to run it in. `tests/windows.sh build` only builds.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

prefix=$PWD/target/wine/prefix

# shellcheck source=dist/for-windows.sh
. dist/for-windows.sh
# Debian's `wine` asks for its 32-bit half at each start; the program behind it does not.
export CARGO_TARGET_X86_64_PC_WINDOWS_GNU_RUNNER=/usr/lib/wine/wine64

export WINEPREFIX=$prefix WINEDEBUG=-all WINEDLLOVERRIDES="mscoree,mshtml="
unset DISPLAY WAYLAND_DISPLAY

# wine before 9 lacks the library from which Rust's standard library draws random bytes; this one asks the
# system by an older name.
build_missing_library() {
    x86_64-w64-mingw32-gcc -shared -Wall -Werror -o "$1" -xc - -ladvapi32 <<'C'
#include <windows.h>
BOOLEAN NTAPI SystemFunction036(PVOID, ULONG);
__declspec(dllexport) BOOL WINAPI ProcessPrng(PBYTE data, SIZE_T len)
{
    return SystemFunction036(data, (ULONG)len) != 0;
}
C
}

make_prefix() {
    local new=$prefix.new
    rm -rf "$new"
    mkdir -p "$(dirname "$prefix")"
    WINEPREFIX=$new timeout 180 /usr/lib/wine/wine64 wineboot -i
    WINEPREFIX=$new timeout 60 /usr/lib/wine/wineserver64 -w
    local library=$new/drive_c/windows/system32/bcryptprimitives.dll
    [ -e "$library" ] || build_missing_library "$library"
    rm -rf "$prefix"
    mv "$new" "$prefix"
}

# One command for all, so that nothing is built twice with other features of the libraries. The core and the simulator
# know no system, so only Linux tests them. The program comes with a test program of its package; that one is empty
# here, for it runs on Linux.
all=(-p fyrd -p fyrd-keys --lib --test windows)
"${cargo[@]}" test "${all[@]}" "${standard[@]}" --no-run
[ "${1:-}" != build ] || exit 0

[ -d "$prefix" ] || make_prefix
# One test is left out: wine needs too long for its thousand sockets.
timeout 400 "${cargo[@]}" test "${all[@]}" "${standard[@]}" --no-fail-fast -- \
    --skip clients_over_the_cap_are_refused
