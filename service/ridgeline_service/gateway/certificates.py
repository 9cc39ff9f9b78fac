"""The certificate authority of the CONNECT proxy: one per data directory, good for AWS names only.

Its key never leaves ``DIR/proxy`` (mode 0600), nothing is installed anywhere, and name constraints
keep it from vouching for any host outside AWS, even if the key were stolen.
"""

from __future__ import annotations

import ssl
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from ridgeline_service.files import write_atomic

AWS_DOMAINS = ("amazonaws.com", "amazonaws.com.cn", "api.aws")
_CA_LIFE = timedelta(days=3650)
_LEAF_LIFE = timedelta(days=30)
_SLACK = timedelta(days=1)


def is_aws(host: str) -> bool:
    """Whether the proxy answers for ``host`` itself."""
    return host.lower().rstrip(".").endswith(tuple(f".{domain}" for domain in AWS_DOMAINS))


class Authority:
    """Made at first use, then read. ``certificate`` is what clients must trust, in PEM."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._folder = folder
        key_file, certificate_file = folder / "ca.key", folder / "ca.pem"
        if not (key_file.exists() and certificate_file.exists()):
            key = ec.generate_private_key(ec.SECP256R1())
            write_atomic(key_file, _pem(key), mode=0o600)
            write_atomic(certificate_file, _public_pem(_make_authority(key)))
        loaded = serialization.load_pem_private_key(key_file.read_bytes(), password=None)
        assert isinstance(loaded, ec.EllipticCurvePrivateKey)
        self._key = loaded
        self.certificate = certificate_file.read_text()
        self._certificate = x509.load_pem_x509_certificate(self.certificate.encode())
        self._leaf_key = ec.generate_private_key(ec.SECP256R1())

    def context(self, host: str) -> ssl.SSLContext:
        """A server's TLS context that proves to be ``host``, for HTTP/1.1."""
        leaf = self._make_leaf(host.lower())
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_alpn_protocols(["http/1.1"])
        # The ssl module takes a certificate from a file alone.
        with tempfile.NamedTemporaryFile(dir=self._folder, suffix=".pem") as file:
            file.write(_pem(self._leaf_key) + _public_pem(leaf))
            file.flush()
            context.load_cert_chain(file.name)
        return context

    def _make_leaf(self, host: str) -> x509.Certificate:
        usages = [ExtendedKeyUsageOID.SERVER_AUTH]
        issuer_key = x509.SubjectKeyIdentifier.from_public_key(self._key.public_key())
        return (
            _builder(_name(host[-64:]), self._certificate.subject, self._leaf_key, _LEAF_LIFE)
            .add_extension(x509.SubjectAlternativeName([x509.DNSName(host)]), critical=False)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
            .add_extension(_usage(digital_signature=True), critical=True)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(issuer_key),
                critical=False,
            )
            .sign(self._key, hashes.SHA256())
        )


def _make_authority(key: ec.EllipticCurvePrivateKey) -> x509.Certificate:
    name = _name("Ridgeline local proxy")
    domains = [x509.DNSName(domain) for domain in AWS_DOMAINS]
    return (
        _builder(name, name, key, _CA_LIFE)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(key_cert_sign=True), critical=True)
        .add_extension(x509.NameConstraints(domains, None), critical=True)
        .sign(key, hashes.SHA256())
    )


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, life: timedelta
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _SLACK)
        .not_valid_after(now + life)
        .add_extension(identifier, critical=False)
    )


def _usage(*, digital_signature: bool = False, key_cert_sign: bool = False) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=digital_signature,
        key_cert_sign=key_cert_sign,
        crl_sign=key_cert_sign,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def _public_pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)
