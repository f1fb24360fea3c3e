"""What may come through Scrapyd's schedule.json, and what may not."""

from __future__ import annotations

import pytest
from scrapy.settings import Settings

from datasync_crawler.commands.scrapyd_secrets import SECRETS, check_secrets
from datasync_crawler.errors import ConfigError

CANARY = "canary-3f9a"
JOB = {"_job": "b0e4c1"}


def command_line(**values: str) -> Settings:
    settings = Settings()
    settings.setdict(values, priority="cmdline")
    return settings


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("API_KEY", CANARY),
        ("DB_PASSWORD", CANARY),
        ("DASHBOARD_PASSWORD", CANARY),
        ("DATABASE_URL", f"postgresql://somebody:{CANARY}@127.0.0.1/datasync"),
        ("DATABASE_URL", f"host=127.0.0.1 password={CANARY}"),
        ("DATABASE_URL", f"postgresql://127.0.0.1/datasync?sslpassword={CANARY}"),
        ("DATABASE_URL", f"postgresql://somebody:{CANARY}/@127.0.0.1:x/y"),  # can't be read
    ],
)
def test_a_secret_from_the_command_line_is_refused(name: str, value: str) -> None:
    """Whatever its form, and the sentence doesn't repeat it."""
    with pytest.raises(ConfigError, match=f"^{name} was passed through Scrapyd") as caught:
        check_secrets(command_line(**{name: value}), JOB)
    assert CANARY not in str(caught.value)
    assert caught.value.exit_status == 2


@pytest.mark.parametrize("name", SECRETS)
@pytest.mark.parametrize("spelling", [str.upper, str.lower])
def test_a_secret_as_argument_is_refused(name: str, spelling: object) -> None:
    """Arguments of the spider are as public as settings, in any spelling."""
    argument = spelling(name)  # type: ignore[operator]
    with pytest.raises(ConfigError, match="was passed through Scrapyd"):
        check_secrets(Settings(), {**JOB, argument: CANARY})


def test_what_is_no_secret_may_come() -> None:
    """Other settings, and a DATABASE_URL without a password."""
    url = "postgresql://somebody@127.0.0.1:5432/datasync"
    check_secrets(command_line(BULK_PAGE_SIZE="500", DATABASE_URL=url), JOB)


def test_secrets_from_the_environment_may_come() -> None:
    """They have the project's priority: settings.py has read them."""
    settings = Settings()
    settings.setdict({"API_KEY": CANARY, "DB_PASSWORD": CANARY}, priority="project")
    check_secrets(settings, JOB)


def test_started_by_hand_the_command_line_is_the_users_own() -> None:
    """Without Scrapyd's job id, -s API_KEY=… is taken."""
    check_secrets(command_line(API_KEY=CANARY), {})
