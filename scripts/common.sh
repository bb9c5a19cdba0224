# Sourced by the scripts beside it: where build output goes, and the tools that they install for themselves.
# shellcheck shell=bash

cd "$(dirname "${BASH_SOURCE[0]}")/.."

target=${CARGO_TARGET_DIR:-$PWD/target}
tools=$target/tools
cargo_deny_version=0.20.2
cargo_fuzz_version=0.13.2
kafka_version=4.1.0

# Says what is wrong and what to do about it, and ends.
fail() {
  printf 'error: %s\n' "$*" >&2
  exit 1
}

say() {
  printf '%s\n' "$*" >&2
}

# packages NAME...: installs Debian packages, or says that they are to be installed.
packages() {
  if [ "$(id -u)" -eq 0 ] && command -v apt-get >/dev/null; then
    say "Installing $*"
    mkdir -p "$target"
    { apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends "$@"; } \
      >"$target/apt-output.txt" 2>&1 || { tail -20 "$target/apt-output.txt" >&2; fail "apt-get could not install $*"; }
  else
    fail "missing: $*. Debian, Ubuntu: apt-get install $*; macOS: brew install postgresql maven python"
  fi
}

# need COMMAND REMEDY: ends with the remedy when the command is missing.
need() {
  command -v "$1" >/dev/null 2>&1 || fail "$1 is missing. $2"
}

# Builds cargo-deny under the target directory unless it is there; about 80 s on 2 cores, without optimisation, which it does not need.
# It builds in a directory of cargo's own, so that the project's build cache keeps to the project.
install_cargo_deny() {
  if [ "$("$tools/bin/cargo-deny" --version 2>/dev/null)" != "cargo-deny $cargo_deny_version" ]; then
    env -u CARGO_TARGET_DIR -u CARGO_BUILD_TARGET_DIR \
      cargo install --quiet --debug --locked --root "$tools" "cargo-deny@$cargo_deny_version"
  fi
}

# Builds cargo-fuzz as well.
install_cargo_fuzz() {
  if [ "$("$tools/bin/cargo-fuzz" --version 2>/dev/null)" != "cargo-fuzz $cargo_fuzz_version" ]; then
    env -u CARGO_TARGET_DIR -u CARGO_BUILD_TARGET_DIR \
      cargo install --quiet --debug --locked --root "$tools" "cargo-fuzz@$cargo_fuzz_version"
  fi
}

# The newest PostgreSQL server programs on this machine, or nothing.
postgres_bin() {
  local bin
  bin=$(printf '%s\n' /usr/lib/postgresql/*/bin | sort -V | tail -1)
  [ -x "$bin/initdb" ] || bin=$(dirname "$(command -v initdb || true)")
  printf '%s' "$bin"
}

# A TCP port that nothing listens on now.
free_port() {
  python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'
}

# json_option [--json FILE]: the file that a benchmark's JSON lines shall go to, or nothing.
json_option() {
  [ $# -eq 0 ] || { [ $# -eq 2 ] && [ "$1" = --json ]; } || fail "usage: $0 [--json FILE]"
  printf '%s' "${2:-}"
}

# hand_over LINES [FILE]: puts the JSON lines into the file, or says them.
hand_over() {
  if [ -n "${2:-}" ]; then
    cp "$1" "$2"
  else
    printf '\n'
    cat "$1"
  fi
}
