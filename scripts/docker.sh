# shellcheck shell=sh
# Sourced by run-ingestion.sh --docker, after venv.sh: runs the crawl of docker-compose.yml in the
# foreground. Its progress is shown, its exit status is this script's.
#
#   run_in_docker [--docker] [--events N] [-s NAME=value …]     doesn't return

# The password of the demonstration's database: made once, for this folder.
demo_password() {
    file=.datasync/docker-demo-password
    if [ ! -s "$file" ]; then
        (umask 077 && mkdir -p .datasync) || fail "the folder .datasync can't be made here; may this user write?"
        password=$(od -An -N16 -tx1 /dev/urandom | tr -d ' \n')
        if ! (umask 077 && echo "$password" >"$file.new" && mv "$file.new" "$file"); then
            fail "$file can't be written; is there room, and may this user write here?"
        fi
    fi
    DB_PASSWORD=$(cat "$file")
}

need_docker() {
    command -v docker >/dev/null 2>&1 ||
        fail "there is no docker: install Docker Engine with its Compose plugin, or run this without --docker."
    docker compose version >/dev/null 2>&1 ||
        fail "this docker has no Compose: install its plugin (docker-compose-plugin), or run this without --docker."
    docker info >/dev/null 2>&1 ||
        fail "docker doesn't answer: start its engine, and let this user use it (group docker); then run this again."
}

run_in_docker() {
    events=
    left=$#
    while [ "$left" -gt 0 ]; do
        case $1 in
        --docker) ;;
        --events)
            [ "$left" -gt 1 ] || fail "--events takes a number."
            events=$2
            shift
            left=$((left - 1))
            ;;
        --events=*) events=${1#--events=} ;;
        *) set -- "$@" "$1" ;;
        esac
        shift
        left=$((left - 1))
    done
    case $events in
    *[!0-9]*) fail "--events is $events: give it a whole number." ;;
    esac
    need_docker
    if [ -f .env ]; then
        [ -z "$events" ] || fail "--events is for the demonstration, and there is an .env: leave it out."
        service=crawler
        echo "To look at the stored events, now or later: docker compose exec postgres sh -c 'psql -U \$POSTGRES_USER \$POSTGRES_DB'"
    else
        [ -z "${API_BASE_URL:-}${DATABASE_URL:-}${DB_HOST:-}" ] ||
            fail "the environment names an API or a database, which containers don't see: run install -m 600 .env.example .env and set them there."
        demo_password
        DEMO_EVENTS=${events:-100000}
        # A project of its own, with a database of its own: the real one isn't touched.
        COMPOSE_PROJECT_NAME=datasync-demo
        COMPOSE_PROFILES=demo
        POSTGRES_PUBLISHED_PORT=${POSTGRES_PUBLISHED_PORT:-54321}
        export DB_PASSWORD DEMO_EVENTS COMPOSE_PROJECT_NAME COMPOSE_PROFILES POSTGRES_PUBLISHED_PORT
        service=demo
        echo "This is a demonstration: $DEMO_EVENTS generated events from a mock API in a container. To ingest a real API, run install -m 600 .env.example .env, set API_BASE_URL, API_KEY and DB_PASSWORD in it, and run this command again."
        echo "To look at its events, now or later: docker exec -it datasync-demo-postgres-1 psql -U datasync -c 'SELECT count(*) FROM demo.events'"
    fi
    docker compose config --quiet || exit 2 # Compose says what is missing
    docker compose build --quiet "$service" || fail "the image can't be built: see above."
    # Without a terminal no pseudo-terminal: plain lines of progress.
    tty=
    { [ -t 0 ] && [ -t 1 ]; } || tty=--no-TTY
    [ $# -eq 0 ] || set -- crawl events "$@"
    # Starts postgres (and the mock) first, and waits until they are healthy. exec: a signal for this
    # script is for Compose, which hands it on.
    exec docker compose run --rm $tty "$service" "$@"
}
