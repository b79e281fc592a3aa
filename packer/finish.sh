#!/bin/sh
# The last thing that runs in the machine being built, as root and outside of any session: takes the build's own user
# away, and what the last minutes wrote, gives unused blocks back and switches off. The role sysprep did all the rest.
set -u
user=builder

pkill -KILL -u "$user"
while pgrep -u "$user" >/dev/null; do sleep 0.2; done
userdel --force --remove "$user"
rm -f /etc/sudoers.d/90-cloud-init-users
# What useradd and userdel keep of the files as they were.
rm -f /etc/passwd- /etc/shadow- /etc/group- /etc/gshadow- /etc/subuid- /etc/subgid-

# The journal goes on in memory, so that what is removed now stays removed.
journalctl --relinquish-var
rm -rf /var/log/journal/* /var/lib/systemd/linger/* /var/lib/systemd/timers/* /tmp/* /var/tmp/*
rm -f /var/lib/systemd/random-seed /var/log/btmp /var/log/wtmp /var/log/lastlog /var/lib/wtmpdb/*
find /var/log -type f -exec truncate -s 0 {} +
: >/etc/machine-id

sync
for mountpoint in / /boot/efi; do fstrim "$mountpoint"; done
sync
# --force: no unit gets to write its state (a random seed, a clock) on the way down; file systems are unmounted still.
systemctl --force poweroff
