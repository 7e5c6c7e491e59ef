"""RSA wrap keys: whole objects and keys alone leave and come back, also by way of OpenSSL; what is refused."""

import os

from _common import refused, session
from _wrapped_object import WrappedObject, asymmetric_body, delegating_body
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.keywrap import (
    aes_key_unwrap_with_padding,
    aes_key_wrap_with_padding,
)
from yubihsm.defs import ALGORITHM, CAPABILITY, ERROR, OBJECT, ORIGIN
from yubihsm.objects import (
    AsymmetricKey,
    AuthenticationKey,
    HmacKey,
    Opaque,
    PublicWrapKey,
    SymmetricKey,
    WrapKey,
)

EXPORTABLE = CAPABILITY.EXPORTABLE_UNDER_WRAP
EXPORTS, IMPORTS = CAPABILITY.EXPORT_WRAPPED, CAPABILITY.IMPORT_WRAPPED
ANY = CAPABILITY.ALL
DENIED = ERROR.INSUFFICIENT_PERMISSIONS
AES = {ALGORITHM.AES128: 16, ALGORITHM.AES192: 24, ALGORITHM.AES256: 32}


def oaep(hash=hashes.SHA256(), mgf=hashes.SHA256(), label=b""):
    return padding.OAEP(padding.MGF1(mgf), hash, label or None)


def unseal(secret, sealed, scheme=oaep()):
    length = secret.key_size // 8
    aes = secret.decrypt(sealed[:length], scheme)
    return aes, aes_key_unwrap_with_padding(aes, sealed[length:])


def seal(public, plaintext, scheme=oaep(), length=32):
    aes = os.urandom(length)
    return public.encrypt(aes, scheme) + aes_key_wrap_with_padding(aes, plaintext)


def pkcs8(secret):
    return secret.private_bytes(
        serialization.Encoding.DER,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def from_pkcs8(der):
    return serialization.load_der_private_key(der, None)


def run(url):
    admin = session(url)
    secret = rsa.generate_private_key(65537, 2048)
    exports = PublicWrapKey.put(admin, 0, "out", 1, EXPORTS, ANY, secret.public_key())
    imports = WrapKey.put(admin, 0, "in", 1, IMPORTS, ALGORITHM.RSA_2048, ANY, secret)
    public_keys(admin, secret, exports, imports)
    generated_here(admin)
    objects(admin, secret, exports, imports)
    hashes_and_lengths(admin, secret, exports, imports)
    keys_alone(admin, secret, exports, imports)
    permissions(url, admin, secret)
    bad_objects(admin, secret, exports, imports)
    admin.close()


def public_keys(admin, secret, exports, imports):
    for key, size in [(exports, 264), (imports, 904)]:
        assert key.get_public_key().public_numbers() == secret.public_key().public_numbers()
        assert key.get_info().size == size
    for size, algorithm in [(3072, ALGORITHM.RSA_3072), (4096, ALGORITHM.RSA_4096)]:
        public = rsa.generate_private_key(65537, size).public_key()
        key = PublicWrapKey.put(admin, 0, "", 1, EXPORTS, ANY, public)
        assert key.get_info().algorithm == algorithm
        assert key.get_public_key().public_numbers() == public.public_numbers()
        key.delete()


def generated_here(admin):
    """The private wrap key never leaves the device that made it; its public half goes to any other."""
    arguments = (admin, 0, "", 1)
    imports = WrapKey.generate(*arguments, IMPORTS, ALGORITHM.RSA_2048, ANY)
    exports = PublicWrapKey.put(*arguments, EXPORTS, ANY, imports.get_public_key())
    capabilities = CAPABILITY.SIGN_ECDSA | EXPORTABLE
    key = AsymmetricKey.generate(*arguments, capabilities, ALGORITHM.EC_P256)
    public = key.get_public_key()
    wrapped = exports.export_wrapped_rsa(key)
    assert wrapped != exports.export_wrapped_rsa(key)
    refused(ERROR.OBJECT_EXISTS, imports.import_wrapped_rsa, wrapped)
    key.delete()
    back = imports.import_wrapped_rsa(wrapped)
    public.verify(back.sign_ecdsa(b"text"), b"text", ec.ECDSA(hashes.SHA256()))
    assert back.get_info().origin == ORIGIN.GENERATED | ORIGIN.IMPORTED_WRAPPED


def objects(admin, secret, exports, imports):
    """Objects of other types, out of the device, through OpenSSL, and in again."""
    capabilities = CAPABILITY.SIGN_ECDSA | EXPORTABLE
    inner = ec.generate_private_key(ec.SECP521R1())
    text = os.urandom(1000)
    raw = os.urandom(32)
    for obj, body in [
        (AsymmetricKey.put(admin, 0, "k", 1, capabilities, inner), asymmetric_body(inner)),
        (Opaque.put(admin, 0, "o", 1, EXPORTABLE, ALGORITHM.OPAQUE_DATA, text), text),
        (SymmetricKey.put(admin, 0, "s", 1, EXPORTABLE, ALGORITHM.AES256, raw), raw),
        (
            AuthenticationKey.put(admin, 0, "a", 1, EXPORTABLE, EXPORTABLE, raw[:16], raw[16:]),
            delegating_body(EXPORTABLE, raw),
        ),
    ]:
        details = obj.get_info()
        _, plaintext = unseal(secret, exports.export_wrapped_rsa(obj))
        wrapped = WrappedObject.parse(plaintext)
        assert wrapped.wrap_algorithm == ALGORITHM.RSA_2048
        assert (wrapped.id, wrapped.type) == (obj.id, obj.object_type)
        assert wrapped.body == body, details
        obj.delete()
        made = seal(secret.public_key(), wrapped.but(label=b"outside").plaintext())
        back = imports.import_wrapped_rsa(made).get_info()
        assert (back.label, back.size) == ("outside", details.size)
        assert back.origin == ORIGIN.IMPORTED | ORIGIN.IMPORTED_WRAPPED


def hashes_and_lengths(admin, secret, exports, imports):
    opaque = Opaque.put(admin, 0, "o", 1, EXPORTABLE, ALGORITHM.OPAQUE_DATA, b"text")
    every = [hashes.SHA1(), hashes.SHA256(), hashes.SHA384(), hashes.SHA512()]
    for algorithm, length in AES.items():
        for number, hash in enumerate(every):
            mgf, label = every[number - 1], b"label" * number
            wrapped = exports.export_wrapped_rsa(opaque, algorithm, hash, mgf, label)
            aes, _ = unseal(secret, wrapped, oaep(hash, mgf, label))
            assert len(aes) == length
            opaque.delete()
            another = (wrapped, hash, mgf, b"another label")
            refused(ERROR.INVALID_DATA, imports.import_wrapped_rsa, *another)
            opaque = imports.import_wrapped_rsa(wrapped, hash, mgf, label)
            assert opaque.get() == b"text"


def keys_alone(admin, secret, exports, imports):
    capabilities = CAPABILITY.SIGN_ECDSA | CAPABILITY.SIGN_EDDSA | CAPABILITY.SIGN_PKCS
    curves = [ec.SECP224R1, ec.SECP256R1, ec.SECP384R1, ec.SECP521R1, ec.SECP256K1]
    curves += [ec.BrainpoolP256R1, ec.BrainpoolP384R1, ec.BrainpoolP512R1]
    secrets = [ec.generate_private_key(curve()) for curve in curves]
    secrets += [rsa.generate_private_key(65537, 2048), ed25519.Ed25519PrivateKey.generate()]
    for inner in secrets:
        key = AsymmetricKey.put(admin, 0, "", 1, capabilities | EXPORTABLE, inner)
        algorithm = key.get_info().algorithm
        _, der = unseal(secret, exports.export_raw_key(key))
        assert pkcs8(from_pkcs8(der)) == pkcs8(inner), algorithm
        arguments = (0, OBJECT.ASYMMETRIC_KEY, "back", 1, capabilities, algorithm)
        back = imports.import_raw_key(*arguments, seal(secret.public_key(), pkcs8(inner)))
        assert back.get_info().origin == ORIGIN.IMPORTED | ORIGIN.IMPORTED_WRAPPED
        encodings = (serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
        assert back.get_public_key().public_bytes(*encodings) == inner.public_key().public_bytes(
            *encodings
        )
        key.delete()
        back.delete()

    for algorithm, length in AES.items():
        raw = os.urandom(length)
        capabilities = CAPABILITY.ENCRYPT_ECB
        key = SymmetricKey.put(admin, 0, "", 1, capabilities | EXPORTABLE, algorithm, raw)
        assert unseal(secret, exports.export_raw_key(key))[1] == raw
        arguments = (0, OBJECT.SYMMETRIC_KEY, "", 1, capabilities, algorithm)
        back = imports.import_raw_key(*arguments, seal(secret.public_key(), raw))
        assert back.encrypt_ecb(bytes(16)) == key.encrypt_ecb(bytes(16))
        wrong = seal(secret.public_key(), raw[1:])
        refused(ERROR.WRONG_LENGTH, imports.import_raw_key, *arguments, wrong)

    hmac = HmacKey.generate(admin, 0, "", 1, EXPORTABLE, ALGORITHM.HMAC_SHA256)
    refused(ERROR.INVALID_DATA, exports.export_raw_key, hmac)
    der = pkcs8(ec.generate_private_key(ec.SECP256R1()))
    for kind, algorithm, plaintext in [
        (OBJECT.ASYMMETRIC_KEY, ALGORITHM.EC_P384, der),
        (OBJECT.ASYMMETRIC_KEY, ALGORITHM.EC_K256, der),
        (OBJECT.ASYMMETRIC_KEY, ALGORITHM.RSA_2048, der),
        (OBJECT.ASYMMETRIC_KEY, ALGORITHM.EC_ED25519, der),
        (OBJECT.ASYMMETRIC_KEY, ALGORITHM.RSA_3072, pkcs8(secret)),
        (OBJECT.ASYMMETRIC_KEY, ALGORITHM.EC_P256, der[:-1]),
        (OBJECT.ASYMMETRIC_KEY, ALGORITHM.EC_P256, b"x"),
        (OBJECT.ASYMMETRIC_KEY, ALGORITHM.AES256, bytes(32)),
        (OBJECT.HMAC_KEY, ALGORITHM.HMAC_SHA256, bytes(32)),
        (0x7E, ALGORITHM.AES256, bytes(32)),
    ]:
        arguments = (0x0123, kind, "", 1, CAPABILITY.NONE, algorithm)
        sealed = seal(secret.public_key(), plaintext)
        refused(ERROR.INVALID_DATA, imports.import_raw_key, *arguments, sealed)
    assert not admin.list_objects(object_id=0x0123)


def permissions(url, admin, secret):
    arguments = (admin, 0, "", 1)
    signs = CAPABILITY.SIGN_ECDSA

    def exports(capabilities, delegated):
        return PublicWrapKey.put(*arguments, capabilities, delegated, secret.public_key())

    def imports(capabilities, delegated):
        return WrapKey.put(*arguments, capabilities, ALGORITHM.RSA_2048, delegated, secret)

    key = AsymmetricKey.generate(*arguments, signs | EXPORTABLE, ALGORITHM.EC_P256)
    kept = AsymmetricKey.generate(*arguments, signs, ALGORITHM.EC_P256)
    good = exports(EXPORTS, signs | EXPORTABLE)
    for action in (PublicWrapKey.export_wrapped_rsa, PublicWrapKey.export_raw_key):
        refused(DENIED, action, exports(IMPORTS, ANY), key)
        refused(DENIED, action, exports(EXPORTS, EXPORTABLE), key)
        refused(DENIED, action, good, kept)
        refused(ERROR.OBJECT_NOT_FOUND, action, PublicWrapKey(admin, 0x7777), key)
        refused(ERROR.OBJECT_NOT_FOUND, action, good, AsymmetricKey(admin, 0x7777))
        refused(ERROR.INVALID_DATA, action, good, key, ALGORITHM.AES_CBC)
    # A private wrap key opens RSA wraps and nothing else.
    refused(ERROR.INVALID_DATA, imports(IMPORTS, ANY).export_wrapped, key)
    refused(ERROR.INVALID_DATA, imports(ANY, ANY).wrap_data, b"text")

    wrapped, raw = good.export_wrapped_rsa(key), good.export_raw_key(key)
    key.delete()
    alone = (0, OBJECT.ASYMMETRIC_KEY, "", 1, signs, ALGORITHM.EC_P256, raw)
    for wrong in (imports(EXPORTS, ANY), imports(IMPORTS, EXPORTABLE)):
        refused(DENIED, wrong.import_wrapped_rsa, wrapped)
        refused(DENIED, wrong.import_raw_key, *alone)
    right = imports(IMPORTS, signs | EXPORTABLE)
    limited = AuthenticationKey.put_derived(*arguments, IMPORTS, CAPABILITY.NONE, "imports")
    with session(url, limited.id, "imports") as opened:
        right.with_session(opened).import_wrapped_rsa(wrapped).with_session(admin).delete()
        refused(DENIED, good.with_session(opened).export_wrapped_rsa, kept)
        foreign = (0, OBJECT.ASYMMETRIC_KEY, "", 2, signs, ALGORITHM.EC_P256, raw)
        refused(DENIED, right.with_session(opened).import_raw_key, *foreign)
    right.import_raw_key(*alone).delete()


def bad_objects(admin, secret, exports, imports):
    opaque = Opaque.put(admin, 0x0123, "", 1, EXPORTABLE, ALGORITHM.OPAQUE_DATA, b"text")
    sealed = exports.export_wrapped_rsa(opaque)
    opaque.delete()
    for index in (0, 255, 256, len(sealed) - 1):
        broken = bytearray(sealed)
        broken[index] ^= 1
        refused(ERROR.INVALID_DATA, imports.import_wrapped_rsa, bytes(broken))
    refused(ERROR.WRONG_LENGTH, imports.import_wrapped_rsa, b"")
    refused(ERROR.WRONG_LENGTH, imports.import_wrapped_rsa, sealed[:223])
    refused(ERROR.INVALID_DATA, imports.import_wrapped_rsa, sealed[:256])
    refused(ERROR.INVALID_DATA, imports.import_wrapped_rsa, sealed[:-1])
    refused(ERROR.INVALID_DATA, imports.import_wrapped_rsa, sealed[:-8])
    public = secret.public_key()
    refused(ERROR.INVALID_DATA, imports.import_wrapped_rsa, seal(public, b"no object"))
    short = seal(public, bytes([ALGORITHM.RSA_2048]) + b"short")
    refused(ERROR.WRONG_LENGTH, imports.import_wrapped_rsa, short)
    another = rsa.generate_private_key(65537, 2048).public_key()
    plaintext = unseal(secret, sealed)[1]
    refused(ERROR.INVALID_DATA, imports.import_wrapped_rsa, seal(another, plaintext))
    of_odd_length = public.encrypt(bytes(20), oaep()) + sealed[256:]
    refused(ERROR.INVALID_DATA, imports.import_wrapped_rsa, of_odd_length)
    assert not admin.list_objects(object_id=0x0123)
    imports.import_wrapped_rsa(sealed)
