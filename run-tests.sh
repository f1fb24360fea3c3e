#!/bin/sh
# All checks: lint, format, types, import borders, tests, with branch coverage of the pure rooms.
# Runs them all even when one fails, and lists the failed ones at the end.
#
#   sh run-tests.sh [pytest's arguments]
#
# Exit status: 0 all passed, 1 something failed, 2 something has to be set up first.
set -u
CDPATH="" cd -- "$(dirname -- "$0")" || exit 2
. ./scripts/venv.sh
. ./scripts/browser.sh
prepare_venv requirements-dev.txt
prepare_browser
bin=$venv/bin
failed=
# Hundreds of tests run a command in a process of its own: without kept bytecode each of them
# compiles the package again, 0.3 s of 1 s.
unset PYTHONDONTWRITEBYTECODE

check() {
    name=$1
    shift
    echo "== $name"
    "$@" || failed="$failed $name"
}

check ruff "$bin/ruff" check .
check format "$bin/ruff" format --check .
check mypy "$bin/mypy"
check lint-imports "$bin/lint-imports"
# Two workers a core: much of a crawl test is waiting, for rate limits and leases.
workers=$("$bin/python" -c 'import os; print(len(os.sched_getaffinity(0)) * 2)')
# Coverage only for the whole suite: part of it can't cover the pure rooms.
cov=
[ $# -eq 0 ] && cov=--cov
# shellcheck disable=SC2086  # an empty $cov is no argument
check pytest "$bin/python" -m pytest --numprocesses "$workers" --dist worksteal $cov "$@"

if [ -n "$failed" ]; then
    echo "FAILED:$failed"
    exit 1
fi
echo "All checks passed."
