#!/bin/sh
# Saves the configured database (a server's or the embedded one) into a file, or brings it back.
# Saving may run during a crawl: it sees one moment, with events and ledger that belong together.
#
#   sh scripts/backup.sh save FILE       pg_dump's custom format
#   sh scripts/backup.sh restore FILE    into a database that holds no tables of ours yet
#
# The connection and its password come from `scrapy psql`, so they stand in no command line. Of a
# server the system's own pg_dump is used (docs/operations.md), of the embedded one its own.
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
# Nobody else may write to it: a name in /tmp that is free can be taken by anybody.
room=$(mktemp -d) || exit 1
part=
trap 'rm -rf "$room"; [ -z "$part" ] || rm -f "$part"' EXIT
trap 'exit 1' HUP INT TERM
umask 077

case $1 in
save)
    [ ! -e "$file" ] || fail "$file is there already: name a new file."
    part=$(mktemp "$file.XXXXXX") || fail "$file can't be written there; is there room, and may this user write?"
    FROM=$part TO=$file
    RUN='"$DATASYNC_PROGRAMS/pg_dump" --format=custom --file="$FROM" && mv -T -- "$FROM" "$TO" && touch "$DONE"'
    ;;
restore)
    [ -r "$file" ] || fail "$file can't be read."
    FROM=$file TO=
    # In one transaction. Servers before 17 don't know transaction_timeout. A damaged backup must not
    # be committed half: it is followed by a statement that fails.
    RUN='{ "$DATASYNC_PROGRAMS/pg_restore" --no-owner --no-privileges --file=- "$FROM" || echo "SELECT 1/0;"; } |
        sed "/^SET transaction_timeout = 0;\$/d" |
        "$DATASYNC_PROGRAMS/psql" -X -q -v ON_ERROR_STOP=1 --single-transaction >/dev/null && touch "$DONE"'
    ;;
*) usage ;;
esac
DONE=$room/done
export FROM TO RUN DONE
# psql hands its connection on, and where pg_dump is, by the environment; whether the command ended well is seen by the
# file that it leaves.
"$venv/bin/python" -m scrapy psql -X -q <<'END'
\! eval "$RUN"
END
status=$?
if [ -e "$DONE" ]; then
    [ "$1" = restore ] || echo "$file: $(wc -c <"$file" | tr -d ' ') bytes. To bring it back, into an empty database: sh scripts/backup.sh restore '$file'"
    [ "$1" = save ] || echo "$file is restored."
    exit 0
fi
echo "datasync-crawler: it failed: see above." >&2
[ $status -eq 2 ] && exit 2
exit 1
