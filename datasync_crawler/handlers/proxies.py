"""Proxies of the environment (http_proxy, https_proxy, no_proxy); the warning about plain HTTP."""

import logging
from typing import TYPE_CHECKING
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from scrapy.downloadermiddlewares.httpproxy import HttpProxyMiddleware
from scrapy.exceptions import NotConfigured

from datasync_crawler.config import is_this_machine

if TYPE_CHECKING:
    from scrapy import Request, Spider
    from scrapy.crawler import Crawler
    from scrapy.http import Response

logger = logging.getLogger(__name__)


class RemoteProxyMiddleware(HttpProxyMiddleware):
    """Replaces HttpProxyMiddleware: addresses of this machine bypass the proxy.

    Settings: HTTPPROXY_ENABLED, API_BASE_URL. Warns once if the key travels unencrypted.
    """

    @classmethod
    def from_crawler(cls, crawler: "Crawler") -> "RemoteProxyMiddleware":
        """Scrapy's constructor."""
        if warning := unencrypted(str(crawler.settings.get("API_BASE_URL") or "")):
            logger.warning("%s", warning)
        if not crawler.settings.getbool("HTTPPROXY_ENABLED"):
            raise NotConfigured
        return cls(crawler.settings.get("HTTPPROXY_AUTH_ENCODING"))

    def process_request(
        self, request: "Request", spider: "Spider | None" = None
    ) -> "Request | Response | None":
        """Scrapy's, except for this machine's addresses; `proxy` in request.meta still applies."""
        if request.meta.get("proxy") is None and is_this_machine(
            urlsplit(request.url).hostname or ""
        ):
            return None
        return super().process_request(request)


def unencrypted(base_url: str) -> str | None:
    """A warning when the key travels unencrypted to another machine, else None."""
    try:
        parts = urlsplit(base_url.strip())
        host = parts.hostname or ""
    except ValueError:  # Config reports it
        return None
    if parts.scheme != "http" or not host or is_this_machine(host):
        return None
    through = "" if proxy_of(base_url) is None else " and through a proxy"
    return (
        f"API_BASE_URL begins with http://: the key and all events travel to {host}{through} "
        "unencrypted, and whoever is on the way can read and change them. Set it to an https:// "
        "address if the API has one."
    )


def proxy_of(url: str) -> str | None:
    """The environment's proxy for an address; None for addresses of this machine."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    if is_this_machine(host) or proxy_bypass(host):
        return None
    return getproxies().get(parts.scheme)
