"""The web service: one status page, and for watchers `/healthz`, `/checks` (JSON), `/metrics` (Prometheus) and
`/nagios`, with no patient's data on any; and DICOMweb, for those who have a token (pacs/web/access.py)."""

from __future__ import annotations

from collections.abc import Sequence

import anyio
import anyio.to_thread
from jinja2 import Environment, PackageLoader, select_autoescape
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from pacs import __version__
from pacs.checks import nagios
from pacs.checks.check import Ground, Result, Subject, run_all, worst
from pacs.checks.metrics import text_of
from pacs.checks.registry import CHECKS
from pacs.errors import PacsError
from pacs.index.runs import totals
from pacs.index.volumes import KnownVolume
from pacs.model.sizes import format_size
from pacs.storage.kinds import Room

CHECKS_TIMEOUT_S = 10

_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


def make_app(subject: Subject, more: Sequence[Route] = ()) -> Starlette:
    """The application over one instance; `more`: the routes of DICOMweb (pacs/web/dicomweb.py)."""
    templates = Environment(loader=PackageLoader("pacs.web"), autoescape=select_autoescape(), trim_blocks=True)
    templates.filters["bytes"] = format_size

    async def healthz(_request: Request) -> Response:
        results = await _results(subject)
        state = worst(results)
        return JSONResponse(
            {"status": state, "version": __version__}, 503 if state == "critical" else 200, headers=_HEADERS
        )

    async def status(_request: Request) -> Response:
        results = await _results(subject)
        is_down = any(result.name in ("database", "checks") and result.severity == "critical" for result in results)
        counts = None if is_down else await run_in_threadpool(_totals, subject)
        page = templates.get_template("status.html").render(
            version=__version__,
            ae_title=subject.settings.ae_title,
            results=results,
            worst=worst(results),
            counts=counts,
            volumes=await run_in_threadpool(_volumes, subject),
        )
        return HTMLResponse(page, headers=_HEADERS)

    async def checks(_request: Request) -> Response:
        return JSONResponse([result.as_json() for result in await _results(subject)], headers=_HEADERS)

    async def nagios_plugin(_request: Request) -> Response:
        return PlainTextResponse(nagios.render(await _results(subject)), headers=_HEADERS)

    async def metrics(_request: Request) -> Response:
        results = await _results(subject)
        is_down = any(result.name in ("database", "checks") and result.severity == "critical" for result in results)
        text = await run_in_threadpool(text_of, Ground(subject.settings) if is_down else subject, results)
        return Response(text, media_type="text/plain; version=0.0.4; charset=utf-8", headers=_HEADERS)

    pages = {"/": status, "/healthz": healthz, "/checks": checks, "/nagios": nagios_plugin, "/metrics": metrics}
    return Starlette(routes=[*(Route(path, page) for path, page in pages.items()), *more])


async def _results(subject: Subject) -> list[Result]:
    """Every check's result; one critical result if they do not end, as with a database that hangs."""
    try:
        with anyio.fail_after(CHECKS_TIMEOUT_S):
            return await anyio.to_thread.run_sync(run_all, subject, CHECKS, abandon_on_cancel=True)
    except TimeoutError:
        message = f"They did not end within {CHECKS_TIMEOUT_S} seconds."
        return [Result("checks", "critical", message, "See `systemctl status postgresql@17-main`, and the disks.")]


def _totals(subject: Subject) -> dict[str, int] | None:
    try:
        return dict(totals(subject.database))
    except PacsError:
        return None


def _volumes(subject: Subject) -> list[tuple[KnownVolume, Room]]:
    found = []
    for row in subject.volumes.rows:
        volume = subject.volumes.by_id.get(row.volume_id)
        try:
            if volume is not None:
                volume.require_present()
                found.append((row, volume.room()))
        except (PacsError, OSError):
            continue  # its check says so
    return found
