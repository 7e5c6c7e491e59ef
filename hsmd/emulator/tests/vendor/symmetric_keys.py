"""AES keys: ECB and CBC as OpenSSL has them."""

import os

from _common import refused, session
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from yubihsm.defs import ALGORITHM, CAPABILITY, COMMAND, ERROR
from yubihsm.objects import SymmetricKey

ALL = (
    CAPABILITY.ENCRYPT_ECB
    | CAPABILITY.DECRYPT_ECB
    | CAPABILITY.ENCRYPT_CBC
    | CAPABILITY.DECRYPT_CBC
)


def encrypted(secret, mode, data):
    encryptor = Cipher(algorithms.AES(secret), mode).encryptor()
    return encryptor.update(data) + encryptor.finalize()


def run(url):
    admin = session(url)
    iv = os.urandom(16)
    for algorithm in [ALGORITHM.AES128, ALGORITHM.AES192, ALGORITHM.AES256]:
        secret = os.urandom(algorithm.to_key_size())
        key = SymmetricKey.put(admin, 0, "imported", 1, ALL, algorithm, secret)
        made = SymmetricKey.generate(admin, 0, "made here", 1, ALL, algorithm)
        assert made.get_info().size == algorithm.to_key_size()
        # The longest takes several commands.
        for length in [16, 32, 5008]:
            data = os.urandom(length)
            ecb, cbc = key.encrypt_ecb(data), key.encrypt_cbc(iv, data)
            assert ecb == encrypted(secret, modes.ECB(), data)
            assert cbc == encrypted(secret, modes.CBC(iv), data)
            assert key.decrypt_ecb(ecb) == key.decrypt_cbc(iv, cbc) == data
            assert made.decrypt_cbc(iv, made.encrypt_cbc(iv, data)) == data
            assert made.encrypt_ecb(data) != ecb

    command = key.id.to_bytes(2, "big")
    for code in [COMMAND.ENCRYPT_ECB, COMMAND.DECRYPT_ECB]:
        for wrong in [b"", bytes(15), bytes(17)]:
            refused(ERROR.WRONG_LENGTH, admin.send_secure_cmd, code, command + wrong)
    for code in [COMMAND.ENCRYPT_CBC, COMMAND.DECRYPT_CBC]:
        for wrong in [b"", iv, iv + bytes(15), iv + bytes(17)]:
            refused(ERROR.WRONG_LENGTH, admin.send_secure_cmd, code, command + wrong)
    for needed, operation in [
        (CAPABILITY.ENCRYPT_ECB, lambda key: key.encrypt_ecb(iv)),
        (CAPABILITY.DECRYPT_ECB, lambda key: key.decrypt_ecb(iv)),
        (CAPABILITY.ENCRYPT_CBC, lambda key: key.encrypt_cbc(iv, iv)),
        (CAPABILITY.DECRYPT_CBC, lambda key: key.decrypt_cbc(iv, iv)),
    ]:
        without = SymmetricKey.generate(admin, 0, "", 1, ALL & ~needed, ALGORITHM.AES128)
        refused(ERROR.INSUFFICIENT_PERMISSIONS, operation, without)
    admin.close()
