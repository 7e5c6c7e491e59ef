#!/usr/bin/env python3
"""Drives a running emulator with the vendor's own library (PyPI `yubihsm[http]`).

Usage: vendor_library.py [URL]. It resets the device. Exits with 0 if every step holds.
"""

import sys

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from yubihsm import YubiHsm
from yubihsm.defs import ALGORITHM, AUDIT, CAPABILITY, COMMAND, ERROR, OBJECT
from yubihsm.exceptions import YubiHsmAuthenticationError, YubiHsmDeviceError
from yubihsm.objects import AsymmetricKey, AuthenticationKey, Opaque

url = sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:12345"


def refused(code, action):
    try:
        action()
    except YubiHsmDeviceError as error:
        assert error.code == code, f"{error.code} instead of {code}"
        return
    raise AssertionError(f"not refused, expected {code}")


def open_session(key=1, password="password"):
    return YubiHsm.connect(url).create_session_derived(key, password)


open_session().reset_device()
hsm = YubiHsm.connect(url)
session = hsm.create_session_derived(1, "password")

# The device
info = hsm.get_device_info()
assert info.part_number == "EMULATOR", info
assert 4_200_000_000 <= info.serial <= 4_200_999_999, info
assert len(session.get_pseudo_random(32)) == 32
assert session.send_secure_cmd(COMMAND.ECHO, b"hello") == b"hello"
assert hsm.send_cmd(COMMAND.ECHO, b"hello") == b"hello"

# Sessions
try:
    hsm.create_session_derived(1, "wrong")
    raise AssertionError("a wrong password opened a session")
except YubiHsmAuthenticationError:
    pass

# Keys and signatures
data = b"data to sign"
key = AsymmetricKey.generate(session, 0, "ed", 1, CAPABILITY.SIGN_EDDSA, ALGORITHM.EC_ED25519)
key.get_public_key().verify(key.sign_eddsa(data), data)
refused(ERROR.INSUFFICIENT_PERMISSIONS, lambda: key.sign_ecdsa(data))
for curve in [ec.SECP256R1(), ec.SECP256K1()]:
    for secret in [None, ec.generate_private_key(curve)]:
        if secret is None:
            algorithm = ALGORITHM.for_curve(curve)
            key = AsymmetricKey.generate(session, 0, "ec", 1, CAPABILITY.SIGN_ECDSA, algorithm)
        else:
            key = AsymmetricKey.put(session, 0, "ec", 1, CAPABILITY.SIGN_ECDSA, secret)
            assert key.get_public_key().public_numbers() == secret.public_key().public_numbers()
        for digest in [hashes.SHA1(), hashes.SHA256(), hashes.SHA384(), hashes.SHA512()]:
            signature = key.sign_ecdsa(data, digest)
            key.get_public_key().verify(signature, data, ec.ECDSA(digest))
secret = ed25519.Ed25519PrivateKey.generate()
imported = AsymmetricKey.put(session, 5, "imported", 3, CAPABILITY.SIGN_EDDSA, secret)
assert imported.get_public_key().public_bytes_raw() == secret.public_key().public_bytes_raw()
assert imported.sign_eddsa(data) == secret.sign(data)

# Objects
details = imported.get_info()
assert (details.id, details.label, details.domains) == (5, "imported", 3), details
assert details.capabilities == CAPABILITY.SIGN_EDDSA, details
assert [o.id for o in session.list_objects(label="imported")] == [5]
assert len(session.list_objects(object_type=OBJECT.ASYMMETRIC_KEY)) == 6
assert len(session.list_objects(algorithm=ALGORITHM.EC_K256)) == 2
refused(ERROR.OBJECT_EXISTS, lambda: AsymmetricKey.put(session, 5, "", 1, CAPABILITY.NONE, secret))
imported.delete()
refused(ERROR.OBJECT_NOT_FOUND, imported.get_info)
opaque = Opaque.put(session, 0, "", 1, CAPABILITY.NONE, ALGORITHM.OPAQUE_DATA, b"opaque")
assert opaque.get() == b"opaque"
certificate = session.get_object(0, OBJECT.OPAQUE).get_certificate()
assert "EMULATOR" in certificate.subject.rfc4514_string()
certificate.public_key().verify(
    certificate.signature, certificate.tbs_certificate_bytes, ec.ECDSA(hashes.SHA256())
)
assert isinstance(certificate, x509.Certificate)

# Authentication keys
user = AuthenticationKey.put_derived(
    session, 2, "user", 1, CAPABILITY.SIGN_EDDSA | CAPABILITY.CHANGE_AUTHENTICATION_KEY,
    CAPABILITY.NONE, "old")
with open_session(2, "old") as limited:
    refused(ERROR.INSUFFICIENT_PERMISSIONS, lambda: limited.get_pseudo_random(1))
    user.with_session(limited).change_password("new")
open_session(2, "new").close()

# The log
session.set_command_audit({COMMAND.ECHO: AUDIT.ON})
assert session.get_command_audit()[COMMAND.ECHO] == AUDIT.ON
assert session.get_force_audit() == AUDIT.OFF
for _ in range(3):
    session.send_secure_cmd(COMMAND.ECHO, b"x")
log = session.get_log_entries()
assert [entry.command for entry in log.entries[-3:]] == [COMMAND.ECHO] * 3
session.set_log_index(log.entries[-1].number)
assert session.get_log_entries(log.entries[-1]).entries == []
assert session.get_enabled_algorithms()[ALGORITHM.EC_ED25519]

# What is not implemented
refused(ERROR.INVALID_COMMAND, lambda: session.send_secure_cmd(COMMAND.PUT_WRAP_KEY, b""))
session.close()
print("the vendor's library is content")
