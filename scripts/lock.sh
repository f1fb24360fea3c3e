#!/bin/sh
# Makes requirements*.txt of requirements*.in: every package pinned and hashed, for Python 3.11 and
# newer on every platform. Versions stay as they are unless an .in file says otherwise.
#
#   sh scripts/lock.sh             after an .in file was edited
#   sh scripts/lock.sh --upgrade   take what is new
#
# Needs uv (pip install uv) and the package index that uv is set up for (UV_DEFAULT_INDEX, else its
# own default). Exit status: 0, or uv's.
set -eu
CDPATH="" cd -- "$(dirname -- "$0")/.."
if ! command -v uv >/dev/null 2>&1; then
    echo "datasync-crawler: there is no uv: pip install uv, then run this again." >&2
    exit 2
fi

lock() {
    name=$1
    shift
    # Extras stay: pip, with hashes, refuses pytest-cov's coverage[toml] for a pin of coverage alone
    # as soon as a newer coverage is published.
    uv pip compile --no-config --quiet --universal --python-version 3.11 --generate-hashes \
        --no-strip-extras \
        --custom-compile-command "sh scripts/lock.sh" \
        --output-file "$name.txt" "$@" "$name.in"
}

lock requirements "$@"
# What all of them hold is of one version.
lock requirements-scrapyd --constraint requirements.txt "$@"
lock requirements-dev --constraint requirements.txt --constraint requirements-scrapyd.txt "$@"
