#!/bin/sh
# Starts Scrapyd, but never with its door open: without a password it would run what anybody sends.
#
#   SCRAPYD_PASSWORD=… sh deploy/scrapyd.sh     in the directory that holds scrapyd.conf
#
# Exit status 2 when the password is missing.
set -u
if [ -z "${SCRAPYD_PASSWORD:-}" ]; then
    echo "datasync-crawler: SCRAPYD_PASSWORD isn't set. Set it in the environment: without it Scrapyd would let everybody in." >&2
    exit 2
fi
exec python -m scrapyd --pidfile= "$@"
