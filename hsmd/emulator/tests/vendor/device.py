"""Device information, echo, random bytes, the options of the log, the log and its chain of digests."""

from _common import refused, session
from yubihsm import YubiHsm
from yubihsm.defs import ALGORITHM, AUDIT, COMMAND, ERROR


def run(url):
    hsm = YubiHsm.connect(url)
    info = hsm.get_device_info()
    assert info.part_number == "EMULATOR", info
    assert 4_200_000_000 <= info.serial <= 4_200_999_999, info
    assert info.log_size == 62, info
    assert hsm.send_cmd(COMMAND.ECHO, b"hello") == b"hello"

    admin = session(url)
    assert admin.send_secure_cmd(COMMAND.ECHO, b"hello") == b"hello"
    assert len(admin.get_pseudo_random(32)) == 32
    assert admin.get_pseudo_random(32) != admin.get_pseudo_random(32)
    refused(ERROR.INVALID_COMMAND, admin.send_secure_cmd, 0x7E)
    assert admin.get_enabled_algorithms()[ALGORITHM.EC_ED25519]
    log(admin)
    admin.close()


def log(admin):
    admin.set_command_audit({COMMAND.ECHO: AUDIT.ON})
    assert admin.get_command_audit()[COMMAND.ECHO] == AUDIT.ON
    assert admin.get_force_audit() == AUDIT.OFF
    last = admin.get_log_entries().entries[-1]
    admin.set_log_index(last.number)
    for _ in range(3):
        admin.send_secure_cmd(COMMAND.ECHO, b"x")
    # The library verifies the chain of digests from the entry that it is given.
    entries = admin.get_log_entries(last).entries
    assert [entry.command for entry in entries[-3:]] == [COMMAND.ECHO] * 3
    admin.set_log_index(entries[-1].number)
    assert admin.get_log_entries(entries[-1]).entries == []

    # A full log stops what would have to be recorded, until it is read and freed.
    admin.set_force_audit(AUDIT.ON)
    for _ in range(62):
        admin.send_secure_cmd(COMMAND.ECHO, b"x")
    refused(ERROR.LOG_FULL, admin.send_secure_cmd, COMMAND.ECHO, b"x")
    full = admin.get_log_entries(entries[-1]).entries
    assert len(full) == 62
    admin.set_log_index(full[-1].number)
    assert admin.send_secure_cmd(COMMAND.ECHO, b"x") == b"x"
