#!/usr/bin/env bash
# Installs Chromium, with a Chinese font, where there is none: for the tests that open pages in a browser. Called by
# .ci/run and never by test.sh, which changes no machine. Needs root on Debian or Ubuntu; elsewhere it says what is
# missing.
set -euo pipefail

if command -v chromium || command -v chromium-browser || command -v google-chrome; then
    exit 0
fi >/dev/null
if [[ $(id -u) -ne 0 ]] || ! command -v apt-get >/dev/null; then
    echo "setup_browser: install Chromium and a Chinese font; on Debian: apt install chromium fonts-noto-cjk" >&2
    exit 1
fi
echo "setup_browser: installing Chromium and Noto CJK (about a minute)"
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq -o Acquire::Retries=3
apt-get install -qq -y -o Acquire::Retries=3 --no-install-recommends chromium fonts-noto-cjk >/dev/null
