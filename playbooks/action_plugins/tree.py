"""`tree`: installs a role's folder `tree/` below / in one step, however many files it has.

    tree:
      modes: {usr/local/bin/pacs: "0755"}
      owners: {etc/postgresql: 2101}

The folder mirrors the guest's paths: what a role adds to a system can be seen in one listing. A file that ends in
.j2 is rendered first; symbolic links stay links. Files are 0644 and root's unless `modes` names them or `owners` a
folder above them.

Why not one copy or template task a file: each takes some eight seconds in a machine that QEMU emulates, and the
build's minutes are counted. It packs the tree on the controller and lets ansible.builtin.unarchive bring it, which
finds out by itself whether anything differs.
"""

from __future__ import annotations

import io
import tarfile
import tempfile
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible.template import trust_as_template

# One time for all files: a changed time counts as a difference.
_MTIME_S = 1767225600  # 2026-01-01


class ActionModule(ActionBase):
    """What Ansible calls for a task `tree`."""

    _VALID_ARGS = frozenset({"modes", "owners"})
    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Pack the tree and have it unpacked; the result is unarchive's."""
        super().run(tmp, task_vars)
        arguments = self._task.args
        if self._task._role is None:
            raise AnsibleActionFail("tree belongs into a role: it installs the role's folder tree/.")
        root = Path(self._task._role._role_path, "tree")
        with tempfile.NamedTemporaryFile(suffix=".tar.gz") as archive:
            self._pack(root, archive.name, arguments.get("modes", {}), arguments.get("owners", {}))
            remote = self._connection._shell.join_path(self._make_tmp_path(), "tree.tar.gz")
            self._transfer_file(archive.name, remote)
        result = self._execute_module(
            "ansible.builtin.unarchive", {"src": remote, "dest": "/", "remote_src": True}, task_vars=task_vars
        )
        self._remove_tmp_path(self._connection._shell.tmpdir)
        return dict(result)

    def _pack(self, root: Path, archive: str, modes: dict[str, str], owners: dict[str, int]) -> None:
        with tarfile.open(archive, "w:gz") as tar:
            for path in sorted(root.rglob("*")):
                if path.is_dir() and not path.is_symlink():
                    continue
                name = str(path.relative_to(root)).removesuffix(".j2")
                member = tarfile.TarInfo(name)
                member.mtime = _MTIME_S
                member.mode = int(modes.get(name, "0644"), 8)
                member.uid = member.gid = next((owners[above] for above in owners if name.startswith(f"{above}/")), 0)
                if path.is_symlink():
                    member.type, member.linkname, member.mode = tarfile.SYMTYPE, str(path.readlink()), 0o777
                    tar.addfile(member)
                    continue
                content = self._content(path)
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))

    def _content(self, path: Path) -> bytes:
        if path.suffix != ".j2":
            return path.read_bytes()
        text = trust_as_template(path.read_text("utf-8"))
        # As the template action has it.
        return str(self._templar.template(text, escape_backslashes=False, overrides={"trim_blocks": True})).encode()
