# shellcheck shell=sh
# Sourced by run-tests.sh: sees to a Chromium and its driver for the tests of the live page, where
# that can be had without asking (root on Debian or Ubuntu). Nothing else.
#
#   prepare_browser   never fails: without a browser these tests skip, or, with CI=true, fail

prepare_browser() {
    if command -v chromium >/dev/null 2>&1 && command -v chromedriver >/dev/null 2>&1; then
        return 0
    fi
    [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1 || return 0
    echo "Installing Chromium for the tests of the live page (once) …"
    if ! { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq \
        --no-install-recommends chromium chromium-driver fonts-dejavu-core; } >/dev/null; then
        echo "datasync-crawler: Chromium can't be installed; the page's tests go without." >&2
    fi
}
