"""What licences a Debian package's copyright file names, in SPDX's words where those exist.

As well as can be had: most files are machine-readable (DEP-5); of the others, what they point to in
/usr/share/common-licenses is taken. The file itself is in the image, at /usr/share/doc/PACKAGE/copyright.
"""

from __future__ import annotations

import re
from functools import cache

from boolean import ParseError
from license_expression import ExpressionError, Licensing, get_spdx_licensing

_FORMAT = re.compile(r"\AFormat(?:-Specification)?:", re.MULTILINE)
_FIELD = re.compile(r"^License:[ \t]*(?:\n[ \t]+)?(.*)$", re.MULTILINE | re.IGNORECASE)
_COMMON = re.compile(r"/usr/share/common-licenses/([A-Za-z0-9.+-]*[A-Za-z0-9+])")
_GNU = re.compile(r"(A?GPL|LGPL|GFDL)-?v?(\d)(?:\.(\d))?(?:\.0)?(\+|-or-later|-only)?", re.IGNORECASE)
_LONGEST_NAME = 80
# Its words are there, and nothing that a program may make a name of.
UNKNOWN = "see /usr/share/doc/PACKAGE/copyright"
# DEP-5's own short names (Debian's copyright format 1.0, 7.1) and spellings that are frequent.
_NAMES = {
    "expat": "MIT", "mit/x11": "MIT", "apache-2": "Apache-2.0", "apache": "Apache-2.0", "artistic": "Artistic-1.0-Perl",
    "artistic-2": "Artistic-2.0", "bsd-2": "BSD-2-Clause", "bsd-3": "BSD-3-Clause", "bsd-4": "BSD-4-Clause",
    "cc0": "CC0-1.0", "mpl-2": "MPL-2.0", "psf-2": "PSF-2.0", "zlib/libpng": "Zlib", "openldap-2.8": "OLDAP-2.8",
    "boost-1.0": "BSL-1.0", "gpl": "GPL-1.0-or-later", "lgpl": "LGPL-2.0-or-later", "perl": "Artistic-1.0-Perl",
}  # fmt: skip


def licences(copyright_text: str) -> list[str]:
    """The licences that a copyright file names, each once, by name: SPDX ids, else its own short names."""
    if _FORMAT.search(copyright_text):
        named = {part for line in _FIELD.findall(copyright_text) for part in _parts(line)}
    else:
        # Which version, and whether a later one, is said in words there: only the text is known for sure.
        named = {f"text of {name}" for name in _COMMON.findall(copyright_text)}
    return sorted(named) or [UNKNOWN]


def spdx(name: str) -> str:
    """A short name as SPDX has it, or as it is."""
    if gnu := _GNU.fullmatch(name):
        family, major, minor, later = gnu[1].upper(), gnu[2], gnu[3] or "0", gnu[4]
        wanted = f"{family}-{major}.{minor}-{'or-later' if later in ('+', '-or-later') else 'only'}"
        return wanted if is_spdx(wanted) else name
    wanted = _NAMES.get(name.lower(), name)
    return _ids().get(wanted.lower(), name)


def is_spdx(name: str) -> bool:
    """Whether it is an SPDX licence id."""
    return _ids().get(name.lower()) == name


def is_expression(text: str) -> bool:
    """Whether it is an expression of SPDX licence ids."""
    try:
        return _licensing().parse(text, validate=True) is not None
    except (ExpressionError, ParseError):
        return False


def _parts(line: str) -> list[str]:
    """The licences of one field: alternatives and conditions apart, exceptions with what they except from."""
    words = re.sub(r"\s+with\s+\S+\s+exception\b", "", line.strip(), flags=re.IGNORECASE)
    parts = re.split(r"(?:,|\||/ |_or_|(?:^|\s)(?:and/or|or|and)\s)", words, flags=re.IGNORECASE)
    return [spdx(part.strip(" .()")) for part in parts if part.strip(" .()") and len(part) <= _LONGEST_NAME]


@cache
def _licensing() -> Licensing:
    return get_spdx_licensing()


@cache
def _ids() -> dict[str, str]:
    """Lower case to the right spelling, of all ids that SPDX does not call deprecated."""
    symbols = _licensing().known_symbols.values()
    return {symbol.key.lower(): symbol.key for symbol in symbols if not symbol.key.startswith("LicenseRef-")}
