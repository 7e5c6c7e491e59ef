"""Sessions opened with a P-256 key pair: the device's key, its receipt, changed keys, what is refused."""

import os

from _common import refused, session
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from yubihsm import YubiHsm
from yubihsm.defs import ALGORITHM, CAPABILITY, COMMAND, ERROR, OBJECT
from yubihsm.exceptions import YubiHsmAuthenticationError
from yubihsm.objects import AuthenticationKey


def new_key():
    return ec.generate_private_key(ec.SECP256R1())


def point(key):
    return key.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)


def run(url):
    admin, hsm = session(url), YubiHsm.connect(url)
    secret, changed = new_key(), new_key()
    capabilities = CAPABILITY.CHANGE_AUTHENTICATION_KEY | CAPABILITY.GET_PSEUDO_RANDOM
    key = AuthenticationKey.put_public_key(
        admin, 2, "pair", 1, capabilities, CAPABILITY.NONE, secret.public_key()
    )
    details = key.get_info()
    assert details.algorithm == ALGORITHM.EC_P256_YUBICO_AUTHENTICATION, details
    assert (details.size, details.object_type) == (72, OBJECT.AUTHENTICATION_KEY), details

    pinned = hsm.get_device_public_key()
    with hsm.create_session_asymmetric(2, secret, pinned) as opened:
        for length in (0, 1, 500):
            text = os.urandom(length)
            assert opened.send_secure_cmd(COMMAND.ECHO, text) == text
        assert len(opened.get_pseudo_random(16)) == 16
        refused(ERROR.INSUFFICIENT_PERMISSIONS, opened.get_log_entries)
        refused(ERROR.INVALID_ID, AuthenticationKey(opened, 1).change_public_key, changed.public_key())
        refused(ERROR.INVALID_DATA, key.with_session(opened).change_password, "no longer a pair")
        key.with_session(opened).change_public_key(changed.public_key())
    hsm.create_session_asymmetric(2, changed).close()

    # The host tells a wrong key of its own, and a device that is not the one that it knows, by the receipt.
    for mine, theirs in [(secret, pinned), (changed, new_key().public_key())]:
        try:
            hsm.create_session_asymmetric(2, mine, theirs)
            raise AssertionError("a receipt that no one could make was accepted")
        except YubiHsmAuthenticationError:
            pass

    refused(ERROR.OBJECT_NOT_FOUND, hsm.create_session_asymmetric, 3, secret)
    refused(ERROR.SESSION_FAILED, hsm.create_session_asymmetric, 1, secret)
    refused(ERROR.SESSION_FAILED, hsm.create_session_derived, 2, "password")
    off_curve = bytearray(point(secret))
    off_curve[-1] ^= 1
    refused(ERROR.INVALID_DATA, hsm.init_session_asymmetric, 2, bytes(off_curve))
    refused(ERROR.WRONG_LENGTH, hsm.init_session_asymmetric, 2, point(secret)[:-1])

    numbers = pinned.public_numbers()
    admin.reset_device()
    assert YubiHsm.connect(url).get_device_public_key().public_numbers() != numbers
