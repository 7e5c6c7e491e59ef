"""What scenarios share."""

from yubihsm import YubiHsm
from yubihsm.exceptions import YubiHsmDeviceError


def session(url, key=1, password="password"):
    """An authenticated session; by default with the key that a new device has."""
    return YubiHsm.connect(url).create_session_derived(key, password)


def refused(code, action, *arguments, **named):
    """The device refuses with exactly this error code."""
    try:
        action(*arguments, **named)
    except YubiHsmDeviceError as error:
        assert error.code == code, f"{error.code!r} instead of {code!r}"
        return
    raise AssertionError(f"not refused, expected {code!r}")
