"""/v1/usage and /v1/subaccounts/{id}/usage: what agents have used of models.

The contract of this generation has no page about usage; paths and shape are this gateway's.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Annotated, ClassVar
from uuid import UUID

from pydantic import Field

from gateway.contracts.spaces.example_values import CREATED, LATER, SUBACCOUNT
from gateway.core.ai_providers import ProviderName
from gateway.domain.ai.choice import Source
from gateway.domain.ai.usage import Counts, Place, UsageRange, Used
from gateway.http.cursors import Cursor, Listing, cut, invalid_cursor
from gateway.http.endpoints import Call, Endpoints
from gateway.http.models import Answer, Moment, Query, Time, optional

endpoints = Endpoints("Accounts")

Count = Annotated[int, Field(ge=0)]
_DEFAULT = timedelta(days=30)


class UsageQuery(Query):
    """Which hours are summed, and which part of the sums is read."""

    begin: Moment = optional("from")
    """Only hours that begin at this time or later; by default 30 days before `to`."""
    end: Moment = optional("to")
    """Only hours that begin before this time; by default now."""
    cursor: Cursor = optional()
    """The `nextCursor` of the previous page."""
    limit: Annotated[int, Field(ge=1, le=200)] = 50
    """Sums in a page."""

    @property
    def hours(self) -> UsageRange:
        end = self.end or datetime.now(UTC)
        return UsageRange(self.begin or end - _DEFAULT, end)


class ModelSum(Answer):
    """Calls of models, and their tokens."""

    calls: Count
    """Calls that were made."""
    input_tokens: Count
    """Tokens of prompts."""
    output_tokens: Count
    """Tokens that were answered."""
    cached_tokens: Count
    """Of the tokens of prompts, those that the provider had in its cache."""
    estimated_calls: Count
    """Calls whose tokens the provider did not report; these are estimated by their size."""


class UsageOfModel(ModelSum):
    """What one owner has used of one model by keys of one source."""

    subaccount_id: UUID | None
    """The subaccount; null for what is the organization's own."""
    provider: ProviderName
    """The provider."""
    model: str
    """The model."""
    key_source: Source
    """Whose key it was: `saved`, of a connection; `inline`, of a request; `platform`, the operator's."""


class UsageOfModels(Answer):
    """What agents have used of models."""

    example: ClassVar = {
        "from": CREATED,
        "to": LATER,
        "total": {
            "calls": 12,
            "inputTokens": 48200,
            "outputTokens": 1630,
            "cachedTokens": 30100,
            "estimatedCalls": 0,
        },
        "models": [
            {
                "subaccountId": SUBACCOUNT,
                "provider": "openai",
                "model": "gpt-5",
                "keySource": "saved",
                "calls": 12,
                "inputTokens": 48200,
                "outputTokens": 1630,
                "cachedTokens": 30100,
                "estimatedCalls": 0,
            }
        ],
        "nextCursor": None,
    }

    begin: Time = Field(alias="from")
    """The first hour that is summed begins then or later."""
    end: Time = Field(alias="to")
    """The last one begins before."""
    total: ModelSum
    """Of all pages."""
    models: list[UsageOfModel]
    """A page of sums."""
    next_cursor: str | None
    """The `cursor` of the next page; null on the last."""


@endpoints.get("/v1/usage", id="usage-get", summary="Get the usage of models")
async def usage(call: Call, query: UsageQuery) -> UsageOfModels:
    """What agents of the organization and of each subaccount have used; a subaccount's key sees its own alone."""
    return await _usage(call, query, None)


@endpoints.get("/v1/subaccounts/{id}/usage", id="subaccounts-usage", summary="Get a subaccount's usage", errors=(404,))
async def of_subaccount(call: Call, query: UsageQuery) -> UsageOfModels:
    """What the subaccount's agents have used of models."""
    return await _usage(call, query, call.path_id("id", "subaccount"))


async def _usage(call: Call, query: UsageQuery, subaccount_id: UUID | None) -> UsageOfModels:
    listing = Listing("usage", query, *([] if subaccount_id is None else [subaccount_id]))
    after = None if query.cursor is None else _place(query.cursor, *listing.read(query.cursor))
    hours = query.hours
    total, found = await call.services.model_usage.listed(call.scope, subaccount_id, hours, query.limit + 1, after)
    page, next_cursor = cut(found, query.limit, lambda used: _cursor(listing, used))
    return UsageOfModels(
        begin=hours.begin,
        end=hours.end,
        total=ModelSum(**_counts(total)),
        models=[_model(used) for used in page],
        next_cursor=next_cursor,
    )


def _model(used: Used) -> UsageOfModel:
    by = used.by
    return UsageOfModel(
        subaccount_id=by.owner.subaccount_id,
        provider=by.provider,
        model=by.model,
        key_source=by.key_source,
        **_counts(used.counts),
    )


def _counts(counts: Counts) -> dict[str, int]:
    return {field: getattr(counts, field) for field in ModelSum.model_fields}


def _cursor(listing: Listing, used: Used) -> str:
    owner_id, *others = used.by.place
    return listing.cursor(json.dumps(others), owner_id)


def _place(cursor: str, place: str, owner_id: UUID) -> Place:
    try:
        provider, model, key_source = map(str, json.loads(place))
    except (ValueError, TypeError):
        raise invalid_cursor(cursor) from None
    return owner_id, provider, model, key_source
