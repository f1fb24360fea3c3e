"""The demonstration, for all commands: when it is meant, what it is made of, and its mock API.

Nothing is configured: no .env, no API, no database server. `scrapy ingest` then crawls a mock API
into a database of its own and notes in DATA_DIR what the mock serves. The other commands use that
database, and those that ask the API start the same mock again for as long as they run. Commands
import this late: every `scrapy …` start imports all commands.
"""

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import IO, TYPE_CHECKING, Final

from datasync_crawler.errors import ConfigError, CrawlError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from scrapy.settings import BaseSettings

MOCK_PORT: Final = 8763  # fixed: the address is what names the source of the stored events
API_KEY: Final = "demo-key"  # the mock's own, no secret
DATABASE: Final = "datasync_demo"
EVENTS: Final = 100_000
MOST_EVENTS: Final = 1_000_000_000

_CONFIGURED_BY: Final = ("API_BASE_URL", "API_KEY", "API_KEY_FILE", "DATABASE_URL", "DB_HOST")
_GREETING: Final = "mock API listening on "
_STOP_S: Final = 10.0
#: Longest wait for the answer of a mock that another command runs, in seconds.
_PROBE_S: Final = 2.0


@dataclass(frozen=True, slots=True)
class Mock:
    """What the demonstration's mock API serves, and on which port of this machine."""

    port: int = MOCK_PORT
    events: int = EVENTS


def is_meant(settings: "BaseSettings") -> bool:
    """Whether nothing is configured: no .env, no API, no database server.

    An incomplete configuration is an error, not a demonstration.
    """
    dotenv = Path(settings.get("PROJECT_DIR") or Path.cwd(), ".env")
    return not dotenv.exists() and not any(settings.get(name) for name in _CONFIGURED_BY)


def environment(inherited: "Mapping[str, str]", mock_url: str) -> dict[str, str]:
    """The environment of a crawl of the mock API into the demonstration's own database."""
    return {**inherited, "API_BASE_URL": mock_url, "API_KEY": API_KEY, "DB_NAME": DATABASE}


def last(settings: "BaseSettings") -> Mock | None:
    """The mock of the last demonstration in this DATA_DIR; None when none was run."""
    try:
        noted = json.loads(_note(settings).read_text(encoding="utf-8"))
        mock = Mock(int(noted["port"]), int(noted["events"]))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, LookupError, TypeError):  # not what `remember` writes
        return Mock()
    good = 0 < mock.port <= 65535 and 0 < mock.events <= MOST_EVENTS
    return mock if good else Mock()


def remember(settings: "BaseSettings", mock: Mock) -> None:
    """Notes what the demonstration serves. Raises ConfigError when that can't be written."""
    note = _note(settings)
    part = note.with_name(note.name + ".new")
    try:
        part.write_text(json.dumps(asdict(mock)) + "\n", encoding="utf-8")
        part.replace(note)
    except OSError as error:
        raise ConfigError(
            f"{note} can't be written ({error.strerror}): make room, or set DATA_DIR to a folder "
            "that this user may write to."
        ) from None


def _note(settings: "BaseSettings") -> Path:
    return Path(settings.get("PROJECT_DIR") or Path.cwd(), settings["DATA_DIR"], "demonstration")


@contextmanager
def lent(settings: "BaseSettings") -> Iterator[Mock | None]:
    """Lends the demonstration's API and database to a command that asks the API.

    While inside, *settings* name both and the mock runs; it is given. None, and nothing is changed,
    where an API or a database is configured. Raises ConfigError before any demonstration.
    """
    if not is_meant(settings):
        yield None
        return
    mock = last(settings)
    if mock is None:
        raise ConfigError(
            "API_BASE_URL isn't set, and nothing else is. Set it to the API's address up to and "
            "including /api/v1, such as https://api.example.com/api/v1, in .env (install -m 600 "
            ".env.example .env), in the environment or with -s API_BASE_URL=…; or run sh "
            "run-ingestion.sh for a demonstration."
        )
    with serving(mock) as url:
        for name, value in environment({}, url).items():
            # Above environment and .env, which are for other databases; below an explicit -s.
            settings.set(name, value, "spider")
        yield mock


@contextmanager
def serving(mock: Mock) -> Iterator[str]:
    """Runs the mock API; gives its address. Raises CrawlError when it can't run.

    It ends with this process at the latest, since it reads our end of a pipe. One that another
    command of the demonstration runs already is used, too.
    """
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(  # noqa: S603 - our own module
            [
                *(sys.executable, "-m", "datasync_crawler.mockapi", "--stop-with-stdin"),
                *("--port", str(mock.port), "--events", str(mock.events)),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            start_new_session=True,  # the terminal's Ctrl-C is for the crawl, which needs it yet
        )
        try:
            yield _address(process, errors, mock)
        finally:
            _end(process, errors)


def _address(process: subprocess.Popen[bytes], errors: IO[bytes], mock: Mock) -> str:
    """Where it listens. Raises CrawlError."""
    assert process.stdout is not None
    greeting = process.stdout.readline().decode().strip()
    if greeting.startswith(_GREETING):
        return greeting.removeprefix(_GREETING)
    process.wait(_STOP_S)
    errors.seek(0)
    said = errors.read().decode(errors="replace").strip()
    errors.truncate(0)  # reported below, with the demonstration's own remedy
    if "Address already in use" not in said:
        raise CrawlError(f"The demonstration's mock API can't run: {said or 'it has ended'}")
    if not _answers(mock):
        raise CrawlError(
            f"The demonstration's mock API can't listen on port {mock.port}, which another program "
            "uses: end that program, or give the demonstration another port: sh run-ingestion.sh "
            "--mock-port PORT"
        )
    return f"http://127.0.0.1:{mock.port}/api/v1"


def _answers(mock: Mock) -> bool:
    """Whether what listens there is a mock API of as many events."""
    connection = HTTPConnection("127.0.0.1", mock.port, timeout=_PROBE_S)
    try:
        connection.request("GET", "/api/v1/events/bulk?limit=1", headers={"X-API-Key": API_KEY})
        answer = connection.getresponse()
        return answer.status == 200 and answer.getheader("X-Total-Count") == str(mock.events)
    except (OSError, HTTPException):
        return False
    finally:
        connection.close()


def _end(process: subprocess.Popen[bytes], errors: IO[bytes]) -> None:
    """Ends it, and passes its standard error on."""
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            with suppress(OSError):
                pipe.close()
    try:
        process.wait(_STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    errors.seek(0)
    sys.stderr.write(errors.read().decode(errors="replace"))
