"""config.py, settings.py and store/targets.py: what a value may be, which one counts, what is said.

The precedence of `-s`, environment, `.env` and default is tried in processes of their own, because
settings.py reads environment and .env when it is imported.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from psycopg2.extensions import make_dsn, parse_dsn
from scrapy.settings import Settings

from datasync_crawler.commands.base import without_empty
from datasync_crawler.config import Config
from datasync_crawler.errors import ConfigError
from datasync_crawler.store.targets import EmbeddedTarget, ServerTarget, from_url

PROJECT = Path(__file__).resolve().parents[2]
CANARY = "kanarienvogel"
#: What settings.py holds when environment and .env are empty, and what is required.
DEFAULTS = {
    "DATABASE_URL": "",
    **dict(
        re.findall(
            r'_setting\("(\w+)"(?:, "([^"]*)")?\)',
            (PROJECT / "datasync_crawler" / "settings.py").read_text(),
        )
    ),
    "API_BASE_URL": "https://api.example.com/api/v1",
    "API_KEY": "a-key",
}


def config(*, command_line: Any = None, **values: Any) -> Config:
    """The configuration of settings.py's *values*, with `-s` values above them."""
    settings = Settings()
    settings.setdict({**DEFAULTS, "PROJECT_DIR": "/project", **values}, priority="project")
    settings.setdict(command_line or {}, priority="cmdline")
    return Config.from_settings(settings)


def refusal(**values: Any) -> str:
    """The one sentence (or two) that is said of *values*."""
    with pytest.raises(ConfigError) as raised:
        config(**values)
    assert raised.value.exit_status == 2
    assert raised.value.__cause__ is None
    assert raised.value.__suppress_context__ or raised.value.__context__ is None
    said = str(raised.value)
    assert "\n" not in said
    return said


# --- values ---------------------------------------------------------------------------------------


def test_the_defaults_are_a_whole_configuration() -> None:
    """With an address and a key alone, everything else has a value, of its type."""
    made = config()
    expected = {
        "api_base_url": "https://api.example.com/api/v1",
        "api_key": "a-key",
        "workers": None,
        "page_size": 5000,
        "database": EmbeddedTarget(Path("/project/.datasync"), None, "datasync"),
        "schema": "public",
        "db_writers": 2,
        "batch_rows": 5000,
        "db_max_wait_s": 120.0,
        "data_dir": Path("/project/.datasync"),
        "pagination": "auto",
        "bulk_path": "/events/bulk",
        "cursor_path": "/events",
        "offset_param": "offset",
        "limit_param": "limit",
        "cursor_param": "cursor",
        "events_key": "data",
        "total_key": "",
        "next_key": "",
        "on_duplicate": "keep",
        "rate_limits": (),
        "rate_limit_share": 1.0,
        "rate_limit_max_wait_s": 3600.0,
        "max_bytes_in_flight": 64_000_000,
    }
    assert {name: getattr(made, name) for name in expected} == expected


@pytest.mark.parametrize(
    ("name", "least", "most", "field"),
    [
        ("WORKERS", 1, 1000, "workers"),
        ("BULK_PAGE_SIZE", 1, 1_000_000, "page_size"),
        ("DB_WRITERS", 1, 16, "db_writers"),
        ("BATCH_ROWS", 1, 1_000_000, "batch_rows"),
    ],
)
def test_whole_numbers_have_bounds(name: str, least: int, most: int, field: str) -> None:
    """Both bounds are taken, what is beyond them or no whole number is refused by name."""
    for good in (least, most):
        assert getattr(config(**{name: str(good)}), field) == good
        assert getattr(config(**{name: f" {good} "}), field) == good
        assert getattr(config(**{name: good}), field) == good
    for bad in (least - 1, most + 1, "-1", "1.5", "1e3", "ten", "1_000", "٣", "9" * 5000, "1 2"):
        said = refusal(**{name: str(bad)})
        assert said.startswith(f"{name} is ")
        assert f"a whole number between {least} and {most}" in said


@pytest.mark.parametrize("bad", ["0", "65536", "postgres", "-1"])
def test_the_port_is_a_port(bad: str) -> None:
    """DB_PORT is refused unless TCP knows it, with a host and without one."""
    assert "DB_PORT" in refusal(DB_PORT=bad)
    assert "DB_PORT" in refusal(DB_PORT=bad, DB_HOST="h")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("10/60s", [(10, 60.0)]),
        ("5/s", [(5, 1.0)]),
        ("1000/h", [(1000, 3600.0)]),
        ("30/m", [(30, 60.0)]),
        ("5000/d", [(5000, 86_400.0)]),
        ("3 / 0.5 s", [(3, 0.5)]),
        ("5/s, 100/60s,1000/h", [(5, 1.0), (100, 60.0), (1000, 3600.0)]),
    ],
)
def test_limits_are_requests_per_time(text: str, expected: list[tuple[int, float]]) -> None:
    """Several with commas; units of a second, a minute, an hour, a day."""
    limits = config(RATE_LIMIT=text).rate_limits
    assert [(limit.requests, limit.window_s) for limit in limits] == expected


@pytest.mark.parametrize("text", ["10", "10/60", "/s", "0/s", "1/0s", "-1/s", "5/s,", "5/w", "x/s"])
def test_a_limit_that_isnt_one_is_refused(text: str) -> None:
    """With its forms: a limit that is taken for another one could cost the key."""
    said = refusal(RATE_LIMIT=text)
    assert f"RATE_LIMIT is {text!r}: set it to requests per time, such as 10/60s" in said


@pytest.mark.parametrize("text", ["0", "1.1", "-0.5", "80%", "nan", "0.0"])
def test_a_share_is_above_zero_and_up_to_one(text: str) -> None:
    """A share of nothing would never send a request."""
    assert "RATE_LIMIT_SHARE" in refusal(RATE_LIMIT_SHARE=text)
    assert config(RATE_LIMIT_SHARE="0.8").rate_limit_share == 0.8
    assert config(RATE_LIMIT_SHARE=".5").rate_limit_share == 0.5


@pytest.mark.parametrize("name", ["DB_MAX_WAIT", "RATE_LIMIT_MAX_WAIT"])
def test_seconds_are_numbers_from_zero_on(name: str) -> None:
    """Fractions and 0 are taken; signs, words, infinity and NaN are refused by name."""
    field = {"DB_MAX_WAIT": "db_max_wait_s"}.get(name, "rate_limit_max_wait_s")
    for good in ("0", "0.5", "120", "999999999"):
        assert getattr(config(**{name: good}), field) == float(good)
    for bad in ("-1", "inf", "nan", "1e9", "two", "1.", ".5", "٣"):
        assert refusal(**{name: bad}).startswith(f"{name} is {bad!r}: set it to a number of sec")


@pytest.mark.parametrize(
    ("name", "choices"),
    [("PAGINATION", ("auto", "offset", "page", "cursor")), ("ON_DUPLICATE", ("keep", "update"))],
)
def test_choices_are_named(name: str, choices: tuple[str, ...]) -> None:
    """Each choice is taken as it is written; the refusal lists all of them."""
    for choice in choices:
        assert getattr(config(**{name: choice}), name.lower()) == choice
    for bad in ("nonsense", choices[0].upper()):
        assert refusal(**{name: bad}) == (
            f"{name} is {bad!r}: set it to one of {', '.join(choices)}."
        )


@pytest.mark.parametrize("name", ["BULK_PATH", "CURSOR_PATH"])
@pytest.mark.parametrize("bad", ["events", "https://h/events", "/events?x=1", "/events#x"])
def test_paths_begin_with_a_slash_and_hold_no_query(name: str, bad: str) -> None:
    """A path that would make another address of the API's is refused."""
    assert refusal(**{name: bad}).startswith(f"{name} is {bad!r}: set it to a path")


@pytest.mark.parametrize("name", ["EVENTS_KEY", "TOTAL_KEY", "NEXT_KEY"])
@pytest.mark.parametrize("bad", ['da"ta', "da\\ta", "a..b", ".a", "a.", "a\x00b"])
def test_dotted_paths_hold_names(name: str, bad: str) -> None:
    """What the decoder can't look for is refused with a sentence, not with its own error."""
    assert getattr(config(**{name: "result.ïtems"}), name.lower()) == "result.ïtems"
    assert refusal(**{name: bad}).startswith(f"{name} is {bad!r}: set it to names")


def test_what_the_api_says_is_shown_in_one_line_without_the_key() -> None:
    """No line, colour or key of the API's making stands in a log, cut or whole."""
    said = "Invalid key secret-key-1\n2026-11-24 INFO: complete\x1b[2J; secret-ke, secret-key-1"
    assert config(API_KEY="secret-key-1").without_key(said) == (
        "Invalid key [API_KEY] 2026-11-24 INFO: complete [2J; [API_KEY], [API_KEY]"
    )
    assert config(API_KEY="demo").without_key("a demonstration: demo") == (
        "a demonstration: [API_KEY]"
    )


@pytest.mark.parametrize("bad", ["a\x00b", "ü" * 32, "x" * 64, "\udcff", "a\nb"])
def test_a_schema_name_is_one_that_postgresql_keeps(bad: str) -> None:
    """63 bytes at most (PostgreSQL cuts the rest), and text."""
    assert config(DB_SCHEMA="x" * 63).schema == "x" * 63
    assert config(DB_SCHEMA='we"ird Ümlaut').schema == 'we"ird Ümlaut'
    assert refusal(DB_SCHEMA=bad).startswith("DB_SCHEMA can't be used")


def test_the_data_dir_is_the_projects() -> None:
    """A relative DATA_DIR is below the project's folder, wherever the command was called."""
    assert config(DATA_DIR="x/y").data_dir == Path("/project/x/y")
    assert config(DATA_DIR="/x/y").data_dir == Path("/x/y")
    assert config(DATA_DIR="x", PROJECT_DIR="").data_dir == Path.cwd() / "x"


# --- the API's address and key --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "taken"),
    [
        ("http://127.0.0.1:8763/api/v1/", "http://127.0.0.1:8763/api/v1"),
        ("https://[::1]/api/v1", "https://[::1]/api/v1"),
        (" https://h ", "https://h"),
    ],
)
def test_an_address_loses_its_last_slash(given: str, taken: str) -> None:
    """Paths are appended to it, and its text names the source in the database."""
    assert config(API_BASE_URL=given).api_base_url == taken


@pytest.mark.parametrize(
    "bad",
    ["api.example.com/api/v1", "ftp://h/x", "https:///x", "http://h:0/x", "http://h:99999/x",
     "http://[::1/x", "http://h/a b", "http://h/\udcff", "http://h/\x00"],
)  # fmt: skip
def test_an_address_is_http(bad: str) -> None:
    """Whatever isn't http:// or https:// with a host is shown and refused."""
    said = refusal(API_BASE_URL=bad)
    assert said.startswith(f"API_BASE_URL is {bad!r}: set it to an http:// or https://")


@pytest.mark.parametrize(
    "leaky",
    [
        f"https://user:{CANARY}@h/api/v1",
        f"https://{CANARY}@h/api/v1",
        f"https://user:{CANARY}@h:port/api/v1",
        f"user:{CANARY}@h/api/v1",
        f"https//user:{CANARY}@h/api/v1",
        f"https:user:{CANARY}@h",
        f"https://h/api/v1?api_key={CANARY}",
        f"https://h/api/v1#{CANARY}",
        f"h/api/v1?api_key={CANARY}",
    ],
)
def test_an_address_with_a_secret_is_refused_and_not_echoed(leaky: str) -> None:
    """Neither a password before the host nor a key in the query comes back in the message."""
    said = refusal(API_BASE_URL=leaky)
    assert "API_BASE_URL" in said
    assert CANARY not in said


def test_what_is_required_says_how_to_set_it() -> None:
    """Without address or key the sentence names the setting and where it goes."""
    for empty in ("", "  ", None):
        assert refusal(API_BASE_URL=empty).startswith("API_BASE_URL isn't set. Set it to")
        said = refusal(API_KEY=empty)
        assert said.startswith("API_KEY isn't set.")
        assert "API_KEY_FILE" in said


def test_commands_that_only_look_need_no_api() -> None:
    """With require_api false both may be missing; what is there is still checked."""
    settings = Settings({**DEFAULTS, "API_BASE_URL": "", "API_KEY": ""})
    looked = Config.from_settings(settings, require_api=False)
    assert (looked.api_base_url, looked.api_key) == ("", "")
    settings.set("API_BASE_URL", "nonsense")
    with pytest.raises(ConfigError):
        Config.from_settings(settings, require_api=False)


@pytest.mark.parametrize(
    "bad", [f"{CANARY}\nX-Evil: 1", f"{CANARY}\x7f", f"{CANARY}ü", f"\t{CANARY}\x00"]
)
def test_a_key_that_no_header_can_hold_is_refused_and_not_echoed(bad: str) -> None:
    """Line breaks would make another header of it, letters beyond ASCII an error far away."""
    said = refusal(API_KEY=bad)
    assert said.startswith("API_KEY holds characters")
    assert CANARY not in said


def test_the_key_may_stand_in_a_file(tmp_path: Path) -> None:
    """Without its line break; the path may be relative to the project's folder or to the home."""
    file = tmp_path / "key"
    file.write_text("from-file\n")
    assert config(API_KEY="", API_KEY_FILE=str(file)).api_key == "from-file"
    assert config(API_KEY="", API_KEY_FILE="key", PROJECT_DIR=str(tmp_path)).api_key == "from-file"
    assert config(API_KEY="direct", API_KEY_FILE=str(file)).api_key == "direct"


def test_the_higher_level_decides_between_key_and_file(tmp_path: Path) -> None:
    """`-s API_KEY_FILE` beats a key from environment or .env; on the same level API_KEY wins."""
    file = tmp_path / "key"
    file.write_text("from-file")
    named = {"API_KEY_FILE": str(file)}
    assert config(command_line=named).api_key == "from-file"
    assert config(command_line={**named, "API_KEY": "direct"}).api_key == "direct"
    assert config(command_line={"API_KEY": "direct"}, **named).api_key == "direct"


def test_a_key_file_that_cant_be_used_says_why_and_not_what(tmp_path: Path) -> None:
    """Missing, a folder, empty, binary, no path: a sentence. The value isn't echoed: who mistakes
    API_KEY_FILE for API_KEY has put the key there.
    """
    empty, binary = tmp_path / "empty", tmp_path / "binary"
    empty.write_text(" \n")
    binary.write_bytes(b"\xff\xfe" + CANARY.encode())
    for path, cause in (
        (tmp_path / CANARY, "No such file"),
        (tmp_path, "Is a directory"),
        (empty, "is empty"),
        (binary, "isn't UTF-8"),
        ("x\x00" + CANARY, "("),
        ("~nobody-of-that-name/" + CANARY, "No such file"),
        (CANARY, "No such file"),
    ):
        said = refusal(API_KEY="", API_KEY_FILE=str(path))
        assert said.startswith("API_KEY_FILE names a file that ")
        assert cause in said
        assert CANARY not in said


# --- the database ---------------------------------------------------------------------------------


def test_parts_make_a_server() -> None:
    """DB_HOST switches from the embedded PostgreSQL to that server; blanks in a password stay."""
    target = config(
        DB_HOST="db", DB_PORT="5433", DB_NAME="n", DB_USER="u", DB_PASSWORD=" p w "
    ).database
    assert target == ServerTarget(
        {"host": "db", "port": "5433", "dbname": "n", "user": "u", "password": " p w "}
    )
    assert config(DB_HOST="/run/pg").database == ServerTarget(
        {"host": "/run/pg", "dbname": "datasync"}
    )
    assert config(DB_PORT="5433", DB_NAME="n").database == EmbeddedTarget(
        Path("/project/.datasync"), 5433, "n"
    )


@pytest.mark.parametrize(
    ("low", "high", "wanted"),
    [
        ({"DATABASE_URL": "postgresql://u@url/d", "DB_HOST": "parts"}, {}, "url"),
        ({"DATABASE_URL": "postgresql://u@url/d"}, {"DB_HOST": "parts"}, "parts"),
        ({"DB_HOST": "parts"}, {"DATABASE_URL": "postgresql://u@url/d"}, "url"),
        ({}, {"DATABASE_URL": "postgresql://u@url/d", "DB_HOST": "parts"}, "url"),
        ({"DATABASE_URL": "postgresql://u@url/d", "DB_HOST": "parts"}, {"DB_NAME": "n"}, "parts"),
    ],
)
def test_the_url_beats_the_parts_of_its_level(
    low: dict[str, str], high: dict[str, str], wanted: str
) -> None:
    """Same level: DATABASE_URL. Otherwise the higher level, whichever it names."""
    target = config(command_line=high, **low).database
    assert isinstance(target, ServerTarget)
    assert target.params["host"] == wanted


MALFORMED = [
    f"postgresql://u:{CANARY}@h:port/d",
    f"postgresql://u:x/{CANARY}@h/d",
    f"postgresql://u:/{CANARY}@h/d",
    f"postgresql://u:1234/{CANARY}@h/d",
    f"postgresql://u:1234?{CANARY}@h/d",
    f"postgresql://u:a@{CANARY}@h/d",
    f"postgres://u:a@{CANARY}@h/d",
    f"postgresql://u:{CANARY}%@h/d",
    f"postgresql://u:{CANARY}@[::1/d",
    f"postgresql://u:{CANARY}@h/d?nonsense=1",
    f"mysql://u:{CANARY}@h/d",
    f"u:{CANARY}@h/d",
    f"host=h password=a {CANARY}",
    f"host=h password='{CANARY}",
    f"host=h pass={CANARY}",
    f"host=h port={CANARY}",
    f"postgresql://u:{CANARY}\udcff@h/d",
    "postgresql://",
]


@pytest.mark.parametrize("url", MALFORMED)
def test_a_database_url_that_cant_be_read_is_not_echoed(url: str) -> None:
    """Where libpq refuses it, or takes a piece of the password for host, port or database."""
    said = refusal(DATABASE_URL=url)
    assert said.startswith("DATABASE_URL can't be read. Set it to postgresql://")
    assert CANARY not in said


@pytest.mark.parametrize("name", ["DB_HOST", "DB_NAME"])
def test_an_address_in_the_wrong_place_is_not_echoed(name: str) -> None:
    """A whole URL in DB_HOST or DB_NAME is told to be moved, without its password."""
    values = {"DB_HOST": "h", name: f"postgresql://u:{CANARY}@h/d"}
    said = refusal(**values)
    assert said.startswith(f"{name} holds a whole address")
    assert CANARY not in said


def test_a_host_with_a_password_before_it_is_not_echoed() -> None:
    """`user:password@host` isn't a host."""
    assert CANARY not in refusal(DB_HOST=f"u:{CANARY}@h")
    assert config(DB_HOST="@abstract").database == ServerTarget(
        {"host": "@abstract", "dbname": "datasync"}
    )


@pytest.mark.parametrize(
    ("url", "described"),
    [
        (f"postgresql://u:{CANARY}@h:5433/d?sslmode=disable", "host=h port=5433 dbname=d user=u"),
        (f"postgres://u:{CANARY}%40%2F%3Aä@[::1]/d", "host=::1 dbname=d user=u"),
        (f"host=h,i port=1,2 password='{CANARY} x' dbname=d", "host=h,i port=1,2 dbname=d"),
        (f"postgresql:///d?host=/run/pg&user=u&password={CANARY}", "host=/run/pg dbname=d user=u"),
        (f"service=s passfile={CANARY}", "service=s"),
    ],
)
def test_a_server_is_described_without_its_secret(url: str, described: str) -> None:
    """What messages say of a target, and its repr, hold neither password nor the like."""
    target = from_url(url)
    assert target.describe() == described
    assert CANARY not in repr(target)
    assert CANARY in "".join(target.params.values())


def test_no_repr_holds_a_secret() -> None:
    """A configuration in a log line or a debugger's output gives nothing away."""
    held = config(API_KEY=CANARY, DB_HOST="h", DB_PASSWORD=CANARY + "2")
    assert CANARY not in repr(held) + str(held.database) + held.database.describe()
    assert "embedded PostgreSQL, database datasync" in config().database.describe()


@given(st.text(st.characters(exclude_characters="\x00", exclude_categories=["Cs"]), min_size=1))
def test_any_password_survives_the_key_value_form(password: str) -> None:
    """Quoted as libpq says, a password comes through as it is and isn't described."""
    target = from_url(make_dsn(host="h", password=password, dbname="d"))
    assert target.params["password"] == password
    assert target.describe() == "host=h dbname=d"


@given(st.text(st.sampled_from("ab12/@:?#%&= "), max_size=8))
def test_a_raw_password_in_a_url_is_understood_or_refused(password: str) -> None:
    """Never half of it as host, port or database: those would be shown."""
    url = f"postgresql://user:{password}Q@host:5/db"
    try:
        target = from_url(url)
    except ConfigError:
        return
    assert target.describe() == "host=host port=5 dbname=db user=user"
    assert parse_dsn(url)["password"].endswith("Q")


# --- which value counts ---------------------------------------------------------------------------

ASK = """
import json, sys
from scrapy.cmdline import get_project_settings
settings = get_project_settings()
print(json.dumps({name: settings.get(name) for name in sys.argv[1:]}))
"""


def run(folder: Path, command: list[str], dotenv: str, env: dict[str, str]) -> str:
    """Output of a Python command in a project folder of its own, with nothing else set."""
    (folder / "scrapy.cfg").write_text("[settings]\ndefault = datasync_crawler.settings\n")
    (folder / ".env").write_text(dotenv)
    (folder / "below").mkdir(exist_ok=True)
    kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    done = subprocess.run(
        [sys.executable, *command],
        cwd=folder / "below",
        env={**kept, "PYTHONPATH": str(PROJECT), **env},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def ask(folder: Path, dotenv: str, env: dict[str, str], *names: str) -> dict[str, str]:
    """What settings.py says."""
    answer: dict[str, str] = json.loads(run(folder, ["-c", ASK, *names], dotenv, env))
    return answer


def test_environment_beats_dotenv_beats_default(tmp_path: Path) -> None:
    """An empty value counts as unset on each level; .env is found beside scrapy.cfg, from below
    it, and isn't interpolated.
    """
    dotenv = 'BATCH_ROWS=7\nDB_WRITERS=3\nDB_SCHEMA=\nDB_PASSWORD="a#b ${HOME}$x"\nDB_USER= \n'
    env = {"BATCH_ROWS": "8", "DB_WRITERS": "", "DB_MAX_WAIT": "  ", "WORKERS": "5"}
    names = (
        "BATCH_ROWS", "DB_WRITERS", "DB_SCHEMA", "DB_PASSWORD", "DB_USER", "DB_MAX_WAIT", "WORKERS",
        "PROJECT_DIR",
    )  # fmt: skip
    assert ask(tmp_path, dotenv, env, *names) == {
        "BATCH_ROWS": "8",
        "DB_WRITERS": "3",
        "DB_SCHEMA": "public",
        "DB_PASSWORD": "a#b ${HOME}$x",
        "DB_USER": "",
        "DB_MAX_WAIT": "120",
        "WORKERS": "5",
        "PROJECT_DIR": str(tmp_path),
    }


@pytest.mark.parametrize(
    ("dotenv", "env", "wanted"),
    [
        ("DATABASE_URL=url\nAPI_KEY=k\n", {"DB_NAME": "n", "API_KEY_FILE": "f"}, ("", "")),
        ("DB_NAME=n\nAPI_KEY_FILE=f\n", {"DATABASE_URL": "url", "API_KEY": "k"}, ("url", "k")),
        ("DB_NAME=n\nAPI_KEY_FILE=f\nDATABASE_URL=url\nAPI_KEY=k\n", {}, ("url", "k")),
    ],
    ids=["environment names the parts", "environment names the url", "one level"],
)
def test_a_higher_level_decides_whichever_it_names(
    tmp_path: Path, dotenv: str, env: dict[str, str], wanted: tuple[str, str]
) -> None:
    """DB_* in the environment silence a DATABASE_URL in .env, API_KEY_FILE an API_KEY there."""
    said = ask(tmp_path, dotenv, env, "DATABASE_URL", "API_KEY")
    assert (said["DATABASE_URL"], said["API_KEY"]) == wanted


@pytest.mark.parametrize("line", ['DATABASE_URL "kanarienvogel"', "DB_PASSWORD='kanarienvogel"])
def test_a_line_of_dotenv_that_cant_be_read_is_refused(tmp_path: Path, line: str) -> None:
    """Its number is said and nothing of it, exit 2: without it rows would go elsewhere."""
    (tmp_path / "scrapy.cfg").write_text("[settings]\ndefault = datasync_crawler.settings\n")
    (tmp_path / ".env").write_text(f"API_KEY=k\n\n{line}\nDB_PORT=1\n")
    done = subprocess.run(
        [sys.executable, "-m", "scrapy", "status"], cwd=tmp_path, capture_output=True, text=True,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(PROJECT)}, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr.startswith(f"datasync-crawler: line 3 of {tmp_path / '.env'} can't be read")
    assert "kanarienvogel" not in done.stdout + done.stderr


def test_the_command_line_beats_all(tmp_path: Path) -> None:
    """`-s` is Scrapy's own and stands above environment and .env."""
    command = ["-m", "scrapy", "settings", "--get", "BATCH_ROWS", "-s", "BATCH_ROWS=9"]
    assert run(tmp_path, command, "BATCH_ROWS=7\n", {"BATCH_ROWS": "8"}) == "9\n"


def test_an_empty_option_sets_nothing() -> None:
    """`-s NAME=` leaves the lower levels their say; a value may hold or end with "="."""
    given = ["A=", "B= ", "C=a2V5==", "D", "E=x"]
    assert without_empty(given) == ["C=a2V5==", "D", "E=x"]
