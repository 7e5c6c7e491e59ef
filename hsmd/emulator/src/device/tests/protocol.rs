//! Frames and sessions.

use std::time::Duration;

use super::*;

#[test]
fn the_seventeenth_session_is_refused_until_one_expires() {
    let mut device = device();
    let mut sessions: Vec<Host> = (0..16).map(|_| admin(&mut device)).collect();
    let full = Some(ErrorCode::SessionsFull.byte());
    assert_eq!(
        Host::create(&mut device, START, 1, DEFAULT_PASSWORD).err(),
        full
    );

    let later = START + SESSION_IDLE_LIMIT;
    assert_eq!(
        sessions[0]
            .send(&mut device, later, 0x01, b"still here")
            .unwrap()
            .unwrap(),
        b"still here"
    );
    let too_late = later + Duration::from_millis(1);
    let gone = sessions[1].send(&mut device, too_late, 0x01, b"");
    assert_eq!(gone.unwrap_err(), ErrorCode::InvalidSession.byte());
    Host::create(&mut device, too_late, 1, DEFAULT_PASSWORD).unwrap();
}

#[test]
fn a_closed_session_is_gone() {
    let mut device = device();
    let mut session = admin(&mut device);
    session
        .send(&mut device, START, 0x40, b"")
        .unwrap()
        .unwrap();
    let refused = session.send(&mut device, START, 0x01, b"");
    assert_eq!(refused.unwrap_err(), ErrorCode::InvalidSession.byte());
}

#[test]
fn a_wrong_password_is_refused_and_ends_the_session() {
    let mut device = device();
    let refused = Host::open(&mut device, START, 1, b"wrong").err();
    assert_eq!(refused, Some(ErrorCode::AuthenticationFailed.byte()));
    for _ in 0..16 {
        admin(&mut device);
    }
}

#[test]
fn an_unknown_authentication_key_is_not_found() {
    let mut device = device();
    let refused = Host::open(&mut device, START, 9, PASSWORD).err();
    assert_eq!(refused, Some(ErrorCode::ObjectNotFound.byte()));
}

#[test]
fn a_message_in_a_session_that_is_not_authenticated_is_refused() {
    let mut device = device();
    let mut session = Host::create(&mut device, START, 1, DEFAULT_PASSWORD).unwrap();
    let refused = session.send(&mut device, START, 0x01, b"");
    assert_eq!(refused.unwrap_err(), ErrorCode::InvalidSession.byte());
}

#[test]
fn a_repeated_message_is_refused_and_ends_the_session() {
    let mut device = device();
    let mut session = admin(&mut device);
    let frame = session.authenticated(0x05, &[0; 16]);
    // Not a padded plaintext, but the code is right.
    let failed = code(ErrorCode::AuthenticationFailed);
    assert_eq!(plain(&mut device, START, &frame), failed);
    assert_eq!(
        plain(&mut device, START, &frame),
        code(ErrorCode::InvalidSession)
    );
}

#[test]
fn frames_of_the_wrong_length_are_refused() {
    let mut device = device();
    let mut session = admin(&mut device);
    let wrong = code(ErrorCode::WrongLength);
    for frame in [
        &[][..],
        &[1],
        &[1, 0],
        &[1, 0, 1],
        &[1, 0, 0, 0],
        &[5, 0, 1, 0],
        &[3, 0, 2, 0, 1],
    ] {
        assert_eq!(plain(&mut device, START, frame), wrong, "{frame:?}");
    }
    let longest = device.buffer_length() - 1;
    let echo = |length: usize| [&frame::header(1, length - 3)[..], &vec![0; length - 3]].concat();
    assert!(plain(&mut device, START, &echo(longest)).is_ok());
    assert_eq!(plain(&mut device, START, &echo(longest + 1)), wrong);

    for plaintext in [
        &[][..],
        &[1],
        &[1, 0, 5, 0],
        &[0x54, 0, 1, 0],
        &[0x54, 0, 4, 0, 1, 3, 0],
    ] {
        let answer = session.send_raw(&mut device, START, plaintext).unwrap();
        assert_eq!(answer, wrong, "{plaintext:?}");
    }
}

#[test]
fn unknown_and_misplaced_commands_are_invalid() {
    let mut device = device();
    let mut session = admin(&mut device);
    let invalid = code(ErrorCode::InvalidCommand);
    for command in [0x00, 0x07, 0x48, 0x6a, 0xff] {
        assert_eq!(
            plain(&mut device, START, &[command, 0, 0]),
            invalid,
            "outside: {command:#x}"
        );
    }
    for command in [0x00, 0x03, 0x04, 0x05, 0x0a, 0x78, 0xff] {
        let answer = session.send(&mut device, START, command, b"").unwrap();
        assert_eq!(answer, invalid, "inside: {command:#x}");
    }
}
