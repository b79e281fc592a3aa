"""How QEMU runs the guest here: hardware virtualisation only where the build's probe has seen it boot a kernel."""
from __future__ import annotations

import functools


@functools.cache
def accelerator_arguments() -> tuple[str, ...]:
    """QEMU's -accel and -cpu arguments for this host."""
    return ("-accel", "tcg,thread=multi", "-cpu", "max")
