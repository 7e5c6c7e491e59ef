//! The commands, one module a group, and the way from a command code to its handler.

pub(crate) mod asymmetric;
pub(crate) mod attestation;
pub(crate) mod audit;
pub(crate) mod authentication;
pub(crate) mod general;
pub(crate) mod hmac;
pub(crate) mod key;
pub(crate) mod object;
pub(crate) mod opaque;
pub(crate) mod option;
pub(crate) mod otp;
pub(crate) mod session;
pub(crate) mod ssh;
pub(crate) mod symmetric;
pub(crate) mod template;
pub(crate) mod wrap;
pub(crate) mod wrap_rsa;

use super::Device;
use super::audit::NO_KEY;
use super::capability::Authority;
use super::error::ErrorCode;
use super::frame::Fields;
use super::object::ObjectType;
use symmetric::Operation::{DecryptCbc, DecryptEcb, EncryptCbc, EncryptEcb};

/// The commands, by their codes on the wire.
///
/// Source: the vendor's user guide, "Command reference"; PyPI `yubihsm`, `defs.py`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(u8)]
pub(crate) enum Command {
    Echo = 0x01,
    CreateSession = 0x03,
    AuthenticateSession = 0x04,
    SessionMessage = 0x05,
    DeviceInfo = 0x06,
    ResetDevice = 0x08,
    GetDevicePublicKey = 0x0a,
    CloseSession = 0x40,
    GetStorageInfo = 0x41,
    PutOpaque = 0x42,
    GetOpaque = 0x43,
    PutAuthenticationKey = 0x44,
    PutAsymmetricKey = 0x45,
    GenerateAsymmetricKey = 0x46,
    SignPkcs1 = 0x47,
    ListObjects = 0x48,
    DecryptPkcs1 = 0x49,
    ExportWrapped = 0x4a,
    ImportWrapped = 0x4b,
    PutWrapKey = 0x4c,
    GetLogEntries = 0x4d,
    GetObjectInfo = 0x4e,
    SetOption = 0x4f,
    GetOption = 0x50,
    GetPseudoRandom = 0x51,
    PutHmacKey = 0x52,
    SignHmac = 0x53,
    GetPublicKey = 0x54,
    SignPss = 0x55,
    SignEcdsa = 0x56,
    DeriveEcdh = 0x57,
    DeleteObject = 0x58,
    DecryptOaep = 0x59,
    GenerateHmacKey = 0x5a,
    GenerateWrapKey = 0x5b,
    VerifyHmac = 0x5c,
    SignSshCertificate = 0x5d,
    PutTemplate = 0x5e,
    GetTemplate = 0x5f,
    DecryptOtp = 0x60,
    CreateOtpAead = 0x61,
    RandomizeOtpAead = 0x62,
    RewrapOtpAead = 0x63,
    SignAttestationCertificate = 0x64,
    PutOtpAeadKey = 0x65,
    GenerateOtpAeadKey = 0x66,
    SetLogIndex = 0x67,
    WrapData = 0x68,
    UnwrapData = 0x69,
    SignEddsa = 0x6a,
    BlinkDevice = 0x6b,
    ChangeAuthenticationKey = 0x6c,
    PutSymmetricKey = 0x6d,
    GenerateSymmetricKey = 0x6e,
    DecryptEcb = 0x6f,
    EncryptEcb = 0x70,
    DecryptCbc = 0x71,
    EncryptCbc = 0x72,
    PutPublicWrapKey = 0x73,
    WrapKeyRsa = 0x74,
    UnwrapKeyRsa = 0x75,
    ExportWrappedRsa = 0x76,
    ImportWrappedRsa = 0x77,
}

impl Command {
    const LIST: [Self; 63] = [
        Self::Echo,
        Self::CreateSession,
        Self::AuthenticateSession,
        Self::SessionMessage,
        Self::DeviceInfo,
        Self::ResetDevice,
        Self::GetDevicePublicKey,
        Self::CloseSession,
        Self::GetStorageInfo,
        Self::PutOpaque,
        Self::GetOpaque,
        Self::PutAuthenticationKey,
        Self::PutAsymmetricKey,
        Self::GenerateAsymmetricKey,
        Self::SignPkcs1,
        Self::ListObjects,
        Self::DecryptPkcs1,
        Self::ExportWrapped,
        Self::ImportWrapped,
        Self::PutWrapKey,
        Self::GetLogEntries,
        Self::GetObjectInfo,
        Self::SetOption,
        Self::GetOption,
        Self::GetPseudoRandom,
        Self::PutHmacKey,
        Self::SignHmac,
        Self::GetPublicKey,
        Self::SignPss,
        Self::SignEcdsa,
        Self::DeriveEcdh,
        Self::DeleteObject,
        Self::DecryptOaep,
        Self::GenerateHmacKey,
        Self::GenerateWrapKey,
        Self::VerifyHmac,
        Self::SignSshCertificate,
        Self::PutTemplate,
        Self::GetTemplate,
        Self::DecryptOtp,
        Self::CreateOtpAead,
        Self::RandomizeOtpAead,
        Self::RewrapOtpAead,
        Self::SignAttestationCertificate,
        Self::PutOtpAeadKey,
        Self::GenerateOtpAeadKey,
        Self::SetLogIndex,
        Self::WrapData,
        Self::UnwrapData,
        Self::SignEddsa,
        Self::BlinkDevice,
        Self::ChangeAuthenticationKey,
        Self::PutSymmetricKey,
        Self::GenerateSymmetricKey,
        Self::DecryptEcb,
        Self::EncryptEcb,
        Self::DecryptCbc,
        Self::EncryptCbc,
        Self::PutPublicWrapKey,
        Self::WrapKeyRsa,
        Self::UnwrapKeyRsa,
        Self::ExportWrappedRsa,
        Self::ImportWrappedRsa,
    ];

    /// The command with this code, in the newest firmware. [`Command::of`] asks a certain one.
    pub(crate) fn from_byte(byte: u8) -> Option<Self> {
        Self::LIST.into_iter().find(|known| *known as u8 == byte)
    }

    /// The keys that the log shows as the command's target and second key. A command that makes an object
    /// answers with its identifier; others begin with those that they use.
    pub(crate) fn logged_keys(
        self,
        data: &[u8],
        result: &Result<Vec<u8>, ErrorCode>,
    ) -> (u16, u16) {
        let names = match self {
            _ if self.puts().or(self.generates()).is_some() => result.as_deref().unwrap_or(data),
            Self::GetOpaque
            | Self::GetTemplate
            | Self::GetObjectInfo
            | Self::GetPublicKey
            | Self::SignPkcs1
            | Self::SignPss
            | Self::DecryptPkcs1
            | Self::DecryptOaep
            | Self::SignEcdsa
            | Self::SignEddsa
            | Self::DeriveEcdh
            | Self::SignHmac
            | Self::VerifyHmac
            | Self::EncryptEcb
            | Self::DecryptEcb
            | Self::EncryptCbc
            | Self::DecryptCbc
            | Self::CreateOtpAead
            | Self::RandomizeOtpAead
            | Self::RewrapOtpAead
            | Self::DecryptOtp
            | Self::SignSshCertificate
            | Self::DeleteObject
            | Self::ChangeAuthenticationKey
            | Self::SignAttestationCertificate
            | Self::ExportWrapped
            | Self::ImportWrapped
            | Self::WrapData
            | Self::UnwrapData
            | Self::ExportWrappedRsa
            | Self::ImportWrappedRsa
            | Self::WrapKeyRsa
            | Self::UnwrapKeyRsa
            | Self::CreateSession => data,
            _ => &[],
        };
        let second = match self {
            Self::RewrapOtpAead | Self::SignSshCertificate | Self::SignAttestationCertificate => {
                data.get(2..)
            }
            // The object: behind its type in the command, or in the answer.
            Self::ExportWrapped | Self::ExportWrappedRsa | Self::WrapKeyRsa => data.get(3..),
            Self::ImportWrapped | Self::ImportWrappedRsa | Self::UnwrapKeyRsa => {
                result.as_ref().ok().and_then(|answer| answer.get(1..))
            }
            _ => None,
        };
        let key = |names: Option<&[u8]>| {
            names
                .and_then(<[u8]>::first_chunk)
                .map_or(NO_KEY, |id| u16::from_be_bytes(*id))
        };
        (key(Some(names)), key(second))
    }

    /// The type of object that the command imports.
    fn puts(self) -> Option<ObjectType> {
        match self {
            Self::PutOpaque => Some(ObjectType::Opaque),
            Self::PutAuthenticationKey => Some(ObjectType::AuthenticationKey),
            Self::PutAsymmetricKey => Some(ObjectType::AsymmetricKey),
            Self::PutHmacKey => Some(ObjectType::HmacKey),
            Self::PutTemplate => Some(ObjectType::Template),
            Self::PutOtpAeadKey => Some(ObjectType::OtpAeadKey),
            Self::PutSymmetricKey => Some(ObjectType::SymmetricKey),
            Self::PutWrapKey => Some(ObjectType::WrapKey),
            Self::PutPublicWrapKey => Some(ObjectType::PublicWrapKey),
            _ => None,
        }
    }

    /// The type of key that the command generates.
    fn generates(self) -> Option<ObjectType> {
        match self {
            Self::GenerateAsymmetricKey => Some(ObjectType::AsymmetricKey),
            Self::GenerateHmacKey => Some(ObjectType::HmacKey),
            Self::GenerateOtpAeadKey => Some(ObjectType::OtpAeadKey),
            Self::GenerateSymmetricKey => Some(ObjectType::SymmetricKey),
            Self::GenerateWrapKey => Some(ObjectType::WrapKey),
            _ => None,
        }
    }

    /// Whether the answer is a signature.
    pub(crate) fn signs(self) -> bool {
        matches!(
            self,
            Self::SignEcdsa
                | Self::SignEddsa
                | Self::SignPkcs1
                | Self::SignPss
                | Self::SignHmac
                | Self::SignSshCertificate
        )
    }
}

/// Runs a command of an authenticated session and returns the data of its answer.
pub(crate) fn execute(
    device: &mut Device,
    authority: &Authority,
    command: Command,
    data: &[u8],
) -> Result<Vec<u8>, ErrorCode> {
    let fields = Fields::new(data);
    if let Some(kind) = command.puts() {
        return key::put(device, authority, kind, fields);
    }
    if let Some(kind) = command.generates() {
        return key::generate(device, authority, kind, fields);
    }
    match command {
        Command::Echo => Ok(data.to_vec()),
        Command::DeviceInfo => general::device_info(device, fields),
        Command::GetStorageInfo => general::storage_info(device, fields),
        Command::GetPseudoRandom => general::pseudo_random(authority, fields),
        Command::BlinkDevice => general::blink(fields),
        Command::ResetDevice => general::reset(authority, fields),
        Command::CloseSession => session::close(fields),
        Command::ListObjects => object::list(device, authority, fields),
        Command::GetObjectInfo => object::information(device, authority, fields),
        Command::DeleteObject => object::delete(device, authority, fields),
        Command::GetOpaque => opaque::get(device, authority, fields),
        Command::ChangeAuthenticationKey => authentication::change(device, authority, fields),
        Command::GetPublicKey => asymmetric::public_key(device, authority, fields),
        Command::SignEddsa => asymmetric::sign_eddsa(device, authority, fields),
        Command::SignEcdsa => asymmetric::sign_ecdsa(device, authority, fields),
        Command::DeriveEcdh => asymmetric::derive_ecdh(device, authority, fields),
        Command::SignPkcs1 => asymmetric::sign_pkcs1(device, authority, fields),
        Command::SignPss => asymmetric::sign_pss(device, authority, fields),
        Command::DecryptPkcs1 => asymmetric::decrypt_pkcs1(device, authority, fields),
        Command::DecryptOaep => asymmetric::decrypt_oaep(device, authority, fields),
        Command::SignAttestationCertificate => attestation::sign(device, authority, fields),
        Command::ExportWrapped => wrap::export(device, authority, fields),
        Command::ImportWrapped => wrap::import(device, authority, fields),
        Command::ExportWrappedRsa => wrap_rsa::export_object(device, authority, fields),
        Command::ImportWrappedRsa => wrap_rsa::import_object(device, authority, fields),
        Command::WrapKeyRsa => wrap_rsa::export_key(device, authority, fields),
        Command::UnwrapKeyRsa => wrap_rsa::import_key(device, authority, fields),
        Command::WrapData => wrap::wrap_data(device, authority, fields),
        Command::UnwrapData => wrap::unwrap_data(device, authority, fields),
        Command::GetLogEntries => audit::get_entries(device, authority, fields),
        Command::SetLogIndex => audit::set_index(device, authority, fields),
        Command::GetOption => option::get(device, authority, fields),
        Command::SetOption => option::set(device, authority, fields),
        Command::SignHmac => hmac::sign(device, authority, fields),
        Command::VerifyHmac => hmac::verify(device, authority, fields),
        Command::EncryptEcb => symmetric::run(device, authority, EncryptEcb, fields),
        Command::DecryptEcb => symmetric::run(device, authority, DecryptEcb, fields),
        Command::EncryptCbc => symmetric::run(device, authority, EncryptCbc, fields),
        Command::DecryptCbc => symmetric::run(device, authority, DecryptCbc, fields),
        Command::GetTemplate => template::get(device, authority, fields),
        Command::CreateOtpAead => otp::create(device, authority, fields),
        Command::RandomizeOtpAead => otp::randomize(device, authority, fields),
        Command::RewrapOtpAead => otp::rewrap(device, authority, fields),
        Command::DecryptOtp => otp::decrypt(device, authority, fields),
        Command::SignSshCertificate => ssh::sign(device, authority, fields),
        _ => Err(ErrorCode::InvalidCommand),
    }
}
