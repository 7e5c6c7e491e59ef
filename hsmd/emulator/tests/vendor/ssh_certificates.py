"""Templates, and the SSH certificates that they allow: OpenSSL accepts the signatures."""

import base64
import os
import struct
import time

from _common import refused, session
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ed25519, padding, rsa
from yubihsm.defs import ALGORITHM, CAPABILITY, ERROR
from yubihsm.objects import AsymmetricKey, Template

KEY = 5
KIND = b"ssh-ed25519-cert-v01@openssh.com"
SIGN = CAPABILITY.SIGN_SSH_CERTIFICATE


def field(tag, value):
    return struct.pack("!BH", tag, len(value)) + value


def template(authority, keys, refused_names):
    modulus = authority.public_key().public_numbers().n.to_bytes(256, "big")
    return (
        field(1, bytes([ALGORITHM.RSA_2048]))
        + field(2, modulus)
        + field(3, b"".join(key.to_bytes(2, "big") for key in keys))
        + field(4, bytes(4))
        + field(5, b"\xff" * 4)
        + field(6, b"".join(name + b"\0" for name in refused_names))
    )


def string(data):
    return struct.pack("!I", len(data)) + data


def certificate_request(principals, ca_key):
    user = ed25519.Ed25519PrivateKey.generate().public_key().public_bytes_raw()
    ssh = serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH
    ca = base64.b64decode(ca_key.public_bytes(*ssh).split()[1])
    return (
        string(KIND)
        + string(os.urandom(32))
        + string(user)
        + struct.pack("!QI", 1, 1)
        + string(b"identity")
        + string(b"".join(string(name) for name in principals))
        + struct.pack("!QQ", 0, 2**64 - 1)
        + string(b"") * 3
        + string(ca)
    )


def approved(authority, request):
    """The request as the device wants it: with the time, and the word of the time authority for both."""
    now = struct.pack("!I", int(time.time()))
    digest = hashes.Hash(hashes.SHA256())
    digest.update(request)
    signature = authority.sign(digest.finalize() + now, padding.PKCS1v15(), hashes.SHA256())
    return now + signature + request


def run(url):
    admin = session(url)
    authority = rsa.generate_private_key(65537, 2048)
    data = template(authority, [1, KEY], [b"root", b"toor"])
    allows = Template.put(admin, 10, "ssh", 1, CAPABILITY.NONE, ALGORITHM.TEMPLATE_SSH, data)
    assert allows.get() == data
    assert allows.get_info().size == len(data)

    key = AsymmetricKey.generate(admin, KEY, "ca", 1, SIGN, ALGORITHM.RSA_2048)
    request = certificate_request([b"user1", b"user2"], key.get_public_key())
    sha1, sha256 = ALGORITHM.RSA_PKCS1_SHA1, ALGORITHM.RSA_PKCS1_SHA256
    for algorithm in [sha1, sha256, ALGORITHM.RSA_PKCS1_SHA512]:
        signature = key.sign_ssh_certificate(allows.id, approved(authority, request), algorithm)
        line = base64.b64encode(request + signature)
        certificate = serialization.load_ssh_public_identity(KIND + b" " + line)
        assert certificate.valid_principals == [b"user1", b"user2"]
        if algorithm != sha1:  # which the library no longer accepts
            certificate.verify_cert_signature()

    def sign(key, request, algorithm=sha256, used=allows):
        return key.sign_ssh_certificate(used.id, request, algorithm)

    violation = ERROR.SSH_CA_CONSTRAINT_VIOLATION
    for names in [[b"root"], [b"user1", b"toor"]]:
        for_others = certificate_request(names, key.get_public_key())
        refused(violation, sign, key, approved(authority, for_others))
    refused(violation, sign, key, approved(rsa.generate_private_key(65537, 2048), request))
    unlisted = AsymmetricKey.generate(admin, 6, "", 1, SIGN, ALGORITHM.RSA_2048)
    refused(violation, sign, unlisted, approved(authority, request))
    refused(ERROR.INVALID_DATA, sign, key, approved(authority, request[:-1]))
    refused(ERROR.INVALID_DATA, sign, key, approved(authority, request), ALGORITHM.RSA_PKCS1_SHA384)
    refused(ERROR.WRONG_LENGTH, sign, key, bytes(100))
    without = AsymmetricKey.generate(admin, 1, "", 1, CAPABILITY.SIGN_PKCS, ALGORITHM.RSA_2048)
    refused(ERROR.INSUFFICIENT_PERMISSIONS, sign, without, approved(authority, request))
    broken = Template.put(admin, 11, "", 1, CAPABILITY.NONE, ALGORITHM.TEMPLATE_SSH, data[:-1])
    refused(ERROR.INVALID_DATA, sign, key, approved(authority, request), used=broken)
    allows.delete()
    refused(ERROR.OBJECT_NOT_FOUND, sign, key, approved(authority, request))
    admin.close()
