"""Ed25519 keys, made in the device and brought to it; signatures verify with OpenSSL."""

from _common import refused, session
from cryptography.hazmat.primitives.asymmetric import ed25519
from yubihsm.defs import ALGORITHM, CAPABILITY, ERROR
from yubihsm.objects import AsymmetricKey

DATA = b"data to sign"


def run(url):
    admin = session(url)
    key = AsymmetricKey.generate(
        admin, 0, "made here", 1, CAPABILITY.SIGN_EDDSA, ALGORITHM.EC_ED25519
    )
    key.get_public_key().verify(key.sign_eddsa(DATA), DATA)
    key.get_public_key().verify(key.sign_eddsa(b"\0" * 2019), b"\0" * 2019)
    refused(ERROR.WRONG_LENGTH, key.sign_eddsa, b"\0" * 2020)
    refused(ERROR.INSUFFICIENT_PERMISSIONS, key.sign_ecdsa, DATA)

    secret = ed25519.Ed25519PrivateKey.generate()
    imported = AsymmetricKey.put(admin, 5, "imported", 3, CAPABILITY.SIGN_EDDSA, secret)
    public = imported.get_public_key().public_bytes_raw()
    assert public == secret.public_key().public_bytes_raw()
    assert imported.sign_eddsa(DATA) == secret.sign(DATA)
    refused(
        ERROR.OBJECT_EXISTS, AsymmetricKey.put, admin, 5, "", 1, CAPABILITY.NONE, secret
    )
    admin.close()
