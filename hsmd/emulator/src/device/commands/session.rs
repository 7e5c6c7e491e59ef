//! Opening and closing sessions.

use std::time::Duration;

use p256::elliptic_curve::sec1::ToSec1Point as _;
use p256::{PublicKey, SecretKey};

use crate::device::algorithm::Algorithm;
use crate::device::capability::{Authority, Domains};
use crate::device::commands::Command;
use crate::device::content::Content;
use crate::device::error::ErrorCode;
use crate::device::frame::Fields;
use crate::device::key_agreement::{Agreement, POINT_LENGTH};
use crate::device::object::ObjectType;
use crate::device::scp03::{CHALLENGE_LENGTH, Channel, MAC_LENGTH, StaticKeys};
use crate::device::{Device, firmware, random};

/// CREATE SESSION: with the host's challenge for a symmetric authentication key, with its ephemeral public
/// key for an asymmetric one.
pub(crate) fn create(
    device: &mut Device,
    now: Duration,
    mut fields: Fields<'_>,
) -> Result<Vec<u8>, ErrorCode> {
    let key_id = fields.u16()?;
    let host = fields.rest();
    match host.len() {
        CHALLENGE_LENGTH => {}
        POINT_LENGTH if device.firmware >= firmware::ASYMMETRIC_SESSIONS => {}
        _ => return Err(ErrorCode::WrongLength),
    }
    let key = device
        .store
        .get((ObjectType::AuthenticationKey, key_id), Domains::ALL)?;
    let authority = Authority::of(key);
    let (channel, answer, awaited) = match &key.content {
        Content::Authentication(keys) => symmetric(keys, host)?,
        Content::AuthenticationPublic(key) => asymmetric(&device.agreement_key, key, host)?,
        _ => return Err(ErrorCode::SessionFailed),
    };
    let id = device.sessions.open(now, authority, channel, awaited)?;
    Ok([&[id][..], &answer].concat())
}

/// The channel, what to answer, and what the host has to show before it may use the session.
type Opening = (Channel, Vec<u8>, Option<[u8; MAC_LENGTH]>);

/// Answers with the card's challenge and cryptogram.
fn symmetric(keys: &StaticKeys, host: &[u8]) -> Result<Opening, ErrorCode> {
    let host_challenge = host.try_into().map_err(|_| ErrorCode::SessionFailed)?;
    let card_challenge = random()?;
    let (channel, cryptograms) = Channel::derive(keys, host_challenge, card_challenge);
    let answer = [card_challenge, cryptograms.card].concat();
    Ok((channel, answer, Some(cryptograms.host)))
}

/// Answers with the device's ephemeral public key and the receipt. Only the holder of the host's private
/// key can derive the session keys, so that there is nothing left to authenticate.
fn asymmetric(
    device_key: &SecretKey,
    host_key: &PublicKey,
    host: &[u8],
) -> Result<Opening, ErrorCode> {
    let host_ephemeral = host.try_into().map_err(|_| ErrorCode::SessionFailed)?;
    let agreement = Agreement::reach(device_key, host_key, host_ephemeral)?;
    let answer = [&agreement.ephemeral[..], &agreement.receipt].concat();
    Ok((agreement.channel, answer, None))
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
    if !verified || session.awaited != Some(cryptogram) {
        device.sessions.close(id);
        return Err(ErrorCode::AuthenticationFailed);
    }
    session.awaited = None;
    Ok(Vec::new())
}

/// GET DEVICE PUBLIC KEY: the algorithm and both coordinates of the key with which the device agrees on
/// asymmetric sessions.
pub(crate) fn device_public_key(device: &Device, fields: Fields<'_>) -> Result<Vec<u8>, ErrorCode> {
    fields.end()?;
    let point = device.agreement_key.public_key().to_sec1_point(false);
    let algorithm = Algorithm::EcP256Authentication.byte();
    // Without the leading 0x04 of the uncompressed form.
    let coordinates = point.as_bytes().get(1..).unwrap_or_default();
    Ok([&[algorithm][..], coordinates].concat())
}

/// CLOSE SESSION: the session is closed once the answer is sealed.
pub(crate) fn close(fields: Fields<'_>) -> Result<Vec<u8>, ErrorCode> {
    fields.end()?;
    Ok(Vec::new())
}
