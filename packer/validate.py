"""`python -m packer.validate`: the template's form and meaning, checked by Packer itself. Part of `make lint`.

Where Packer is not installed (Debian 13 has no package of it) this says so and passes.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from packer.accelerator import Accelerator
from packer.machine import TEMPLATE, Plan, variables
from packer.preflight import FIRST_PACKER_WITH_PLUGINS, packer_version


def main() -> int:
    """Check both folders; the exit code."""
    if not shutil.which("packer"):
        print("packer validate: skipped, Packer is not installed")
        return 0
    commands = [["packer", "fmt", "-check", "-diff", str(folder)] for folder in (TEMPLATE, TEMPLATE / "plugins")]
    if packer_version() >= FIRST_PACKER_WITH_PLUGINS:
        commands.append(["packer", "init", str(TEMPLATE / "plugins")])
    with tempfile.TemporaryDirectory() as folder:
        commands.append(["packer", "validate", f"-var-file={_values(Path(folder))}", str(TEMPLATE)])
        return max(_quietly(command) for command in commands)


def _values(folder: Path) -> Path:
    """Values for every variable; what they name exists where Packer looks for it."""
    playbook = TEMPLATE.parent / "playbooks" / "build.yml"
    accelerator = Accelerator("tcg,thread=multi", "max", "for validation")
    plan = Plan("0", 0, folder / "base.qcow2", playbook, folder, accelerator, "")
    plan.base_disk.touch()
    file = folder / "values.pkrvars.json"
    file.write_text(json.dumps(variables(plan, folder, folder)))
    return file


def _quietly(command: list[str]) -> int:
    answer = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if answer.returncode != 0:
        print(f"$ {' '.join(command)}\n{answer.stdout}")
    return answer.returncode


if __name__ == "__main__":
    sys.exit(main())
