"""HMAC keys, made in the device and brought to it."""

import os

from _common import refused, session
from cryptography.hazmat.primitives import hashes, hmac
from yubihsm.defs import ALGORITHM, CAPABILITY, COMMAND, ERROR
from yubihsm.objects import HmacKey

BOTH = CAPABILITY.SIGN_HMAC | CAPABILITY.VERIFY_HMAC
HASHES = {
    ALGORITHM.HMAC_SHA1: hashes.SHA1(),
    ALGORITHM.HMAC_SHA256: hashes.SHA256(),
    ALGORITHM.HMAC_SHA384: hashes.SHA384(),
    ALGORITHM.HMAC_SHA512: hashes.SHA512(),
}


def tag(secret, digest, data):
    mac = hmac.HMAC(secret, digest)
    mac.update(data)
    return mac.finalize()


def run(url):
    admin = session(url)
    for algorithm, digest in HASHES.items():
        # The library hashes keys that are longer than a block.
        for length in [1, 20, 64, 200]:
            secret = os.urandom(length)
            key = HmacKey.put(admin, 0, "imported", 1, BOTH, secret, algorithm)
            for data in [b"", b"data", os.urandom(1900)]:
                assert key.sign_hmac(data) == tag(secret, digest, data)
        key = HmacKey.generate(admin, 0, "made here", 1, BOTH, algorithm)
        # The block length of the hash, twice.
        assert key.get_info().size == 2 * algorithm.to_key_size()
        signature = key.sign_hmac(b"data")
        assert len(signature) == digest.digest_size
        assert key.verify_hmac(signature, b"data")
        assert not key.verify_hmac(signature, b"other data")
        assert not key.verify_hmac(bytes(digest.digest_size), b"data")
        short = key.id.to_bytes(2, "big") + signature[1:]
        refused(ERROR.WRONG_LENGTH, admin.send_secure_cmd, COMMAND.VERIFY_HMAC, short)

    signer = HmacKey.generate(admin, 0, "", 1, CAPABILITY.SIGN_HMAC)
    refused(ERROR.INSUFFICIENT_PERMISSIONS, signer.verify_hmac, signer.sign_hmac(b""), b"")
    verifier = HmacKey.generate(admin, 0, "", 1, CAPABILITY.VERIFY_HMAC)
    refused(ERROR.INSUFFICIENT_PERMISSIONS, verifier.sign_hmac, b"")
    refused(ERROR.WRONG_LENGTH, HmacKey.put, admin, 0, "", 1, BOTH, b"")
    signer.delete()
    refused(ERROR.OBJECT_NOT_FOUND, signer.sign_hmac, b"")
    admin.close()
