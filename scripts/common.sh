# Sourced by the scripts beside it: where build output goes, and the tools that they install for themselves.
# shellcheck shell=bash

cd "$(dirname "${BASH_SOURCE[0]}")/.."

target=${CARGO_TARGET_DIR:-$PWD/target}
tools=$target/tools
cargo_deny_version=0.20.2

# Says what is wrong and what to do about it, and ends.
fail() {
  printf 'error: %s\n' "$*" >&2
  exit 1
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
