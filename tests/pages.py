"""Pages of docs/operate, tried as they are written: each ```sh block of a page is run, in order, and must succeed.

On a page:

    ```sh                 run as it stands. `sudo` and /srv/pacs are the appliance's; a line `DISK=/dev/sdd` gets
    DISK=/dev/sdd         the value of the machine that it is tried on
    ```
    ```sh ends=2          ... and must end with 2
    ```sh needs=resize    ... where the host can do that
    ```text               what is seen, or done elsewhere: not run
    <!-- test: fill -->   what happens to the appliance between two blocks: a function of the page's test

The machine is a mount namespace of its own: /srv/pacs/state belongs to a running `pacs dev`, tier1 and tier2 are ext4
on loop devices, as are the disks that are plugged in.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.fix_instance import Dev

REPOSITORY = Path(__file__).parents[1]
PAGES = REPOSITORY / "docs" / "operate"
MIB = 1 << 20
_FENCE = re.compile(r"^ *```(?P<info>.*)$")
_HOOK = re.compile(r"^ *<!-- test: (?P<name>[a-z0-9 ]+) -->$")


@dataclass(frozen=True)
class Step:
    """A block to run, or a hook to call (its name in `hook`)."""

    line: int
    text: str = ""
    hook: str = ""
    ends: int = 0
    needs: str = ""


def steps(page: Path) -> list[Step]:
    """What is to be done of a page, in order. Raise ValueError for a block that is not closed or not understood."""
    found: list[Step] = []
    block: list[str] | None = None
    opened, info = 0, ""
    for number, line in enumerate(page.read_text("utf-8").splitlines(), 1):
        fence, hook = _FENCE.match(line), _HOOK.match(line)
        if fence and block is None:
            block, opened, info = [], number, fence["info"]
        elif fence and block is not None:
            if info.split(" ")[0] == "sh":
                found.append(_block(opened, info, block))
            elif info != "text":
                raise ValueError(f"{page.name}:{opened}: a block is ```sh, which is run, or ```text")
            block = None
        elif block is not None:
            block.append(line.strip())
        elif hook:
            found.append(Step(number, hook=hook["name"].replace(" ", "_")))
        elif "<!-- test" in line:
            raise ValueError(f"{page.name}:{number}: <!-- test: words and digits -->")
    if block is not None:
        raise ValueError(f"{page.name}:{opened}: the block is not closed")
    return found


def _block(line: int, info: str, block: list[str]) -> Step:
    words = dict(word.split("=") for word in info.split(" ")[1:])
    if words.keys() - {"ends", "needs"}:
        raise ValueError(f"line {line}: ```{info}")
    return Step(line, "\n".join(block) + "\n", ends=int(words.get("ends", 0)), needs=words.get("needs", ""))


_SHIMS = {
    "sudo": '#!/bin/sh\nexec "$@"\n',
    # What deals with the machine's disks takes loop devices for disks; all else is the command itself.
    "pacs": f"""#!{sys.executable}
import functools, os, sys
from pacs.cli.main import main
from pacs.machine import storage
if sys.argv[1:2] == ["machine"]:
    storage.Places = functools.partial(
        storage.Places, disk_types=("loop",), disks=frozenset(os.environ["PAGE_DISKS"].split(","))
    )
main()
""",
    "udevadm": "#!/bin/sh\n",
}


@dataclass
class Machine:
    """What a page is tried on. Make it with `machine()`."""

    folder: Path
    holder: subprocess.Popen[bytes]
    #: What a page's own assignments are given instead.
    variables: dict[str, str] = field(default_factory=dict)
    disks: dict[str, str] = field(default_factory=dict)
    dev: Dev | None = None

    def plug(self, name: str, size_mib: int) -> str:
        """Plug a blank disk in; return its device."""
        image = self.folder / f"{name}.img"
        with image.open("wb") as stream:
            stream.truncate(size_mib * MIB)
        made = subprocess.run(["losetup", "-f", "--show", image], capture_output=True, text=True, check=True)
        self.disks[name] = made.stdout.strip()
        return self.disks[name]

    def sh(self, text: str) -> subprocess.CompletedProcess[str]:
        """Run a shell's text on the machine. Variables that it sets are there for the next one."""
        memory = self.folder / "variables"
        # What a text sets outlives it; what fails in the middle ends it.
        disks = ",".join(self.disks.values())
        whole = f". {memory}\nexport PAGE_DISKS={disks}\nset -a\n{text}\nset +a\nexport -p > {memory}\n"
        memory.touch()
        return subprocess.run(
            [*self._entered(), "bash", "-euo", "pipefail", "-c", whole],
            capture_output=True, text=True, check=False, env=self._environment(),
        )  # fmt: skip

    def ok(self, text: str) -> str:
        """Run a shell's text that must succeed; return what it printed."""
        done = self.sh(text)
        assert done.returncode == 0, f"{text}\n{done.stdout}{done.stderr}"
        return done.stdout

    def start(self, **environment: str) -> Dev:
        """Start `pacs dev` on it."""
        data = self.folder / "state"
        tiers = {f"PACS_TIER{number}": f"/srv/pacs/tier{number}" for number in (1, 2)}
        self.variables |= {"PACS_DATA": "/srv/pacs/state", **tiers, **environment}
        self.dev = Dev(data, {**self._environment(), **environment}, prefix=tuple(self._entered()))
        return self.dev.start()

    def _entered(self) -> list[str]:
        return ["nsenter", f"--mount=/proc/{self.holder.pid}/ns/mnt"]

    def _environment(self) -> dict[str, str]:
        return {
            **os.environ,
            **{name: value for name, value in self.variables.items() if name.startswith("PACS_")},
            "PATH": f"{self.folder}/bin:{Path(sys.executable).parent}:{os.environ['PATH']}",
            "PYTHONPATH": str(REPOSITORY),
            "PAGE_DISKS": ",".join(self.disks.values()),
        }

    def follow(self, page: str, hooks: dict[str, Callable[[], None]]) -> list[str]:
        """Do what a page says; return what each block printed. One that does not end as it should fails the test."""
        printed = []
        found = steps(PAGES / page)
        assert any(step.text for step in found), f"nothing of {page} is run"
        for step in found:
            where = f"{page}:{step.line}"
            if step.hook:
                assert step.hook in hooks, f"{where}: the test of {page} has no {step.hook}"
                hooks[step.hook]()
            elif step.needs and not _CAN[step.needs]():
                continue
            else:
                done = self.sh(self._with_own_values(step.text))
                assert done.returncode == step.ends, f"{where} ended with {done.returncode}\n{done.stdout}{done.stderr}"
                printed.append(done.stdout + done.stderr)
        return printed

    def _with_own_values(self, text: str) -> str:
        for name, value in self.variables.items():
            text = re.sub(rf"^{name}=.*$", f"{name}={value}", text, flags=re.MULTILINE)
        return text


def _may_resize() -> bool:
    """CAP_SYS_RESOURCE, capability 24, which ext4 wants for growing while mounted."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("CapEff"))
    return bool(int(line.split()[1], 16) >> 24 & 1)


#: `appliance`: what there is only on the appliance itself (tests/integration/machine).
_CAN: dict[str, Callable[[], bool]] = {"resize": _may_resize, "appliance": lambda: False}


@contextlib.contextmanager
def machine(folder: Path, tier1_mib: int = 400, tier2_mib: int = 800) -> Iterator[Machine]:
    """A machine with three volumes, nothing started; skips where it cannot be."""
    if os.geteuid() != 0 or not all(map(shutil.which, ("losetup", "mkfs.ext4", "unshare", "nsenter", "blkid"))):
        pytest.skip("needs root, loop devices and mount namespaces")
    root = folder / f"page{uuid.uuid4().hex[:6]}"
    (root / "bin").mkdir(parents=True)
    root.chmod(0o755)
    for name, text in _SHIMS.items():
        if name != "udevadm" or not shutil.which(name):
            (root / "bin" / name).write_text(text)
            (root / "bin" / name).chmod(0o755)
    holder = subprocess.Popen(["unshare", "--mount", "--propagation", "private", "sleep", "infinity"])
    made = Machine(root, holder)
    try:
        try:
            tiers = [made.plug("tier1", tier1_mib), made.plug("tier2", tier2_mib)]
        except subprocess.CalledProcessError as error:
            pytest.skip(f"there are no loop devices here: {error.stderr}")
        _wait_for_namespace(holder.pid)
        made.ok(_prepared(root, tiers))
        yield made
    finally:
        if made.dev is not None:
            made.dev.stop()
        holder.kill()
        holder.wait()
        for device in made.disks.values():
            subprocess.run(["losetup", "-d", device], check=False, capture_output=True)
        shutil.rmtree(root, ignore_errors=True)


def _wait_for_namespace(pid: int) -> None:
    """unshare has made it when it has become the sleep."""
    while Path(f"/proc/{pid}/comm").read_text().strip() != "sleep":
        assert Path(f"/proc/{pid}").exists()
        os.sched_yield()


def _prepared(root: Path, tiers: list[str]) -> str:
    """/srv/pacs as the appliance has it; users that this host may not have."""
    users = "".join(
        f"getent passwd {name} >/dev/null || echo '{name}:x:{number}:{number}::/:/bin/false' >>{root}/passwd\n"
        f"getent group {name} >/dev/null || echo '{name}:x:{number}:' >>{root}/group\n"
        for name, number in (("pacs", 2100), ("postgres", 2101))
    )
    disks = "".join(
        f"mkfs.ext4 -q -m 0 {device}; mount {device} /srv/pacs/tier{number}\n" for number, device in enumerate(tiers, 1)
    )
    return f"""
cp /etc/passwd /etc/group {root}
{users}
mount --bind {root}/passwd /etc/passwd; mount --bind {root}/group /etc/group
mount -t tmpfs -o size=1g,mode=755 tmpfs /srv
mkdir -p {root}/state /srv/pacs/state /srv/pacs/tier1 /srv/pacs/tier2
mount -t tmpfs -o size=900m,mode=755 tmpfs {root}/state
mount --bind {root}/state /srv/pacs/state
{disks}"""
