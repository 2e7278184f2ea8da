"""Downloads of a runtime's pages below a lease's root: for clients that have the lease and no API key.

/v1/connect/{token}/downloads          those of the lease's run, newest first, in pages
/v1/connect/{token}/downloads/{id}     the content of one, whole or a range of it

Any gateway answers, whichever has the browser, since downloads are stored as artifacts of the run.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from uuid import UUID

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from gateway.attach.discovery import ROOT
from gateway.core.ids import parse_id
from gateway.core.moments import iso
from gateway.core.scope import Scope
from gateway.domain import audit
from gateway.domain.files.artifacts import DOWNLOAD, Artifact, Page
from gateway.http import content
from gateway.http.content import Content
from gateway.http.cursors import Listing, PageQuery, paged
from gateway.http.origin import check_origin
from gateway.http.public_url import client_address, public_root
from gateway.http.queries import read_query
from gateway.http.services import Services

_PATH = ROOT + "/downloads"


async def listed(request: Request) -> Response:
    services: Services = request.app.state.services
    query = read_query(request.query_params, PageQuery)
    root = public_root(request, services.settings)
    async with _run(request) as (scope, run_id):
        listing = Listing("downloads", query, run_id)
        # One more, by which `paged` knows whether there is another page.
        page = Page(query.limit + 1, listing.after(query.cursor), (DOWNLOAD,))
        found = await services.artifacts.of_run(scope, run_id, page)
    downloads, following = paged(found, query.limit, listing)
    address = f"{root}{_PATH.replace('{token}', request.path_params['token'])}"
    return JSONResponse(
        {"downloads": [_described(artifact, address) for artifact in downloads], "nextCursor": following}
    )


async def fetched(request: Request) -> Response:
    services: Services = request.app.state.services
    artifact_id = parse_id(request.path_params["id"], DOWNLOAD)
    async with _run(request) as (scope, run_id):
        file = await services.artifacts.download(scope, run_id, artifact_id)
    about = Content(file.name, file.content_type, file.size_bytes, str(file.id))
    return await content.answer(request, about, lambda start, end: services.files.content(file, start, end))


@asynccontextmanager
async def _run(request: Request) -> AsyncIterator[tuple[Scope, UUID]]:
    """The run of the request's lease, and whose it is. The lease is who acts in the block; it is checked before and
    after. Raises what `Leases.visit` raises."""
    services: Services = request.app.state.services
    check_origin(request, services.settings)
    with services.rate_limits.checking(client_address(request)):
        async with services.leases.visit(request.path_params["token"]) as grant:
            assert grant.origin.scope is not None
            with audit.acting(grant.origin):
                yield grant.origin.scope, grant.run_id


def _described(artifact: Artifact, address: str) -> dict[str, str | int]:
    return {
        "id": str(artifact.id),
        "name": artifact.name,
        "contentType": artifact.content_type,
        "sizeBytes": artifact.size_bytes,
        "createdAt": iso(artifact.created_at),
        "url": f"{address}/{artifact.id}",
    }


ROUTES = [Route(_PATH, listed), Route(_PATH + "/{id}", fetched)]
