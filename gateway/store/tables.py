"""The tables and their contents. migrations/ has their history."""

from __future__ import annotations

from typing import Any, Protocol, Self, TypeVar

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    DateTime,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    SmallInteger,
    Table,
    Text,
    TypeDecorator,
    UniqueConstraint,
    Uuid,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlalchemy.engine import Dialect

from gateway.core.limits import Limits
from gateway.core.mounts import Mounts

metadata = MetaData(
    naming_convention={
        "ix": "%(table_name)s_%(column_0_N_name)s_idx",
        "uq": "%(table_name)s_%(column_0_N_name)s_key",
        "ck": "%(table_name)s_%(constraint_name)s_check",
        "fk": "%(table_name)s_%(column_0_N_name)s_fkey",
        "pk": "%(table_name)s_pkey",
    }
)


class _Value(Protocol):
    def to_json(self) -> dict[str, Any]: ...

    @classmethod
    def from_json(cls, json: dict[str, Any]) -> Self: ...


_T = TypeVar("_T", bound=_Value)


class _Kept(TypeDecorator[_T]):
    """A value of the domain that is kept as JSON."""

    impl = JSONB
    cache_ok = True

    def __init__(self, kept: type[_T]) -> None:
        super().__init__()
        self.kept = kept

    def process_bind_param(self, value: _T | None, dialect: Dialect) -> dict[str, Any] | None:
        return None if value is None else value.to_json()

    def process_result_value(self, value: dict[str, Any] | None, dialect: Dialect) -> _T | None:
        return None if value is None else self.kept.from_json(value)


def _id() -> Column[object]:
    return Column("id", Uuid, primary_key=True)


def _created_at() -> Column[object]:
    return Column("created_at", DateTime(timezone=True), nullable=False, server_default=func.now())


def _updated_at() -> Column[object]:
    return Column("updated_at", DateTime(timezone=True), nullable=False, server_default=func.now())


def _count(name: str) -> Column[object]:
    return Column(name, BigInteger, nullable=False, server_default=text("0"))


def _organization() -> Column[object]:
    return Column("organization_id", Uuid, ForeignKey("organizations.id"), nullable=False)


def _subaccount() -> Column[object]:
    """Null where the row is the organization's own."""
    return Column("subaccount_id", Uuid, ForeignKey("subaccounts.id"))


# By which lists are read; each index that ends with them serves a list of one owner.
_ORDER = ("created_at", "id")

organizations = Table(
    "organizations",
    metadata,
    _id(),
    Column("name", Text, nullable=False),
    _created_at(),
    Column("suspended_at", DateTime(timezone=True)),
)

subaccounts = Table(
    "subaccounts",
    metadata,
    _id(),
    _organization(),
    Column("name", Text, nullable=False),
    Column("slug", Text, nullable=False),
    Column("external_id", Text),
    Column("status", Text, CheckConstraint("status IN ('active', 'archived')", name="status"), nullable=False),
    Column("limits", _Kept(Limits), nullable=False),
    Column("metadata", JSONB),
    Column("archived_at", DateTime(timezone=True)),
    _created_at(),
    _updated_at(),
    Index(None, "organization_id", *_ORDER),
    Index("subaccounts_organization_id_slug_key", "organization_id", "slug", unique=True),
    Index(
        "subaccounts_organization_id_external_id_key",
        "organization_id",
        "external_id",
        unique=True,
        postgresql_where=text("external_id IS NOT NULL"),
    ),
)

# The key itself is nowhere: `digest` is its HMAC-SHA-256 under the server's pepper, `prefix` finds the row.
api_keys = Table(
    "api_keys",
    metadata,
    _id(),
    _organization(),
    _subaccount(),
    Column("name", Text),
    Column("prefix", Text, nullable=False, unique=True),
    Column("digest", LargeBinary, nullable=False),
    Column("expires_at", DateTime(timezone=True)),
    Column("revoked_at", DateTime(timezone=True)),
    Column("last_used_at", DateTime(timezone=True)),
    _created_at(),
    Index(None, "organization_id", "subaccount_id", *_ORDER),
)

# Every secret that must be read again. Its id is that of the row that it belongs to; owner columns, purpose and id
# are the associated data of the encryption.
secrets = Table(
    "secrets",
    metadata,
    _id(),
    Column("organization_id", Uuid, ForeignKey("organizations.id")),
    _subaccount(),
    Column("purpose", Text, nullable=False),
    Column("master_key_id", Text, nullable=False),
    Column("wrapped_key", LargeBinary, nullable=False),
    Column("ciphertext", LargeBinary, nullable=False),
    _created_at(),
    _updated_at(),
    Index(None, "master_key_id"),
    Index("secrets_pepper_key", "purpose", unique=True, postgresql_where=text("purpose = 'pepper'")),
)

# Requests that came with an Idempotency-Key. The gateway that inserts the row runs the request; `id` is that claim's.
# Once `answered_at` is set, the answer is the row of `secrets` with this id. Without foreign keys: a row goes after a
# day anyway.
idempotency_keys = Table(
    "idempotency_keys",
    metadata,
    Column("api_key_id", Uuid, primary_key=True),
    Column("key", Text(collation="C"), primary_key=True),
    Column("id", Uuid, nullable=False),
    Column("gateway_id", Uuid, nullable=False),
    Column("fingerprint", LargeBinary, nullable=False),
    Column("answered_at", DateTime(timezone=True)),
    _created_at(),
    Index(None, "created_at"),
    Index("idempotency_keys_claimed_idx", "gateway_id", postgresql_where=text("answered_at IS NULL")),
)

ai_connections = Table(
    "ai_connections",
    metadata,
    _id(),
    _organization(),
    _subaccount(),
    Column("label", Text, nullable=False),
    Column(
        "provider",
        Text,
        CheckConstraint("provider IN ('openai', 'anthropic', 'google', 'openai-compatible')", name="provider"),
        nullable=False,
    ),
    Column("enabled", Boolean, nullable=False),
    Column("default_model", Text),
    # The id that its caller chose; null where the caller has none.
    Column("slug", Text),
    # Of an `openai-compatible` one.
    Column("base_url", Text),
    _created_at(),
    _updated_at(),
    Index(
        "ai_connections_organization_slug_key",
        "organization_id",
        "slug",
        unique=True,
        postgresql_where=text("subaccount_id IS NULL"),
    ),
    Index(
        "ai_connections_subaccount_slug_key",
        "subaccount_id",
        "slug",
        unique=True,
        postgresql_where=text("subaccount_id IS NOT NULL"),
    ),
    Index(None, "organization_id", *_ORDER),
    Index(None, "organization_id", "subaccount_id", *_ORDER),
)

spaces = Table(
    "spaces",
    metadata,
    _id(),
    _organization(),
    _subaccount(),
    Column("name", Text, nullable=False),
    Column("region", Text, nullable=False),
    Column("mounts", _Kept(Mounts), nullable=False),
    Column("metadata", JSONB),
    # Nothing is launched in a closed one.
    Column("closed_at", DateTime(timezone=True)),
    _created_at(),
    _updated_at(),
    Index(None, "organization_id", *_ORDER),
    Index(None, "organization_id", "subaccount_id", *_ORDER),
)

# One row a gateway process; its heart beats by the database's clock. `internal_url` is where other gateways reach it.
gateways = Table(
    "gateways",
    metadata,
    _id(),
    Column("version", Text, nullable=False),
    Column("internal_url", Text),
    Column("started_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    Column("heartbeat_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
)

# `desired` is what is wanted and `status` what is; the gateway named by `gateway_id` makes the one into the other.
runtimes = Table(
    "runtimes",
    metadata,
    _id(),
    _organization(),
    _subaccount(),
    Column("space_id", Uuid, ForeignKey("spaces.id", ondelete="CASCADE"), nullable=False),
    Column("gateway_id", Uuid, nullable=False),
    Column("name", Text, nullable=False),
    Column("region", Text, nullable=False),
    Column("metadata", JSONB),
    # As it was asked for, but for `event_level`, which other tables are joined for; null takes the setting.
    Column("config", JSONB, nullable=False),
    Column("event_level", Text),
    # The caller's name of it, of which one is live in a space; null where the caller has none.
    Column("alias", Text),
    Column("driver", Text),
    # What it may use of the space's mounts; null for all.
    Column("mounts", _Kept(Mounts)),
    # The saved profile that it was launched from, which may be gone by now.
    Column("profile_id", Uuid),
    Column("profile_read_only", Boolean),
    Column("desired", Text, CheckConstraint("desired IN ('active', 'stopped')", name="desired"), nullable=False),
    Column(
        "status",
        Text,
        CheckConstraint("status IN ('starting', 'active', 'stopped', 'failed')", name="status"),
        nullable=False,
    ),
    Column("devtools_url", Text),
    Column("browser_name", Text),
    Column("browser_version", Text),
    Column("end_code", Text),
    Column("end_message", Text),
    Column("idle_timeout_seconds", Integer, nullable=False),
    Column("max_lifetime_seconds", Integer, nullable=False),
    Column("last_active_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    Column("ended_at", DateTime(timezone=True)),
    _created_at(),
    _updated_at(),
    Index(None, "space_id", *_ORDER),
    Index(
        "runtimes_live_idx",
        "gateway_id",
        postgresql_where=text("status IN ('starting', 'active')"),
    ),
    Index(
        "runtimes_live_subaccount_idx",
        "subaccount_id",
        postgresql_where=text("status IN ('starting', 'active')"),
    ),
    Index(
        "runtimes_live_alias_key",
        "space_id",
        "alias",
        unique=True,
        postgresql_where=text("status IN ('starting', 'active')"),
    ),
    Index("runtimes_alias_idx", "space_id", "alias", *_ORDER, postgresql_where=text("alias IS NOT NULL")),
)

runs = Table(
    "runs",
    metadata,
    _id(),
    _organization(),
    _subaccount(),
    Column("space_id", Uuid, ForeignKey("spaces.id", ondelete="CASCADE"), nullable=False),
    Column("runtime_id", Uuid, ForeignKey("runtimes.id", ondelete="CASCADE"), nullable=False),
    Column("status", Text, CheckConstraint("status IN ('active', 'stopped', 'failed')", name="status"), nullable=False),
    Column("end_code", Text),
    Column("end_message", Text),
    Column("started_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    Column("finished_at", DateTime(timezone=True)),
    _count("egress_bytes_sent"),
    _count("egress_bytes_received"),
    _count("egress_refused"),
    _created_at(),
    Index(None, "space_id", *_ORDER),
    Index(None, "runtime_id", *_ORDER),
    Index(None, "organization_id", *_ORDER),
    Index(None, "organization_id", "subaccount_id", *_ORDER),
    Index("runs_active_key", "runtime_id", unique=True, postgresql_where=text("status = 'active'")),
)

# A connection of the contract. `active` with a past `expires_at` means expired; its row is not updated for that. Bytes
# and commands are those of sockets that have ended.
leases = Table(
    "leases",
    metadata,
    _id(),
    _organization(),
    _subaccount(),
    Column("space_id", Uuid, ForeignKey("spaces.id", ondelete="CASCADE"), nullable=False),
    Column("runtime_id", Uuid, ForeignKey("runtimes.id", ondelete="CASCADE"), nullable=False),
    Column("run_id", Uuid, ForeignKey("runs.id", ondelete="CASCADE"), nullable=False),
    # The key that it was minted with, by which it holds the runtime; null for a lease of the gateway's own.
    Column("api_key_id", Uuid),
    Column("protocol", Text, nullable=False),
    Column("options", JSONB),
    Column("prefix", Text, nullable=False, unique=True),
    Column("digest", LargeBinary, nullable=False),
    Column("ttl_seconds", Integer, nullable=False),
    Column("expires_at", DateTime(timezone=True), nullable=False),
    Column("closed_at", DateTime(timezone=True)),
    Column("revoked_at", DateTime(timezone=True)),
    Column("attaches", Integer, nullable=False, server_default=text("0")),
    Column("first_attached_at", DateTime(timezone=True)),
    Column("last_active_at", DateTime(timezone=True)),
    _count("bytes_from_client"),
    _count("bytes_to_client"),
    _count("commands"),
    _created_at(),
    Index(None, "space_id"),
    Index(None, "run_id"),
    Index(None, "runtime_id", *_ORDER),
    Index(
        "leases_holding_idx",
        "runtime_id",
        "expires_at",
        postgresql_where=text("api_key_id IS NOT NULL AND revoked_at IS NULL AND closed_at IS NULL"),
    ),
)

# One row a socket that was let in, written by the gateway that has the browser; open as long as `ended_at` is null.
lease_sockets = Table(
    "lease_sockets",
    metadata,
    _id(),
    Column("lease_id", Uuid, ForeignKey("leases.id", ondelete="CASCADE"), nullable=False),
    Column("gateway_id", Uuid, nullable=False),
    Column("opened_at", DateTime(timezone=True), nullable=False),
    Column("ended_at", DateTime(timezone=True)),
    Column("close_code", Integer),
    Column("close_reason", Text),
    _count("bytes_from_client"),
    _count("bytes_to_client"),
    _count("commands"),
    Index(None, "lease_id", "opened_at"),
    Index("lease_sockets_open_idx", "gateway_id", postgresql_where=text("ended_at IS NULL")),
)

# The audit log. Without foreign keys, since a row outlives what it reports. A trigger refuses to change or remove rows;
# `hash` covers the row and `previous_hash`, written in `form` (crypto/audit_chain.py). Sequence numbers have no gap.
audit_events = Table(
    "audit_events",
    metadata,
    Column("sequence", BigInteger, primary_key=True, autoincrement=False),
    Column("id", Uuid, nullable=False, unique=True),
    Column("time", DateTime(timezone=True), nullable=False),
    Column("organization_id", Uuid),
    Column("subaccount_id", Uuid),
    Column("actor", Text, nullable=False),
    Column("action", Text, nullable=False),
    Column("object_kind", Text, nullable=False),
    Column("object_id", Uuid),
    Column("outcome", Text, nullable=False),
    Column("address", Text),
    Column("request_id", Text),
    Column("gateway_id", Uuid),
    Column("details", JSONB, nullable=False),
    Column("previous_hash", LargeBinary, nullable=False),
    Column("hash", LargeBinary, nullable=False),
    # A gateway of an earlier release, which knows no other form, leaves it out.
    Column("form", SmallInteger, nullable=False, server_default=text("1")),
)

# Events of runs and organizations. `stream_id` is the run or the organization; numbers have no gap and
# come in the order in which they are committed (event_counters), so that a reader can resume from a number. Nothing
# refers to other tables, since they come by the thousand a second; what is left of a deleted run goes with retention.
# `in_activity`: whether it is in the activity timeline.
events = Table(
    "events",
    metadata,
    Column("stream_id", Uuid, primary_key=True),
    Column("sequence", BigInteger, primary_key=True, autoincrement=False),
    Column("id", Uuid, nullable=False),
    Column("time", DateTime(timezone=True), nullable=False),
    Column("type", Text, nullable=False),
    Column("category", Text, nullable=False),
    Column("page_id", Text),
    Column("connection_id", Uuid),
    Column("subaccount_id", Uuid),
    Column("in_activity", Boolean, nullable=False),
    Column("data", JSONB, nullable=False),
    Index(None, "stream_id", "type", "sequence"),
    Index("events_page_idx", "stream_id", "page_id", "sequence", postgresql_where=text("page_id IS NOT NULL")),
    Index(
        "events_connection_idx",
        "stream_id",
        "connection_id",
        "sequence",
        postgresql_where=text("connection_id IS NOT NULL"),
    ),
    Index("events_activity_idx", "stream_id", "sequence", postgresql_where=text("in_activity")),
)

# The last number of each stream. The writer of events locks its row, so that numbers are committed in their order.
# `oldest` is about when its first event of those that are left was written, for retention; null when none is.
event_counters = Table(
    "event_counters",
    metadata,
    Column("stream_id", Uuid, primary_key=True),
    Column("last", BigInteger, nullable=False),
    Column("oldest", DateTime(timezone=True)),
    Index(None, "oldest"),
)

# API requests that acted on a run; not the DevTools commands of its clients. They are written with
# events, in one transaction, and goes as they go.
run_commands = Table(
    "run_commands",
    metadata,
    _id(),
    Column("run_id", Uuid, nullable=False),
    Column("name", Text, nullable=False),
    Column("execution_mode", Text, nullable=False),
    Column("status", Text, nullable=False),
    Column("actor", Text, nullable=False),
    Column("input", JSONB, nullable=False),
    Column("error_code", Text),
    Column("error_message", Text),
    Column("finished_at", DateTime(timezone=True)),
    _created_at(),
    Index(None, "run_id", "created_at", "id"),
    Index(None, "created_at"),
)

# Files of a space. A row comes once the object is whole; objects without a row go with the sweep. Paths are longer than
# an index takes: they are unique by their SHA-256, and listed by their beginning, in the order of their bytes.
files = Table(
    "files",
    metadata,
    _id(),
    _organization(),
    _subaccount(),
    Column("space_id", Uuid, ForeignKey("spaces.id", ondelete="CASCADE"), nullable=False),
    Column("name", Text, nullable=False),
    Column("path", Text(collation="C"), nullable=False),
    Column("path_digest", LargeBinary, nullable=False),
    Column("content_type", Text, nullable=False),
    Column("size_bytes", BigInteger, nullable=False),
    Column("object_key", Text, nullable=False, unique=True),
    Column("metadata", JSONB),
    Column("expires_at", DateTime(timezone=True)),
    _created_at(),
    # What it is and where it comes from, as its uploader says; of an artifact its kind and its runtime.
    Column("source", Text),
    Column("driver", Text),
    Column("target", Text),
    Column("runtime_id", Uuid),
    Index("files_space_id_path_key", "space_id", "path_digest", unique=True),
    Index("files_listing_idx", "space_id", text('"left"(path, 512)'), "id"),
    Index("files_space_bytes_idx", "space_id", postgresql_include=["size_bytes"]),
    Index("files_subaccount_bytes_idx", "subaccount_id", postgresql_include=["size_bytes"]),
    Index(None, "expires_at", postgresql_where=text("expires_at IS NOT NULL")),
)

# Names of secrets, each unique in its owner. What is secret of an entry is the row of `secrets` with its id.
vault_entries = Table(
    "vault_entries",
    metadata,
    _id(),
    _organization(),
    _subaccount(),
    Column("key", Text(collation="C"), nullable=False),
    Column("kind", Text, CheckConstraint("kind IN ('login', 'value')", name="kind"), nullable=False),
    Column("has_totp", Boolean, nullable=False),
    Column("label", Text),
    Column("origins", JSONB, nullable=False),
    Column("origin_patterns", JSONB, nullable=False),
    _created_at(),
    _updated_at(),
    Index(
        "vault_entries_organization_key",
        "organization_id",
        "key",
        unique=True,
        postgresql_where=text("subaccount_id IS NULL"),
    ),
    Index(
        "vault_entries_subaccount_key",
        "subaccount_id",
        "key",
        unique=True,
        postgresql_where=text("subaccount_id IS NOT NULL"),
    ),
)

# Work that a gateway does with a runtime on behalf of a caller, such as an execution of steps; `gateway_id` runs it.
# `input`, `progress` and `result` have nothing secret. A key of a space is that of one invocation, whatever became of
# it, so that no request with the key runs twice.
invocations = Table(
    "invocations",
    metadata,
    _id(),
    _organization(),
    _subaccount(),
    Column("space_id", Uuid, ForeignKey("spaces.id", ondelete="CASCADE"), nullable=False),
    Column("runtime_id", Uuid, ForeignKey("runtimes.id", ondelete="CASCADE"), nullable=False),
    Column("run_id", Uuid, ForeignKey("runs.id", ondelete="CASCADE")),
    Column("gateway_id", Uuid, nullable=False),
    Column("provider", Text, nullable=False),
    Column("method", Text, nullable=False),
    Column(
        "execution_mode",
        Text,
        CheckConstraint("execution_mode IN ('inline', 'durable')", name="execution_mode"),
        nullable=False,
    ),
    Column(
        "status",
        Text,
        CheckConstraint("status IN ('pending', 'running', 'completed', 'failed', 'cancelled')", name="status"),
        nullable=False,
    ),
    Column("idempotency_key", Text(collation="C")),
    Column("fingerprint", LargeBinary),
    Column("input", JSONB),
    Column("progress", JSONB),
    Column("result", JSONB),
    # Of a result that was too large to be kept.
    Column("result_bytes", BigInteger),
    Column("error_code", Text),
    Column("error_message", Text),
    Column("error_details", JSONB),
    Column("cancel_wanted_at", DateTime(timezone=True)),
    # Until when one that controls its runtime may go on; null for one that does not, such as an execution.
    Column("holds_until", DateTime(timezone=True)),
    # Of an agent: its tools, whose model it calls, and what it has used of it.
    Column("toolset_id", Uuid),
    Column("ai", JSONB),
    Column("usage", JSONB),
    Column("started_at", DateTime(timezone=True)),
    Column("finished_at", DateTime(timezone=True)),
    _created_at(),
    _updated_at(),
    Index(
        "invocations_space_id_idempotency_key_key",
        "space_id",
        "idempotency_key",
        unique=True,
        postgresql_where=text("idempotency_key IS NOT NULL"),
    ),
    Index(None, "organization_id", *_ORDER),
    Index(None, "organization_id", "subaccount_id", *_ORDER),
    Index(None, "space_id", *_ORDER),
    Index(None, "runtime_id", *_ORDER),
    Index(None, "run_id"),
    Index("invocations_live_idx", "gateway_id", postgresql_where=text("status IN ('pending', 'running')")),
    Index(
        "invocations_holding_idx",
        "runtime_id",
        postgresql_where=text("holds_until IS NOT NULL AND status IN ('pending', 'running')"),
    ),
    Index(None, "finished_at", postgresql_where=text("finished_at IS NOT NULL")),
)

# What agents have used of models in an hour. `owner_id` is the subaccount, or the organization for what is its own.
model_usage = Table(
    "model_usage",
    metadata,
    Column("owner_id", Uuid, primary_key=True),
    _organization(),
    _subaccount(),
    Column("provider", Text(collation="C"), primary_key=True),
    Column("model", Text(collation="C"), primary_key=True),
    Column(
        "key_source",
        Text(collation="C"),
        CheckConstraint("key_source IN ('platform', 'saved', 'inline')", name="key_source"),
        primary_key=True,
    ),
    Column("hour", DateTime(timezone=True), primary_key=True),
    Column("calls", BigInteger, nullable=False),
    Column("input_tokens", BigInteger, nullable=False),
    Column("output_tokens", BigInteger, nullable=False),
    Column("cached_tokens", BigInteger, nullable=False),
    Column("estimated_calls", BigInteger, nullable=False),
    Index(None, "organization_id", "hour"),
    Index(None, "hour"),
)

# A file that a run produced, and its origin.
artifacts = Table(
    "artifacts",
    metadata,
    _id(),
    _organization(),
    _subaccount(),
    Column("space_id", Uuid, ForeignKey("spaces.id", ondelete="CASCADE"), nullable=False),
    Column("runtime_id", Uuid, nullable=False),
    Column("run_id", Uuid, ForeignKey("runs.id", ondelete="CASCADE"), nullable=False),
    Column("file_id", Uuid, ForeignKey("files.id", ondelete="CASCADE"), nullable=False),
    Column("kind", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("page_id", Text),
    _created_at(),
    Index(None, "run_id", "created_at", "id"),
    Index(None, "space_id", "created_at", "id"),
    Index(None, "runtime_id", "created_at", "id"),
    Index(None, "file_id"),
    Index("artifacts_organization_idx", "organization_id", *_ORDER),
    Index("artifacts_subaccount_idx", "organization_id", "subaccount_id", *_ORDER),
)

# One row a run that is recorded. Its frames are with the gateway that recorded it, until the video is a file; a file
# that is deleted takes the video with it. `started_at` is the time 0 of frames, by the clock of that gateway;
# `tabs` is what became of tabs, from then on.
recordings = Table(
    "recordings",
    metadata,
    Column("run_id", Uuid, ForeignKey("runs.id", ondelete="CASCADE"), primary_key=True),
    Column("gateway_id", Uuid, nullable=False),
    Column(
        "status",
        Text,
        CheckConstraint(
            "status IN ('recording', 'preparing', 'processing', 'ready', 'failed', 'expired')", name="status"
        ),
        nullable=False,
    ),
    Column("attempts", Integer, nullable=False, server_default=text("0")),
    Column("started_at", DateTime(timezone=True)),
    Column("duration_ms", BigInteger),
    Column("width", Integer),
    Column("height", Integer),
    Column("tabs", JSONB, nullable=False, server_default=text("'[]'")),
    Column("file_id", Uuid, ForeignKey("files.id", ondelete="SET NULL")),
    Column("error_code", Text),
    Column("error_message", Text),
    Column("expires_at", DateTime(timezone=True)),
    _created_at(),
    _updated_at(),
    Index(None, "file_id"),
    Index(None, "expires_at", postgresql_where=text("expires_at IS NOT NULL")),
    Index(
        "recordings_unfinished_idx",
        "gateway_id",
        "created_at",
        postgresql_where=text("status IN ('recording', 'preparing', 'processing')"),
    ),
)

# Saved profiles of browsers. The state that was saved last is the object `object_id`, whose data key is the row of
# `secrets` with this id; each save, and each reset, is a further `generation`. `runtime_id` is the runtime that may
# save, as long as its gateway lives.
browser_profiles = Table(
    "browser_profiles",
    metadata,
    _id(),
    _organization(),
    _subaccount(),
    Column("name", Text, nullable=False),
    Column("config", JSONB, nullable=False),
    Column("metadata", JSONB),
    Column("browser", Text),
    Column("object_id", Uuid, unique=True),
    _count("generation"),
    _count("size_bytes"),
    _count("stored_bytes"),
    Column("runtime_id", Uuid),
    Column("gateway_id", Uuid),
    Column("last_used_at", DateTime(timezone=True)),
    Column("saved_at", DateTime(timezone=True)),
    Column("save_error_code", Text),
    Column("save_error_message", Text),
    _created_at(),
    _updated_at(),
    Index(
        "browser_profiles_organization_name_key",
        "organization_id",
        "name",
        unique=True,
        postgresql_where=text("subaccount_id IS NULL"),
    ),
    Index(
        "browser_profiles_subaccount_name_key",
        "subaccount_id",
        "name",
        unique=True,
        postgresql_where=text("subaccount_id IS NOT NULL"),
    ),
    Index("browser_profiles_organization_idx", "organization_id", *_ORDER),
    Index("browser_profiles_subaccount_idx", "organization_id", "subaccount_id", *_ORDER),
    Index("browser_profiles_used_idx", "gateway_id", postgresql_where=text("runtime_id IS NOT NULL")),
)

# Proxies that callers saved; a password is a row of `secrets`.
proxies = Table(
    "proxies",
    metadata,
    _id(),
    _organization(),
    _subaccount(),
    Column("name", Text, nullable=False),
    Column("protocol", Text, CheckConstraint("protocol IN ('http', 'socks5')", name="protocol"), nullable=False),
    Column("host", Text, nullable=False),
    Column("port", Integer, nullable=False),
    Column("username", Text),
    Column("has_password", Boolean, nullable=False),
    Column(
        "dns_resolution",
        Text,
        CheckConstraint("dns_resolution IN ('local', 'proxy')", name="dns_resolution"),
        nullable=False,
    ),
    _created_at(),
    _updated_at(),
    Index(
        "proxies_organization_name_key",
        "organization_id",
        "name",
        unique=True,
        postgresql_where=text("subaccount_id IS NULL"),
    ),
    Index(
        "proxies_subaccount_name_key",
        "subaccount_id",
        "name",
        unique=True,
        postgresql_where=text("subaccount_id IS NOT NULL"),
    ),
    Index("proxies_organization_idx", "organization_id", *_ORDER),
    Index("proxies_subaccount_idx", "organization_id", "subaccount_id", *_ORDER),
)

# Extensions of browsers. The package is an object with the id of its row; what is known of it stays. `chromium_id` is
# the id that browsers give the extension.
browser_extensions = Table(
    "browser_extensions",
    metadata,
    _id(),
    _organization(),
    _subaccount(),
    Column("name", Text, nullable=False),
    Column("version", Text, nullable=False),
    Column("chromium_id", Text, nullable=False),
    Column("content_hash", Text, nullable=False),
    Column("size_bytes", BigInteger, nullable=False),
    Column("unpacked_bytes", BigInteger, nullable=False),
    Column("source_url", Text),
    _created_at(),
    _updated_at(),
    Index("browser_extensions_organization_idx", "organization_id", *_ORDER),
    Index("browser_extensions_subaccount_idx", "organization_id", "subaccount_id", *_ORDER),
)

# The extensions that the config of a profile names, so that none of them is deleted.
browser_profile_extensions = Table(
    "browser_profile_extensions",
    metadata,
    Column("profile_id", Uuid, ForeignKey("browser_profiles.id", ondelete="CASCADE"), primary_key=True),
    Column("extension_id", Uuid, ForeignKey("browser_extensions.id"), primary_key=True),
    Index(None, "extension_id"),
)

# The extensions that a runtime was launched with; one that has ended prevents nothing.
runtime_extensions = Table(
    "runtime_extensions",
    metadata,
    Column("runtime_id", Uuid, ForeignKey("runtimes.id", ondelete="CASCADE"), primary_key=True),
    Column("extension_id", Uuid, ForeignKey("browser_extensions.id", ondelete="CASCADE"), primary_key=True),
    Index(None, "extension_id"),
)

# Tools that callers gave to the agents of a space. `execution` names keys of the vault and has no secret.
tools = Table(
    "tools",
    metadata,
    _id(),
    _organization(),
    _subaccount(),
    Column("space_id", Uuid, ForeignKey("spaces.id", ondelete="CASCADE"), nullable=False),
    Column("name", Text, nullable=False),
    Column("description", Text),
    Column("enabled", Boolean, nullable=False),
    Column("execution", JSONB, nullable=False),
    Column("input_schema", JSONB, nullable=False),
    Column("output_schema", JSONB, nullable=False),
    Column("metadata", JSONB),
    _created_at(),
    _updated_at(),
    UniqueConstraint("space_id", "name"),
    Index(None, "space_id", *_ORDER),
)

# Which tools an agent gets: of the gateway (`builtin`), and of the space.
toolsets = Table(
    "toolsets",
    metadata,
    _id(),
    _organization(),
    _subaccount(),
    Column("space_id", Uuid, ForeignKey("spaces.id", ondelete="CASCADE"), nullable=False),
    Column("name", Text, nullable=False),
    Column("builtin", JSONB, nullable=False),
    Column("custom_tool_ids", ARRAY(Uuid), nullable=False),
    Column("metadata", JSONB),
    _created_at(),
    _updated_at(),
    UniqueConstraint("space_id", "name"),
    Index(None, "space_id", *_ORDER),
)

# One row a call of a tool that has ended. It outlives its tool, so it has the tool's name and refers to no other table
# but its space. `input` and `output` are without secrets, and null where they were too large to be kept.
tool_calls = Table(
    "tool_calls",
    metadata,
    _id(),
    _organization(),
    _subaccount(),
    Column("space_id", Uuid, ForeignKey("spaces.id", ondelete="CASCADE"), nullable=False),
    Column("tool_id", Uuid),
    Column("tool_name", Text, nullable=False),
    Column("execution_type", Text, nullable=False),
    Column("actor", Text, CheckConstraint("actor IN ('test', 'agent', 'invocation')", name="actor"), nullable=False),
    Column("status", Text, CheckConstraint("status IN ('succeeded', 'failed')", name="status"), nullable=False),
    Column("run_id", Uuid),
    Column("invocation_id", Uuid),
    Column("toolset_id", Uuid),
    Column("input", JSONB),
    Column("output", JSONB),
    Column("error_code", Text),
    Column("error_message", Text),
    Column("error_details", JSONB),
    Column("started_at", DateTime(timezone=True), nullable=False),
    Column("finished_at", DateTime(timezone=True), nullable=False),
    _created_at(),
    Index(None, "space_id", *_ORDER),
    Index(None, "invocation_id", postgresql_where=text("invocation_id IS NOT NULL")),
    Index(None, "created_at"),
)
