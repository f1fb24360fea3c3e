"""The demonstration: a mock API and a database of its own, the same each time.

Owns its names and when it runs. Starts nothing (`commands.ingest` does).
"""

from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

    from scrapy.settings import BaseSettings

MOCK_PORT: Final = 8763  # fixed: the address is what names the source of the stored events
API_KEY: Final = "demo-key"  # the mock's own, no secret
DATABASE: Final = "datasync_demo"
EVENTS: Final = 100_000

_CONFIGURED_BY: Final = ("API_BASE_URL", "API_KEY", "API_KEY_FILE", "DATABASE_URL", "DB_HOST")


def is_meant(settings: "BaseSettings") -> bool:
    """Whether nothing is configured: no .env, no API, no database server.

    An incomplete configuration is an error, not a demonstration.
    """
    dotenv = Path(settings.get("PROJECT_DIR") or Path.cwd(), ".env")
    return not dotenv.exists() and not any(settings.get(name) for name in _CONFIGURED_BY)


def environment(inherited: "Mapping[str, str]", mock_url: str) -> dict[str, str]:
    """The environment of a crawl of the mock API into the demonstration's own database."""
    return {**inherited, "API_BASE_URL": mock_url, "API_KEY": API_KEY, "DB_NAME": DATABASE}
