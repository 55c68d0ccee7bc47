#!/bin/sh
# scifm.sh: sets up on first use, then forwards its words, in the manner of gradlew.
#
#   ./scifm.sh train recipes/quickstart.py    the `scifm` command with these words
#   ./scifm.sh test [words for pytest]        the test suite (adds pytest, ruff, pyright on first use)
#
# The first call makes .venv beside this file and installs the checkout into it.  Later calls start at once; a changed
# pyproject.toml installs again; an interrupted set-up is started over by the next call.
#
#   PYTHON=/path/to/python3.12 ./scifm.sh ...    makes .venv with an interpreter of your choice (3.11 or newer)
#
# What it keeps, all in .venv: scifm-made (this script made it, so it may delete it), scifm-busy (an installation has
# begun and not ended), scifm-ready-run and scifm-ready-test (what was installed, from which pyproject.toml, where).
set -eu

say() { printf 'scifm.sh: %s\n' "$*" >&2; }
die() { say "$@"; exit 1; }

# -- where we are: follow symbolic links to the checkout -----------------------------------------------------------
self=$0
while [ -h "$self" ]; do
    link=$(readlink "$self")
    case $link in
        /*) self=$link ;;
        *) self=$(dirname "$self")/$link ;;
    esac
done
home=$(CDPATH='' cd -- "$(dirname -- "$self")" && pwd -P)
venv=$home/.venv
py=$venv/bin/python
lock=$home/.venv.lock
case ${1-} in test) need="test" ;; *) need="run" ;; esac

# -- is the set-up done? -------------------------------------------------------------------------------------------
stamp() { printf '%s in %s' "$(cksum <"$home/pyproject.toml")" "$home"; }
holds() { [ -f "$1" ] && IFS= read -r held <"$1" && [ "$held" = "$want" ]; }
want=$(stamp)
ready() { [ -x "$py" ] && [ ! -e "$venv/scifm-busy" ] && holds "$venv/scifm-ready-$need"; }

# -- which Python --------------------------------------------------------------------------------------------------
# Debian and Ubuntu ship Python without venv's ensurepip; we ask for it before we begin.
check='import sys
if sys.version_info < (3, 11): sys.exit("is Python %d.%d, too old" % sys.version_info[:2])
try:
    import venv, ensurepip
except ImportError as missing: sys.exit("lacks the venv module (%s)" % missing)'

find_python() {
    seen=
    for candidate in ${PYTHON:+"$PYTHON"} $([ -n "${PYTHON-}" ] || echo python3 python3.13 python3.12 python3.11 python); do
        command -v "$candidate" >/dev/null 2>&1 || continue
        if why=$("$candidate" -c "$check" 2>&1); then
            found=$candidate
            return 0
        fi
        seen="$seen
    $(command -v "$candidate") $(printf '%s' "$why" | tail -n 1)"
    done
    say "needs Python 3.11 or newer with its venv module.${PYTHON:+ PYTHON=$PYTHON will not do.}
  Found:${seen:- none}
  To get it:
    Debian, Ubuntu    sudo apt install python3 python3-venv
    Fedora            sudo dnf install python3
    macOS             brew install python
  Or name one that you have:  PYTHON=/path/to/python3.12 ./scifm.sh ..."
    return 1
}

# -- one set-up at a time ------------------------------------------------------------------------------------------
# mkdir either makes the folder or fails, for all callers alike.  The lock names this shell and the installer it runs;
# it is stale when both are gone (kill -9 takes the shell but leaves the installer at work).
alive() { [ -n "$1" ] && kill -0 "$1" 2>/dev/null; }
owner() { cat "$lock/owner" "$lock/child" 2>/dev/null | tr '\n' ' ' || true; }

take_lock() {
    told='' nameless=0
    until mkdir "$lock" 2>/dev/null; do
        [ -w "$home" ] || die "cannot write to $home, where .venv should be made."
        pids=$(owner) living=
        for pid in $pids; do alive "$pid" && living=$pid; done
        [ -n "$pids" ] && nameless=0 || nameless=$((nameless + 1))
        if [ -z "$living" ] && { [ -n "$pids" ] || [ "$nameless" -gt 5 ]; }; then
            # Move it away first: of several callers that find it stale only one succeeds.
            if mv "$lock" "$lock.$$" 2>/dev/null; then
                [ "$(cat "$lock.$$/owner" 2>/dev/null || true)" = "${pids%% *}" ] || mv "$lock.$$" "$lock" 2>/dev/null || true
                rm -rf "$lock.$$"
            fi
            continue
        fi
        [ -n "$told" ] || say "another set-up is at work here (process ${living:-unknown}); waiting for it."
        told=yes
        sleep 1
    done
    echo $$ >"$lock/owner"
    trap 'rm -rf "$lock"' EXIT
    trap 'say "interrupted; the next call starts the set-up over."; exit 130' INT
    trap 'exit 143' TERM
    trap 'exit 129' HUP
}

# Runs a command whose process the lock names.  Its output goes to stderr: stdout belongs to scifm's own words.
run() { sh -c 'echo $$ >"$0/child"; exec "$@"' "$lock" "$@" >&2 </dev/null; }

pip() {
    words=$1
    shift
    # progress bars on a terminal, errors only in a log
    [ -t 2 ] && quiet='' || quiet=-qq
    # a user's PIP_USER=1 would miss the environment
    run env PIP_USER=0 PIP_DISABLE_PIP_VERSION_CHECK=1 "$py" -m pip "$words" ${quiet:+"$quiet"} "$@"
}

# -- set-up --------------------------------------------------------------------------------------------------------
make_venv() {
    if [ -e "$venv/scifm-busy" ] && [ -e "$venv/scifm-made" ]; then
        say "the last set-up was interrupted: starting .venv over."
        rm -rf "$venv"
    fi
    [ -x "$py" ] && "$py" -c 'import sys, pip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && return 0
    if [ -e "$venv" ] || [ -h "$venv" ]; then
        [ -e "$venv/scifm-made" ] || die "$venv exists, was not made by this script and holds no working Python 3.11" \
            "with pip. Move it away and call again."
        say "the Python behind .venv is gone: starting .venv over."
        rm -rf "$venv"
    fi
    find_python || exit 1
    say "first use: making $venv with $("$found" -c 'import sys; print("Python %d.%d.%d" % sys.version_info[:3])')."
    mkdir "$venv"
    : >"$venv/scifm-made"
    : >"$venv/scifm-busy"
    run "$found" -m venv "$venv" || die "could not make the virtual environment; the message above says why."
    # Newer pips install in half the time.  An old one does too, so this may fail.
    pip install --upgrade pip || say "pip could not be brought up to date; going on with the one there is."
}

has_gpu() { [ -e /proc/driver/nvidia/version ] || { command -v nvidia-smi >/dev/null 2>&1 && nvidia-smi -L >/dev/null 2>&1; }; }

# On Linux the ordinary torch brings 4 GB of CUDA that a machine without an NVIDIA card has no use for.  uv knows where
# PyTorch keeps its CPU builds.  A short look tells whether that place can be reached from here (a dry run, seconds);
# where it cannot, pip takes what it finds by itself.
install_torch() {
    torch=$(sed -n 's/^ *"\(torch[<>=~!][^"]*\)",* *$/\1/p' "$home/pyproject.toml")
    [ -n "$torch" ] || die "found no line \"torch>=...\" among the dependencies in $home/pyproject.toml."
    if "$py" -c 'import sys; from importlib.metadata import version
from pip._vendor.packaging.requirements import Requirement
sys.exit(version("torch") not in Requirement(sys.argv[1]).specifier)' "$torch" 2>/dev/null; then
        return 0
    fi
    if [ "$(uname -s)" != Linux ]; then
        say "installing $torch."
    elif has_gpu; then
        say "installing $torch with CUDA, for the NVIDIA GPU of this machine (some 3 GB to download)."
    else
        say "installing $torch in its CPU build, since this machine has no NVIDIA GPU (some 200 MB to download)."
        install_cpu_torch && return 0
        say "PyTorch's place for CPU builds is out of reach from here; taking the build that pip finds."
    fi
    pip install "$torch" || die "could not install torch. Is there a network, or a package mirror that pip knows?" \
        "The message above says more; the next call goes on from here."
}

install_cpu_torch() {
    command -v timeout >/dev/null 2>&1 || return 1
    pip install --retries 1 --timeout 10 uv || return 1
    set -- "$py" -m uv pip install --python "$py" --torch-backend=cpu --no-deps "$torch"
    run env UV_HTTP_RETRIES=0 UV_HTTP_CONNECT_TIMEOUT=4 UV_HTTP_TIMEOUT=8 timeout 20 "$@" --dry-run 2>/dev/null || return 1
    run "$@"
}

install_checkout() {
    extra='' why='its dependencies'
    [ "$need" = test ] && extra='[test]' why='its dependencies and the test tools'
    if [ -e "$venv/scifm-ready-run" ]; then
        say "bringing this checkout, $why up to date."
    else
        say "installing this checkout, $why (a minute or two, some 250 MB to download)."
    fi
    # from inside, so that no character in the path is read as part of a requirement
    (cd "$home" && pip install -e ".$extra") ||
        die "could not install the dependencies; the message above says why, and the next call goes on from here."
}

setup() {
    take_lock
    if ! ready; then
        started=$(date +%s)
        make_venv
        [ -e "$venv/scifm-ready-run" ] && ! holds "$venv/scifm-ready-run" &&
            say "pyproject.toml or the place of the checkout has changed: installing again."
        : >"$venv/scifm-busy"
        trap 'rm -f "$venv/scifm-busy"; rm -rf "$lock"' EXIT # an installer that gives up leaves .venv in order ...
        trap 'trap - EXIT; rm -rf "$lock"; say "interrupted; the next call starts the set-up over."; exit 130' INT
        trap 'trap - EXIT; rm -rf "$lock"; exit 143' TERM # ... but one that was cut short may not
        trap 'trap - EXIT; rm -rf "$lock"; exit 129' HUP
        install_torch
        install_checkout
        for done in run $need; do
            printf '%s\n' "$want" >"$venv/scifm-ready-$done.new"
            mv "$venv/scifm-ready-$done.new" "$venv/scifm-ready-$done"
        done
        rm -f "$venv/scifm-busy"
        say "ready after $(($(date +%s) - started)) s."
    fi
    rm -rf "$lock"
    trap - EXIT INT TERM HUP
}

ready || setup

if [ "$need" = test ]; then
    shift
    cd "$home"
    exec "$py" -m pytest "$@"
fi
exec "$venv/bin/scifm" "$@"
