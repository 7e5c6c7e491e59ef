"""RSA keys, made in the device and brought to it: OpenSSL verifies what they sign, they decrypt what it encrypts."""

from _common import refused, session
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from yubihsm.defs import ALGORITHM, CAPABILITY, COMMAND, ERROR
from yubihsm.objects import AsymmetricKey

DATA = b"data to sign"
ALL = (
    CAPABILITY.SIGN_PKCS
    | CAPABILITY.SIGN_PSS
    | CAPABILITY.DECRYPT_PKCS
    | CAPABILITY.DECRYPT_OAEP
)
HASHES = [hashes.SHA1(), hashes.SHA256(), hashes.SHA384(), hashes.SHA512()]
LENGTHS = {2048: 896, 3072: 1344, 4096: 1792}


def signs(key, public):
    for digest in HASHES:
        public.verify(key.sign_pkcs1v1_5(DATA, digest), DATA, padding.PKCS1v15(), digest)
        longest = public.key_size // 8 - digest.digest_size - 2
        for mgf in HASHES:
            for salt in [0, 20, longest]:
                scheme = padding.PSS(padding.MGF1(mgf), salt)
                public.verify(key.sign_pss(DATA, salt, digest, mgf), DATA, scheme, digest)
        refused(ERROR.INVALID_DATA, key.sign_pss, DATA, longest + 1, digest)


def decrypts(key, public):
    assert key.decrypt_pkcs1v1_5(public.encrypt(DATA, padding.PKCS1v15())) == DATA
    for digest in HASHES:
        for mgf in HASHES:
            for label in [None, b"label"]:
                scheme = padding.OAEP(padding.MGF1(mgf), digest, label)
                ciphertext = public.encrypt(DATA, scheme)
                assert key.decrypt_oaep(ciphertext, label or b"", digest, mgf) == DATA
        refused(ERROR.INVALID_DATA, key.decrypt_oaep, ciphertext, b"another", digest, mgf)


def refuses(admin, key):
    length = key.get_public_key().key_size // 8
    refused(ERROR.INVALID_DATA, key.decrypt_pkcs1v1_5, b"\1" * length)
    refused(ERROR.WRONG_LENGTH, key.decrypt_pkcs1v1_5, b"\1" * (length - 1))
    refused(ERROR.WRONG_LENGTH, key.decrypt_oaep, b"\1" * (length - 40))
    command = key.id.to_bytes(2, "big")
    refused(ERROR.WRONG_LENGTH, admin.send_secure_cmd, COMMAND.SIGN_PKCS1, command + bytes(31))
    pss = command + bytes([ALGORITHM.RSA_MGF1_SHA256, 0, 32])
    refused(ERROR.WRONG_LENGTH, admin.send_secure_cmd, COMMAND.SIGN_PSS, pss + bytes(31))
    wrong = command + bytes([ALGORITHM.RSA_2048, 0, 32]) + bytes(32)
    refused(ERROR.INVALID_DATA, admin.send_secure_cmd, COMMAND.SIGN_PSS, wrong)
    refused(ERROR.INSUFFICIENT_PERMISSIONS, key.sign_ecdsa, DATA)


def run(url):
    admin = session(url)
    for bits in LENGTHS:
        secret = rsa.generate_private_key(65537, bits)
        key = AsymmetricKey.put(admin, 0, "imported", 1, ALL, secret)
        public = key.get_public_key()
        assert public.public_numbers() == secret.public_key().public_numbers()
        assert key.get_info().size == LENGTHS[bits], key.get_info()
        signs(key, public)
        decrypts(key, public)
    key = AsymmetricKey.generate(admin, 0, "made here", 1, ALL, ALGORITHM.RSA_2048)
    assert key.get_public_key().key_size == 2048
    signs(key, key.get_public_key())
    decrypts(key, key.get_public_key())
    refuses(admin, key)
    for name, needed in [
        ("sign_pkcs1v1_5", CAPABILITY.SIGN_PKCS),
        ("decrypt_pkcs1v1_5", CAPABILITY.DECRYPT_PKCS),
        ("decrypt_oaep", CAPABILITY.DECRYPT_OAEP),
    ]:
        without = AsymmetricKey.put(admin, 0, "", 1, ALL & ~needed, secret)
        refused(ERROR.INSUFFICIENT_PERMISSIONS, getattr(without, name), DATA)
    admin.close()
