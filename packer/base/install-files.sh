#!/bin/sh
# mmdebstrap's essential hook: $1 is the guest's root file system, FILES comes from disk.py.
#
# Puts our settings in before the packages they are for, so that the kernel's initramfs is made once and right.
set -eu
find -L "$FILES" -type f | while read -r file; do
    install -D -m 0644 -o root -g root "$file" "$1/${file#"$FILES"/}"
done
