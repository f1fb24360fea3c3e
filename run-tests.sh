#!/bin/sh
# Everything that is checked: lint, format, types, the rooms' borders, tests with branch coverage.
# Runs all of it whatever fails, and says at the end what did.
#
#   sh run-tests.sh [pytest's arguments]
#
# Exit status: 0 all is well, 1 something failed, 2 something has to be set up first.
set -u
CDPATH="" cd -- "$(dirname -- "$0")" || exit 2
. ./scripts/venv.sh
. ./scripts/browser.sh
prepare_venv requirements-dev.txt
prepare_browser
bin=$venv/bin
failed=

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
"$bin/coverage" erase
# Crawls run in processes of their own; coverage follows them (pyproject.toml, patch = subprocess).
# Three workers for two cores: most of a crawl test is waiting, for processes and for pauses.
workers=$("$bin/python" -c 'import os; print(len(os.sched_getaffinity(0)) * 3 // 2)')
echo "== pytest"
"$bin/coverage" run -m pytest --numprocesses "$workers" --dist worksteal "$@"
status=$?
if [ "$status" -eq 1 ]; then
    # Real processes, real clocks, a busy machine: what fails is run again, by itself. What fails
    # then has failed; what passes stands above all the same, as a test to be made steadier.
    echo "== pytest once more: what failed, one test after another"
    "$bin/coverage" run -m pytest --last-failed --last-failed-no-failures none "$@"
    status=$?
fi
[ "$status" -eq 0 ] || failed="$failed pytest"
echo "== coverage"
"$bin/coverage" combine --quiet
"$bin/coverage" report || failed="$failed coverage"
# Of the whole suite only: a part of it can't cover the pure rooms.
if [ $# -eq 0 ]; then
    pure='datasync_crawler/events/*,datasync_crawler/crawl/*,datasync_crawler/ratelimit/*'
    check pure-rooms-coverage "$bin/coverage" report --include="$pure" --fail-under=98
fi

if [ -n "$failed" ]; then
    echo "FAILED:$failed"
    exit 1
fi
echo "All checks passed."
