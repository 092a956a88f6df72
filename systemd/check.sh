#!/bin/sh
# Checks what lies in this directory: the units are valid and tight, users and directories can be made, and every log
# line that the README explains is one that the gateway writes.
#   sh systemd/check.sh [PATH OF A KERBSIDE BINARY]
set -eu

here=$(cd "$(dirname "$0")" && pwd)
root=$(dirname "$here")
exposure_max=20 # tenths

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

fail() {
    echo "systemd: $*" >&2
    exit 1
}

command -v systemd-analyze >/dev/null || fail "systemd-analyze is missing; install the package systemd"
version=$(systemd-analyze --version | sed -n '1s/^systemd \([0-9]*\).*/\1/p')

# The unit as installed, but with a binary that is there: verify looks for it.
binary=${1:-/bin/true}
binary=$(cd "$(dirname "$binary")" && pwd)/$(basename "$binary")
[ -x "$binary" ] || fail "$binary is not a program"
for unit in kerbside.service kerbside.socket; do
    sed -e "s#^ExecStart=/usr/bin/kerbside#ExecStart=$binary#" -e '/^Documentation=file:/d' "$here/$unit" >"$work/$unit"
done

# verify tells of every unit it meets: only words about ours count, but then any of them.
SYSTEMD_LOG_LEVEL=notice systemd-analyze --man=no verify "$work/kerbside.service" "$work/kerbside.socket" >"$work/said" 2>&1 ||
    verify_failed=yes
if grep -i kerbside "$work/said" >&2; then
    fail "systemd-analyze verify is not content"
fi
if [ "${verify_failed:-no}" = yes ]; then
    cat "$work/said" >&2
    fail "systemd-analyze verify failed"
fi
echo "systemd: units are valid (systemd $version)"

if [ "$version" -ge 250 ]; then
    systemd-analyze --no-pager --offline=true --threshold=$exposure_max security "$work/kerbside.service" >"$work/security" || {
        cat "$work/security" >&2
        fail "exposure is above $exposure_max tenths"
    }
    grep -o 'Overall exposure level.*' "$work/security" | sed 's/^/systemd: /; s/ [^ ]*$//'
else
    echo "systemd: exposure is not judged: systemd $version cannot do it offline, 250 can"
fi

if [ "$(id -u)" = 0 ] && command -v systemd-sysusers >/dev/null && command -v systemd-tmpfiles >/dev/null; then
    mkdir -p "$work/root/etc" "$work/root/var/lib"
    systemd-sysusers --root="$work/root" "$here/sysusers.conf" >/dev/null 2>"$work/said" || fail "sysusers: $(cat "$work/said")"
    grep -q '^kerbside:' "$work/root/etc/passwd" || fail "sysusers.conf makes no user kerbside"
    systemd-tmpfiles --root="$work/root" --create "$here/tmpfiles.conf" 2>"$work/said" || fail "tmpfiles: $(cat "$work/said")"
    [ "$(stat -c %a "$work/root/var/lib/kerbside")" = 700 ] || fail "tmpfiles.conf does not make the state directory"
    echo "systemd: user and directories are made"
else
    echo "systemd: users and directories are not tried: that needs root"
fi

# README.md, section "Log lines": the words between the first pair of backquotes of each row.
lines=0
sed -n '/^## Log lines/,/^## /s/^| `\([^`]*\)`.*/\1/p' "$here/README.md" >"$work/lines"
while IFS= read -r words; do
    grep -rqF -- "$words" "$root/gateway/src" || fail "README.md explains a log line that nothing writes: $words"
    lines=$((lines + 1))
done <"$work/lines"
[ "$lines" -gt 0 ] || fail "README.md explains no log line"
echo "systemd: $lines log lines of the README are in the code"
