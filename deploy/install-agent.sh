#!/usr/bin/env bash
# Installs Fairlead's agent on this device (Debian or Ubuntu, systemd, Python 3.11 or newer), as root:
#
#   ./install-agent.sh --settings node-1 --server https://server.example.com --token @enrol-token --group line-1
#
# Again with newer wheels it upgrades: settings and state stay, and a cut at any instant leaves the old or the new agent.
#
#   --wheels DIR        install from this folder, offline (default: this script's own folder, where it holds wheels)
#   --wheel FILE        the agent's own wheel; what it needs is downloaded, pinned and hashed
#   --settings DIR      the folder that `fairlead broker device` made for this device
#   --device, --fleet, --class, --broker, --broker-ca, --broker-cert, --broker-key, --allow-host, --variable
#                       where there is no such folder: what stands in /etc/fairlead/agent.toml;
#                       beside one, the last two are added to what it says
#   --server URL --token TOKEN|@FILE --group GROUP [--root-sha256 DIGEST]
#                       enrol with the server, which answers with the fleet's root
#   --trust FILE        trust this root.json instead of asking a server
#   --no-start          leave the agent that runs as it is
#   --uninstall         take the agent away again; settings, keys and state are kept, but with --purge
#
# Without --settings and --device only the program and its unit are laid down, for an image that many devices start from.
set -euo pipefail
umask 022 # its workers, which are not root, read the program too

home=/opt/fairlead
config=/etc/fairlead/agent.toml
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

fail() {
    printf 'install-agent.sh: %s\n' "$*" >&2
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
    fail "Python 3.11 or newer is needed and was not found. On Debian 12 or Ubuntu: apt install python3 python3-venv"
}

# The agent's wheel, its lock, and whether the index may be asked.
find_wheels() {
    local found
    if [ -n "$wheel" ]; then
        [ -f "$wheel" ] || fail "$wheel: no such file"
        source=()
    else
        wheels=${wheels:-$here}
        [ -d "$wheels" ] || fail "$wheels: no such folder"
        mapfile -t found < <(find "$wheels" -maxdepth 1 -name 'fairlead-*.whl')
        [ ${#found[@]} -gt 0 ] || fail "no fairlead-*.whl in $wheels: give --wheels DIR, as made by \`./setup.sh wheels DIR\`"
        [ ${#found[@]} -eq 1 ] || fail "more than one fairlead-*.whl in $wheels"
        wheel=${found[0]}
        source=(--no-index --find-links "$wheels")
    fi
    for lock in "$(dirname "$wheel")" "$here" "$here/.."; do
        lock=$lock/requirements-agent.lock
        [ ! -f "$lock" ] || return 0
    done
    fail "requirements-agent.lock is neither beside the wheel nor beside this script"
}

# A new environment beside the old one; $home/venv leads to one or the other.
install_program() {
    local python name log=$home/install.log
    python=$(find_python)
    "$python" -c 'import venv, ensurepip' 2>/dev/null ||
        fail "Python's venv module is missing. On Debian or Ubuntu: apt install python3-venv"
    name=$({ "$python" -c 'import sys; print(sys.version)'; cat "$lock" "$wheel"; } | sha256sum | cut -c1-16)
    venv=$home/venvs/$name
    if [ ! -e "$venv/complete" ]; then
        rm -rf "$venv"
        mkdir -p "$home/venvs"
        "$python" -m venv "$venv" >"$log" 2>&1 || fail "could not make $venv; the whole story: $log"
        "$venv/bin/python" -m pip install --disable-pip-version-check --require-hashes --only-binary=:all: \
            "${source[@]}" -r "$lock" >>"$log" 2>&1 ||
            fail "what the agent needs could not be installed: $(last_error "$log"); the whole story: $log"
        "$venv/bin/python" -m pip install --disable-pip-version-check --no-index --no-deps "$wheel" >>"$log" 2>&1 ||
            fail "the agent could not be installed: $(last_error "$log"); the whole story: $log"
        touch "$venv/complete"
        sync -f "$venv"
    fi
}

# In one step, durably.
lead_to() {
    ln -sfn "$1" "$home/venv.new"
    mv -T "$home/venv.new" "$home/venv"
    sync -f "$home"
}

# The new program looks at the wishes first, so that a mistake changes nothing; then it takes the old one's place. A
# running agent is started anew, and one that does not come up is not kept.
place_agent() {
    local before
    "$venv/bin/fairlead-agent" install --config "$config" --no-start "$@" >/dev/null
    before=$(readlink "$home/venv" || true)
    lead_to "venvs/${venv##*/}"
    if ! "$agent" install --config "$config" "${start[@]}"; then
        [ -n "$before" ] && [ "$before" != "$(readlink "$home/venv")" ] || exit 1
        lead_to "$before"
        "$agent" install --config "$config" >/dev/null || true
        fail "the new agent is not kept; $home/venv leads to $before, as before"
    fi
}

last_error() {
    grep '^ERROR' "$1" | tail -n 1 | cut -c8-300
}

# Environments that nothing leads to any more.
forget_old_programs() {
    local current venv
    current=$(readlink -f "$home/venv")
    for venv in "$home"/venvs/*; do
        [ "$venv" = "$current" ] || rm -rf "$venv"
    done
}

uninstall() {
    if [ -x "$home/venv/bin/fairlead-agent" ]; then
        "$home/venv/bin/fairlead-agent" uninstall --config "$config" "$@"
    fi
    rm -rf "$home"
}

wheels='' wheel='' venv='' source=() place=() enrol=() trust='' start=() uninstall=no purge=()
while [ $# -gt 0 ]; do
    case $1 in
    --no-start) start=(--no-start) ;;
    --uninstall) uninstall=yes ;;
    --purge) purge=(--purge) ;;
    -h | --help)
        sed -n '2,24s/^# \{0,1\}//p' "$0"
        exit 0
        ;;
    --*)
        case $1 in
        --wheels) wheels=${2-} ;;
        --wheel) wheel=${2-} ;;
        --trust) trust=${2-} ;;
        --server | --token | --group | --root-sha256) enrol+=("$1" "${2-}") ;;
        --settings | --device | --fleet | --class | --broker | --broker-ca | --broker-cert | --broker-key | --allow-host | --variable)
            place+=("$1" "${2-}")
            ;;
        *) fail "unknown option $1: see --help" ;;
        esac
        [ $# -ge 2 ] || fail "$1 needs a value"
        shift
        ;;
    *) fail "unexpected $1: see --help" ;;
    esac
    shift
done

[ "$(id -u)" = 0 ] || fail "this needs root: run it with sudo"
[ -d /run/systemd/system ] || fail "systemd does not run this machine"
if [ $uninstall = yes ]; then
    uninstall "${purge[@]}"
    exit 0
fi
[ ${#purge[@]} = 0 ] || fail "--purge goes with --uninstall"
find_wheels
install_program
agent=$home/venv/bin/fairlead-agent
place_agent "${place[@]}"
if [ -n "$trust" ]; then
    "$agent" init --config "$config" --root "$trust"
elif [ ${#enrol[@]} -gt 0 ]; then
    "$agent" enroll --config "$config" "${enrol[@]}"
fi
if [ ${#start[@]} = 0 ]; then
    systemctl start fairlead-agent.service
    forget_old_programs
fi
