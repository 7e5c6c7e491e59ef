//! What officers hand in: a list, a document and a signature, read without a panic; nothing by chance is signed.

#![no_main]

use std::collections::BTreeMap;

use hsm_policy::officers::{Context, Document, Officers, RecoverKey, SetOfficers};
use libfuzzer_sys::fuzz_target;

/// The public key of RFC 8032 section 7.1, test 1, as an officer's.
const ADA: &str = "ada ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAINdamAGCsQq31Uv+08lkBzoO4XLz2qYjJa8CGmj3B1Ea";

fuzz_target!(|input: (&str, &[u8], &str)| {
    let (list, document, signature) = input;
    if let Ok(officers) = Officers::parse(list, 1) {
        let again = SetOfficers::from(&officers).officers();
        assert_eq!(again.as_ref(), Ok(&officers));
    }
    if let Ok(read) = Document::<RecoverKey>::parse(document) {
        assert!(read.expires_unix().is_ok());
    }
    let Ok(officers) = Officers::parse(ADA, 1) else {
        unreachable!()
    };
    let context = Context {
        deployment_id: &[7; 16],
        now: 0,
        used: &BTreeMap::new(),
    };
    let signatures = [signature.to_owned()];
    assert!(officers.authorise::<RecoverKey>(document, &signatures, &context).is_err());
    assert!(officers.authorise::<SetOfficers>(document, &signatures, &context).is_err());
});
