"""Two booted appliances and a modality in the same network."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.faults.process import wait_for
from tests.modality import Modality, name_of
from tests.roles.conftest import boot_first
from tests.roles.container import Container
from tests.roles.lan import ADDRESSES, OTHERS, Lan

_SHIPPED = "SELECT count(DISTINCT object_key) FROM copy JOIN volume USING (volume_id) WHERE tier = 5"


@dataclass
class Node:
    """An appliance in the network."""

    container: Container
    address: str
    lan: Lan

    def boot(self) -> None:
        """Start it again."""
        self.container.boot(timeout_s=180)
        self.lan.plug_in(self.container, self.address)

    def power_off(self) -> None:
        """Take its power away: it falls silent."""
        self.lan.unplug(self.address)
        self.container.pull_the_plug()

    def pacs(self, words: str) -> str:
        """What `pacs` prints, run as root; it must succeed."""
        try:
            return self.container.run(f"pacs {words}")
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.journal()}") from None

    def refusal(self, words: str) -> str:
        """What `pacs` says, run as root, where it must not succeed."""
        return self.container.run(f"! pacs {words} 2>&1")

    def json(self, words: str) -> Any:
        """The same as JSON."""
        return json.loads(self.pacs(f"{words} --json"))

    def sql(self, query: str) -> list[str]:
        """The lines of a query's answer."""
        return self.container.run(f'cd /; sudo -u postgres psql -XAt pacs -c "{query}"').splitlines()

    def shipped(self) -> int:
        """How many objects have a copy at the standby."""
        return int(self.sql(_SHIPPED)[0])

    def is_level(self) -> bool:
        """Whether its standby has all."""
        return bool(self.json("standby status")["is_level"])

    def is_followed(self) -> bool:
        """Whether its standby has the settings, and takes the log."""
        streams = (self.json("standby status")["log"] or {}).get("is_streaming")
        return bool(streams) and self.container.succeeds("journalctl -b -u pacs-worker | grep -q 'went to the standby'")

    def complaints(self) -> list[str]:
        """Units that failed, and timers that do not run though they are enabled."""
        failed = self.container.run("systemctl list-units --state=failed --plain --no-legend").splitlines()
        timers = "for t in $(systemctl list-unit-files 'pacs-*.timer' 'pacs-*.path' --state=enabled --plain --no-legend"
        timers += " | cut -d' ' -f1); do systemctl is-active -q $t || echo $t; done"
        return failed + self.container.run(timers).splitlines()

    def journal(self) -> str:
        """The end of what its services and its SSH server said."""
        return self.container.run("journalctl -b --no-pager -o short-monotonic -p info | tail -n 60")


@dataclass
class Site:
    """Two appliances, the first of them with the modality as a device."""

    lan: Lan
    first: Node
    second: Node
    modality: Modality

    @classmethod
    @contextmanager
    def booted(cls, image: Path, folder: Path) -> Iterator[Site]:
        """Two appliances of an image that was never booted; ended after the block."""
        nodes: list[Node] = []
        with Lan.made() as lan:
            modality = Modality(folder / "sent.jsonl", 7, lan.inside)
            try:
                for number, name in enumerate(("first", "second"), start=11):
                    container = Container(image, folder / name)
                    nodes.append(Node(container, ADDRESSES.format(number), lan))
                    boot_first(container, f"pacs-{name}")
                    lan.plug_in(container, nodes[-1].address)
                site = cls(lan, nodes[0], nodes[1], modality)
                site.add_device()
                yield site
            finally:
                modality.end()
                for node in nodes:
                    node.container.remove()

    def add_device(self) -> None:
        """Make the modality known to the first."""
        title = name_of(self.modality.seed)
        self.first.pacs(f"device add modality --ae-title {title} --host {OTHERS} --port 11114")

    def pair(self) -> None:
        """Make the second the standby of the first, as docs/operate/standby.md tells it."""
        offered = self.second.pacs(f"standby offer --host {self.second.address} --name second").strip()
        answer = self.first.pacs(f"standby pair '{offered}' --host {self.first.address} --name first 2>/dev/null")
        self.second.pacs(f"standby follow '{answer.strip()}' --yes")
        wait_for(self.first.is_followed, "the standby does not follow", 120)
