#!/usr/bin/env bash
# Runs every test, after setting up what they need and this machine lacks.
#
# Needs Rust and a C compiler. Python 3 with venv is wanted for the tests that drive coffer as a platform service
# would, strace for those that take the power or the disk away, etcd for those of the store on it, ip and openssl for the
# README's own commands: on Debian, as root, they are installed; elsewhere this script says what to install. Python packages go into a virtual environment under
# the target directory and nowhere else.
set -euo pipefail
cd "$(dirname "$0")/.."

# Incremental builds cost time and disk where everything is built once.
export CARGO_INCREMENTAL="${CARGO_INCREMENTAL:-0}"
target="${CARGO_TARGET_DIR:-target}"
venv="$target/tests/venv"
stubs="$target/tests/stubs"

say() { printf -- '-- %s\n' "$*"; }
fail() { printf 'error: %s\n' "$*" >&2; exit 1; }

# Installs Debian packages, or says which are missing and why it cannot.
want_packages() {
  local reason="$1"; shift
  if [ -r /etc/debian_version ] && [ "$(id -u)" = 0 ]; then
    say "installing $* ($reason)"
    apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >/dev/null \
      || fail "could not install $*: $reason"
  elif [ -r /etc/debian_version ]; then
    fail "missing: $reason. As root: apt-get install $*"
  else
    fail "missing: $reason. Install what Debian calls $*, then run this again"
  fi
}

command -v cargo >/dev/null || fail "missing: Rust 1.89 or later, with cargo in PATH (https://rustup.rs)"
command -v cc >/dev/null || want_packages "a C compiler, for ring" gcc libc6-dev
command -v strace >/dev/null || want_packages "strace, for the tests of power loss and of failing disks" strace
command -v ip >/dev/null || want_packages "ip, for the test of the README on an empty machine" iproute2
command -v openssl >/dev/null || want_packages "openssl, for the test of the README on an empty machine" openssl
command -v etcd >/dev/null || want_packages "etcd, for the tests of the store on it" etcd-server
python3 -c 'import venv, ensurepip' 2>/dev/null || want_packages "Python 3 with venv, for tests/python" python3 python3-venv

# The stamp holds what was installed with what, so that a second run has nothing to do.
stamp="$(python3 --version; cat tests/python/requirements.txt)"
if [ "$(cat "$venv/stamp" 2>/dev/null)" != "$stamp" ] || ! "$venv/bin/python" -c 'import grpc, grpc_status, grpc_tools' 2>/dev/null; then
  say "installing grpcio into $venv"
  rm -rf "$venv"
  mkdir -p "$target/tests"
  python3 -m venv "$venv"
  "$venv/bin/pip" install --quiet --disable-pip-version-check -r tests/python/requirements.txt \
    || fail "could not install grpcio; the packages of tests/python/requirements.txt must be reachable"
  printf '%s\n' "$stamp" > "$venv/stamp"
fi

say "generating Python stubs from proto/"
rm -rf "$stubs"
mkdir -p "$stubs"
"$venv/bin/python" -m grpc_tools.protoc -I proto --python_out="$stubs" --grpc_python_out="$stubs" \
  $(cd proto && find coffer -name '*.proto' | sort)

say "building the binaries"
cargo build --locked --workspace --bins

say "running the tests"
cargo test --locked --workspace
