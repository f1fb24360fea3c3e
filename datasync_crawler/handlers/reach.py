"""Why the API can't be reached: found out by a connection of our own, without key or request.

Blocks for up to twice PATIENCE_S: call it on a thread. Must not be used while the API answers.
"""

import socket
import ssl
from typing import Final
from urllib.parse import urlsplit

from datasync_crawler.api import reach
from datasync_crawler.api.reach import Unreachable
from datasync_crawler.api.secrets import without_password

#: Longest wait for a connection, and for its first bytes, in seconds.
PATIENCE_S: Final = 5.0


def diagnose(base_url: str, error: BaseException, proxy: str | None = None) -> Unreachable | None:
    """What *error* was, of a request to *base_url*; None when the API can be reached."""
    if proxy:
        said = without_password(str(error)).rstrip(".")
        return reach.by_proxy(base_url, proxy, said or type(error).__name__)
    parts = urlsplit(base_url)
    host, port = parts.hostname or "", parts.port or {"http": 80, "https": 443}[parts.scheme]
    try:
        with socket.create_connection((host, port), PATIENCE_S) as connection:
            if parts.scheme == "https":
                return _tls(base_url, host, connection, error)
        return reach.speaks_https(base_url) if _speaks_tls(host, port) else None
    except OSError as problem:
        return _no_connection(base_url, problem)


def _no_connection(base_url: str, problem: OSError) -> Unreachable:
    if isinstance(problem, socket.gaierror):
        return reach.unknown_host(base_url)
    if isinstance(problem, ConnectionRefusedError):
        return reach.refused(base_url)
    silent = isinstance(problem, TimeoutError)
    cause = "no answer to the connection" if silent else problem.strerror or str(problem)
    return reach.no_connection(base_url, cause)


def _tls(
    base_url: str, host: str, connection: socket.socket, error: BaseException
) -> Unreachable | None:
    context = ssl.create_default_context()
    try:
        context.wrap_socket(connection, server_hostname=host).close()
    except ssl.SSLCertVerificationError as problem:
        return reach.bad_certificate(base_url, problem.verify_message)
    except OSError:
        if _speaks_http(host, urlsplit(base_url).port or 443):
            return reach.speaks_http(base_url)
        return reach.no_connection(base_url, "the TLS handshake fails")
    text = str(error)
    if "ertificate" in text or "VerificationError" in text:  # handlers.tls is stricter
        return reach.bad_certificate(base_url, "its names aren't this host's")
    return None


def _speaks_tls(host: str, port: int) -> bool:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE  # nothing is sent through it
    try:
        with socket.create_connection((host, port), PATIENCE_S) as connection:
            context.wrap_socket(connection, server_hostname=host).close()
    except OSError:
        return False
    return True


def _speaks_http(host: str, port: int) -> bool:
    try:
        with socket.create_connection((host, port), PATIENCE_S) as connection:
            connection.sendall(b"HEAD / HTTP/1.0\r\n\r\n")
            return connection.recv(5) == b"HTTP/"
    except OSError:
        return False
