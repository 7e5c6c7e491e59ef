"""An implementation of the wrap format that shares nothing with the emulator's: Python's `struct` and OpenSSL."""

import hashlib
import os
import struct
from dataclasses import dataclass, replace

from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.ciphers.aead import AESCCM

HEADER = "!BQHHHBBBB40s"
NONCE_LENGTH = 13


@dataclass(frozen=True)
class WrappedObject:
    """The plaintext: a header, then a body whose form depends on the type."""

    wrap_algorithm: int
    capabilities: int
    id: int
    domains: int
    type: int
    algorithm: int
    sequence: int
    origin: int
    label: bytes
    body: bytes

    @classmethod
    def parse(cls, plaintext):
        length = struct.calcsize(HEADER)
        fields = list(struct.unpack(HEADER, plaintext[:length]))
        assert length == 59
        assert fields.pop(3) == len(plaintext) - length, "length of the body"
        fields[-1] = fields[-1].rstrip(b"\0")
        return cls(*fields, plaintext[length:])

    def plaintext(self):
        fields = [self.wrap_algorithm, self.capabilities, self.id, len(self.body), self.domains]
        fields += [self.type, self.algorithm, self.sequence, self.origin, self.label]
        return struct.pack(HEADER, *fields) + self.body

    def but(self, **changes):
        return replace(self, **changes)


def unseal(key, sealed):
    nonce, ciphertext = sealed[:NONCE_LENGTH], sealed[NONCE_LENGTH:]
    return AESCCM(key, tag_length=16).decrypt(nonce, ciphertext, None)


def seal(key, plaintext):
    nonce = os.urandom(NONCE_LENGTH)
    return nonce + AESCCM(key, tag_length=16).encrypt(nonce, plaintext, None)


def ed25519_body(secret, seed):
    """Scalar (big endian), hash prefix and public key; the seed comes first if it is asked for."""
    digest = bytearray(hashlib.sha512(secret.private_bytes_raw()).digest())
    digest[0] &= 248
    digest[31] = digest[31] & 127 | 64
    expanded = bytes(digest[31::-1]) + bytes(digest[32:]) + secret.public_key().public_bytes_raw()
    return (secret.private_bytes_raw() if seed else b"") + expanded


def ec_body(secret):
    """Scalar and both coordinates."""
    length = (secret.curve.key_size + 7) // 8
    public = secret.public_key().public_numbers()
    numbers = [secret.private_numbers().private_value, public.x, public.y]
    return b"".join(number.to_bytes(length, "big") for number in numbers)


def rsa_body(secret):
    """Primes, exponents and coefficient, and the modulus."""
    half = secret.key_size // 16
    n = secret.private_numbers()
    parts = [n.p, n.q, n.dmp1, n.dmq1, n.iqmp]
    modulus = n.public_numbers.n.to_bytes(2 * half, "big")
    return b"".join(part.to_bytes(half, "big") for part in parts) + modulus


def asymmetric_body(secret, seed=False):
    if isinstance(secret, ed25519.Ed25519PrivateKey):
        return ed25519_body(secret, seed)
    if isinstance(secret, ec.EllipticCurvePrivateKey):
        return ec_body(secret)
    assert isinstance(secret, rsa.RSAPrivateKey)
    return rsa_body(secret)


def hmac_body(key, block):
    """The key combined with both pads of RFC 2104."""
    padded = key.ljust(block, b"\0")
    return bytes(b ^ 0x36 for b in padded) + bytes(b ^ 0x5C for b in padded)


def delegating_body(delegated, key):
    """Authentication keys and wrap keys: delegated capabilities, then the key."""
    return struct.pack("!Q", delegated) + key
