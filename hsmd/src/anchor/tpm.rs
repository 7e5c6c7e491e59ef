//! The anchor as an NV counter of a TPM 2.0 (TCG TPM 2.0 Library, part 1, "NV Counter Index").
//!
//! Such a counter only goes up. One that is deleted and made anew begins above every counter that the TPM ever had,
//! so deleting it shows. Whose it is stands in the index's authorization policy, which is never used as one: the
//! deployment's tag. A computer whose TPM holds another deployment's counter, or none, is told apart by it.

use std::str::FromStr as _;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use tokio::sync::oneshot;
use tss_esapi::Context;
use tss_esapi::attributes::NvIndexAttributesBuilder;
use tss_esapi::constants::NvIndexType;
use tss_esapi::constants::response_code::Tss2ResponseCodeKind;
use tss_esapi::handles::{NvIndexHandle, NvIndexTpmHandle, TpmHandle};
use tss_esapi::interface_types::algorithm::HashingAlgorithm;
use tss_esapi::interface_types::resource_handles::{NvAuth, Provision};
use tss_esapi::interface_types::session_handles::AuthSession;
use tss_esapi::structures::{Auth, Digest, NvPublicBuilder};
use tss_esapi::tcti_ldr::TctiNameConf;

use super::{Error, Found, Tag};

/// How long the TPM may take for an operation.
const PATIENCE: Duration = Duration::from_secs(10);
/// Bytes of an NV counter, big endian.
const COUNTER_BYTES: u16 = 8;

/// A TPM on a thread of its own, since its calls block.
pub(super) struct Tpm {
    tcti: String,
    jobs: mpsc::Sender<Job>,
}

enum Command {
    Read,
    Make(Tag),
    Increment,
}

type Answer = Result<Option<Found>, Error>;
type Job = (Command, oneshot::Sender<Answer>);

impl Tpm {
    /// Starts the thread. The TPM is first reached when it is asked for something.
    pub(super) fn start(tcti: &str, nv_index: u32) -> Result<Self, Error> {
        let place = NvCounter {
            tcti: tcti.to_owned(),
            nv_index,
        };
        let (jobs, received) = mpsc::channel::<Job>();
        let thread = thread::Builder::new().name("tpm".to_owned());
        let started = thread.spawn(move || {
            for (command, reply) in received {
                // A caller that no longer waits needs no answer.
                let _ = reply.send(place.perform(&command));
            }
        });
        started.map_err(|error| failed(tcti, "start a thread", error.to_string()))?;
        Ok(Self {
            tcti: tcti.to_owned(),
            jobs,
        })
    }

    pub(super) async fn read(&self) -> Result<Vec<Found>, Error> {
        Ok(self.ask(Command::Read).await?.into_iter().collect())
    }

    pub(super) async fn make(&self, tag: Tag) -> Result<u64, Error> {
        let made = self.ask(Command::Make(tag)).await?;
        let made = made.ok_or_else(|| failed(&self.tcti, "make", "it is not there".to_owned()))?;
        Ok(made.counter)
    }

    pub(super) async fn increment(&self) -> Result<(), Error> {
        self.ask(Command::Increment).await?;
        Ok(())
    }

    async fn ask(&self, command: Command) -> Answer {
        let (reply, answer) = oneshot::channel();
        let ended = || failed(&self.tcti, "answer", "its thread has ended".to_owned());
        self.jobs.send((command, reply)).map_err(|_| ended())?;
        match tokio::time::timeout(PATIENCE, answer).await {
            Ok(answer) => answer.map_err(|_| ended())?,
            Err(_) => Err(failed(
                &self.tcti,
                "answer",
                format!("no answer within {} s", PATIENCE.as_secs()),
            )),
        }
    }
}

/// The NV index, reached anew for each operation, so that no session is held.
struct NvCounter {
    tcti: String,
    nv_index: u32,
}

impl NvCounter {
    fn perform(&self, command: &Command) -> Answer {
        let mut context = self.connect()?;
        let index = NvIndexTpmHandle::new(self.nv_index).map_err(self.failing("name"))?;
        match command {
            Command::Read => self.read(&mut context, index),
            Command::Make(tag) => self.make(&mut context, index, *tag),
            Command::Increment => {
                let handle = self.find(&mut context, index)?;
                let handle = handle.ok_or_else(|| self.failed("increment", "it is gone"))?;
                self.increment(&mut context, handle)?;
                Ok(None)
            }
        }
    }

    fn connect(&self) -> Result<Context, Error> {
        let tcti = TctiNameConf::from_str(&self.tcti).map_err(self.failing("understand tcti"))?;
        Context::new(tcti).map_err(|error| {
            self.failed(
                "connect",
                format!(
                    "{error}; check that it is there, and that hsmd's user may use it (group tss)"
                ),
            )
        })
    }

    /// The index, where it is defined.
    fn find(
        &self,
        context: &mut Context,
        index: NvIndexTpmHandle,
    ) -> Result<Option<NvIndexHandle>, Error> {
        match context.tr_from_tpm_public(TpmHandle::NvIndex(index)) {
            Ok(handle) => Ok(Some(handle.into())),
            Err(error) if is_undefined(&error) => Ok(None),
            Err(error) => Err(self.failed("look for the NV index", error.to_string())),
        }
    }

    fn read(&self, context: &mut Context, index: NvIndexTpmHandle) -> Answer {
        let Some(handle) = self.find(context, index)? else {
            return Ok(None);
        };
        let public = context.nv_read_public(handle);
        let (public, _) = public.map_err(self.failing("read the NV index"))?;
        let counts = public.attributes().index_type().ok() == Some(NvIndexType::Counter);
        let tag: Option<Tag> = public.authorization_policy().value().try_into().ok();
        let (true, Some(tag)) = (counts, tag) else {
            return Err(self.taken("something else"));
        };
        let bytes = context.execute_with_session(Some(AuthSession::Password), |context| {
            context.nv_read(NvAuth::NvIndex(handle), handle, COUNTER_BYTES, 0)
        });
        let bytes = bytes.map_err(self.failing("read the counter"))?;
        let counter = bytes.value().try_into().map(u64::from_be_bytes);
        let counter =
            counter.map_err(|_| self.failed("read the counter", "it has another size"))?;
        Ok(Some(Found { tag, counter }))
    }

    /// Defines the index, or finds that of an attempt before.
    fn make(&self, context: &mut Context, index: NvIndexTpmHandle, tag: Tag) -> Answer {
        if let Some(handle) = self.find(context, index)? {
            let public = context.nv_read_public(handle);
            let (public, _) = public.map_err(self.failing("read the NV index"))?;
            if public.authorization_policy().value() != tag.as_slice() {
                return Err(self.taken("another deployment's anchor, or something else"));
            }
            if !public.attributes().written() {
                self.increment(context, handle)?;
            }
            return self.read(context, index);
        }
        let attributes = NvIndexAttributesBuilder::new()
            .with_auth_read(true)
            .with_auth_write(true)
            .with_no_da(true)
            .with_nv_index_type(NvIndexType::Counter)
            .build();
        let policy = Digest::try_from(tag.to_vec()).map_err(self.failing("prepare the index"))?;
        let public = NvPublicBuilder::new()
            .with_nv_index(index)
            .with_index_name_algorithm(HashingAlgorithm::Sha256)
            .with_index_attributes(attributes.map_err(self.failing("prepare the index"))?)
            .with_index_auth_policy(policy)
            .with_data_area_size(COUNTER_BYTES.into())
            .build();
        let public = public.map_err(self.failing("prepare the index"))?;
        let defined = context.execute_with_session(Some(AuthSession::Password), |context| {
            context.nv_define_space(Provision::Owner, Some(Auth::default()), public)
        });
        let handle = defined.map_err(|error| {
            let hint = "the owner hierarchy's password has to be empty while the anchor is made";
            self.failed("define the NV index", format!("{error}; {hint}"))
        })?;
        // A counter that was never incremented has no value.
        self.increment(context, handle)?;
        self.read(context, index)
    }

    fn increment(&self, context: &mut Context, handle: NvIndexHandle) -> Result<(), Error> {
        let done = context.execute_with_session(Some(AuthSession::Password), |context| {
            context.nv_increment(NvAuth::NvIndex(handle), handle)
        });
        done.map_err(self.failing("increment the counter"))
    }

    fn taken(&self, by: &str) -> Error {
        let (index, tcti) = (self.nv_index, &self.tcti);
        Error::Taken(format!(
            "NV index {index:#010x} of the TPM ({tcti}) holds {by}: set state.anchor.nv_index to a free one, or remove \
             it with `tpm2_nvundefine {index:#010x}` if nothing uses it"
        ))
    }

    fn failing(&self, action: &'static str) -> impl Fn(tss_esapi::Error) -> Error + '_ {
        move |error| self.failed(action, error.to_string())
    }

    fn failed(&self, action: &'static str, cause: impl Into<String>) -> Error {
        failed(&self.tcti, action, cause.into())
    }
}

fn is_undefined(error: &tss_esapi::Error) -> bool {
    matches!(
        error,
        tss_esapi::Error::Tss2Error(code) if code.kind() == Some(Tss2ResponseCodeKind::Handle)
    )
}

fn failed(tcti: &str, action: &'static str, cause: String) -> Error {
    Error::Tpm {
        tcti: tcti.to_owned(),
        action,
        cause,
    }
}
