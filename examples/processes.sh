# Sourced by the examples: processes that outlive the command that started them and can be ended by name.
#
# Every process of an example works in the example's own folder, $DIR. A process id that meanwhile belongs
# to somebody else is recognised by that, so that nothing foreign is ever ended.
# shellcheck shell=bash

fail() { printf '%s: %s\n' "$(basename "$0")" "$*" >&2; exit 1; }

say() { printf '\n== %s\n' "$*"; }

# need PROGRAM PACKAGE: what is missing is said before anything is started.
need() { command -v "$1" >/dev/null || fail "$1 is needed; on Debian: apt-get install $2 (tests/run does it)"; }

# Prints the path of the agent's program.
find_fyrd() {
    local built
    built=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)/target/release/fyrd
    if [ -n "${FYRD:-}" ]; then
        realpath "$(command -v "$FYRD" || fail "FYRD=$FYRD is no program")"
    elif [ -x "$built" ]; then
        echo "$built"
    else
        command -v fyrd || fail "no fyrd found; run 'cargo build --release', or set FYRD to the path of the program"
    fi
}

# Makes $DIR, which nobody else can have prepared.
make_dir() {
    mkdir -m 700 "$DIR" 2>/dev/null || fail "$DIR exists, so this seems to run already; '$0 stop' ends it"
    mkdir "$DIR/procs" "$DIR/log" "$DIR/ports"
}

need_dir() { [ -O "$DIR/procs" ] || fail "nothing runs; '$0 start' starts it"; }

# A demo leaves nothing behind, however it ends; but what went wrong is shown.
clean_up_at_exit() {
    trap 'show_logs_if_failed $?; stop' EXIT
    trap 'exit 130' INT TERM HUP
    trap 'exit 141' PIPE
}

show_logs_if_failed() {
    if [ "$1" -ne 0 ] && [ "$1" -lt 128 ]; then tail -n 20 "$DIR"/log/*.log >&2; fi
}

# eventually SECONDS WHAT COMMAND...: repeats the command until it succeeds.
eventually() {
    local deadline=$((SECONDS + $1)) what=$2
    shift 2
    until "$@"; do
        [ "$SECONDS" -lt "$deadline" ] || fail "waited in vain for this: $what (the logs are in $DIR/log)"
        sleep 0.1
    done
}

# launch NAME COMMAND...: starts it in a session of its own, so that closing the terminal does not end it.
launch() {
    local name=$1
    shift
    rm -f "$DIR/procs/$name"
    (
        cd "$DIR" || exit
        echo "$BASHPID" >"procs/$name"
        exec setsid "$@" >>"log/$name.log" 2>&1 </dev/null
    ) &
    # The shell would report every end of its child.
    disown
    until [ -s "$DIR/procs/$name" ]; do sleep 0.01; done
}

running() {
    local pid
    pid=$(cat "$DIR/procs/$1" 2>/dev/null) && [ "/proc/$pid/cwd" -ef "$DIR" ]
}

not_running() { ! running "$1"; }

# running_group GROUP: also children that are left when the process that started them has ended.
running_group() {
    local pid dir
    dir=$(realpath "$DIR")
    for pid in $(pgrep -g "$1"); do
        case $(readlink "/proc/$pid/cwd") in "$dir" | "$dir"/*) return 0 ;; esac
    done
    return 1
}

# end NAME [SIGNAL]: ends the process and its children, by force if one does not follow.
end() {
    local signal=${2:-TERM} tries=50 group
    group=$(cat "$DIR/procs/$1" 2>/dev/null) || return 0
    while running_group "$group"; do
        kill -s "$signal" -- "-$group" 2>/dev/null || true
        if [ $((tries -= 1)) -eq 0 ]; then signal=KILL; fi
        sleep 0.1
    done
    rm -f "$DIR/procs/$1"
}

# Again and again, for what ends here may just have started something.
end_all() {
    local each
    while [ -n "$(ls "$DIR/procs")" ]; do
        for each in "$DIR"/procs/*; do end "$(basename "$each")"; done
    done
}

# Prints a port that is free on 127.0.0.1 and not handed out before. It is below those which the system
# gives to outgoing connections.
free_port() {
    python3 - "$DIR/ports" <<'END'
import random, socket, sys
for port in random.sample(range(26100, 32000), 2000):
    with socket.socket() as tcp, socket.socket(type=socket.SOCK_DGRAM) as udp:
        try:
            tcp.bind(("127.0.0.1", port))
            udp.bind(("127.0.0.1", port))
            open(f"{sys.argv[1]}/{port}", "x").close()
        except OSError:
            continue
        print(port)
        break
else:
    sys.exit("no free port")
END
}

# follow_owner SCRIPT: with FYRD_EXAMPLE_OWNER set to a process id, the example ends when that process does.
follow_owner() {
    if [ -z "${FYRD_EXAMPLE_OWNER:-}" ]; then return; fi
    # shellcheck disable=SC2016
    launch owner sh -c 'tail --pid="$1" -f /dev/null; exec setsid "$2" stop' sh "$FYRD_EXAMPLE_OWNER" "$1"
}
