"""The check that no secret came through Scrapyd's ``schedule.json``.

Scrapyd passes settings and arguments on as command-line arguments: they stand in the process list,
in its log and in its queue's database.
"""

from typing import TYPE_CHECKING, Any, Final

from scrapy.settings import SETTINGS_PRIORITIES

from datasync_crawler.commands.base import SECRETS
from datasync_crawler.errors import ConfigError
from datasync_crawler.store.targets import from_url

if TYPE_CHECKING:
    from collections.abc import Mapping

    from scrapy.settings import BaseSettings

#: Scrapyd gives each job's id as this spider argument (scrapyd 1.6, launcher.get_crawl_args).
JOB_ARGUMENT: Final = "_job"


def check_secrets(settings: "BaseSettings", arguments: "Mapping[str, Any]") -> None:
    """Raises ConfigError when Scrapyd passed a secret on the command line.

    *arguments* are the spider's (``-a``). Started by hand, ``-s API_KEY=…`` is the user's choice.
    """
    if JOB_ARGUMENT not in arguments:
        return
    given = {name.upper() for name in arguments}
    for name in SECRETS:
        on_command_line = (settings.getpriority(name) or 0) >= SETTINGS_PRIORITIES["cmdline"]
        if name in given or (on_command_line and _is_secret(settings, name)):
            raise ConfigError(
                f"{name} was passed through Scrapyd's schedule.json, which writes it into process "
                "lists, logs and its queue: use another one from now on, and give it to Scrapyd's "
                "environment or, the key, to a file that only this user can read (API_KEY_FILE)."
            )


def _is_secret(settings: "BaseSettings", name: str) -> bool:
    """Whether the setting's value is secret: a DATABASE_URL only with a password, or unreadable."""
    if name != "DATABASE_URL":
        return True
    try:
        params = from_url(str(settings.get(name)).strip()).params
    except ConfigError:
        return True
    return any("password" in key for key in params)
