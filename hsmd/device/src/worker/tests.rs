//! The worker against a device that does what each test wants.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;

use super::*;
use crate::Device;

const SOON: Duration = Duration::from_secs(10);

/// What the worker does with the device; the number counts from 1 since the test's beginning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Event {
    Open(usize),
    Sign(usize),
    KeepAlive(usize),
    Close(usize),
}

type Behaviour = dyn Fn(Event) -> Result<(), Error> + Send + Sync;

/// Counts what happens, tells the test, and lets the test's function decide what comes of it.
#[derive(Clone)]
struct Script {
    counts: Arc<[AtomicUsize; 4]>,
    events: mpsc::Sender<Event>,
    behaviour: Arc<Behaviour>,
}

impl Script {
    fn act(&self, which: usize, event: fn(usize) -> Event) -> Result<(), Error> {
        let event = event(self.counts[which].fetch_add(1, Ordering::SeqCst) + 1);
        let _ = self.events.send(event);
        (self.behaviour)(event)
    }
}

impl Device for Script {
    fn info(&mut self) -> Result<Info, Error> {
        Ok(Info {
            model: "script".into(),
            serial: "1".into(),
            firmware: "1.0".into(),
            certificate: None,
        })
    }

    fn public_key(&mut self, locator: &KeyLocator) -> Result<PublicKey, Error> {
        Err(Error::KeyNotFound(locator.clone()))
    }

    fn sign(&mut self, _: &KeyLocator, message: &[u8]) -> Result<Signature, Error> {
        self.act(1, Event::Sign)?;
        Ok(Signature([message[0]; 64]))
    }

    fn keep_alive(&mut self) -> Result<(), Error> {
        self.act(2, Event::KeepAlive)
    }
}

struct Closing(Script);

impl Drop for Closing {
    fn drop(&mut self) {
        let _ = self.0.act(3, Event::Close);
    }
}

impl Device for Closing {
    fn info(&mut self) -> Result<Info, Error> {
        self.0.info()
    }
    fn public_key(&mut self, locator: &KeyLocator) -> Result<PublicKey, Error> {
        self.0.public_key(locator)
    }
    fn sign(&mut self, locator: &KeyLocator, message: &[u8]) -> Result<Signature, Error> {
        self.0.sign(locator, message)
    }
    fn keep_alive(&mut self) -> Result<(), Error> {
        self.0.keep_alive()
    }
}

struct Bench {
    worker: Worker,
    events: mpsc::Receiver<Event>,
}

impl Bench {
    fn start(
        backend: Backend,
        options: Options,
        behaviour: impl Fn(Event) -> Result<(), Error> + Send + Sync + 'static,
    ) -> Self {
        let (sender, events) = mpsc::channel();
        let script = Script {
            counts: Arc::default(),
            events: sender,
            behaviour: Arc::new(behaviour),
        };
        let opener = Opener::new(backend, move || {
            script.act(0, Event::Open)?;
            Ok(Box::new(Closing(script.clone())))
        });
        Self {
            worker: Worker::start("test", opener, options).unwrap(),
            events,
        }
    }

    async fn sign(&self, first: u8, limit: Duration) -> Result<Signature, Error> {
        sign(self.worker.clone(), first, limit).await
    }

    /// Signs on a task of its own, and returns when the request waits or runs.
    fn sign_apart(&self, first: u8) -> tokio::task::JoinHandle<Result<Signature, Error>> {
        tokio::spawn(sign(self.worker.clone(), first, SOON))
    }

    fn expect(&self, event: Event) {
        assert_eq!(self.events.recv_timeout(SOON).unwrap(), event);
    }

    async fn until(&self, condition: impl Fn(&Status) -> bool) {
        let met = async {
            while !condition(&self.worker.status()) {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        if tokio::time::timeout(SOON, met).await.is_err() {
            panic!("never came: {:?}", self.worker.status());
        }
    }
}

async fn sign(worker: Worker, first: u8, limit: Duration) -> Result<Signature, Error> {
    let locator = KeyLocator {
        label: Some("k".into()),
        id: None,
        algorithm: Algorithm::Ed25519,
    };
    worker
        .sign(locator, vec![first], tokio::time::Instant::now() + limit)
        .await
}

/// A door that calls wait at until the test opens it.
#[derive(Clone, Default)]
struct Gate(Arc<(Mutex<bool>, Condvar)>);

impl Gate {
    fn open(&self) {
        *self.0.0.lock().unwrap() = true;
        self.0.1.notify_all();
    }

    fn wait(&self) {
        let closed = self.0.0.lock().unwrap();
        drop(self.0.1.wait_while(closed, |open| !*open).unwrap());
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        self.worker.stop();
    }
}

fn unreachable() -> Error {
    Error::Unreachable {
        device: "test".into(),
        cause: "unplugged".into(),
    }
}

fn lost() -> Error {
    Error::SessionLost("expired".into())
}

#[tokio::test]
async fn a_request_is_answered_and_the_status_names_the_device() {
    let bench = Bench::start(Backend::Yubihsm, Options::default(), |_| Ok(()));
    assert_eq!(bench.sign(7, SOON).await, Ok(Signature([7; 64])));
    let status = bench.worker.status();
    assert_eq!(
        (status.state, status.waiting, status.last_fault),
        (State::Ready, 0, None)
    );
    assert_eq!(status.info.unwrap().model, "script");
}

#[tokio::test]
async fn a_caller_never_waits_past_its_deadline() {
    let gate = Gate::default();
    let inside = gate.clone();
    let bench = Bench::start(Backend::Pkcs11, Options::default(), move |event| {
        if matches!(event, Event::Sign(_)) {
            inside.wait();
        }
        Ok(())
    });
    let limit = Duration::from_millis(50);
    let begun = Instant::now();
    let answer = bench.sign(1, limit).await;
    assert_eq!(
        answer,
        Err(Error::Timeout {
            device: "test".into()
        })
    );
    assert!(begun.elapsed() >= limit && begun.elapsed() < Options::default().hang);
    gate.open();
}

#[tokio::test]
async fn a_request_whose_deadline_passed_in_the_queue_never_reaches_the_device() {
    let gate = Gate::default();
    let inside = gate.clone();
    let bench = Bench::start(Backend::Yubihsm, Options::default(), move |event| {
        if event == Event::Sign(1) {
            inside.wait();
        }
        Ok(())
    });
    bench.expect(Event::Open(1));
    let first = bench.sign_apart(1);
    tokio::task::yield_now().await;
    bench.expect(Event::Sign(1));
    let late = bench.sign(2, Duration::from_millis(20)).await;
    assert!(matches!(late, Err(Error::Timeout { .. })));
    gate.open();
    assert_eq!(first.await.unwrap(), Ok(Signature([1; 64])));
    // The next call into the device is for the third request: the second was dropped.
    assert_eq!(bench.sign(3, SOON).await, Ok(Signature([3; 64])));
    bench.expect(Event::Sign(2));
    assert!(bench.events.try_recv().is_err());
}

#[tokio::test]
async fn a_full_queue_refuses_at_once() {
    let gate = Gate::default();
    let inside = gate.clone();
    let options = Options {
        queue: 1,
        ..Options::default()
    };
    let bench = Bench::start(Backend::Yubihsm, options, move |event| {
        if event == Event::Sign(1) {
            inside.wait();
        }
        Ok(())
    });
    bench.expect(Event::Open(1));
    let running = bench.sign_apart(1);
    tokio::task::yield_now().await;
    bench.expect(Event::Sign(1));
    let waiting = bench.sign_apart(2);
    bench.until(|status| status.waiting == 1).await;
    let refused = bench.sign(3, SOON).await;
    assert_eq!(
        refused,
        Err(Error::Overloaded {
            device: "test".into(),
            waiting: 1
        })
    );
    gate.open();
    assert_eq!(running.await.unwrap(), Ok(Signature([1; 64])));
    assert_eq!(waiting.await.unwrap(), Ok(Signature([2; 64])));
}

#[tokio::test]
async fn a_lost_session_is_opened_again_and_the_request_tried_once_more() {
    for loss in [lost(), unreachable(), Error::Fault("garbage".into())] {
        let cause = loss.clone();
        let bench = Bench::start(
            Backend::Yubihsm,
            Options::default(),
            move |event| match event {
                Event::Sign(1) => Err(cause.clone()),
                _ => Ok(()),
            },
        );
        assert_eq!(bench.sign(5, SOON).await, Ok(Signature([5; 64])));
        for event in [
            Event::Open(1),
            Event::Sign(1),
            Event::Close(1),
            Event::Open(2),
            Event::Sign(2),
        ] {
            bench.expect(event);
        }
        assert_eq!(bench.worker.status().last_fault, Some(loss));
    }
}

#[tokio::test]
async fn a_request_that_loses_two_sessions_gets_the_error_and_the_next_one_is_served() {
    let bench = Bench::start(Backend::Yubihsm, Options::default(), |event| match event {
        Event::Sign(1 | 2) => Err(lost()),
        _ => Ok(()),
    });
    assert_eq!(bench.sign(5, SOON).await, Err(lost()));
    assert_eq!(bench.sign(6, SOON).await, Ok(Signature([6; 64])));
}

#[tokio::test]
async fn a_device_that_says_no_keeps_its_session() {
    let bench = Bench::start(Backend::Yubihsm, Options::default(), |event| match event {
        Event::Sign(1) => Err(Error::Refused {
            operation: "sign",
            cause: "no".into(),
        }),
        _ => Ok(()),
    });
    assert!(matches!(
        bench.sign(1, SOON).await,
        Err(Error::Refused { .. })
    ));
    assert_eq!(bench.sign(2, SOON).await, Ok(Signature([2; 64])));
    for event in [Event::Open(1), Event::Sign(1), Event::Sign(2)] {
        bench.expect(event);
    }
}

#[tokio::test]
async fn a_device_that_cannot_be_opened_refuses_at_once_and_heals_by_itself() {
    let bench = Bench::start(Backend::Yubihsm, Options::default(), |event| match event {
        Event::Open(1..=3) => Err(unreachable()),
        _ => Ok(()),
    });
    bench.until(|status| status.state == State::Failed).await;
    assert_eq!(bench.sign(1, SOON).await, Err(unreachable()));
    bench.until(|status| status.state == State::Ready).await;
    assert_eq!(bench.sign(2, SOON).await, Ok(Signature([2; 64])));
    assert_eq!(bench.worker.status().last_fault, Some(unreachable()));
}

#[tokio::test]
async fn a_request_waits_for_the_first_session_and_shares_its_fate() {
    for (opened, answer) in [
        (Ok(()), Ok(Signature([1; 64]))),
        (Err(unreachable()), Err(unreachable())),
    ] {
        let gate = Gate::default();
        let inside = gate.clone();
        let bench = Bench::start(Backend::Yubihsm, Options::default(), move |event| {
            if event == Event::Open(1) {
                inside.wait();
                return opened.clone();
            }
            Ok(())
        });
        let waiting = bench.sign_apart(1);
        bench.until(|status| status.waiting == 1).await;
        gate.open();
        assert_eq!(waiting.await.unwrap(), answer);
    }
}

#[tokio::test]
async fn a_call_that_hangs_is_left_behind_and_others_are_served_by_a_new_session() {
    let gate = Gate::default();
    let inside = gate.clone();
    let options = Options {
        hang: Duration::from_millis(100),
        ..Options::default()
    };
    let bench = Bench::start(Backend::Yubihsm, options, move |event| {
        if event == Event::Sign(1) {
            inside.wait();
        }
        Ok(())
    });
    bench.expect(Event::Open(1));
    let stuck = bench.sign_apart(1);
    tokio::task::yield_now().await;
    bench.expect(Event::Sign(1));
    let behind = bench.sign_apart(2);
    assert!(matches!(stuck.await.unwrap(), Err(Error::Hung { .. })));
    assert_eq!(behind.await.unwrap(), Ok(Signature([2; 64])));
    bench.expect(Event::Open(2));
    bench.expect(Event::Sign(2));
    // When the call returns after all, its thread closes its session and disturbs nobody.
    gate.open();
    bench.expect(Event::Close(1));
    assert_eq!(bench.sign(3, SOON).await, Ok(Signature([3; 64])));
}

#[tokio::test]
async fn an_opening_that_hangs_fails_the_device_until_another_succeeds() {
    let gate = Gate::default();
    let inside = gate.clone();
    let options = Options {
        hang: Duration::from_millis(50),
        ..Options::default()
    };
    let bench = Bench::start(Backend::Yubihsm, options, move |event| {
        if matches!(event, Event::Open(1 | 2)) {
            inside.wait();
        }
        Ok(())
    });
    let waiting = bench.sign_apart(1);
    assert!(matches!(waiting.await.unwrap(), Err(Error::Hung { .. })));
    bench.until(|status| status.state == State::Ready).await;
    assert_eq!(bench.sign(2, SOON).await, Ok(Signature([2; 64])));
    gate.open();
}

#[tokio::test]
async fn while_a_pkcs11_call_hangs_requests_are_refused_at_once_and_served_after_it() {
    let gate = Gate::default();
    let inside = gate.clone();
    let options = Options {
        hang: Duration::from_millis(50),
        ..Options::default()
    };
    let bench = Bench::start(Backend::Pkcs11, options, move |event| {
        if event == Event::Sign(1) {
            inside.wait();
        }
        Ok(())
    });
    let (stuck, behind) = (bench.sign_apart(1), bench.sign_apart(2));
    assert!(matches!(stuck.await.unwrap(), Err(Error::Hung { .. })));
    assert!(matches!(behind.await.unwrap(), Err(Error::Hung { .. })));
    assert_eq!(bench.worker.status().state, State::Hung);
    assert!(matches!(bench.sign(3, SOON).await, Err(Error::Hung { .. })));
    gate.open();
    bench.until(|status| status.state == State::Ready).await;
    assert_eq!(bench.sign(4, SOON).await, Ok(Signature([4; 64])));
}

#[tokio::test]
async fn an_idle_session_is_kept_alive_and_opened_again_when_it_is_found_lost() {
    let options = Options {
        keep_alive: Duration::from_millis(20),
        ..Options::default()
    };
    let bench = Bench::start(Backend::Yubihsm, options, |event| match event {
        Event::KeepAlive(2) => Err(lost()),
        _ => Ok(()),
    });
    for event in [
        Event::Open(1),
        Event::KeepAlive(1),
        Event::KeepAlive(2),
        Event::Close(1),
        Event::Open(2),
        Event::KeepAlive(3),
    ] {
        bench.expect(event);
    }
}

#[tokio::test]
async fn a_panic_in_a_device_library_costs_a_session_and_not_the_worker() {
    let bench = Bench::start(Backend::Yubihsm, Options::default(), |event| match event {
        Event::Open(1) | Event::Sign(1) => panic!("the test's own"),
        _ => Ok(()),
    });
    bench.until(|status| status.state == State::Ready).await;
    assert_eq!(bench.sign(1, SOON).await, Ok(Signature([1; 64])));
    assert!(matches!(
        bench.worker.status().last_fault,
        Some(Error::Fault(_))
    ));
}

#[tokio::test]
async fn a_message_that_the_device_cannot_sign_is_refused_before_it_is_queued() {
    let bench = Bench::start(Backend::Yubihsm, Options::default(), |_| Err(unreachable()));
    let locator = |algorithm| KeyLocator {
        label: Some("k".into()),
        id: None,
        algorithm,
    };
    let deadline = tokio::time::Instant::now() + SOON;
    bench.until(|status| status.state == State::Failed).await;
    let limit = bench.worker.message_limit(Algorithm::Ed25519).unwrap();
    let refused = |length, algorithm| {
        bench
            .worker
            .sign(locator(algorithm), vec![0; length], deadline)
    };
    let over = refused(limit + 1, Algorithm::Ed25519).await;
    assert!(matches!(
        over,
        Err(Error::MessageTooLong {
            length: 2_020,
            limit: 2_019,
            ..
        })
    ));
    assert_eq!(refused(limit, Algorithm::Ed25519).await, Err(unreachable()));
    assert_eq!(
        refused(limit + 1, Algorithm::Secp256k1).await,
        Err(unreachable())
    );
}

#[tokio::test]
async fn a_stopped_worker_refuses_what_waits_and_what_comes() {
    let gate = Gate::default();
    let inside = gate.clone();
    let bench = Bench::start(Backend::Yubihsm, Options::default(), move |event| {
        if event == Event::Sign(1) {
            inside.wait();
        }
        Ok(())
    });
    bench.expect(Event::Open(1));
    let running = bench.sign_apart(1);
    tokio::task::yield_now().await;
    bench.expect(Event::Sign(1));
    let waiting = bench.sign_apart(2);
    bench.until(|status| status.waiting == 1).await;
    bench.worker.stop();
    let stopped = Err(Error::Stopped {
        device: "test".into(),
    });
    assert_eq!(waiting.await.unwrap(), stopped);
    assert_eq!(bench.sign(3, SOON).await, stopped);
    gate.open();
    assert_eq!(running.await.unwrap(), Ok(Signature([1; 64])));
    bench.expect(Event::Close(1));
    assert_eq!(bench.worker.status().state, State::Stopped);
}

#[tokio::test]
async fn when_the_last_handle_is_dropped_the_session_is_closed() {
    let (sender, events) = mpsc::channel();
    let script = Script {
        counts: Arc::default(),
        events: sender,
        behaviour: Arc::new(|_| Ok(())),
    };
    let opener = Opener::new(Backend::Yubihsm, move || {
        script.act(0, Event::Open)?;
        Ok(Box::new(Closing(script.clone())))
    });
    let worker = Worker::start("test", opener, Options::default()).unwrap();
    let clone = worker.clone();
    drop(worker);
    assert!(sign(clone, 1, SOON).await.is_ok());
    let seen: Vec<Event> = (0..3).map(|_| events.recv_timeout(SOON).unwrap()).collect();
    assert_eq!(seen, [Event::Open(1), Event::Sign(1), Event::Close(1)]);
}
