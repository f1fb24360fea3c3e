#!/bin/sh
# Saves the configured database (a server's or the embedded one) into a file, or brings it back.
# Saving may run during a crawl: it sees one moment, with events and ledger that belong together.
#
#   sh scripts/backup.sh save FILE       pg_dump's custom format, made with PostgreSQL 18's pg_dump
#   sh scripts/backup.sh restore FILE    into a database that holds no tables of ours yet
#
# The connection and its password come from `scrapy psql`, so they stand in no command line.
# Exit status: 0, 1 it failed, 2 called wrongly or set up wrongly.
# shellcheck disable=SC2016,SC2089,SC2090  # RUN is expanded by psql's shell, not by this one
set -u
usage() {
    echo "datasync-crawler: sh scripts/backup.sh save FILE, or restore FILE" >&2
    exit 2
}
[ $# -eq 2 ] || usage
case $2 in
/*) file=$2 ;;
*) file=$PWD/$2 ;;
esac
CDPATH="" cd -- "$(dirname -- "$0")/.." || exit 2
. ./scripts/venv.sh
prepare_venv requirements.txt
bin=$("$venv/bin/python" -c 'from datasync_crawler.store.pghome import find_psql; print(find_psql().parent)') || exit 2

case $1 in
save)
    [ ! -e "$file" ] || fail "$file is there already: name a new file."
    FROM=$file.part TO=$file
    DO="$bin/pg_dump"
    RUN='"$DO" --format=custom --file="$FROM" && mv "$FROM" "$TO"'
    ;;
restore)
    [ -r "$file" ] || fail "$file can't be read."
    FROM=$file TO=$(mktemp) || exit 1
    rm -f "$TO"
    DO="$bin/pg_restore" PSQL="$bin/psql"
    # In one transaction. Servers before 17 don't know transaction_timeout. A damaged backup must not
    # be committed half: it is followed by a statement that fails.
    RUN='{ "$DO" --no-owner --no-privileges --file=- "$FROM" || echo "SELECT 1/0;"; } |
        sed "/^SET transaction_timeout = 0;\$/d" |
        "$PSQL" -X -q -v ON_ERROR_STOP=1 --single-transaction >/dev/null && touch "$TO"'
    export PSQL
    ;;
*) usage ;;
esac
export DO FROM TO RUN
umask 077
# psql hands its connection on; whether the command ended well is seen by the file it leaves.
"$venv/bin/python" -m scrapy psql -X -q <<'END'
\setenv PGHOST :HOST
\setenv PGPORT :PORT
\setenv PGUSER :USER
\setenv PGDATABASE :DBNAME
\! eval "$RUN"
END
status=$?
if [ ! -e "$TO" ]; then
    [ "$1" = restore ] || rm -f "$FROM"
    echo "datasync-crawler: it failed: see above." >&2
    [ $status -eq 2 ] && exit 2
    exit 1
fi
[ "$1" = restore ] && rm -f "$TO"
exit 0
