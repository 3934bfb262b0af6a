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
dist/build deb rpm tar
REVISION=2 dist/build deb
debs=("$out"/fyrd_*-1_*.deb "$out"/fyrd_*-2_*.deb)

lintian --allow-root --fail-on error,warning "${debs[0]}"
listed=$(rpm -qpl "$out"/fyrd-*.rpm)
for file in /usr/bin/fyrd /usr/lib/systemd/system/fyrd.service /usr/share/man/man1/fyrd-agent.1.gz; do
    grep -qx "$file" <<<"$listed" || fail "the rpm has no $file"
done
listed=$(tar -tzf "$out"/fyrd-*.tar.gz)
grep -q '/fyrd$' <<<"$listed" || fail "the archive has no program"
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
echo "tests/dist.sh: all is well"
