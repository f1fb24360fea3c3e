"""Certificates of every shape, made on the spot, and servers that show them."""

from __future__ import annotations

import ipaddress
import ssl
import threading
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    Names = list[x509.GeneralName]

DAY = timedelta(days=1)
LOCALHOST = x509.DNSName("localhost")
LOOPBACK = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
#: Subject alternative names that make no certificate of "localhost" or of 127.0.0.1.
BAD_NAMES: Mapping[str, Names] = {
    "wrong-name": [x509.DNSName("other.example")],
    "wrong-ip": [x509.IPAddress(ipaddress.ip_address("127.0.0.2"))],
    "e-mail": [x509.RFC822Name("localhost@localhost")],
    "uri": [x509.UniformResourceIdentifier("https://localhost/")],
    "star": [x509.DNSName("*")],
    "star-com": [x509.DNSName("*.com")],
    "empty-name": [x509.DNSName("")],
    "ip-as-name": [x509.DNSName("127.0.0.2")],
}
GOOD = "good"
BAD = (*BAD_NAMES, "no-san", "malformed-san", "expired", "not-yet", "self-signed", "signed-by-leaf")


class Authority:
    """A certificate authority; `folder` takes its certificate and those that it signs."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _name("authority of a test")
        self.file = folder / "authority.pem"
        made = _builder(self._name, self._name, self._key).add_extension(
            x509.BasicConstraints(ca=True, path_length=None), critical=True
        )
        signed = made.sign(self._key, hashes.SHA256())
        self.file.write_bytes(signed.public_bytes(serialization.Encoding.PEM))

    def certificate(self, shape: str) -> ssl.SSLContext:
        """A server's context with a certificate of this shape."""
        key = ec.generate_private_key(ec.SECP256R1())
        built = _builder(_name("localhost"), self._name, key, *_dates(shape))
        if shape == "malformed-san":
            # An IP address of five bytes: OpenSSL takes it, cryptography raises ValueError.
            junk = x509.UnrecognizedExtension(
                x509.SubjectAlternativeName.oid, b"\x30\x07\x87\x05\x7f\x00\x00\x01\x00"
            )
            built = built.add_extension(junk, critical=False)
        elif shape != "no-san":
            names = BAD_NAMES.get(shape, [LOCALHOST, LOOPBACK])
            built = built.add_extension(x509.SubjectAlternativeName(names), critical=False)
        signer = key if shape == "self-signed" else self._key
        chain = []
        if shape == "signed-by-leaf":
            signer = ec.generate_private_key(ec.SECP256R1())
            leaf = _builder(_name("leaf"), self._name, signer)
            chain.append(leaf.sign(self._key, hashes.SHA256()))
            built = _reissued(key, "leaf")
        chain.insert(0, built.sign(signer, hashes.SHA256()))
        return self._context(shape, key, chain)

    def _context(self, shape: str, key: Any, chain: list[x509.Certificate]) -> ssl.SSLContext:
        file = self._folder / f"{shape}.pem"
        pem = serialization.Encoding.PEM
        held = key.private_bytes(
            pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        file.write_bytes(held + b"".join(one.public_bytes(pem) for one in chain))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(file)
        return context


class Https(ThreadingHTTPServer):
    """Answers everything with an empty page; `asked` are the keys that came."""

    daemon_threads = True

    def __init__(self, context: ssl.SSLContext) -> None:
        super().__init__(("127.0.0.1", 0), _Answers)
        self.socket = context.wrap_socket(self.socket, server_side=True)
        self.asked: list[str | None] = []

    def handle_error(self, request: object, client_address: object) -> None:
        """Quiet: a client that hangs up is what the tests are about."""

    def get_request(self) -> Any:
        """A handshake that the client breaks off isn't the end of the server."""
        try:
            return super().get_request()
        except ssl.SSLError as error:
            raise OSError(str(error)) from None


@contextmanager
def serving(contexts: Mapping[str, ssl.SSLContext]) -> Iterator[dict[str, Https]]:
    """A server for each context."""
    servers = {shape: Https(context) for shape, context in contexts.items()}
    for server in servers.values():
        threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield servers
    finally:
        for server in servers.values():
            server.shutdown()
            server.server_close()


class _Answers(BaseHTTPRequestHandler):
    server: Https

    def do_GET(self) -> None:
        self.server.asked.append(self.headers["X-API-Key"])
        body = b'{"data":[],"meta":{"total":0}}'
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Quiet."""


def _dates(shape: str) -> tuple[datetime, datetime]:
    now = datetime.now(UTC)
    if shape == "expired":
        return now - 3 * DAY, now - DAY
    return (now + DAY, now + 3 * DAY) if shape == "not-yet" else (now - DAY, now + DAY)


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


def _reissued(key: Any, issuer: str) -> x509.CertificateBuilder:
    built = _builder(_name("localhost"), _name(issuer), key)
    return built.add_extension(x509.SubjectAlternativeName([LOCALHOST]), critical=False)


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: Any,
    begins: datetime | None = None,
    ends: datetime | None = None,
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begins or now - DAY)
        .not_valid_after(ends or now + DAY)
    )
