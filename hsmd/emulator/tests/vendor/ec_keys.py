"""Keys on every elliptic curve: signatures verify with OpenSSL, which agrees on the same secret."""

from _common import refused, session
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from yubihsm.defs import ALGORITHM, CAPABILITY, COMMAND, ERROR
from yubihsm.objects import AsymmetricKey

DATA = b"data to sign"
BOTH = CAPABILITY.SIGN_ECDSA | CAPABILITY.DERIVE_ECDH
HASHES = [hashes.SHA1(), hashes.SHA256(), hashes.SHA384(), hashes.SHA512()]
CURVES = [
    ec.SECP224R1(),
    ec.SECP256R1(),
    ec.SECP384R1(),
    ec.SECP521R1(),
    ec.SECP256K1(),
    ec.BrainpoolP256R1(),
    ec.BrainpoolP384R1(),
    ec.BrainpoolP512R1(),
]


def works(key, curve):
    public = key.get_public_key()
    for digest in HASHES:
        public.verify(key.sign_ecdsa(DATA, digest), DATA, ec.ECDSA(digest))
    length = (curve.key_size + 7) // 8
    if length >= 32:
        padded = key.sign_ecdsa(DATA, hashes.SHA256(), length=length)
        public.verify(padded, DATA, ec.ECDSA(hashes.SHA256()))
    ours = ec.generate_private_key(curve)
    assert key.derive_ecdh(ours.public_key()) == ours.exchange(ec.ECDH(), public)


def refuses(admin, key, curve):
    length = (curve.key_size + 7) // 8
    command = key.id.to_bytes(2, "big")
    for point in [bytes(2 * length), b"\xff" * (2 * length)]:
        refused(
            ERROR.INVALID_DATA, admin.send_secure_cmd, COMMAND.DERIVE_ECDH, command + b"\4" + point
        )
    short = command + b"\4" + bytes(length)
    refused(ERROR.WRONG_LENGTH, admin.send_secure_cmd, COMMAND.DERIVE_ECDH, short)
    refused(ERROR.WRONG_LENGTH, admin.send_secure_cmd, COMMAND.SIGN_ECDSA, command + bytes(31))
    refused(ERROR.INSUFFICIENT_PERMISSIONS, key.sign_pkcs1v1_5, DATA)


def run(url):
    admin = session(url)
    for curve in CURVES:
        algorithm = ALGORITHM.for_curve(curve)
        key = AsymmetricKey.generate(admin, 0, "made here", 1, BOTH, algorithm)
        works(key, curve)
        refuses(admin, key, curve)
        secret = ec.generate_private_key(curve)
        key = AsymmetricKey.put(admin, 0, "imported", 1, BOTH, secret)
        assert key.get_public_key().public_numbers() == secret.public_key().public_numbers()
        assert key.get_info().size == 3 * ((curve.key_size + 7) // 8)
        works(key, curve)
        verify_only = AsymmetricKey.put(admin, 0, "", 1, CAPABILITY.NONE, secret)
        refused(ERROR.INSUFFICIENT_PERMISSIONS, verify_only.sign_ecdsa, DATA)
        refused(ERROR.INSUFFICIENT_PERMISSIONS, verify_only.derive_ecdh, secret.public_key())

    order = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
    key = AsymmetricKey.generate(admin, 0, "", 1, BOTH, ALGORITHM.EC_K256)
    high = sum(decode_dss_signature(key.sign_ecdsa(DATA))[1] > order // 2 for _ in range(40))
    assert 0 < high < 40, f"{high} of 40 signatures have the high s"
    admin.close()
