"""DICOMweb (PS3.18): what is asked under which URL, and what becomes of faults."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from pacs.errors import NotFound, PacsError
from pacs.model.attributes import Level
from pacs.web import answers, capabilities, frames, qido, rendered, wado, wado_uri
from pacs.web.media import negotiate
from pacs.web.service import ROOT, Service, path_uids
from pacs.web.stow import Stow

log = logging.getLogger(__name__)

_STUDY = "/studies/{study}"
_SERIES = f"{_STUDY}/series/{{series}}"
_INSTANCE = f"{_SERIES}/instances/{{instance}}"
_FRAMES = f"{_INSTANCE}/frames/{{frames}}"
#: Searches: path → level (PS3.18 Table 10.6.1-1).
SEARCHES = {
    "/studies": Level.STUDY,
    f"{_STUDY}/series": Level.SERIES,
    f"{_STUDY}/instances": Level.IMAGE,
    f"{_SERIES}/instances": Level.IMAGE,
    "/series": Level.SERIES,
    "/instances": Level.IMAGE,
}
_Answer = Callable[[Service, Request], Response]
#: Retrieves: path → what answers it (PS3.18 Table 10.4.1-1).
RETRIEVES: dict[str, _Answer] = {
    _STUDY: wado.objects,
    _SERIES: wado.objects,
    _INSTANCE: wado.objects,
    f"{_STUDY}/metadata": wado.metadata,
    f"{_SERIES}/metadata": wado.metadata,
    f"{_INSTANCE}/metadata": wado.metadata,
    _FRAMES: frames.frames,
    f"{_INSTANCE}/bulkdata/{{path:path}}": wado.bulk_data,
    f"{_INSTANCE}/rendered": rendered.rendered,
    f"{_FRAMES}/rendered": rendered.rendered,
    f"{_STUDY}/thumbnail": rendered.thumbnail,
    f"{_SERIES}/thumbnail": rendered.thumbnail,
    f"{_INSTANCE}/thumbnail": rendered.thumbnail,
    f"{_FRAMES}/thumbnail": rendered.thumbnail,
}
STORES = ("/studies", _STUDY)
WADO_URI = "/wado"


@dataclass(frozen=True)
class _Search:
    level: Level

    def __call__(self, service: Service, request: Request) -> Response:
        """QIDO-RS (PS3.18 10.6)."""
        caller = service.access.caller(request, "read")
        offer, _asked = negotiate(request, answers.DATA_SETS)
        search = qido.read_search(self.level, path_uids(request), request.query_params)
        service.trail.queried(caller, self.level.name, request.url.path, request.url.query)
        found, is_more = qido.run_search(service.database, search, service.settings.ae_title, service.base(request))
        warnings = []
        if is_more:
            warnings.append('299 pacs "There are more results: ask for them with offset"')
        if search.ignored:
            warnings.append('299 pacs "Some attributes of the search are not known, and were ignored"')
        headers = {"Warning": ", ".join(warnings)} if warnings else {}
        return answers.data_sets(offer, found, headers) if found else answers.empty(204, headers)


def routes(service: Service, stow: Stow) -> list[Route]:
    """Every route of DICOMweb."""
    made = [
        Route(f"{ROOT}{path}", _answering(service, _Search(level)), methods=["GET"]) for path, level in SEARCHES.items()
    ]
    made += [Route(f"{ROOT}{path}", _answering(service, answer), methods=["GET"]) for path, answer in RETRIEVES.items()]
    made.append(Route(WADO_URI, _answering(service, wado_uri.retrieve), methods=["GET"]))
    made += [Route(f"{ROOT}{path}", _storing(stow), methods=["POST"]) for path in STORES]
    for path in (ROOT, f"{ROOT}/"):
        made.append(Route(path, _answering(service, capabilities.answer), methods=["OPTIONS"]))
    made.append(Route(f"{ROOT}/{{rest:path}}", _answering(service, _nothing), methods=["GET", "POST"]))
    for route in made:
        if route.methods:
            route.methods.discard("HEAD")  # it would read what it does not send
    return made


def _nothing(service: Service, request: Request) -> Response:
    service.access.caller(request, "store" if request.method == "POST" else "read")
    raise NotFound("There is no such resource of DICOMweb. See docs/reference/dicomweb.md.")


def _answering(service: Service, answer: _Answer) -> Callable[[Request], Response]:
    def endpoint(request: Request) -> Response:
        try:
            return answer(service, request)
        except Exception as error:
            return _fault(error)

    return endpoint


def _storing(stow: Stow) -> Callable[[Request], Awaitable[Response]]:
    async def endpoint(request: Request) -> Response:
        try:
            return await stow(request)
        except Exception as error:
            return _fault(error)

    return endpoint


def _fault(error: Exception) -> Response:
    if not isinstance(error, PacsError):
        log.error("a request failed", exc_info=error)
        error = PacsError("The archive failed; see its log.")
    elif error.http >= 500:
        log.warning("a request failed: %s", error)
    return answers.problem(error)
