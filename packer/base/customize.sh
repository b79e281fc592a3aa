#!/bin/sh
# mmdebstrap's customize hook: $1 is the guest's root file system. ROOT_PARTITION (its UUID), ESP_UUID and BOOT come
# from disk.py.
#
# What has to be done by the guest's own programs (GRUB's BIOS image), and what hangs on this disk's identifiers.
set -eu
root=$1

echo pacs-appliance >"$root/etc/hostname"
printf '127.0.0.1 localhost\n127.0.1.1 pacs-appliance\n::1 localhost ip6-localhost ip6-loopback\n' >"$root/etc/hosts"
# mmdebstrap brings the host's /etc/hostname along, with its mode.
chmod 0644 "$root/etc/hostname" "$root/etc/hosts"
cat >"$root/etc/fstab" <<FSTAB
PARTUUID=$ROOT_PARTITION / ext4 noatime,errors=remount-ro 0 1
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

# The BIOS image of GRUB, with all built in that grub.cfg on the EFI system partition uses: it loads nothing from a slot,
# whose GRUB may be of another version. (,gpt2): that partition of the disk it was started from.
mkdir -p "$root/boot/grub/i386-pc"
cp "$root/usr/lib/grub/i386-pc/boot.img" "$root/boot/grub/i386-pc/"
chroot "$root" grub-mkimage -O i386-pc -o /boot/grub/i386-pc/core.img -p '(,gpt2)/grub' biosdisk part_gpt fat ext2 \
    normal configfile loadenv test regexp linux serial terminal terminfo echo minicmd sleep reboot halt ls cat search \
    search_fs_uuid probe gzio all_video true
# The menu is the slot's pacs.cfg. What update-grub writes nobody would read.
rm -f "$root/etc/kernel/postinst.d/zz-update-grub" "$root/etc/kernel/postrm.d/zz-update-grub"
install -m 0644 "$BOOT/pacs.cfg.in" "$root/boot/pacs.cfg.in"
sed "s/@SLOT@/a/g; s/@PARTUUID@/$ROOT_PARTITION/g" "$root/boot/pacs.cfg.in" >"$root/boot/pacs.cfg"
for link in vmlinuz initrd.img; do
    [ -L "$root/$link.old" ] || ln -s "$(readlink "$root/$link")" "$root/$link.old"
done
