//! Any HSM that has a PKCS#11 module.

mod encoding;
mod fault;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use cryptoki::context::{CInitializeArgs, CInitializeFlags, Pkcs11};
use cryptoki::error::{Error as Cause, RvError};
use cryptoki::mechanism::Mechanism;
use cryptoki::mechanism::eddsa::{EddsaParams, EddsaSignatureScheme};
use cryptoki::object::{Attribute, AttributeType, ObjectClass, ObjectHandle};
use cryptoki::session::{Session, UserType};
use cryptoki::slot::{Slot, TokenInfo};
use sha2::{Digest as _, Sha256};

use self::encoding::{curve, decode_point};
use self::fault::{describe, fault};
use crate::secret_file::SecretFile;
use crate::{Algorithm, Backend, Device, Error, Info, KeyLocator, Opener, PublicKey, Signature};

/// Which token, of which module, and how to log in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The module: a shared library, such as `/usr/lib/softhsm/libsofthsm2.so`.
    pub module: PathBuf,
    /// The token's label, which must be unique among the module's tokens.
    pub token: String,
    /// The file with the user PIN, readable by its owner only.
    pub pin_file: PathBuf,
}

/// Tokens lock after a few wrong PINs, for good.
const PIN_TRIES: u32 = 1;

impl Settings {
    /// An opener of sessions with this token. Several may use one module, also with the same token.
    pub fn opener(self) -> Opener {
        let pin = SecretFile::new(self.pin_file, PIN_TRIES);
        let (module, token) = (self.module, self.token);
        Opener::new(Backend::Pkcs11, move || {
            Ok(Box::new(TokenSession::open(&module, &token, &pin)?) as Box<dyn Device>)
        })
    }
}

struct TokenSession {
    module: Pkcs11,
    slot: Slot,
    session: Session,
    /// The private keys found so far.
    keys: HashMap<KeyLocator, ObjectHandle>,
}

impl TokenSession {
    fn open(path: &Path, token: &str, pin: &SecretFile) -> Result<Self, Error> {
        let module = load(path)?;
        let slot = find_slot(&module, token)?;
        let device = named(token);
        let fault = |cause| fault(&device, cause);
        let session = module.open_ro_session(slot).map_err(fault)?;
        let info = module.get_token_info(slot).map_err(fault)?;
        log_in(&session, &info, &device, pin)?;
        Ok(Self {
            module,
            slot,
            session,
            keys: HashMap::new(),
        })
    }

    fn fault(&self, cause: Cause) -> Error {
        fault(&format!("slot {}", self.slot), cause)
    }

    /// Finds the private key that is meant.
    fn private_key(&mut self, locator: &KeyLocator) -> Result<ObjectHandle, Error> {
        if let Some(handle) = self.keys.get(locator) {
            return Ok(*handle);
        }
        let mut template = vec![Attribute::Class(ObjectClass::PRIVATE_KEY)];
        template.extend(
            locator
                .label
                .as_ref()
                .map(|l| Attribute::Label(l.as_bytes().to_vec())),
        );
        template.extend(locator.id.as_ref().map(|id| Attribute::Id(id.clone())));
        if template.len() == 1 {
            let cause = "it has neither label nor id; give at least one".into();
            return Err(Error::InvalidLocator {
                locator: locator.clone(),
                cause,
            });
        }
        let mut matching = Vec::new();
        let mut others = Vec::new();
        for handle in self
            .session
            .find_objects(&template)
            .map_err(|e| self.fault(e))?
        {
            let parameters = self.bytes(handle, AttributeType::EcParams)?;
            match curve(&parameters) {
                Some(algorithm) if algorithm == locator.algorithm => matching.push(handle),
                Some(algorithm) => others.push(algorithm.to_string()),
                None => others.push(format!(
                    "a key with EC parameters {:?}",
                    hex::encode(parameters)
                )),
            }
        }
        match (matching.as_slice(), others.is_empty()) {
            ([handle], _) => {
                self.keys.insert(locator.clone(), *handle);
                Ok(*handle)
            }
            ([], true) => Err(Error::KeyNotFound(locator.clone())),
            ([], false) => {
                let found = others.join(", ");
                Err(Error::WrongAlgorithm {
                    locator: locator.clone(),
                    found,
                })
            }
            (several, _) => {
                let count = several.len();
                Err(Error::KeyAmbiguous {
                    locator: locator.clone(),
                    count,
                })
            }
        }
    }

    /// Reads the curve point of a private key: from the public key object of the same id, or of the same label where
    /// it has no id; else from the private key itself, where some modules keep it.
    fn point(&self, locator: &KeyLocator, private: ObjectHandle) -> Result<PublicKey, Error> {
        let mut template = vec![Attribute::Class(ObjectClass::PUBLIC_KEY)];
        let id = self.bytes(private, AttributeType::Id)?;
        if id.is_empty() {
            template.push(Attribute::Label(self.bytes(private, AttributeType::Label)?));
        } else {
            template.push(Attribute::Id(id));
        }
        let mut candidates = self
            .session
            .find_objects(&template)
            .map_err(|e| self.fault(e))?;
        candidates.push(private);
        let mut keys = Vec::new();
        for handle in candidates {
            let same_curve = curve(&self.bytes(handle, AttributeType::EcParams)?);
            let point = self.bytes(handle, AttributeType::EcPoint)?;
            if same_curve == Some(locator.algorithm) && !point.is_empty() {
                keys.push(decode_point(locator.algorithm, &point)?);
            }
        }
        keys.sort_unstable();
        keys.dedup();
        match keys.as_slice() {
            [key] => Ok(*key),
            [] => Err(Error::Refused {
                operation: "show the public key",
                cause: format!(
                    "it has no public key object for the {locator}; create one with the same id"
                ),
            }),
            several => Err(Error::KeyAmbiguous {
                locator: locator.clone(),
                count: several.len(),
            }),
        }
    }

    /// A byte-string attribute; empty where the object does not have it.
    fn bytes(&self, object: ObjectHandle, attribute: AttributeType) -> Result<Vec<u8>, Error> {
        let attributes = self
            .session
            .get_attributes(object, &[attribute])
            .map_err(|e| self.fault(e))?;
        Ok(match attributes.into_iter().next() {
            Some(
                Attribute::EcParams(bytes)
                | Attribute::EcPoint(bytes)
                | Attribute::Id(bytes)
                | Attribute::Label(bytes),
            ) => bytes,
            _ => Vec::new(),
        })
    }
}

impl Device for TokenSession {
    fn info(&mut self) -> Result<Info, Error> {
        let token = self
            .module
            .get_token_info(self.slot)
            .map_err(|e| self.fault(e))?;
        let version = token.firmware_version();
        Ok(Info {
            model: format!("{} {}", token.manufacturer_id(), token.model()),
            serial: token.serial_number().to_owned(),
            firmware: format!("{}.{}", version.major(), version.minor()),
            certificate: None,
        })
    }

    fn public_key(&mut self, locator: &KeyLocator) -> Result<PublicKey, Error> {
        let private = self.private_key(locator)?;
        self.point(locator, private)
    }

    fn sign(&mut self, locator: &KeyLocator, message: &[u8]) -> Result<Signature, Error> {
        let key = self.private_key(locator)?;
        match locator.algorithm {
            Algorithm::Ed25519 => {
                let pure = EddsaParams::new(EddsaSignatureScheme::Pure);
                let signature = self.session.sign(&Mechanism::Eddsa(pure), key, message);
                Signature::from_ed25519(&signature.map_err(|e| self.fault(e))?)
            }
            Algorithm::Secp256k1 | Algorithm::P256 => {
                let digest = Sha256::digest(message);
                let signature = self.session.sign(&Mechanism::Ecdsa, key, &digest);
                let signature = signature.map_err(|e| self.fault(e))?;
                match locator.algorithm {
                    Algorithm::P256 => Signature::from_p256(&signature),
                    _ => Signature::from_secp256k1(&signature),
                }
            }
        }
    }

    fn keep_alive(&mut self) -> Result<(), Error> {
        self.session
            .get_session_info()
            .map(drop)
            .map_err(|e| self.fault(e))
    }
}

/// Loads and initialises a module. It stays in the process for good, and is never finalised: both would pull it away
/// from under other sessions, and from threads that it may have started.
fn load(path: &Path) -> Result<Pkcs11, Error> {
    // PKCS#11 leaves C_Initialize unprotected: SoftHSM2 breaks when two workers call it at a time.
    static LOADING: Mutex<()> = Mutex::new(());
    let _loading = LOADING.lock().unwrap_or_else(PoisonError::into_inner);
    let failed = |cause: Cause| Error::Module {
        module: path.to_owned(),
        cause: describe(&cause),
    };
    let module = Pkcs11::new(path).map_err(failed)?;
    std::mem::forget(module.clone());
    match module.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK)) {
        Ok(()) | Err(Cause::Pkcs11(RvError::CryptokiAlreadyInitialized, _)) => Ok(module),
        Err(cause) => Err(failed(cause)),
    }
}

/// The device in errors.
fn named(token: &str) -> String {
    format!("token {token:?}")
}

fn find_slot(module: &Pkcs11, token: &str) -> Result<Slot, Error> {
    let device = named(token);
    let mut matching = Vec::new();
    let mut present = Vec::new();
    for slot in module
        .get_slots_with_token()
        .map_err(|e| fault(&device, e))?
    {
        // A token may be pulled out between the two calls.
        let Ok(info) = module.get_token_info(slot) else {
            continue;
        };
        if !info.token_initialized() {
            continue;
        }
        if info.label() == token {
            matching.push(slot);
        } else {
            present.push(format!("{:?} in slot {slot}", info.label()));
        }
    }
    match matching.as_slice() {
        [slot] => Ok(*slot),
        [] if present.is_empty() => Err(Error::Token {
            wanted: device,
            cause: "not found, the module shows no initialised token; plug it in or initialise it"
                .into(),
        }),
        [] => {
            let cause = format!("not found; the module shows {}", present.join(", "));
            Err(Error::Token {
                wanted: device,
                cause,
            })
        }
        several => {
            let count = several.len();
            let cause = format!("{count} tokens have this label; rename one or configure the slot");
            Err(Error::Token {
                wanted: device,
                cause,
            })
        }
    }
}

/// Logs in, which is process-wide: another worker's session with the same token may have done it.
fn log_in(
    session: &Session,
    info: &TokenInfo,
    device: &str,
    pin: &SecretFile,
) -> Result<(), Error> {
    let secret = pin.read(device)?;
    if info.user_pin_locked() {
        let cause = "the PIN is locked; let the security officer set a new one".into();
        return Err(pin.rejected(device, cause));
    }
    if info.user_pin_final_try() {
        let cause =
            "one try is left and is not spent here; log in by hand with the right PIN first";
        return Err(pin.rejected(device, cause.into()));
    }
    match session.login(UserType::User, Some(&secret)) {
        Ok(()) => {
            pin.accepted();
            Ok(())
        }
        Err(Cause::Pkcs11(RvError::UserAlreadyLoggedIn, _)) => Ok(()),
        Err(
            ref cause @ Cause::Pkcs11(
                RvError::PinIncorrect
                | RvError::PinInvalid
                | RvError::PinLenRange
                | RvError::PinExpired
                | RvError::PinLocked
                | RvError::UserPinNotInitialized,
                _,
            ),
        ) => Err(pin.rejected(device, describe(cause))),
        Err(cause) => Err(fault(device, cause)),
    }
}
