#!/usr/bin/env bash
# Fairlead on a fresh machine that has Python 3.11 or newer:
#
#   ./setup.sh                  install into .venv, then run the demo until Ctrl-C
#   ./setup.sh demo --exit      install, run the demo's two acts, end
#   ./setup.sh test [ARGS]      install, run the whole test suite (ARGS go to pytest)
#   ./setup.sh test-device      the tests on an emulated arm64 device; takes long, and needs root (docs/testing.md)
#   ./setup.sh install [--dev]  only install
#   ./setup.sh wheels DIR [--machine aarch64] [--python 3.11]
#                               put into DIR all that a device needs to install the agent offline
#
# Needs no root. Everything that it writes lies in this folder's .venv, in DIR, and in a temporary folder.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

fail() {
    printf 'setup.sh: %s\n' "$*" >&2
    exit 1
}

find_python() {
    local candidate
    for candidate in python3 python3.13 python3.12 python3.11 python3.14; do
        if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then
            command -v "$candidate"
            return
        fi
    done
    fail "Python 3.11 or newer is needed and was not found. On Debian 12 or Ubuntu: sudo apt install python3 python3-venv"
}

# One lock for those who run Fairlead, one for those who work on it, which holds the first; both pinned and hashed.
install() {
    local kind=$1 lock python stamp made found
    [ -w . ] || fail "no permission to write in $PWD. Copy Fairlead to a folder of your own."
    python=$(find_python)
    stamp=.venv/installed
    made="$("$python" -c 'import sys; print(sys.version)' | tr '\n' ' ')$(cat requirements*.lock pyproject.toml | cksum)"
    found=$(cat "$stamp" 2>/dev/null || true)
    if [ -x .venv/bin/python ] && { [ "$found" = "dev $made" ] || [ "$found" = "$kind $made" ]; }; then
        return
    fi
    lock=requirements.lock
    [ "$kind" = run ] || lock=requirements-dev.lock
    "$python" -c 'import venv, ensurepip' 2>/dev/null ||
        fail "Python's venv module is missing. On Debian or Ubuntu: sudo apt install python3-venv"
    printf 'Installing into .venv (once, about a minute) ...\n'
    rm -f "$stamp"
    "$python" -m venv --clear .venv >/dev/null || fail "could not make .venv: see the line above. Is the disk full?"
    local log=.venv/install.log
    if ! .venv/bin/python -m pip install --disable-pip-version-check --require-hashes --only-binary=:all: \
        -r "$lock" >"$log" 2>&1; then
        grep -E '^(ERROR|WARNING: Retrying)' "$log" | tail -n 1 >&2 || true
        fail "the packages could not be downloaded. Is this machine online, and is the package index reachable? The whole story: $log"
    fi
    .venv/bin/python -m pip install --disable-pip-version-check --no-deps --no-build-isolation --no-index -e . \
        >>"$log" 2>&1 || fail "Fairlead itself could not be installed. The whole story: $log"
    printf '%s' "$kind $made" >"$stamp"
}

# The agent's wheel, those that it needs, pinned and hashed, and the script that installs them on a device.
wheels() {
    local dir=${1:-} machine python='' versions=(3.11 3.12 3.13) copy log
    machine=$(uname -m)
    case $dir in '' | -*) fail "wheels needs a folder: ./setup.sh wheels DIR" ;; esac
    shift
    while [ $# -gt 0 ]; do
        [ $# -ge 2 ] || fail "$1 needs a value"
        case $1 in
        --machine) machine=$2 ;;
        --python) versions=("$2") ;;
        *) fail "unknown option '$1' of wheels: --machine, --python" ;;
        esac
        shift 2
    done
    mkdir -p "$dir" || fail "$dir can not be made"
    rm -f "$dir"/fairlead-*.whl
    copy=$(mktemp -d)
    # shellcheck disable=SC2064 # the folder is known now
    trap "rm -rf '$copy'" EXIT
    log=$dir/wheels.log
    cp -r pyproject.toml README.md LICENSE fleet_protocol broker_config firmware_tools device_agent server "$copy"
    .venv/bin/python -m pip wheel --disable-pip-version-check --no-deps --no-build-isolation --no-index \
        --wheel-dir "$dir" "$copy" >"$log" 2>&1 || fail "the agent's wheel could not be made. The whole story: $log"
    for python in "${versions[@]}"; do
        .venv/bin/python -m pip download --disable-pip-version-check --require-hashes --only-binary=:all: \
            --python-version "$python" --platform "manylinux2014_$machine" --platform "manylinux_2_28_$machine" \
            --dest "$dir" -r requirements-agent.lock >>"$log" 2>&1 ||
            fail "$(grep '^ERROR' "$log" | tail -n 1 | cut -c8-300); the whole story: $log"
    done
    cp requirements-agent.lock deploy/install-agent.sh "$dir"
    printf 'Ready: copy %s to the device and run its install-agent.sh there, as root\n' "$dir"
}

verb=${1:-demo}
[ $# -eq 0 ] || shift
case $verb in
demo)
    install run
    exec .venv/bin/fairlead demo "$@"
    ;;
test)
    install dev
    exec .venv/bin/python -m pytest --numprocesses 4 --dist worksteal "$@"
    ;;
test-device)
    install dev
    exec .venv/bin/python -m pytest -m device tests/device/vm "$@"
    ;;
install)
    if [ "${1:-}" = --dev ]; then install dev; else install run; fi
    printf 'Ready: .venv/bin/fairlead, .venv/bin/fairlead-agent, .venv/bin/fairlead-firmware\n'
    ;;
wheels)
    [ -x .venv/bin/python ] || install run
    wheels "$@"
    ;;
-h | --help | help)
    sed -n '2,13s/^# \{0,1\}//p' "$0"
    ;;
*)
    fail "unknown command '$verb': demo, test, test-device, install, wheels or help"
    ;;
esac
