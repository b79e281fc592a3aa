"""What can go wrong in a build, in words that tell its user what to do."""

from __future__ import annotations


class BuildError(Exception):
    """The build can't go on. `what` says what happened, `remedy` what to do about it."""

    def __init__(self, what: str, remedy: str) -> None:
        super().__init__(f"{what} {remedy}")
        self.what = what
        self.remedy = remedy
