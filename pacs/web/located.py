"""Where the frames of the objects that were asked for last lie: a viewer asks for one object's again and again."""

from __future__ import annotations

import threading
from collections import OrderedDict

from pacs.model.frames import Frames

#: So many frames are remembered, of all objects: some 100 bytes each.
_FRAMES_MAX = 200_000


class LocatedFrames:
    """Object key → where its frames lie. An object's bytes never change, so that nothing here gets old."""

    def __init__(self) -> None:
        self._known: OrderedDict[int, Frames] = OrderedDict()
        self._count = 0
        self._lock = threading.Lock()

    def get(self, object_key: int) -> Frames | None:
        """Where an object's frames lie, if that is known."""
        with self._lock:
            found = self._known.get(object_key)
            if found is not None:
                self._known.move_to_end(object_key)
            return found

    def put(self, object_key: int, frames: Frames) -> None:
        """Remember it."""
        with self._lock:
            if object_key in self._known:
                return
            self._known[object_key] = frames
            self._count += len(frames.pieces)
            while self._count > _FRAMES_MAX and len(self._known) > 1:
                _key, gone = self._known.popitem(last=False)
                self._count -= len(gone.pieces)
