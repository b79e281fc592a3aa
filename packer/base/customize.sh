#!/bin/sh
# mmdebstrap's customize hook: $1 is the guest's root file system. ROOT_UUID, ESP_UUID and FILES come from disk.py.
#
# What has to be done by the guest's own programs (GRUB's BIOS image), and what hangs on this disk's identifiers.
set -eu
root=$1

echo pacs-appliance >"$root/etc/hostname"
printf '127.0.0.1 localhost\n127.0.1.1 pacs-appliance\n::1 localhost ip6-localhost ip6-loopback\n' >"$root/etc/hosts"
# mmdebstrap brings the host's /etc/hostname along, with its mode.
chmod 0644 "$root/etc/hostname" "$root/etc/hosts"
cat >"$root/etc/fstab" <<FSTAB
UUID=$ROOT_UUID / ext4 noatime,errors=remount-ro 0 1
UUID=$ESP_UUID /boot/efi vfat umask=0077,nofail 0 2
FSTAB
mkdir -p "$root/boot/efi"

# Half of the bootstrap's time, and of no use on a disk that is thrown away when it fails; on an appliance it is.
sed -i '/^force-unsafe-io$/d' "$root/etc/dpkg/dpkg.cfg.d/99mmdebstrap"

# Made by the package; every appliance makes its own.
rm -f "$root"/etc/ssh/ssh_host_*
ln -sfn ../run/systemd/resolve/stub-resolv.conf "$root/etc/resolv.conf"
chroot "$root" systemctl --quiet enable systemd-networkd.service systemd-resolved.service ssh.service fstrim.timer

version=$(basename "$root"/boot/vmlinuz-* | sed 's/^vmlinuz-//')
modules=$(chroot "$root" lsinitramfs "/boot/initrd.img-$version")
for module in mptspi mptscsih mptsas vmw_pvscsi hv_storvsc xen-blkfront ahci ata_piix nvme virtio_scsi virtio_blk \
    virtio_net vmxnet3 e1000 e1000e hv_netvsc xen-netfront sd_mod sr_mod ext4; do
    # A driver is a module in the initramfs or built into the kernel.
    if ! echo "$modules" | grep -q "/$module\.ko" &&
        ! grep -q "/$module\.ko" "$root/lib/modules/$version/modules.builtin"; then
        echo "E: no $module in the initramfs of $version: a hypervisor would not boot this disk" >&2
        exit 1
    fi
done

# GRUB: its modules where grub.cfg's insmod looks, and the BIOS image that finds our root by its UUID.
mkdir -p "$root/boot/grub/i386-pc" "$root/boot/grub/x86_64-efi"
cp "$root"/usr/lib/grub/i386-pc/*.mod "$root"/usr/lib/grub/i386-pc/*.lst "$root/boot/grub/i386-pc/"
cp "$root"/usr/lib/grub/x86_64-efi/*.mod "$root"/usr/lib/grub/x86_64-efi/*.lst "$root/boot/grub/x86_64-efi/"
cp "$root/usr/lib/grub/i386-pc/boot.img" "$root/boot/grub/i386-pc/"
# shellcheck disable=SC2016 # $root and $prefix are GRUB's variables
printf 'search.fs_uuid %s root\nset prefix=($root)/boot/grub\n' "$ROOT_UUID" >"$root/boot/grub/early.cfg"
chroot "$root" grub-mkimage -O i386-pc -o /boot/grub/i386-pc/core.img -p /boot/grub -c /boot/grub/early.cfg \
    biosdisk part_gpt ext2 search_fs_uuid
rm "$root/boot/grub/early.cfg"

# shellcheck source=/dev/null
. "$FILES/etc/default/grub"
# The first menu; update-grub writes its own over it with the same settings (/etc/default/grub).
cat >"$root/boot/grub/grub.cfg" <<GRUB
serial --unit=0 --speed=115200
terminal_input console serial
terminal_output console serial
set timeout=1
menuentry "PACS appliance" {
    search --no-floppy --fs-uuid --set=root $ROOT_UUID
    linux /boot/vmlinuz-$version root=UUID=$ROOT_UUID ro $GRUB_CMDLINE_LINUX
    initrd /boot/initrd.img-$version
}
GRUB
