#!/usr/bin/env bash
# Names the system tools that are missing, and on Debian as root installs them; OCAD_INSTALL_TOOLS=0 keeps it from that.
# Whoever builds runs it first. Without Rust nothing can be built; without the others some tests are skipped.
set -euo pipefail

if ! command -v cargo >/dev/null; then
  echo "error: cargo is not on the PATH: install Rust with \`curl -sSf https://sh.rustup.rs | sh -s -- -y\`" >&2
  exit 1
fi
if ! said=$(cargo --version 2>&1); then
  echo "error: cargo does not run (${said%%$'\n'*}): choose a toolchain with \`rustup default stable\`" >&2
  exit 1
fi

missing=()
packages=()
# what runs : the package that has it
for tool in strace:strace wrk:wrk tshark:tshark chromium:chromium openssl:openssl ip:iproute2 tc:iproute2; do
  command -v "${tool%:*}" >/dev/null && continue
  missing+=("${tool%:*}")
  [[ " ${packages[*]} " == *" ${tool#*:} "* ]] || packages+=("${tool#*:}")
done
[ ${#missing[@]} -eq 0 ] && exit 0

if [ "${OCAD_INSTALL_TOOLS:-1}" != 0 ] && command -v apt-get >/dev/null && [ "$(id -u)" = 0 ]; then
  echo "installing ${missing[*]} (OCAD_INSTALL_TOOLS=0 leaves them out)" >&2
  export DEBIAN_FRONTEND=noninteractive
  { apt-get update -qq && apt-get install -y -qq --no-install-recommends "${packages[@]}"; } >/dev/null && exit 0
fi
echo "missing: ${missing[*]}; what needs them is skipped (on Debian: apt-get install ${packages[*]})" >&2
