"""Attestation certificates: their extensions, their chain with OpenSSL, a key of one's own as the issuer."""

import datetime
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from _common import refused, session
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID, SignatureAlgorithmOID
from yubihsm import YubiHsm
from yubihsm.defs import ALGORITHM, CAPABILITY, ERROR, OBJECT, ORIGIN
from yubihsm.objects import (
    AsymmetricKey,
    AttestationExtensions,
    AuthenticationKey,
    DeviceAttestationExtensions,
    KeyAttestationExtensions,
    Opaque,
)

ATTESTS = CAPABILITY.SIGN_ATTESTATION_CERTIFICATE
RSA = [ALGORITHM.RSA_2048, ALGORITHM.RSA_3072]
CURVES = [
    ALGORITHM.EC_P224,
    ALGORITHM.EC_P256,
    ALGORITHM.EC_P384,
    ALGORITHM.EC_P521,
    ALGORITHM.EC_K256,
    ALGORITHM.EC_BP256,
    ALGORITHM.EC_BP384,
    ALGORITHM.EC_BP512,
]


def run(url):
    admin = session(url)
    info = YubiHsm.connect(url).get_device_info()
    factory = admin.get_object(0, OBJECT.OPAQUE).get_certificate()
    device = AttestationExtensions.parse(factory)
    assert isinstance(device, DeviceAttestationExtensions)
    assert (device.firmware_version, device.serial) == (info.version, info.serial)

    attested = [generate(admin, algorithm) for algorithm in CURVES + RSA[:1]]
    for key in attested:
        check(key, 0, factory, info)
    imported(admin, factory, info)
    secrets = [ec.generate_private_key(algorithm.to_curve()) for algorithm in CURVES]
    secrets.append(rsa.generate_private_key(65537, 2048))
    for secret in secrets:
        own_issuer(admin, secret, attested[1], info)
    refusals(url, admin, attested[1])
    admin.close()


def generate(admin, algorithm):
    label = f"{algorithm.name} \N{GREEK SMALL LETTER ALPHA}"
    capabilities = CAPABILITY.SIGN_ECDSA | CAPABILITY.EXPORTABLE_UNDER_WRAP
    return AsymmetricKey.generate(admin, 0, label, 0x8001, capabilities, algorithm)


def check(key, issuer_id, issuer, info, origin=ORIGIN.GENERATED):
    certificate = key.attest(issuer_id)
    details = key.get_info()
    extensions = AttestationExtensions.parse(certificate)
    assert isinstance(extensions, KeyAttestationExtensions)
    assert (extensions.firmware_version, extensions.serial) == (info.version, info.serial)
    assert extensions.origin == origin == details.origin
    assert (extensions.object_id, extensions.domains) == (key.id, details.domains)
    assert extensions.capabilities == details.capabilities
    assert extensions.label == details.label
    assert extensions.fips_approved is None

    assert certificate.public_key() == key.get_public_key()
    assert certificate.issuer == issuer.subject
    assert certificate.not_valid_before_utc == issuer.not_valid_before_utc
    assert certificate.not_valid_after_utc == issuer.not_valid_after_utc
    names = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    assert [name.value for name in names] == [f"YubiHSM Attestation id 0x{key.id:04x}"]
    assert certificate.serial_number != key.attest(issuer_id).serial_number
    expected = SignatureAlgorithmOID.ECDSA_WITH_SHA256
    if isinstance(issuer.public_key(), rsa.RSAPublicKey):
        expected = SignatureAlgorithmOID.RSA_WITH_SHA256
    assert certificate.signature_algorithm_oid == expected
    verify(certificate, issuer)


def verify(certificate, issuer):
    """The chain, with the `openssl` command."""
    if not shutil.which("openssl") and not os.environ.get("CI"):
        print("skipped: needs the openssl command", file=sys.stderr)
        return
    with tempfile.TemporaryDirectory() as folder:
        leaf, root = Path(folder, "leaf.pem"), Path(folder, "root.pem")
        leaf.write_bytes(certificate.public_bytes(Encoding.PEM))
        root.write_bytes(issuer.public_bytes(Encoding.PEM))
        command = ["openssl", "verify", "-check_ss_sig", "-CAfile", root, leaf]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr


def imported(admin, factory, info):
    secret = ec.generate_private_key(ec.SECP256R1())
    key = AsymmetricKey.put(admin, 0, "", 1, CAPABILITY.NONE, secret)
    check(key, 0, factory, info, ORIGIN.IMPORTED)


def certificate_of(secret):
    name = x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Ours"),
            x509.NameAttribute(NameOID.COMMON_NAME, "Attestation"),
        ]
    )
    today = datetime.datetime.now(datetime.timezone.utc)
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .not_valid_before(today - datetime.timedelta(days=1))
        .not_valid_after(today + datetime.timedelta(days=1))
        .serial_number(x509.random_serial_number())
        .public_key(secret.public_key())
        .add_extension(x509.BasicConstraints(True, None), True)
        .sign(secret, hashes.SHA256())
    )


def own_issuer(admin, secret, attested, info):
    key = AsymmetricKey.put(admin, 0, "", 0xFFFF, ATTESTS, secret)
    refused(ERROR.OBJECT_NOT_FOUND, attested.attest, key.id)
    certificate = certificate_of(secret)
    opaque = key.put_certificate("", 0xFFFF, CAPABILITY.NONE, certificate)
    check(attested, key.id, certificate, info)
    opaque.delete()
    key.delete()


def refusals(url, admin, attested):
    eddsa = AsymmetricKey.generate(admin, 0, "", 1, ATTESTS, ALGORITHM.EC_ED25519)
    refused(ERROR.INVALID_DATA, eddsa.attest, 0)
    refused(ERROR.OBJECT_NOT_FOUND, AsymmetricKey(admin, 0x7777).attest, 0)
    refused(ERROR.OBJECT_NOT_FOUND, AsymmetricKey(admin, 0).attest, 0)
    refused(ERROR.OBJECT_NOT_FOUND, attested.attest, 0x7777)

    secret = ed25519.Ed25519PrivateKey.generate()
    key = AsymmetricKey.put(admin, 0, "", 1, ATTESTS, secret)
    certificate = certificate_of(ec.generate_private_key(ec.SECP256R1()))
    key.put_certificate("", 1, CAPABILITY.NONE, certificate)
    refused(ERROR.INVALID_DATA, attested.attest, key.id)

    secret = ec.generate_private_key(ec.SECP256R1())
    key = AsymmetricKey.put(admin, 0, "", 1, CAPABILITY.SIGN_ECDSA, secret)
    key.put_certificate("", 1, CAPABILITY.NONE, certificate_of(secret))
    refused(ERROR.INSUFFICIENT_PERMISSIONS, attested.attest, key.id)

    key = AsymmetricKey.put(admin, 0, "", 1, ATTESTS, secret)
    arguments = ("", 1, CAPABILITY.NONE, ALGORITHM.OPAQUE_X509_CERTIFICATE)
    der = certificate_of(secret).public_bytes(Encoding.DER)
    for data in (b"\0", b"\x30\0", b"no certificate", der[:-1], der + b"\0", der[4:]):
        opaque = Opaque.put(admin, key.id, *arguments, data)
        refused(ERROR.INVALID_DATA, attested.attest, key.id)
        opaque.delete()

    rights = (CAPABILITY.SIGN_ECDSA, CAPABILITY.NONE, "may not")
    user = AuthenticationKey.put_derived(admin, 0, "", 1, *rights)
    with session(url, user.id, "may not") as limited:
        refused(ERROR.INSUFFICIENT_PERMISSIONS, attested.with_session(limited).attest, 0)
    user = AuthenticationKey.put_derived(admin, 0, "", 2, ATTESTS, CAPABILITY.NONE, "elsewhere")
    with session(url, user.id, "elsewhere") as limited:
        refused(ERROR.OBJECT_NOT_FOUND, attested.with_session(limited).attest, 0)
