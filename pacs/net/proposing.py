"""The presentation contexts that a C-MOVE proposes to its destination, so that this has the choice."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from pynetdicom.presentation import PresentationContext, build_context

from pacs.archive.retrieve import Wanted
from pacs.model import codec
from pacs.model.dataset import EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN

#: PS3.8 9.3.2.2: odd numbers up to 255.
CONTEXTS_MAX = 128


def proposals(sop_class_uid: str, stored: Iterable[str], preferred: Sequence[str] = ()) -> list[PresentationContext]:
    """What to propose for objects of a SOP class that are stored in these transfer syntaxes.

    Each stored transfer syntax and each one that the destination prefers in a context of its own, so that it may accept
    several; then uncompressed in one, as PS3.5 10.1 asks for; then whatever else they can be turned to.
    """
    stored = tuple(dict.fromkeys(stored))

    def others(targets: Iterable[str], known: Iterable[str]) -> list[str]:
        return [
            target
            for target in dict.fromkeys(targets)
            if target not in known and any(codec.may_become(each, target) for each in stored)
        ]

    alone = [*others(preferred, stored), *stored]
    uncompressed = (EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN)
    rest = (*codec.LOSSLESS_TARGETS, *codec.NATIVE)
    lists = [[uid] for uid in alone] + [others(uncompressed, alone), others(rest, (*alone, *uncompressed))]
    return [build_context(sop_class_uid, syntaxes) for syntaxes in lists if syntaxes]


def batches(
    objects: Sequence[Wanted], preferred: Sequence[str] = (), contexts_max: int = CONTEXTS_MAX
) -> list[tuple[list[Wanted], list[PresentationContext]]]:
    """The objects with what to propose for them; in several batches, an association each, if one holds too few
    contexts for all."""
    syntaxes: dict[str, dict[str, None]] = {}
    for wanted in objects:
        syntaxes.setdefault(wanted.sop_class_uid, {})[wanted.transfer_syntax_uid] = None
    found: list[tuple[list[Wanted], list[PresentationContext]]] = []
    batch_of: dict[str, int] = {}
    for sop_class_uid, stored in syntaxes.items():
        contexts = proposals(sop_class_uid, stored, preferred)[:contexts_max]
        if not found or len(found[-1][1]) + len(contexts) > contexts_max:
            found.append(([], []))
        found[-1][1].extend(contexts)
        batch_of[sop_class_uid] = len(found) - 1
    for wanted in objects:
        found[batch_of[wanted.sop_class_uid]][0].append(wanted)
    return found
