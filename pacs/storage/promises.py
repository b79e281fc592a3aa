"""What volumes that are not local disks promise (pacs/storage/kinds.py). docs/reference/volumes.md says it too."""

from __future__ import annotations

from pacs.storage.kinds import Promise

NFS = Promise(
    "nfs", may_receive=True, fsyncs=True, renames=True, lists_all=True, knows_room=True,
    far_side="O_DIRECT: from the server, past this machine's memory; the server may answer from its own",
    note="It receives only where it is mounted hard and sync. An fsync is the server's COMMIT: a server that exports "
    "`async`, or whose disks answer a flush before it is done, can lose the last seconds. Reading back cannot show "
    "that before the server was restarted; scrubbing does.",
)  # fmt: skip

SMB = Promise(
    "smb", may_receive=False, fsyncs=False, renames=True, lists_all=True, knows_room=True,
    far_side="O_DIRECT: from the server, past this machine's memory; the server may answer from its own",
    note="An fsync is an SMB FLUSH, which a server may take lightly (Samba: `strict sync = no`). It holds copies, each "
    "counted once it was read back.",
)  # fmt: skip

S3 = Promise(
    "s3", may_receive=False, fsyncs=False, renames=True, lists_all=True, knows_room=False,
    far_side="a GET of the whole object from the endpoint, asking every cache on the way to stand aside",
    note="What the endpoint means by stored is its own affair: a copy counts once it was read back and its SHA-256 "
    "compared, and is read again by every scrub. An endpoint without conditional puts has each key looked up before.",
)  # fmt: skip

SFTP = Promise(
    "sftp", may_receive=False, fsyncs=False, renames=True, lists_all=True, knows_room=True,
    far_side="reading the whole file from the server, which may answer from its memory",
    note="A sync is asked for where the server has it (OpenSSH), and its room too. For backup repositories only. A "
    "copy counts once it was read back and its SHA-256 compared.",
)  # fmt: skip
