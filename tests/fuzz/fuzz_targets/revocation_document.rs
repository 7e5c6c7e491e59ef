//! A list of revocations whose signature was verified: it comes back the same, and revoking more gives nothing back.

#![no_main]

use hsm_policy::identity::Role;
use hsm_policy::revocation::{Revocations, Scope};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (&[u8], u64)| {
    let (document, moment) = input;
    let Ok(list) = Revocations::parse(document) else {
        return;
    };
    let again = Revocations::parse(list.to_document().as_bytes());
    assert_eq!(again.as_ref(), Ok(&list));
    for scope in [Scope::All, Scope::Role(Role::Sentry), Scope::Node("a".to_owned())] {
        if let Ok(next) = list.and(&scope, moment)
            && next.sequence() > list.sequence()
        {
            list.gives_way_to(&next).unwrap();
        }
    }
});
