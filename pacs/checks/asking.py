"""Asks a program of the system, for the checks: what it says, or that it is not there, and never for long."""

from __future__ import annotations

import subprocess

#: No check waits for longer than this [s].
TIMEOUT_S = 5.0


def ask(*words: str) -> tuple[bool, str] | None:
    """Whether a program ended well, and what it said; None if it is not installed."""
    try:
        answer = subprocess.run(
            words, capture_output=True, text=True, errors="replace", timeout=TIMEOUT_S, check=False,
            stdin=subprocess.DEVNULL,
        )  # fmt: skip
    except FileNotFoundError:
        return None
    except subprocess.TimeoutExpired:
        return False, f"{words[0]} did not answer in {TIMEOUT_S:g} s"
    except OSError as error:
        return False, f"{words[0]}: {error.strerror}"
    said = answer.stdout if answer.returncode == 0 else answer.stderr or answer.stdout
    return answer.returncode == 0, said.strip()
