# shellcheck shell=sh
# Sourced by run-ingestion.sh and run-tests.sh, in the project's directory: makes the virtual
# environment and keeps it as the requirements file says. Nothing else.
#
#   prepare_venv REQUIREMENTS   sets $venv; leaves with 2 and one sentence when it can't
#
# DATASYNC_VENV names an environment that is used as it is: nothing is made or installed.

fail() {
    echo "datasync-crawler: $1" >&2
    exit 2
}

# The oldest that will do is named last: what the user calls python3 comes first.
find_python() {
    for name in python3 python3.14 python3.13 python3.12 python3.11; do
        if "$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then
            echo "$name"
            return 0
        fi
    done
    return 1
}

# What this distribution has, where apt knows it.
newer_python() {
    for version in 3.14 3.13 3.12 3.11; do
        if apt-cache show "python$version" >/dev/null 2>&1; then
            echo "here: apt install python$version python$version-venv"
            return 0
        fi
    done
    echo "Debian, Ubuntu: apt install python3.12 python3.12-venv; where the distribution has none: uv python install 3.12"
}

make_venv() {
    if ! python=$(find_python); then
        if found=$(python3 --version 2>&1); then
            fail "$found is too old: install Python 3.11 or newer ($(newer_python)), then run this again."
        fi
        fail "there is no Python: install Python 3.11 or newer (Debian, Ubuntu: apt install python3 python3-venv), then run this again."
    fi
    # ensurepip is what Debian's python3-venv brings; without it venv fails half-way.
    if ! "$python" -c 'import venv, ensurepip' >/dev/null 2>&1; then
        version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
        fail "this Python has no venv module: apt install python$version-venv (or python3-venv), then run this again."
    fi
    echo "Making the Python environment $venv (once) …"
    # --clear: also over one that an interrupted run left half-made.
    if ! output=$("$python" -m venv --clear "$venv" 2>&1); then
        printf '%s\n' "$output" >&2
        fail "$venv can't be made: see above; is there room, and may this user write here?"
    fi
}

# Scripts in an environment name its absolute path, so one that was moved has to be made again.
made_here() {
    [ "$(cat "$venv/.made-in" 2>/dev/null)" = "$(pwd -P)" ] && "$venv/bin/python" -c '' 2>/dev/null
}

is_ready() {
    made_here && [ "$(cat "$venv/.installed-$requirements" 2>/dev/null)" = "$wanted" ]
}

prepare_venv() {
    requirements=$1
    if [ -n "${DATASYNC_VENV:-}" ]; then
        venv=$DATASYNC_VENV
        "$venv/bin/python" -c '' 2>/dev/null || fail "DATASYNC_VENV is $venv, where no Python is."
        return 0
    fi
    venv=.venv
    wanted=$(cat requirements*.txt | cksum)
    is_ready && return 0
    # One at a time (where there is flock, of util-linux): two installs would spoil each other.
    if command -v flock >/dev/null 2>&1; then
        exec 9<"$requirements"
        flock 9
        if is_ready; then
            exec 9<&-
            return 0
        fi
    fi
    # Made again unless an install was finished: an interrupted pip leaves anything.
    made_here || make_venv
    rm -f "$venv/.made-in" "$venv"/.installed-*
    echo "Installing what $requirements names (takes a minute) …"
    if ! "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-input \
        --require-virtualenv -r "$requirements"; then
        fail "the packages of $requirements can't be installed: see above; a network (or a pip mirror, PIP_INDEX_URL) is needed this once. Then run this again."
    fi
    if [ "$requirements" = requirements-dev.txt ]; then
        echo "$wanted" >"$venv/.installed-requirements.txt" # which it includes
    fi
    echo "$wanted" >"$venv/.installed-$requirements"
    pwd -P >"$venv/.made-in"
    exec 9<&-
}
