"""Options: algorithms switched off and on, on a device without objects; no FIPS mode."""

from _common import refused, session
from yubihsm.defs import ALGORITHM, CAPABILITY, ERROR
from yubihsm.objects import AsymmetricKey, HmacKey


def run(url):
    admin = session(url)
    enabled = admin.get_enabled_algorithms()
    assert set(enabled) == set(ALGORITHM) and all(enabled.values()), enabled
    off = [ALGORITHM.EC_P256, ALGORITHM.HMAC_SHA1, ALGORITHM.RSA_PKCS1_SHA1]
    admin.set_enabled_algorithms({algorithm: False for algorithm in off})
    enabled = admin.get_enabled_algorithms()
    assert [algorithm for algorithm in enabled if not enabled[algorithm]] == sorted(off)

    none = CAPABILITY.NONE
    for _ in range(2):
        refused(
            ERROR.ALGORITHM_DISABLED, AsymmetricKey.generate, admin, 0, "", 1, none, ALGORITHM.EC_P256
        )
        refused(
            ERROR.ALGORITHM_DISABLED, HmacKey.put, admin, 0, "", 1, none, b"key", ALGORITHM.HMAC_SHA1
        )
    HmacKey.generate(admin, 0, "", 1, none, ALGORITHM.HMAC_SHA256)
    refused(ERROR.INVALID_DATA, admin.set_enabled_algorithms, {ALGORITHM.EC_P256: True})
    refused(ERROR.INVALID_DATA, admin.get_fips_status)
    refused(ERROR.INVALID_DATA, admin.set_fips_mode, True)

    admin.reset_device()
    admin = session(url)
    assert all(admin.get_enabled_algorithms().values())
    AsymmetricKey.generate(admin, 0, "", 1, none, ALGORITHM.EC_P256)
    admin.close()
