"""What watchers are told while the appliance waits for a key or a disk."""

from __future__ import annotations

import json
import threading
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from pacs.machine.waiting import answer, server


def test_healthz_says_503_and_what_to_do(tmp_path: Path) -> None:
    storage = tmp_path / "storage.json"
    storage.write_text(json.dumps({"ready": False, "problems": ["/dev/sdb: it is encrypted."]}))
    with server(storage, 0) as serving:
        thread = threading.Thread(target=serving.serve_forever)
        thread.start()
        try:
            with pytest.raises(urllib.error.HTTPError) as refused:
                urllib.request.urlopen(f"http://127.0.0.1:{serving.server_address[1]}/healthz", timeout=10)
            assert refused.value.code == 503
            said = json.loads(refused.value.read())
            refused.value.close()
        finally:
            serving.shutdown()
            thread.join()
    assert said == {"status": "waiting", "problems": ["/dev/sdb: it is encrypted."]}


def test_before_anything_is_known_it_says_so(tmp_path: Path) -> None:
    assert json.loads(answer(tmp_path / "none.json"))["problems"] == ["The storage is being looked for."]
