//! The host's end of the secure channel, to send a device what no well-behaved client would.

use std::sync::LazyLock;
use std::time::Duration;

use aes::Aes128;
use cbc::cipher::block_padding::Iso7816;
use cbc::cipher::{BlockModeEncrypt as _, KeyIvInit as _};

use super::{Channel, KEY_LENGTH, MAC_LENGTH, StaticKeys, cmac, padded_length};
use crate::device::frame::{Frame, header};
use crate::device::{DEFAULT_PASSWORD, Device, PASSWORD_ROUNDS, PASSWORD_SALT};

const ERROR: u8 = 0x7f;

/// An open session, seen from the host.
pub(crate) struct Host {
    channel: Channel,
    session: u8,
    /// What the host shows in AUTHENTICATE SESSION.
    cryptogram: [u8; MAC_LENGTH],
}

impl Host {
    /// Creates and authenticates a session; the error is the device's code.
    pub(crate) fn open(
        device: &mut Device,
        now: Duration,
        key_id: u16,
        password: &[u8],
    ) -> Result<Self, u8> {
        let mut host = Self::create(device, now, key_id, password)?;
        let cryptogram = host.cryptogram;
        let frame = host.authenticated(0x04, &cryptogram);
        plain(device, now, &frame)?;
        Ok(host)
    }

    /// Creates a session and leaves it unauthenticated.
    pub(crate) fn create(
        device: &mut Device,
        now: Duration,
        key_id: u16,
        password: &[u8],
    ) -> Result<Self, u8> {
        let challenge = [7; 8];
        let data = [&key_id.to_be_bytes()[..], &challenge].concat();
        let answer = plain(
            device,
            now,
            &[&header(0x03, data.len())[..], &data].concat(),
        )?;
        let (channel, cryptograms) =
            Channel::derive(&keys(password), challenge, answer[1..9].try_into().unwrap());
        Ok(Self {
            channel,
            session: answer[0],
            cryptogram: cryptograms.host,
        })
    }

    /// A session whose channel was agreed on in another way.
    pub(crate) fn agreed(channel: Channel, session: u8) -> Self {
        Self {
            channel,
            session,
            cryptogram: [0; MAC_LENGTH],
        }
    }

    /// Runs one command in the session and returns the data of its answer.
    ///
    /// The outer error is the device's code outside of the channel, the inner one within.
    pub(crate) fn send(
        &mut self,
        device: &mut Device,
        now: Duration,
        command: u8,
        data: &[u8],
    ) -> Result<Result<Vec<u8>, u8>, u8> {
        self.send_raw(
            device,
            now,
            &[&header(command, data.len())[..], data].concat(),
        )
    }

    /// Like [`Host::send`], with a plaintext that need not be a frame.
    pub(crate) fn send_raw(
        &mut self,
        device: &mut Device,
        now: Duration,
        plaintext: &[u8],
    ) -> Result<Result<Vec<u8>, u8>, u8> {
        let mut body = plaintext.to_vec();
        body.resize(padded_length(plaintext.len()), 0);
        let key = self.channel.keys.encryption.into();
        cbc::Encryptor::<Aes128>::new(&key, &self.channel.vector().into())
            .encrypt_padded::<Iso7816>(&mut body, plaintext.len())
            .unwrap();
        let frame = self.authenticated(0x05, &body);
        let sealed = plain(device, now, &frame)?;
        Ok(self.unseal(&sealed))
    }

    /// A frame with this session's identifier and code; moves the chain on.
    pub(crate) fn authenticated(&mut self, command: u8, body: &[u8]) -> Vec<u8> {
        let head = header(command, 1 + body.len() + MAC_LENGTH);
        let full = cmac(
            &self.channel.keys.mac,
            &[&self.channel.chain, &head, &[self.session], body],
        );
        self.channel.chain = full;
        [&head[..], &[self.session], body, &full[..MAC_LENGTH]].concat()
    }

    fn unseal(&mut self, sealed: &[u8]) -> Result<Vec<u8>, u8> {
        let (content, mac) = sealed.split_at(sealed.len() - MAC_LENGTH);
        let full = cmac(
            &self.channel.keys.answer_mac,
            &[&self.channel.chain, &header(0x85, sealed.len()), content],
        );
        assert_eq!(&full[..MAC_LENGTH], mac, "the answer's code");
        assert_eq!(content[0], self.session);
        let plaintext = self
            .channel
            .decrypt(&content[1..])
            .expect("a padded answer");
        self.channel.counter += 1;
        data(&plaintext)
    }
}

/// Sends a frame outside of any session and returns the data of the answer, or the device's error code.
pub(crate) fn plain(device: &mut Device, now: Duration, frame: &[u8]) -> Result<Vec<u8>, u8> {
    data(&device.handle(now, frame).frame)
}

fn data(answer: &[u8]) -> Result<Vec<u8>, u8> {
    let frame = Frame::parse(answer).expect("every answer is a frame");
    match frame.command {
        ERROR => Err(frame.data[0]),
        _ => Ok(frame.data.to_vec()),
    }
}

fn keys(password: &[u8]) -> StaticKeys {
    let bytes = static_keys(password);
    let (encryption, mac) = bytes.split_first_chunk::<KEY_LENGTH>().unwrap();
    StaticKeys {
        encryption: *encryption,
        mac: mac.try_into().unwrap(),
    }
}

/// K-ENC and K-MAC of a password. One round for every password but the default, to save time.
pub(crate) fn static_keys(password: &[u8]) -> [u8; 2 * KEY_LENGTH] {
    static DEFAULT: LazyLock<[u8; 2 * KEY_LENGTH]> =
        LazyLock::new(|| derive_keys(DEFAULT_PASSWORD, PASSWORD_ROUNDS));
    if password == DEFAULT_PASSWORD {
        *DEFAULT
    } else {
        derive_keys(password, 1)
    }
}

fn derive_keys(password: &[u8], rounds: u32) -> [u8; 2 * KEY_LENGTH] {
    let mut bytes = [0; 2 * KEY_LENGTH];
    pbkdf2::pbkdf2_hmac::<sha2::Sha256>(password, PASSWORD_SALT, rounds, &mut bytes);
    bytes
}
