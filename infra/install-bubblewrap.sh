#!/bin/sh
# Installs bubblewrap where it is missing and that is possible without asking; else says what to run.
set -u
if [ "$(id -u)" = 0 ]; then
    as_root=""
elif command -v sudo >/dev/null && sudo -n true 2>/dev/null; then
    as_root="sudo"
else
    echo "bubblewrap is not installed: replicas will run under 'unshare' if the kernel allows it." >&2
    echo "To install it: apt-get install bubblewrap" >&2
    exit 0
fi
echo "Installing the system package bubblewrap (the sandbox of replicas) ..."
if ! { $as_root apt-get update -qq && $as_root apt-get install -y -qq bubblewrap; } >/dev/null; then
    echo "That failed; replicas will run under 'unshare' if the kernel allows it." >&2
fi
