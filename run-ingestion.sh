#!/bin/sh
# From an empty folder to a complete table: prepares the Python environment, then ingests the API
# that .env names, or a demonstration when nothing is configured.
#
#   sh run-ingestion.sh                 ingest
#   sh run-ingestion.sh --events N      so many events in the demonstration
#   sh run-ingestion.sh --processes N   so many processes that share the crawl
#   sh run-ingestion.sh -s NAME=value   any setting of docs/settings.md
#   sh run-ingestion.sh --docker        the same in containers (docker-compose.yml)
#
# Exit status: 0 complete, 1 stopped or incomplete, 2 something has to be set up first.
set -u
CDPATH="" cd -- "$(dirname -- "$0")" || exit 2
. ./scripts/venv.sh

for argument in "$@"; do
    if [ "$argument" = --docker ]; then
        . ./scripts/docker.sh
        run_in_docker "$@"
    fi
done
prepare_venv requirements.txt
exec "$venv/bin/python" -m scrapy ingest "$@"
