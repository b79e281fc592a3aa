"""What whoever stands before the virtual machine's display can read."""

from __future__ import annotations

from typing import Any

from tests.image.installation import Installation
from tests.image.screen import shows, wait_for_screen


def test_the_screen_shows_address_health_and_what_to_do(site: Installation, host: Any) -> None:
    fingerprint = host.check_output("ssh-keygen -l -f /run/pacs-access/ssh_host_ed25519_key.pub").split()[1]
    wanted = ("10.0.2.15", "11112", "admin@", fingerprint, "WARNING backup", "login:")
    screen = wait_for_screen(host, *wanted)
    assert [text for text in wanted if not shows(screen, text)] == [], screen
    assert site.machine.screenshot("healthy.png").stat().st_size > 0
