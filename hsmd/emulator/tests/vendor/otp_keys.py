"""OTP AEAD keys: what they seal opens with OpenSSL; the vendor's test vectors for one-time passwords hold."""

import os
import struct

from _common import refused, session
from cryptography.hazmat.primitives.ciphers.aead import AESCCM
from yubihsm.defs import ALGORITHM, CAPABILITY, COMMAND, ERROR
from yubihsm.objects import OtpAeadKey, OtpData

ALL = (
    CAPABILITY.CREATE_OTP_AEAD
    | CAPABILITY.RANDOMIZE_OTP_AEAD
    | CAPABILITY.REWRAP_FROM_OTP_AEAD_KEY
    | CAPABILITY.REWRAP_TO_OTP_AEAD_KEY
    | CAPABILITY.DECRYPT_OTP
)
ALGORITHMS = [
    ALGORITHM.AES128_YUBICO_OTP,
    ALGORITHM.AES192_YUBICO_OTP,
    ALGORITHM.AES256_YUBICO_OTP,
]
# https://developers.yubico.com/OTP/Specifications/Test_vectors.html: key, private identity, password, counters
VECTORS = [
    (bytes(range(16)), bytes(range(1, 7)), "dvgtiblfkbgturecfllberrvkinnctnn", OtpData(1, 1, 1, 1)),
    (bytes(range(16)), bytes(range(1, 7)), "rnibcnfhdninbrdebccrndfhjgnhftee", OtpData(1, 2, 1, 1)),
    (
        b"\x88" * 16,
        b"\x88" * 6,
        "dcihgvrhjeucvrinhdfddbjhfjftjdei",
        OtpData(0x8888, 0x88, 0x88, 0x8888),
    ),
]
MODHEX = str.maketrans("cbdefghijklnrtuv", "0123456789abcdef")


def sealed_as_openssl_does(key, secret, nonce_id):
    aead = key.create_otp_aead(bytes(16), b"secret")
    nonce = struct.pack("<I", nonce_id) + aead[:6] + bytes(3)
    assert AESCCM(secret, 8).decrypt(nonce, aead[6:], None) == bytes(16) + b"secret"
    assert len(key.randomize_otp_aead()) == 36
    assert key.randomize_otp_aead() != key.randomize_otp_aead()


def refuses(admin, key, other, aead):
    refused(ERROR.INVALID_OTP, key.decrypt_otp, aead, bytes(16))
    refused(ERROR.INVALID_DATA, other.decrypt_otp, aead, bytes(16))
    refused(ERROR.INVALID_DATA, other.rewrap_otp_aead, key.id, aead)
    refused(ERROR.WRONG_LENGTH, key.decrypt_otp, aead, bytes(15))
    refused(ERROR.WRONG_LENGTH, key.rewrap_otp_aead, other.id, aead[1:])
    refused(ERROR.WRONG_LENGTH, key.create_otp_aead, bytes(16), bytes(5))
    refused(ERROR.WRONG_LENGTH, admin.send_secure_cmd, COMMAND.RANDOMIZE_OTP_AEAD, bytes(3))
    none = OtpAeadKey.generate(admin, 0, "", 1, CAPABILITY.NONE, ALGORITHMS[0], 1)
    for refusal in [
        lambda: none.create_otp_aead(bytes(16), bytes(6)),
        none.randomize_otp_aead,
        lambda: none.decrypt_otp(aead, bytes(16)),
        lambda: none.rewrap_otp_aead(key.id, aead),
        lambda: key.rewrap_otp_aead(none.id, aead),
    ]:
        refused(ERROR.INSUFFICIENT_PERMISSIONS, refusal)


def run(url):
    admin = session(url)
    keys = []
    for number, algorithm in enumerate(ALGORITHMS):
        nonce_id = 0x01234567 + number
        secret = os.urandom(algorithm.to_key_size())
        imported = OtpAeadKey.put(admin, 0, "imported", 1, ALL, algorithm, nonce_id, secret)
        sealed_as_openssl_does(imported, secret, nonce_id)
        made = OtpAeadKey.generate(admin, 0, "made here", 1, ALL, algorithm, nonce_id)
        keys += [imported, made]

    for secret, identity, password, counters in VECTORS:
        otp = bytes.fromhex(password.translate(MODHEX))
        aead = keys[0].create_otp_aead(secret, identity)
        for key, following in zip(keys, keys[1:]):
            assert key.decrypt_otp(aead, otp) == counters
            aead = key.rewrap_otp_aead(following.id, aead)
        assert keys[-1].decrypt_otp(aead, otp) == counters

    refuses(admin, keys[0], keys[2], keys[0].create_otp_aead(bytes(16), bytes(6)))
    admin.close()
