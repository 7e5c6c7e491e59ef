//! The yubihsm crate moves keys between two emulators and wraps data.

use ed25519_dalek::Verifier as _;
use yubihsm::asymmetric::Algorithm;
use yubihsm::client::ErrorKind;
use yubihsm::object::{Label, Origin, Type};
use yubihsm::{Capability, Client, Domain, wrap};

use crate::{admin, start};

const WRAP_KEY: [u8; 32] = [9; 32];

fn put_wrap_key(client: &Client, capabilities: Capability, delegated: Capability) {
    let algorithm = wrap::Algorithm::Aes256Ccm;
    let label = Label::default();
    client
        .put_wrap_key(
            4,
            label,
            Domain::DOM1,
            capabilities,
            delegated,
            algorithm,
            WRAP_KEY,
        )
        .unwrap();
}

#[test]
fn a_key_moves_to_another_device_and_signs_there() {
    let (here, there) = (start(), start());
    let (here, there) = (admin(&here), admin(&there));
    let carried = Capability::SIGN_EDDSA | Capability::EXPORTABLE_UNDER_WRAP;
    put_wrap_key(&here, Capability::EXPORT_WRAPPED, carried);
    put_wrap_key(&there, Capability::IMPORT_WRAPPED, carried);
    let label = Label::from_bytes(b"moves").unwrap();
    here.generate_asymmetric_key(7, label, Domain::DOM1, carried, Algorithm::Ed25519)
        .unwrap();
    let wrapped = here.export_wrapped(4, Type::AsymmetricKey, 7).unwrap();
    let moved = there.import_wrapped(4, wrapped.clone()).unwrap();
    assert_eq!(
        (moved.object_type, moved.object_id),
        (Type::AsymmetricKey, 7)
    );

    let public = here.get_public_key(7).unwrap();
    let public =
        ed25519_dalek::VerifyingKey::from_bytes(public.as_ref().try_into().unwrap()).unwrap();
    let signature = there.sign_ed25519(7, &b"message"[..]).unwrap();
    let signature = ed25519_dalek::Signature::from_bytes(&signature.to_bytes());
    public.verify(b"message", &signature).unwrap();

    let information = there.get_object_info(7, Type::AsymmetricKey).unwrap();
    assert_eq!(information.origin, Origin::WrappedGenerated);
    assert_eq!(information.label.to_string(), "moves");
    let back = here.import_wrapped(4, wrapped).unwrap_err();
    assert_eq!(*back.kind(), ErrorKind::DeviceError, "no IMPORT WRAPPED");
}

#[test]
fn wrapped_data_is_unwrapped_where_the_same_key_is() {
    let (here, there) = (start(), start());
    let (here, there) = (admin(&here), admin(&there));
    put_wrap_key(&here, Capability::WRAP_DATA, Capability::empty());
    put_wrap_key(&there, Capability::UNWRAP_DATA, Capability::empty());
    let wrapped = here.wrap_data(4, b"text".to_vec()).unwrap();
    assert_eq!(there.unwrap_data(4, wrapped.clone()).unwrap(), b"text");
    let mut broken = wrapped;
    broken.ciphertext[0] ^= 1;
    there.unwrap_data(4, broken).unwrap_err();
}
