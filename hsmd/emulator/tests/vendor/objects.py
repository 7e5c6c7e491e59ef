"""Information, lists with every filter, deletion, sequence numbers; opaque objects; the factory certificate."""

from _common import refused, session
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from yubihsm.defs import ALGORITHM, CAPABILITY, ERROR, OBJECT, ORIGIN
from yubihsm.objects import AsymmetricKey, Opaque


def run(url):
    admin = session(url)
    sign = CAPABILITY.SIGN_EDDSA
    for number, label in [(5, "one"), (6, "two")]:
        AsymmetricKey.generate(admin, number, label, number, sign, ALGORITHM.EC_ED25519)
    key = admin.get_object(5, OBJECT.ASYMMETRIC_KEY)
    details = key.get_info()
    assert (details.id, details.label, details.domains) == (5, "one", 5), details
    assert details.capabilities == sign and details.origin == ORIGIN.GENERATED, details

    def listed(**filters):
        return [found.id for found in admin.list_objects(**filters)]

    assert listed(label="two") == [6]
    assert listed(object_id=5) == [5]
    assert listed(object_type=OBJECT.ASYMMETRIC_KEY) == [5, 6]
    assert listed(algorithm=ALGORITHM.EC_ED25519) == [5, 6]
    assert listed(capabilities=CAPABILITY.SIGN_PSS, object_type=OBJECT.OPAQUE) == []
    assert listed(domains=2, object_type=OBJECT.ASYMMETRIC_KEY) == [6]

    key.delete()
    refused(ERROR.OBJECT_NOT_FOUND, key.get_info)
    refused(ERROR.OBJECT_NOT_FOUND, key.delete)
    again = AsymmetricKey.generate(admin, 5, "", 1, sign, ALGORITHM.EC_ED25519)
    assert again.get_info().sequence == details.sequence + 1

    opaque = Opaque.put(admin, 0, "", 1, CAPABILITY.NONE, ALGORITHM.OPAQUE_DATA, b"opaque")
    assert opaque.get() == b"opaque"
    certificate = admin.get_object(0, OBJECT.OPAQUE).get_certificate()
    assert isinstance(certificate, x509.Certificate)
    assert "EMULATOR" in certificate.subject.rfc4514_string()
    certificate.public_key().verify(
        certificate.signature, certificate.tbs_certificate_bytes, ec.ECDSA(hashes.SHA256())
    )
    admin.close()
