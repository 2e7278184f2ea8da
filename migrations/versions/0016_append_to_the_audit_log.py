"""A function that adds events to the audit log, numbered, timed and chained"""

from __future__ import annotations

from alembic import op

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # Each array has one value for each event. An event is hashed as the bytes `before_hash`, the hash before it,
    # `before_sequence`, its number, `before_time`, its time and `behind`.
    op.execute(
        """
        CREATE FUNCTION audit_events_append(
            lock bigint, start bytea, ages float8[],
            before_hash bytea[], before_sequence bytea[], before_time bytea[], behind bytea[],
            ids uuid[], organization_ids uuid[], subaccount_ids uuid[], actors text[], actions text[],
            object_kinds text[], object_ids uuid[], outcomes text[], addresses text[], request_ids text[],
            gateway_ids uuid[], detail_texts text[], forms smallint[]
        ) RETURNS void LANGUAGE plpgsql AS $$
        DECLARE
            -- Ages are as of now, before the lock is waited for.
            began timestamptz := clock_timestamp();
            last_sequence bigint;
            last_hash bytea;
            times timestamptz[];
            -- That of the last event in the log, and then those of these events.
            hashes bytea[];
        BEGIN
            PERFORM pg_advisory_xact_lock(lock);
            -- A statement of its own: it sees what was committed while the lock was waited for.
            SELECT sequence, hash INTO last_sequence, last_hash FROM audit_events ORDER BY sequence DESC LIMIT 1;
            last_sequence := coalesce(last_sequence, 0);
            hashes[1] := coalesce(last_hash, start);
            FOR number IN 1 .. cardinality(ages) LOOP
                times[number] := began - ages[number] * interval '1 second';
                hashes[number + 1] := sha256(
                    before_hash[number] || convert_to('"' || encode(hashes[number], 'hex') || '"', 'UTF8')
                    || before_sequence[number] || convert_to((last_sequence + number)::text, 'UTF8')
                    || before_time[number] || convert_to('"' || to_char(
                        times[number] AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') || '"', 'UTF8')
                    || behind[number]);
            END LOOP;
            INSERT INTO audit_events (sequence, time, previous_hash, hash, id, organization_id, subaccount_id, actor,
                action, object_kind, object_id, outcome, address, request_id, gateway_id, details, form)
            SELECT last_sequence + added.number, times[added.number], hashes[added.number], hashes[added.number + 1],
                added.id, added.organization_id, added.subaccount_id, added.actor, added.action, added.object_kind,
                added.object_id, added.outcome, added.address, added.request_id, added.gateway_id,
                added.details::jsonb, added.form
            FROM unnest(ids, organization_ids, subaccount_ids, actors, actions, object_kinds, object_ids, outcomes,
                addresses, request_ids, gateway_ids, detail_texts, forms) WITH ORDINALITY AS added (
                id, organization_id, subaccount_id, actor, action, object_kind, object_id, outcome, address,
                request_id, gateway_id, details, form, number);
        END
        $$
        """
    )


def downgrade() -> None:
    op.execute("DROP FUNCTION audit_events_append")
