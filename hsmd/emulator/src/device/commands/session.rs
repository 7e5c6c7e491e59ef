//! Opening and closing sessions.

use std::time::Duration;

use crate::device::capability::{Authority, Domains};
use crate::device::commands::Command;
use crate::device::content::Content;
use crate::device::error::ErrorCode;
use crate::device::frame::Fields;
use crate::device::object::ObjectType;
use crate::device::scp03::Channel;
use crate::device::{Device, random};

/// CREATE SESSION, symmetric: the host's challenge in, session, card challenge and card cryptogram out.
pub(crate) fn create(
    device: &mut Device,
    now: Duration,
    mut fields: Fields<'_>,
) -> Result<Vec<u8>, ErrorCode> {
    let key_id = fields.u16()?;
    let host_challenge = fields.array()?;
    fields.end()?;

    let key = device
        .store
        .get((ObjectType::AuthenticationKey, key_id), Domains::ALL)?;
    let Content::Authentication(keys) = &key.content else {
        return Err(ErrorCode::SessionFailed);
    };
    let authority = Authority {
        key_id,
        capabilities: key.properties.capabilities,
        delegated: key.properties.delegated,
        domains: key.properties.domains,
    };
    let card_challenge = random()?;
    let channel = Channel::new(keys, host_challenge, card_challenge);
    let cryptogram = channel.card_cryptogram();
    let id = device.sessions.open(now, authority, channel)?;
    Ok([&[id][..], &card_challenge, &cryptogram].concat())
}

/// AUTHENTICATE SESSION: the host proves that it knows the keys. A wrong proof ends the session.
pub(crate) fn authenticate(
    device: &mut Device,
    now: Duration,
    mut fields: Fields<'_>,
) -> Result<Vec<u8>, ErrorCode> {
    let id = fields.u8()?;
    let cryptogram: [u8; 8] = fields.array()?;
    let mac: [u8; 8] = fields.array()?;
    fields.end()?;

    let session = device.sessions.touch(now, id, false)?;
    let verified =
        session
            .channel
            .verify(Command::AuthenticateSession as u8, id, &cryptogram, &mac);
    if !verified || cryptogram != session.channel.host_cryptogram() {
        device.sessions.close(id);
        return Err(ErrorCode::AuthenticationFailed);
    }
    session.authenticated = true;
    Ok(Vec::new())
}

/// CLOSE SESSION: the session is closed once the answer is sealed.
pub(crate) fn close(fields: Fields<'_>) -> Result<Vec<u8>, ErrorCode> {
    fields.end()?;
    Ok(Vec::new())
}
