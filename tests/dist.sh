#!/usr/bin/env bash
# Builds the packages, checks them, and installs, upgrades, removes and purges the Debian one: on this very system, but
# in a layer over it that is gone afterwards.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

fail() { echo "tests/dist.sh: $*" >&2; exit 1; }

# in_layer SCRIPT FILE...: runs a shell script as root of the layer, with these files in /tmp/dist.
in_layer() {
    local script=$1
    shift
    # shellcheck disable=SC2016 # The inner shell expands them.
    unshare --mount --net --pid --fork --kill-child bash -c '
        set -euo pipefail
        script=$1
        shift
        layer=$(mktemp -d)
        mount -t tmpfs tmpfs "$layer"
        mkdir "$layer"/{upper,work,root}
        mount -t overlay overlay -o "lowerdir=/,upperdir=$layer/upper,workdir=$layer/work" "$layer/root"
        mount -t tmpfs tmpfs "$layer/root/tmp"
        mount -t tmpfs tmpfs "$layer/root/run"
        mount -t proc proc "$layer/root/proc"
        mount --rbind /dev "$layer/root/dev"
        mkdir "$layer/root/tmp/dist"
        cp "$@" "$layer/root/tmp/dist"
        exec chroot "$layer/root" bash -euc "$script"
    ' in_layer "$script" "$@"
}

export PROFILE=${PROFILE:-dev}
out=target/dist
rm -rf "$out"
dist/build
REVISION=2 dist/build deb
debs=("$out"/fyrd_*-1_*.deb "$out"/fyrd_*-2_*.deb)

lintian --allow-root --fail-on error,warning "${debs[0]}"
listed=$(rpm -qpl "$out"/fyrd-*.rpm)
for file in /usr/bin/fyrd /usr/lib/systemd/system/fyrd.service /usr/share/man/man1/fyrd-agent.1.gz; do
    grep -qx "$file" <<<"$listed" || fail "the rpm has no $file"
done
for archive in "$out"/fyrd-*-linux.tar.gz "$out"/fyrd-*-linux-static.tar.gz; do
    listed=$(tar -tzf "$archive")
    for file in fyrd man/fyrd.1 completions/fyrd.bash fyrd.schema.json systemd/fyrd.service docs/first-cluster.md; do
        grep -q "^[^/]*/$file\$" <<<"$listed" || fail "$archive has no $file"
    done
done
listed=$(unzip -Z1 "$out"/fyrd-*-windows.zip)
for file in fyrd.exe _fyrd.ps1 fyrd.schema.json README-Windows.txt docs/compatibility.md; do
    grep -q "^[^/]*/$file\$" <<<"$listed" || fail "the archive for Windows has no $file"
done
for page in "$out"/files/man/*.1; do
    [ -z "$(man -l --warnings=w -Tutf8 "$page" 2>&1 >/dev/null)" ] || fail "$page is no good manual page"
done
bash -n "$out/files/completions/fyrd.bash"

# The agent runs as its unit runs it, as far as that goes without systemd.
# shellcheck disable=SC2016
in_layer '
export DEBIAN_FRONTEND=noninteractive
fail() { echo "in the layer: $*" >&2; exit 1; }
eventually() { for _ in $(seq 200); do if "$@" >/dev/null 2>&1; then return; fi; sleep 0.1; done; fail "never: $*"; }

dpkg -i /tmp/dist/fyrd_*-1_*.deb
id fyrd
[ "$(stat -c "%U %a" /var/lib/fyrd)" = "fyrd 700" ] || fail "the state is not the user'"'"'s own"
[ "$(stat -c "%U:%G %a" /etc/fyrd/agent.json)" = "root:fyrd 640" ] || fail "the configuration is not as it should be"

# As /usr/share/doc/fyrd/README.Debian says.
install -o fyrd -g fyrd -m 600 /dev/null /var/lib/fyrd/keyring
echo "[\"$(fyrd keygen)\"]" >/var/lib/fyrd/keyring
grep -q "keyring_file" /etc/fyrd/agent.json
command=$(sed -n "s/^ExecStart=//p" /usr/lib/systemd/system/fyrd.service)
[ -n "$command" ] || fail "the unit starts nothing"
ip link set lo up
setpriv --reuid=fyrd --regid=fyrd --clear-groups --no-new-privs $command -bind=127.0.0.1 >/tmp/agent.log 2>&1 &
agent=$!
eventually fyrd members
fyrd members | grep -q alive
grep -q "Encrypted: true" /tmp/agent.log || { cat /tmp/agent.log; fail "it is not encrypted"; }

# An upgrade under a running agent; a configuration that was changed stays.
echo "{\"keyring_file\": \"/var/lib/fyrd/keyring\", \"tags\": {\"a\": \"b\"}}" >/etc/fyrd/agent.json
dpkg -i /tmp/dist/fyrd_*-2_*.deb
grep -q tags /etc/fyrd/agent.json || fail "the upgrade has undone the configuration"
[ "$(stat -c %G /etc/fyrd/agent.json)" = fyrd ] || fail "the upgrade has taken the configuration away"
fyrd members | grep -q alive || fail "the upgrade has ended the agent"
kill -INT $agent
wait $agent || fail "the agent did not leave in good order"

dpkg -r fyrd
[ ! -e /usr/bin/fyrd ] || fail "the program is left"
[ -e /var/lib/fyrd/keyring ] && [ -e /etc/fyrd/agent.json ] || fail "removing is not purging"
dpkg -P fyrd
[ ! -e /var/lib/fyrd ] && [ ! -e /etc/fyrd ] || fail "something is left"
' "${debs[@]}"

# The static program where nothing else is but devices: it finds names by the files that are there, and talks to an agent
# of its own.
alone=$(mktemp -d)
trap 'rm -rf "$alone"' EXIT
mkdir "$alone"/{etc,tmp,dev}
echo '127.0.0.1 localhost' >"$alone/etc/hosts"
tar -xzf "$out"/fyrd-*-linux-static.tar.gz -C "$alone" --strip-components=1 --wildcards '*/fyrd'
# shellcheck disable=SC2016
unshare --mount --net --pid --fork --kill-child bash -euc '
mount --rbind /dev "$0/dev"
ip link set lo up
chroot "$0" /fyrd agent -node=alone -bind=127.0.0.1 -join=localhost -snapshot=/tmp/store >"$0/log" 2>&1 &
for _ in $(seq 200); do
    if chroot "$0" /fyrd members -rpc-addr=localhost:7373 2>/dev/null | grep -q "alone .* alive"; then exit 0; fi
    sleep 0.1
done
cat "$0/log"
exit 1' "$alone" || fail "the static program does not run alone"

# The steps of the container file, without an engine: the last stage over this system in place of the bare one, with the
# program that is built already, then the agent as the first process of its own, as the user that the file says.
# shellcheck disable=SC2016
in_layer '
fail() { echo "in the container: $*" >&2; exit 1; }
eventually() { for _ in $(seq 200); do if "$@" >/dev/null 2>&1; then return; fi; sleep 0.1; done; fail "never: $*"; }
words() { tr -d "[],\"" <<<"$1"; }
while read -r order rest; do
    case $order in
        "" | "#"* | FROM | VOLUME | EXPOSE) ;;
        COPY)
            [ "${rest%% *}" = --from=build ] || fail "COPY $rest is not known to this test"
            install -m 755 /tmp/dist/fyrd "${rest##* }"
            ;;
        RUN) sh -c "$rest" ;;
        USER) user=$rest ;;
        # shellcheck disable=SC2163,SC2086
        ENV) export $rest ;;
        STOPSIGNAL) signal=${rest#SIG} ;;
        HEALTHCHECK) health=$(words "${rest#CMD }") ;;
        ENTRYPOINT) entry=$(words "$rest") ;;
        CMD) command=$(words "$rest") ;;
        *) fail "$order is not known to this test" ;;
    esac
done < <(sed -n "/^FROM debian/,\$p" /tmp/dist/Containerfile | sed -e ":a" -e "/\\\\$/{N;s/\\\\\n//;ba}")
ip link set lo up
env -u FYRD_SNAPSHOT fyrd agent -node=peer -bind=127.0.0.1:7950 -rpc-addr=127.0.0.1:7951 >/tmp/peer.log 2>&1 &
eventually fyrd members -rpc-addr=127.0.0.1:7951
export FYRD_BIND=127.0.0.1 FYRD_NODE=inside FYRD_RETRY_JOIN=127.0.0.1:7950
# shellcheck disable=SC2086
unshare --pid --fork --mount-proc setpriv --reuid="$user" --regid="$user" --clear-groups --no-new-privs \
    $entry $command >/tmp/inside.log 2>&1 &
engine=$!
is() { fyrd members -rpc-addr=127.0.0.1:7951 -status="$1" | grep -q "^inside "; }
eventually is alive
# shellcheck disable=SC2086
setpriv --reuid="$user" --regid="$user" --clear-groups $health >/dev/null || fail "it is not healthy"
first=$(pgrep -P "$engine")
[ "$(stat -c %U "/proc/$first")" = "$user" ] || fail "it runs as another user"
kill -s "$signal" "$first"
wait "$engine" || { cat /tmp/inside.log; fail "it does not end in good order"; }
eventually is left
[ -d /var/lib/fyrd/snapshot ] || fail "it has no memory"
' dist/Containerfile "$out/files/bin/fyrd"
echo "tests/dist.sh: all is well"
