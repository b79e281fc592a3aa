#!/bin/sh
# pack.sh ARCHIVE FOLDER DISK: unpacks mmdebstrap's tar and makes the root file system inside DISK out of it.
#
# Runs as root or under fakeroot, in one go: fakeroot remembers owners only as long as it runs.
set -eu
archive=$1 folder=$2 disk=$3
mkdir "$folder"
tar --extract --file "$archive" --directory "$folder" --numeric-owner --xattrs --xattrs-include='*'
mkfs.ext4 -q -d "$folder" -U "$ROOT_UUID" -L root-a -O "$EXT4_FEATURES" \
    -E "offset=$ROOT_OFFSET_BYTES,nodiscard,hash_seed=$ROOT_UUID" "$disk" "${ROOT_SIZE_KIB}k"
# So that who runs the build can read the boot loader's files and remove the folder.
chmod -R u+rwX "$folder"
