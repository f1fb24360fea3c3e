"""An API that can't be reached: what happened, and what to do about it. Pure."""

from urllib.parse import urlsplit


class Unreachable(Exception):
    """No connection to the API, and it has answered nothing yet. Raised by the download handler.

    `cause`: a phrase; `remedy`: what to do, without its full stop; `is_final`: trying again doesn't
    help.
    """

    def __init__(self, url: str, cause: str, remedy: str, *, is_final: bool = False) -> None:
        super().__init__(cause)
        self.host = host_of(url)
        self.cause, self.remedy, self.is_final = cause, remedy, is_final

    def sentence(self, tries: int = 1) -> str:
        """For the user, after so many tries."""
        tried = f" ({tries} tries)" if tries > 1 else ""
        return f"{self.host} can't be reached: {self.cause}{tried}. {self.remedy}."


def host_of(url: str) -> str:
    """Host and port as they stand in *url*."""
    return urlsplit(url).netloc.rpartition("@")[2]


def refused(url: str) -> Unreachable:
    """Nothing listens on the port."""
    return Unreachable(
        url,
        "the connection was refused",
        "Nothing listens on that port: check host and port of API_BASE_URL, or start the API",
    )


def unknown_host(url: str) -> Unreachable:
    """The name has no address."""
    return Unreachable(
        url,
        "there is no host of that name",
        "Check the host in API_BASE_URL, and this machine's network and DNS",
    )


def no_connection(url: str, cause: str) -> Unreachable:
    """Any other failure to connect."""
    return Unreachable(
        url, cause, "Check host and port of API_BASE_URL, and the network and firewalls between"
    )


def speaks_http(url: str) -> Unreachable:
    """An https:// address of a server without TLS."""
    plain = url.replace("https://", "http://", 1)
    return Unreachable(
        url,
        "this server speaks http on that port, not https",
        f"Set API_BASE_URL to the port where it speaks https, or to {plain} if the key and the "
        "events may travel unencrypted",
        is_final=True,
    )


def speaks_https(url: str) -> Unreachable:
    """An http:// address of a server with TLS."""
    return Unreachable(
        url,
        "this server speaks https on that port, not http",
        f"Set API_BASE_URL to {url.replace('http://', 'https://', 1)}",
        is_final=True,
    )


def bad_certificate(url: str, why: str) -> Unreachable:
    """The certificate can't be verified."""
    return Unreachable(
        url,
        f"its certificate can't be verified ({why}), so the key isn't sent",
        "Check the host in API_BASE_URL and this machine's clock; name the certificate of an "
        "authority of your own with SSL_CERT_FILE; else the API's owner has to renew it",
        is_final=True,
    )


def by_proxy(url: str, proxy: str, cause: str) -> Unreachable:
    """No connection through the proxy, or the proxy has none."""
    return Unreachable(
        url,
        f"{cause} (through the proxy {host_of(proxy)})",
        "Check the proxy in http_proxy or https_proxy, or name the host in no_proxy",
    )
