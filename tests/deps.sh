#!/bin/sh
# System packages for Debian 12 / Ubuntu 22.04 and later: tests/deps.sh rust|build|run|test|bench...
# Installs only what is missing, and lists it first. Needs root or sudo only when something is missing.
set -eu
cd "$(dirname "$0")/.."

RUST_MIN=1.92
NODE_MIN=18

say() { echo "== $*"; }
die() {
    echo "$*" >&2
    exit 1
}

rust() {
    command -v cargo >/dev/null 2>&1 || die "Rust is missing: install it from https://rustup.rs (version $RUST_MIN or newer), then try again"
    found=$(rustc --version | cut -d' ' -f2 | cut -d- -f1)
    oldest=$(printf '%s\n%s\n' "$RUST_MIN" "$found" | sort -V | head -n1)
    [ "$oldest" = "$RUST_MIN" ] || die "Rust $found is too old, $RUST_MIN or newer is needed: run \`rustup update stable\`, then try again"
}

# The C compiler builds SQLite and the cryptography (aws-lc needs cmake); GStreamer's headers are for the media room.
BUILD="gcc g++ libc6-dev cmake pkg-config libgstreamer1.0-dev libgstreamer-plugins-base1.0-dev ca-certificates"
# The gateway's snapshots: base, good jpegenc, bad parsers, libav decoders. The fleet's pictures: base videotestsrc and
# overlays, good RTP, bad H.264 parser, ugly x264enc, rtsp rtspclientsink.
RUN="gstreamer1.0-plugins-base gstreamer1.0-plugins-good gstreamer1.0-plugins-bad gstreamer1.0-plugins-ugly gstreamer1.0-libav gstreamer1.0-rtsp gstreamer1.0-x util-linux fonts-dejavu-core"
# Programs that judge the gateway.
TEST="ffmpeg mosquitto-clients mosquitto curl sqlite3 gstreamer1.0-tools gstreamer1.0-nice openssl systemd python3-venv iproute2"

# Peers that `kerbside-bench compare` measures beside the gateway; each is skipped when it is not there.
BENCH="janus python3-gi gir1.2-gst-rtsp-server-1.0"

installed() { dpkg-query -W -f='${Status}' "$1" 2>/dev/null | grep -q '^install ok installed$'; }

available() { apt-cache policy "$1" 2>/dev/null | grep -q 'Candidate: [^(]'; }

node_version() { node --version 2>/dev/null | sed 's/^v//; s/\..*//' | grep -E '^[0-9]+$' || echo 0; }

as_root() {
    if [ "$(id -u)" = 0 ]; then
        "$@"
    elif command -v sudo >/dev/null 2>&1; then
        sudo "$@"
    else
        die "run this as root, or install sudo: $*"
    fi
}

wanted=""
optional=""
want() {
    for package in "$@"; do
        installed "$package" || wanted="$wanted $package"
    done
}
# Wanted if this release has it.
like() {
    for package in "$@"; do
        installed "$package" || optional="$optional $package"
    done
}

node_needed=no
for set in "$@"; do
    case $set in
    rust) rust ;;
    build)
        want $BUILD
        command -v node >/dev/null 2>&1 || want nodejs
        command -v npm >/dev/null 2>&1 || want npm
        node_needed=yes
        ;;
    run) want $RUN ;;
    test)
        want $TEST
        like simple-whip-client
        # Ubuntu's chromium package is only a snap: the browser scenarios then need a Chrome or Chromium of your own.
        if ! command -v chromium >/dev/null 2>&1 && ! command -v google-chrome >/dev/null 2>&1; then
            if grep -q '^ID=ubuntu' /etc/os-release; then
                echo "note: no Chromium found and Ubuntu offers it only as a snap; the browser scenarios are skipped unless CHROMIUM names a program"
            else
                like chromium
            fi
        fi
        ;;
    bench)
        like $BENCH
        # Debian enables Janus as a service of its own; the benchmark starts one with its own configuration.
        installed janus || echo "note: the janus package starts a service; \`systemctl disable --now janus\` if it is for the benchmark only"
        ;;
    *) die "usage: $0 [rust] [build] [run] [test] [bench]" ;;
    esac
done

if [ -n "$wanted$optional" ]; then
    command -v apt-get >/dev/null 2>&1 || die "these packages are missing, and only apt is known here:$wanted$optional"
    say "system packages to install:$wanted$optional"
    say "reading package lists"
    as_root apt-get update -qq
    for package in $optional; do
        if available "$package"; then
            wanted="$wanted $package"
        else
            echo "note: $package is not in this release; the tests that use it are skipped"
        fi
    done
    say "installing"
    # shellcheck disable=SC2086
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $wanted >/tmp/kerbside-apt.$$ 2>&1 || {
        tail -n 30 /tmp/kerbside-apt.$$ >&2
        die "apt could not install the packages; its whole output is in /tmp/kerbside-apt.$$"
    }
    rm -f /tmp/kerbside-apt.$$
fi

if [ "$node_needed" = yes ] && [ "$(node_version)" -lt $NODE_MIN ]; then
    say "Node $(node_version) is too old (need $NODE_MIN): fetching Node 22 from the npm registry into gateway/console/.node"
    mkdir -p gateway/console/.node
    npm install --prefix gateway/console/.node --no-audit --no-fund --loglevel=error node@22
fi

# Peers that are not ours, from PyPI; kept until the version changes: directory in target/, module, package, version.
peer() {
    python=target/$1/bin/python
    [ "$($python -c "import $2; print($2.__version__)" 2>/dev/null)" != "$4" ] || return 0
    say "$3 $4 from PyPI into target/$1"
    if ! { python3 -m venv --clear "target/$1" && $python -m pip install --quiet --disable-pip-version-check "$3==$4"; }; then
        echo "note: $3 could not be installed; the tests that use it are skipped"
        rm -rf "target/$1"
    fi
}
for set in "$@"; do
    [ "$set" = test ] || continue
    # WebRTC and MQTT.
    peer aiortc aiortc aiortc 1.16.0
    peer paho paho.mqtt paho-mqtt 2.1.0
done

# A drone that is not ours, from PyPI; kept until the version changes.
PYMAVLINK=2.4.50
for set in "$@"; do
    [ "$set" = test ] || continue
    python=target/pymavlink/bin/python
    if [ "$($python -c 'from importlib.metadata import version; print(version("pymavlink"))' 2>/dev/null)" != "$PYMAVLINK" ]; then
        say "pymavlink $PYMAVLINK from PyPI into target/pymavlink"
        if ! { python3 -m venv --clear target/pymavlink && $python -m pip install --quiet --disable-pip-version-check "pymavlink==$PYMAVLINK"; }; then
            echo "note: pymavlink could not be installed; the tests that use it are skipped"
            rm -rf target/pymavlink
        fi
    fi
done
