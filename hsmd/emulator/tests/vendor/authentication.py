"""Authentication keys: what they allow, wrong passwords, changing them. 16 sessions and no more."""

from _common import refused, session
from yubihsm import YubiHsm
from yubihsm.defs import ALGORITHM, CAPABILITY, ERROR
from yubihsm.exceptions import YubiHsmAuthenticationError
from yubihsm.objects import AsymmetricKey, AuthenticationKey


def run(url):
    admin = session(url)
    others = [session(url) for _ in range(15)]
    refused(ERROR.SESSIONS_FULL, YubiHsm.connect(url).create_session_derived, 1, "password")
    for other in others:
        other.close()

    try:
        session(url, 1, "wrong")
        raise AssertionError("a wrong password opened a session")
    except YubiHsmAuthenticationError:
        pass

    allowed = CAPABILITY.SIGN_EDDSA | CAPABILITY.CHANGE_AUTHENTICATION_KEY
    user = AuthenticationKey.put_derived(admin, 2, "user", 1, allowed, CAPABILITY.NONE, "old")
    AsymmetricKey.generate(admin, 7, "", 1, CAPABILITY.SIGN_EDDSA, ALGORITHM.EC_ED25519)
    AsymmetricKey.generate(admin, 8, "", 2, CAPABILITY.SIGN_EDDSA, ALGORITHM.EC_ED25519)
    with session(url, 2, "old") as limited:
        refused(ERROR.INSUFFICIENT_PERMISSIONS, limited.get_pseudo_random, 1)
        AsymmetricKey(limited, 7).sign_eddsa(b"in its domain")
        refused(ERROR.OBJECT_NOT_FOUND, AsymmetricKey(limited, 8).sign_eddsa, b"in another")
        user.with_session(limited).change_password("new")
    try:
        session(url, 2, "old")
        raise AssertionError("the old password opened a session")
    except YubiHsmAuthenticationError:
        pass
    session(url, 2, "new").close()

    admin.close()
