"""AES-CCM wrap keys: objects of every type leave and come back, also by way of another implementation of the
format; data is wrapped and unwrapped; and what is refused."""

import os

from _common import refused, session
from _wrapped_object import (
    WrappedObject,
    asymmetric_body,
    delegating_body,
    hmac_body,
    seal,
    unseal,
)
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from yubihsm import YubiHsm
from yubihsm.defs import ALGORITHM, CAPABILITY, ERROR, OBJECT, ORIGIN
from yubihsm.objects import (
    AsymmetricKey,
    AuthenticationKey,
    HmacKey,
    Opaque,
    OtpAeadKey,
    SymmetricKey,
    Template,
    WrapKey,
)
from yubihsm.utils import password_to_key

EXPORTABLE = CAPABILITY.EXPORTABLE_UNDER_WRAP
WRAP_ALGORITHMS = {
    16: ALGORITHM.AES128_CCM_WRAP,
    24: ALGORITHM.AES192_CCM_WRAP,
    32: ALGORITHM.AES256_CCM_WRAP,
}
ANY = CAPABILITY.ALL


def run(url):
    admin = session(url)
    raw = os.urandom(32)
    both = CAPABILITY.EXPORT_WRAPPED | CAPABILITY.IMPORT_WRAPPED
    wrap = WrapKey.put(admin, 0, "wrap", 1, both, WRAP_ALGORITHMS[32], ANY, raw)
    asymmetric_keys(admin, wrap, raw)
    seeds(admin, wrap, raw)
    other_types(admin, wrap, raw)
    authentication_keys(url, admin, wrap, raw)
    generated_here(admin)
    data(admin)
    permissions(admin)
    bad_objects(admin, wrap, raw)
    sessions_rights(url, admin, wrap, raw)
    admin.close()


def exchange(obj, wrap, raw, body, seed=False):
    """Out of the device, through the other implementation, and in again; gives the object back."""
    details = obj.get_info()
    wrapped = WrappedObject.parse(unseal(raw, wrap.export_wrapped(obj, seed)))
    assert wrapped.wrap_algorithm == WRAP_ALGORITHMS[len(raw)]
    assert (wrapped.id, wrapped.type, wrapped.algorithm) == (obj.id, obj.object_type, details.algorithm)
    assert (wrapped.capabilities, wrapped.domains) == (details.capabilities, details.domains)
    assert (wrapped.label.decode(), wrapped.sequence) == (details.label, details.sequence)
    assert wrapped.origin == details.origin
    assert wrapped.body == body, f"{details.algorithm.name}: the body"

    obj.delete()
    made = seal(raw, wrapped.but(label=b"made outside", domains=3).plaintext())
    back = wrap.import_wrapped(made)
    assert (back.id, type(back)) == (obj.id, type(obj))
    after = back.get_info()
    assert (after.label, after.domains) == ("made outside", 3)
    assert after.capabilities == details.capabilities
    assert after.delegated_capabilities == details.delegated_capabilities
    assert after.origin == details.origin | ORIGIN.IMPORTED_WRAPPED
    assert after.size == (len(body) if not seed else details.size)
    refused(ERROR.OBJECT_EXISTS, wrap.import_wrapped, made)
    return back


def asymmetric_keys(admin, wrap, raw):
    curves = [ec.SECP224R1, ec.SECP256R1, ec.SECP384R1, ec.SECP521R1, ec.SECP256K1]
    curves += [ec.BrainpoolP256R1, ec.BrainpoolP384R1, ec.BrainpoolP512R1]
    secrets = [ec.generate_private_key(curve()) for curve in curves]
    secrets.append(rsa.generate_private_key(65537, 2048))
    capabilities = CAPABILITY.SIGN_ECDSA | CAPABILITY.SIGN_PKCS | EXPORTABLE
    for secret in secrets:
        key = AsymmetricKey.put(admin, 0, "key", 1, capabilities, secret)
        back = exchange(key, wrap, raw, asymmetric_body(secret))
        assert back.get_public_key().public_numbers() == secret.public_key().public_numbers()
        back.delete()


def seeds(admin, wrap, raw):
    """The expanded form of an Ed25519 key signs as the key itself, and never gives a seed again."""
    secret = ed25519.Ed25519PrivateKey.generate()
    capabilities = CAPABILITY.SIGN_EDDSA | EXPORTABLE
    key = AsymmetricKey.put(admin, 0, "key", 1, capabilities, secret)
    for seed in (True, False):
        key = exchange(key, wrap, raw, asymmetric_body(secret, seed), seed)
        assert key.sign_eddsa(b"text") == secret.sign(b"text")
    refused(ERROR.INVALID_DATA, wrap.export_wrapped, key, True)
    key = exchange(key, wrap, raw, asymmetric_body(secret, False))
    assert key.sign_eddsa(b"text") == secret.sign(b"text")


def other_types(admin, wrap, raw):
    text = os.urandom(100)
    opaque = Opaque.put(admin, 0, "o", 1, EXPORTABLE, ALGORITHM.OPAQUE_DATA, text)
    assert exchange(opaque, wrap, raw, text).get() == text

    inner = os.urandom(24)
    key = WrapKey.put(admin, 0, "w", 1, EXPORTABLE, WRAP_ALGORITHMS[24], EXPORTABLE, inner)
    exchange(key, wrap, raw, delegating_body(EXPORTABLE, inner))
    secret = rsa.generate_private_key(65537, 2048)
    key = WrapKey.put(admin, 0, "w", 1, EXPORTABLE, ALGORITHM.RSA_2048, EXPORTABLE, secret)
    exchange(key, wrap, raw, delegating_body(EXPORTABLE, asymmetric_body(secret)))

    for algorithm, block in [(ALGORITHM.HMAC_SHA256, 64), (ALGORITHM.HMAC_SHA512, 128)]:
        for length in (1, 20, block):
            inner = os.urandom(length)
            capabilities = CAPABILITY.SIGN_HMAC | EXPORTABLE
            key = HmacKey.put(admin, 0, "h", 1, capabilities, inner, algorithm)
            before = key.sign_hmac(b"text")
            back = exchange(key, wrap, raw, hmac_body(inner, block))
            assert back.sign_hmac(b"text") == before
            back.delete()

    inner = os.urandom(16)
    capabilities = CAPABILITY.ENCRYPT_ECB | EXPORTABLE
    key = SymmetricKey.put(admin, 0, "s", 1, capabilities, ALGORITHM.AES128, inner)
    before = key.encrypt_ecb(bytes(16))
    assert exchange(key, wrap, raw, inner).encrypt_ecb(bytes(16)) == before

    key = OtpAeadKey.put(admin, 0, "a", 1, EXPORTABLE, ALGORITHM.AES128_YUBICO_OTP, 7, inner)
    exchange(key, wrap, raw, (7).to_bytes(4, "little") + inner)
    template = Template.put(admin, 0, "t", 1, EXPORTABLE, ALGORITHM.TEMPLATE_SSH, text)
    assert exchange(template, wrap, raw, text).get() == text


def authentication_keys(url, admin, wrap, raw):
    capabilities = CAPABILITY.GET_PSEUDO_RANDOM | EXPORTABLE
    arguments = (0, "user", 1, capabilities, CAPABILITY.SIGN_EDDSA)
    key = AuthenticationKey.put_derived(admin, *arguments, "secret")
    body = delegating_body(CAPABILITY.SIGN_EDDSA, b"".join(password_to_key("secret")))
    back = exchange(key, wrap, raw, body)
    with session(url, back.id, "secret") as opened:
        assert len(opened.get_pseudo_random(8)) == 8

    secret = ec.generate_private_key(ec.SECP256R1())
    key = AuthenticationKey.put_public_key(admin, *arguments, secret.public_key())
    numbers = secret.public_key().public_numbers()
    point = numbers.x.to_bytes(32, "big") + numbers.y.to_bytes(32, "big")
    back = exchange(key, wrap, raw, delegating_body(CAPABILITY.SIGN_EDDSA, point))
    YubiHsm.connect(url).create_session_asymmetric(back.id, secret).close()


def generated_here(admin):
    """A key that no host ever saw comes back under a wrap key that no host ever saw."""
    wrap = WrapKey.generate(
        admin,
        0,
        "",
        1,
        CAPABILITY.EXPORT_WRAPPED | CAPABILITY.IMPORT_WRAPPED,
        ALGORITHM.AES192_CCM_WRAP,
        CAPABILITY.SIGN_EDDSA | EXPORTABLE,
    )
    assert wrap.get_info().size == 32
    key = AsymmetricKey.generate(
        admin, 0, "", 1, CAPABILITY.SIGN_EDDSA | EXPORTABLE, ALGORITHM.EC_ED25519
    )
    public = key.get_public_key()
    wrapped = wrap.export_wrapped(key)
    assert wrapped != wrap.export_wrapped(key)
    key.delete()
    back = wrap.import_wrapped(wrapped)
    public.verify(back.sign_eddsa(b"text"), b"text")
    assert back.get_info().origin == ORIGIN.GENERATED | ORIGIN.IMPORTED_WRAPPED


def data(admin):
    raw = os.urandom(24)
    arguments = (ALGORITHM.AES192_CCM_WRAP, CAPABILITY.NONE, raw)
    wraps = WrapKey.put(admin, 0, "", 1, CAPABILITY.WRAP_DATA, *arguments)
    unwraps = WrapKey.put(admin, 0, "", 1, CAPABILITY.UNWRAP_DATA, *arguments)
    for length in (1, 15, 16, 17, 1024, 1989, 3000):
        text = os.urandom(length)
        wrapped = wraps.wrap_data(text)
        assert unseal(raw, wrapped) == b"\0" + text
        assert unwraps.unwrap_data(wrapped) == text
        assert unwraps.unwrap_data(seal(raw, b"\0" + text)) == text
    refused(ERROR.INVALID_DATA, unwraps.wrap_data, b"text")
    refused(ERROR.INVALID_DATA, wraps.unwrap_data, wrapped)
    refused(ERROR.INVALID_DATA, unwraps.unwrap_data, seal(raw, b"\1text"))
    refused(ERROR.INVALID_DATA, unwraps.unwrap_data, seal(os.urandom(24), b"\0text"))
    refused(ERROR.WRONG_LENGTH, unwraps.unwrap_data, wrapped[:28])
    refused(ERROR.WRONG_LENGTH, wraps.wrap_data, b"")


def permissions(admin):
    """As in the vendor's own tests with a device."""
    raw = os.urandom(16)
    text = b"opaque"
    opaque = Opaque.put(admin, 0, "", 1, EXPORTABLE, ALGORITHM.OPAQUE_DATA, text)
    kept = Opaque.put(admin, 0, "", 1, CAPABILITY.NONE, ALGORITHM.OPAQUE_DATA, text)

    def wrap_key(capabilities, delegated):
        return WrapKey.put(admin, 0, "", 1, capabilities, WRAP_ALGORITHMS[16], delegated, raw)

    exports, imports = CAPABILITY.EXPORT_WRAPPED, CAPABILITY.IMPORT_WRAPPED
    denied = ERROR.INSUFFICIENT_PERMISSIONS
    refused(denied, wrap_key(exports, CAPABILITY.NONE).export_wrapped, opaque)
    refused(denied, wrap_key(imports, EXPORTABLE).export_wrapped, opaque)
    only_exports = wrap_key(exports, EXPORTABLE)
    refused(denied, only_exports.export_wrapped, kept)
    wrapped = only_exports.export_wrapped(opaque)
    refused(denied, only_exports.import_wrapped, wrapped)
    refused(ERROR.OBJECT_NOT_FOUND, only_exports.export_wrapped, Opaque(admin, 0x7777))
    refused(ERROR.OBJECT_NOT_FOUND, WrapKey(admin, 0x7777).export_wrapped, opaque)
    refused(ERROR.OBJECT_NOT_FOUND, WrapKey(admin, 0x7777).import_wrapped, wrapped)
    opaque.delete()
    refused(denied, wrap_key(imports, CAPABILITY.GET_OPAQUE).import_wrapped, wrapped)
    assert wrap_key(imports, EXPORTABLE).import_wrapped(wrapped).get() == text


def bad_objects(admin, wrap, raw):
    """What does not authenticate, and what authenticates but is no object."""
    secret = ec.generate_private_key(ec.SECP256R1())
    good = WrappedObject(
        ALGORITHM.AES256_CCM_WRAP, 0, 0x0123, 1, OBJECT.ASYMMETRIC_KEY, ALGORITHM.EC_P256, 0,
        ORIGIN.IMPORTED, b"label", asymmetric_body(secret),
    )  # fmt: skip
    sealed = seal(raw, good.plaintext())
    for index in (0, 12, 13, len(sealed) - 1):
        broken = bytearray(sealed)
        broken[index] ^= 1
        refused(ERROR.INVALID_DATA, wrap.import_wrapped, bytes(broken))
    refused(ERROR.WRONG_LENGTH, wrap.import_wrapped, b"")
    refused(ERROR.WRONG_LENGTH, wrap.import_wrapped, sealed[:28])
    refused(ERROR.INVALID_DATA, wrap.import_wrapped, sealed[:-1])
    refused(ERROR.INVALID_DATA, wrap.import_wrapped, seal(os.urandom(32), good.plaintext()))

    other = asymmetric_body(ec.generate_private_key(ec.SECP256R1()))
    for changes, code in [
        ({"wrap_algorithm": ALGORITHM.AES128_CCM_WRAP}, ERROR.INVALID_DATA),
        ({"type": 0}, ERROR.INVALID_DATA),
        ({"type": OBJECT.OPAQUE}, ERROR.INVALID_DATA),
        ({"algorithm": ALGORITHM.HMAC_SHA256}, ERROR.INVALID_DATA),
        ({"algorithm": ALGORITHM.EC_P384}, ERROR.WRONG_LENGTH),
        ({"algorithm": ALGORITHM.EC_ED25519}, ERROR.INVALID_DATA),
        ({"algorithm": 0xEE}, ERROR.INVALID_DATA),
        ({"origin": 0}, ERROR.INVALID_DATA),
        ({"domains": 0}, ERROR.INVALID_DATA),
        ({"id": 0xFFFF}, ERROR.INVALID_ID),
        ({"body": good.body[:-1]}, ERROR.WRONG_LENGTH),
        ({"body": b""}, ERROR.WRONG_LENGTH),
        ({"body": good.body[:32] + other[32:]}, ERROR.INVALID_DATA),
        ({"body": bytes(96)}, ERROR.INVALID_DATA),
    ]:
        refused(code, wrap.import_wrapped, seal(raw, good.but(**changes).plaintext()))
    for length in (0, 1, 58, 59):
        refused(ERROR.WRONG_LENGTH, wrap.import_wrapped, seal(raw, good.plaintext()[:length]))
    refused(ERROR.WRONG_LENGTH, wrap.import_wrapped, seal(raw, good.plaintext() + b"\0"))
    assert not admin.list_objects(object_id=0x0123)
    wrap.import_wrapped(sealed).delete()


def sessions_rights(url, admin, wrap, raw):
    """The session needs the capability and the domain; what was delegated to it does not matter."""
    capabilities = CAPABILITY.IMPORT_WRAPPED
    arguments = ("", 1, capabilities, CAPABILITY.NONE, "imports")
    user = AuthenticationKey.put_derived(admin, 0, *arguments)
    opaque = WrappedObject(
        ALGORITHM.AES256_CCM_WRAP, EXPORTABLE, 0x0123, 1, OBJECT.OPAQUE, ALGORITHM.OPAQUE_DATA, 0,
        ORIGIN.IMPORTED, b"", b"text",
    )  # fmt: skip
    with session(url, user.id, "imports") as limited:
        mine = wrap.with_session(limited)
        back = mine.import_wrapped(seal(raw, opaque.plaintext()))
        refused(ERROR.INSUFFICIENT_PERMISSIONS, mine.export_wrapped, back)
        foreign = seal(raw, opaque.but(domains=2, id=0x0124).plaintext())
        refused(ERROR.INSUFFICIENT_PERMISSIONS, mine.import_wrapped, foreign)
        refused(ERROR.INSUFFICIENT_PERMISSIONS, mine.wrap_data, b"text")
        refused(ERROR.INSUFFICIENT_PERMISSIONS, mine.unwrap_data, seal(raw, b"\0text"))
