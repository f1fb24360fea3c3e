"""The check of a server's certificate, before the key is sent.

A connection policy for Twisted's HTTP client: a certificate that can't be verified ends the
handshake. Used where DOWNLOAD_VERIFY_CERTIFICATES is on (`transport`).
"""

from typing import TYPE_CHECKING, Any, Protocol
from weakref import ref

from OpenSSL.SSL import VERIFY_FAIL_IF_NO_PEER_CERT, VERIFY_PEER
from service_identity.hazmat import DNS_ID, IPAddress_ID, verify_service_identity
from service_identity.pyopenssl import extract_patterns
from twisted.internet.interfaces import IOpenSSLClientConnectionCreator
from twisted.internet.ssl import optionsForClientTLS
from twisted.python.failure import Failure
from twisted.web.iweb import IPolicyForHTTPS
from zope.interface import implementer  # type: ignore[import-untyped]

if TYPE_CHECKING:
    from OpenSSL.SSL import Connection
    from twisted.internet._sslverify import ClientTLSOptions
    from twisted.protocols.tls import TLSMemoryBIOProtocol


class _Options(Protocol):
    """The part of Scrapy's own policy that gives versions and ciphers."""

    def _get_cert_options_kwargs(self) -> dict[str, Any]: ...


@implementer(IPolicyForHTTPS)
class VerifyingPolicy:
    """Versions and ciphers as in Scrapy's settings, names checked here."""

    def __init__(self, options: _Options) -> None:
        self._options = options

    def creatorForNetloc(self, hostname: bytes | str, port: int) -> Any:  # noqa: N802 - Twisted's
        """The creator of TLS connections to a host; Scrapy's tunnel gives the name as text."""
        del port
        name = hostname.decode("ascii") if isinstance(hostname, bytes) else hostname
        options = optionsForClientTLS(
            hostname=name, extraCertificateOptions=self._options._get_cert_options_kwargs()
        )
        return _FailClosed(options)


@implementer(IOpenSSLClientConnectionCreator)
class _FailClosed:
    """Twisted's options, with its check of the name replaced.

    Twisted 26.10 catches only service-identity's VerificationError. It logs anything else that
    service-identity 26.1 raises, and then accepts the certificate of a trusted authority for every
    host: CertificateError (no usable subjectAltName, `DNS:*`, `DNS:*.com`) and ValueError (an
    extension that can't be parsed).
    """

    def __init__(self, options: "ClientTLSOptions") -> None:
        self._options = options

    def clientConnectionForTLS(  # noqa: N802 - Twisted's
        self, protocol: "TLSMemoryBIOProtocol"
    ) -> "Connection":
        """A connection whose handshake fails unless authority, dates and name are good."""
        connection = self._options.clientConnectionForTLS(protocol)
        name = self._options._hostnameASCII
        wanted = DNS_ID(name) if self._options._hostnameIsDnsName else IPAddress_ID(name)

        handshake = ref(protocol)

        def is_good(_: object, certificate: Any, error: int, depth: int, ok: int) -> bool:
            del error
            try:
                if depth == 0 and ok:
                    verify_service_identity(extract_patterns(certificate), [wanted], [])
            except BaseException:  # noqa: BLE001 - whatever it is, the name isn't proved
                if (waiting := handshake()) is not None:
                    waiting.failVerification(Failure())  # type: ignore[no-untyped-call]
                return False
            return bool(ok)

        connection.set_verify(VERIFY_PEER | VERIFY_FAIL_IF_NO_PEER_CERT, is_good)
        return connection
