"""Which requests go through a proxy, and what is said where the key can be read on its way."""

from __future__ import annotations

import pytest
from scrapy import Request
from scrapy.utils.test import get_crawler

from datasync_crawler.handlers.proxies import RemoteProxyMiddleware, proxy_of, unencrypted

PROXY = "http://proxy.example:3128"


@pytest.fixture(autouse=True)
def proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy for everything, and no exception of the developer's own."""
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, PROXY)
    for name in ("no_proxy", "NO_PROXY", "REQUEST_METHOD"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ("url", "proxy"),
    [
        ("http://127.0.0.1:8763/api/v1", None),
        ("http://localhost/api/v1", None),
        ("https://[::1]:8000/", None),
        ("http://127.1.2.3/", None),
        ("https://api.example.com/api/v1", PROXY),
        ("http://api.example.com/api/v1", PROXY),
    ],
)
def test_this_machine_is_asked_without_a_proxy(url: str, proxy: str | None) -> None:
    """By a crawl as by scrapy verify; any other host is asked as the environment says."""
    middleware = RemoteProxyMiddleware.from_crawler(get_crawler(settings_dict={}))
    request = Request(url)
    middleware.process_request(request)
    assert request.meta.get("proxy") == proxy
    assert proxy_of(url) == proxy


def test_no_proxy_is_heeded(monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment's own exceptions count for both."""
    monkeypatch.setenv("no_proxy", "api.example.com")
    middleware = RemoteProxyMiddleware.from_crawler(get_crawler(settings_dict={}))
    request = Request("https://api.example.com/")
    middleware.process_request(request)
    assert request.meta.get("proxy") is None
    assert proxy_of(request.url) is None


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("", None),
        ("https://api.example.com/api/v1", None),
        ("http://127.0.0.1:8763/api/v1", None),
        ("http://localhost:8763/api/v1", None),
        ("http://[::1", None),
        ("http://api.example.com/api/v1", "travel to api.example.com and through a proxy unenc"),
    ],
)
def test_a_key_that_others_can_read_is_told_once(
    url: str, told: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    """One warning at the start, never for https:// or this machine."""
    RemoteProxyMiddleware.from_crawler(get_crawler(settings_dict={"API_BASE_URL": url}))
    assert len(caplog.records) == (told is not None)
    assert (told or "") in caplog.text
    assert (unencrypted(url) is None) == (told is None)


def test_without_a_proxy_the_warning_names_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """http:// to a remote host is enough for it."""
    monkeypatch.delenv("http_proxy")
    monkeypatch.delenv("HTTP_PROXY")
    assert "travel to api.example.com unencrypted" in (unencrypted("http://api.example.com") or "")
