CREATE FUNCTION public.audit_events_refuse() RETURNS trigger
    LANGUAGE plpgsql
    AS $$
        BEGIN
            RAISE EXCEPTION 'audit_events is append-only: % is refused', TG_OP USING ERRCODE = 'insufficient_privilege';
        END
        $$;

CREATE TABLE public.ai_connections (
    id uuid NOT NULL,
    organization_id uuid NOT NULL,
    subaccount_id uuid,
    label text NOT NULL,
    provider text NOT NULL,
    enabled boolean NOT NULL,
    default_model text,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    updated_at timestamp with time zone DEFAULT now() NOT NULL,
    CONSTRAINT ai_connections_provider_check CHECK ((provider = ANY (ARRAY['openai'::text, 'anthropic'::text, 'google'::text])))
);

CREATE TABLE public.alembic_version (
    version_num character varying(32) NOT NULL
);

CREATE TABLE public.api_keys (
    id uuid NOT NULL,
    organization_id uuid NOT NULL,
    subaccount_id uuid,
    name text,
    prefix text NOT NULL,
    digest bytea NOT NULL,
    expires_at timestamp with time zone,
    revoked_at timestamp with time zone,
    last_used_at timestamp with time zone,
    created_at timestamp with time zone DEFAULT now() NOT NULL
);

CREATE TABLE public.artifacts (
    id uuid NOT NULL,
    organization_id uuid NOT NULL,
    subaccount_id uuid,
    space_id uuid NOT NULL,
    runtime_id uuid NOT NULL,
    run_id uuid NOT NULL,
    file_id uuid NOT NULL,
    kind text NOT NULL,
    name text NOT NULL,
    page_id text,
    created_at timestamp with time zone DEFAULT now() NOT NULL
);

CREATE TABLE public.audit_events (
    sequence bigint NOT NULL,
    id uuid NOT NULL,
    "time" timestamp with time zone NOT NULL,
    organization_id uuid,
    subaccount_id uuid,
    actor text NOT NULL,
    action text NOT NULL,
    object_kind text NOT NULL,
    object_id uuid,
    outcome text NOT NULL,
    address text,
    request_id text,
    gateway_id uuid,
    details jsonb NOT NULL,
    previous_hash bytea NOT NULL,
    hash bytea NOT NULL
);

CREATE TABLE public.event_counters (
    stream_id uuid NOT NULL,
    last bigint NOT NULL,
    oldest timestamp with time zone
);

CREATE TABLE public.events (
    stream_id uuid NOT NULL,
    sequence bigint NOT NULL,
    id uuid NOT NULL,
    "time" timestamp with time zone NOT NULL,
    type text NOT NULL,
    category text NOT NULL,
    page_id text,
    connection_id uuid,
    subaccount_id uuid,
    in_activity boolean NOT NULL,
    data jsonb NOT NULL
);

CREATE TABLE public.files (
    id uuid NOT NULL,
    organization_id uuid NOT NULL,
    subaccount_id uuid,
    space_id uuid NOT NULL,
    name text NOT NULL,
    path text NOT NULL COLLATE pg_catalog."C",
    path_digest bytea NOT NULL,
    content_type text NOT NULL,
    size_bytes bigint NOT NULL,
    object_key text NOT NULL,
    metadata jsonb,
    expires_at timestamp with time zone,
    created_at timestamp with time zone DEFAULT now() NOT NULL
);

CREATE TABLE public.gateways (
    id uuid NOT NULL,
    version text NOT NULL,
    started_at timestamp with time zone DEFAULT now() NOT NULL,
    heartbeat_at timestamp with time zone DEFAULT now() NOT NULL,
    internal_url text
);

CREATE TABLE public.lease_sockets (
    id uuid NOT NULL,
    lease_id uuid NOT NULL,
    gateway_id uuid NOT NULL,
    opened_at timestamp with time zone NOT NULL,
    ended_at timestamp with time zone,
    close_code integer,
    close_reason text,
    bytes_from_client bigint DEFAULT 0 NOT NULL,
    bytes_to_client bigint DEFAULT 0 NOT NULL,
    commands bigint DEFAULT 0 NOT NULL
);

CREATE TABLE public.leases (
    id uuid NOT NULL,
    organization_id uuid NOT NULL,
    subaccount_id uuid,
    space_id uuid NOT NULL,
    runtime_id uuid NOT NULL,
    run_id uuid NOT NULL,
    protocol text NOT NULL,
    options jsonb,
    prefix text NOT NULL,
    digest bytea NOT NULL,
    expires_at timestamp with time zone NOT NULL,
    closed_at timestamp with time zone,
    revoked_at timestamp with time zone,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    attaches integer DEFAULT 0 NOT NULL,
    first_attached_at timestamp with time zone,
    last_active_at timestamp with time zone,
    bytes_from_client bigint DEFAULT 0 NOT NULL,
    bytes_to_client bigint DEFAULT 0 NOT NULL,
    commands bigint DEFAULT 0 NOT NULL
);

CREATE TABLE public.organizations (
    id uuid NOT NULL,
    name text NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL
);

CREATE TABLE public.recordings (
    run_id uuid NOT NULL,
    gateway_id uuid NOT NULL,
    status text NOT NULL,
    attempts integer DEFAULT 0 NOT NULL,
    started_at timestamp with time zone,
    duration_ms bigint,
    width integer,
    height integer,
    tabs jsonb DEFAULT '[]'::jsonb NOT NULL,
    file_id uuid,
    error_code text,
    error_message text,
    expires_at timestamp with time zone,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    updated_at timestamp with time zone DEFAULT now() NOT NULL,
    CONSTRAINT recordings_status_check CHECK ((status = ANY (ARRAY['recording'::text, 'preparing'::text, 'processing'::text, 'ready'::text, 'failed'::text, 'expired'::text])))
);

CREATE TABLE public.run_commands (
    id uuid NOT NULL,
    run_id uuid NOT NULL,
    name text NOT NULL,
    execution_mode text NOT NULL,
    status text NOT NULL,
    actor text NOT NULL,
    input jsonb NOT NULL,
    error_code text,
    error_message text,
    finished_at timestamp with time zone,
    created_at timestamp with time zone DEFAULT now() NOT NULL
);

CREATE TABLE public.runs (
    id uuid NOT NULL,
    organization_id uuid NOT NULL,
    subaccount_id uuid,
    space_id uuid NOT NULL,
    runtime_id uuid NOT NULL,
    status text NOT NULL,
    end_code text,
    end_message text,
    started_at timestamp with time zone DEFAULT now() NOT NULL,
    finished_at timestamp with time zone,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    egress_bytes_sent bigint DEFAULT 0 NOT NULL,
    egress_bytes_received bigint DEFAULT 0 NOT NULL,
    egress_refused bigint DEFAULT 0 NOT NULL,
    CONSTRAINT runs_status_check CHECK ((status = ANY (ARRAY['active'::text, 'stopped'::text, 'failed'::text])))
);

CREATE TABLE public.runtimes (
    id uuid NOT NULL,
    organization_id uuid NOT NULL,
    subaccount_id uuid,
    space_id uuid NOT NULL,
    gateway_id uuid NOT NULL,
    name text NOT NULL,
    region text NOT NULL,
    metadata jsonb,
    config jsonb NOT NULL,
    desired text NOT NULL,
    status text NOT NULL,
    devtools_url text,
    browser_name text,
    browser_version text,
    end_code text,
    end_message text,
    idle_timeout_seconds integer NOT NULL,
    max_lifetime_seconds integer NOT NULL,
    last_active_at timestamp with time zone DEFAULT now() NOT NULL,
    ended_at timestamp with time zone,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    updated_at timestamp with time zone DEFAULT now() NOT NULL,
    CONSTRAINT runtimes_desired_check CHECK ((desired = ANY (ARRAY['active'::text, 'stopped'::text]))),
    CONSTRAINT runtimes_status_check CHECK ((status = ANY (ARRAY['starting'::text, 'active'::text, 'stopped'::text, 'failed'::text])))
);

CREATE TABLE public.secrets (
    id uuid NOT NULL,
    organization_id uuid,
    subaccount_id uuid,
    purpose text NOT NULL,
    master_key_id text NOT NULL,
    wrapped_key bytea NOT NULL,
    ciphertext bytea NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    updated_at timestamp with time zone DEFAULT now() NOT NULL
);

CREATE TABLE public.spaces (
    id uuid NOT NULL,
    organization_id uuid NOT NULL,
    subaccount_id uuid,
    name text NOT NULL,
    region text NOT NULL,
    mounts jsonb NOT NULL,
    metadata jsonb,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    updated_at timestamp with time zone DEFAULT now() NOT NULL
);

CREATE TABLE public.subaccounts (
    id uuid NOT NULL,
    organization_id uuid NOT NULL,
    name text NOT NULL,
    slug text NOT NULL,
    external_id text,
    status text NOT NULL,
    limits jsonb NOT NULL,
    metadata jsonb,
    archived_at timestamp with time zone,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    updated_at timestamp with time zone DEFAULT now() NOT NULL,
    CONSTRAINT subaccounts_status_check CHECK ((status = ANY (ARRAY['active'::text, 'archived'::text])))
);

INSERT INTO public.ai_connections (id, organization_id, subaccount_id, label, provider, enabled, default_model, created_at, updated_at) VALUES ('01900000-0000-7000-8000-000000000007', '01900000-0000-7000-8000-000000000001', NULL, 'main', 'anthropic', true, 'a-model', '2026-10-01 08:00:00.123456+00', '2026-10-01 08:00:00.123456+00');
INSERT INTO public.ai_connections (id, organization_id, subaccount_id, label, provider, enabled, default_model, created_at, updated_at) VALUES ('01900000-0000-7000-8000-000000000008', '01900000-0000-7000-8000-000000000001', '01900000-0000-7000-8000-000000000002', 'own', 'openai', false, NULL, '2026-10-01 08:00:00.123456+00', '2026-10-01 08:00:00.123456+00');

INSERT INTO public.alembic_version (version_num) VALUES ('0005');

INSERT INTO public.api_keys (id, organization_id, subaccount_id, name, prefix, digest, expires_at, revoked_at, last_used_at, created_at) VALUES ('01900000-0000-7000-8000-000000000004', '01900000-0000-7000-8000-000000000001', NULL, 'first', 'bctrl_abcdefghijkl', '\xbe9b3ddb489b1db7d64e5eb98fb121fcd443bbf97b2a6c0e0f9e99c11ca4932e', NULL, NULL, NULL, '2026-10-01 08:00:00.123456+00');
INSERT INTO public.api_keys (id, organization_id, subaccount_id, name, prefix, digest, expires_at, revoked_at, last_used_at, created_at) VALUES ('01900000-0000-7000-8000-000000000005', '01900000-0000-7000-8000-000000000001', '01900000-0000-7000-8000-000000000002', 'customer''s', 'bctrl_mnopqrstuvwx', '\x78981ff08119a3696ee2f1fbd30606ab6e5fbe412ea53411607ae132228105b7', '2099-01-01 00:00:00+00', NULL, NULL, '2026-10-01 08:00:00.123456+00');
INSERT INTO public.api_keys (id, organization_id, subaccount_id, name, prefix, digest, expires_at, revoked_at, last_used_at, created_at) VALUES ('01900000-0000-7000-8000-000000000006', '01900000-0000-7000-8000-000000000001', NULL, NULL, 'bctrl_revokedkey00', '\x2d', NULL, '2026-10-01 09:00:00.654321+00', NULL, '2026-10-01 08:00:00.123456+00');

INSERT INTO public.artifacts (id, organization_id, subaccount_id, space_id, runtime_id, run_id, file_id, kind, name, page_id, created_at) VALUES ('01900000-0000-7000-8000-000000000052', '01900000-0000-7000-8000-000000000001', NULL, '01900000-0000-7000-8000-000000000010', '01900000-0000-7000-8000-000000000020', '01900000-0000-7000-8000-000000000030', '01900000-0000-7000-8000-000000000050', 'download', 'a.txt', 'P', '2026-10-01 08:00:00.123456+00');

INSERT INTO public.audit_events (sequence, id, "time", organization_id, subaccount_id, actor, action, object_kind, object_id, outcome, address, request_id, gateway_id, details, previous_hash, hash) VALUES (1, '01900000-0000-7000-8000-000000000101', '2026-10-01 08:00:00.123456+00', '01900000-0000-7000-8000-000000000001', NULL, 'operator', 'api_key.created', 'api_key', '01900000-0000-7000-8000-000000000004', 'ok', NULL, NULL, '01900000-0000-7000-8000-000000000012', '{"prefix": "bctrl_é"}', '\x0000000000000000000000000000000000000000000000000000000000000000', '\xacafe829c54cde688ddbc094949809a7812af71ff68450945b216d7acaf1284a');
INSERT INTO public.audit_events (sequence, id, "time", organization_id, subaccount_id, actor, action, object_kind, object_id, outcome, address, request_id, gateway_id, details, previous_hash, hash) VALUES (2, '01900000-0000-7000-8000-000000000102', '2026-10-01 08:00:00.123456+00', '01900000-0000-7000-8000-000000000001', NULL, 'operator', 'api_key.created', 'api_key', '01900000-0000-7000-8000-000000000004', 'ok', NULL, NULL, '01900000-0000-7000-8000-000000000012', '{"prefix": "bctrl_é"}', '\xacafe829c54cde688ddbc094949809a7812af71ff68450945b216d7acaf1284a', '\xb99f9a3afcefd0d760c20f7b71a846baa0faf86d4346eb24dacfc706d555d432');
INSERT INTO public.audit_events (sequence, id, "time", organization_id, subaccount_id, actor, action, object_kind, object_id, outcome, address, request_id, gateway_id, details, previous_hash, hash) VALUES (3, '01900000-0000-7000-8000-000000000103', '2026-10-01 08:00:00.123456+00', '01900000-0000-7000-8000-000000000001', NULL, 'operator', 'api_key.created', 'api_key', '01900000-0000-7000-8000-000000000004', 'ok', NULL, NULL, '01900000-0000-7000-8000-000000000012', '{"prefix": "bctrl_é"}', '\xb99f9a3afcefd0d760c20f7b71a846baa0faf86d4346eb24dacfc706d555d432', '\x0e0dce13996a126080df392a018c8d24e099f47fadeb696a8a1ee30062d7804b');

INSERT INTO public.event_counters (stream_id, last, oldest) VALUES ('01900000-0000-7000-8000-000000000030', 2, '2099-01-01 00:00:00+00');

INSERT INTO public.events (stream_id, sequence, id, "time", type, category, page_id, connection_id, subaccount_id, in_activity, data) VALUES ('01900000-0000-7000-8000-000000000030', 1, '01900000-0000-7000-8000-000000000070', '2026-10-01 08:00:00.123456+00', 'runtime.lifecycle', 'runtime', NULL, NULL, NULL, true, '{"status": "started"}');
INSERT INTO public.events (stream_id, sequence, id, "time", type, category, page_id, connection_id, subaccount_id, in_activity, data) VALUES ('01900000-0000-7000-8000-000000000030', 2, '01900000-0000-7000-8000-000000000071', '2026-10-01 08:00:00.123456+00', 'navigation', 'browser', 'P', NULL, NULL, true, '{"url": "https://example.com/", "pageId": "P"}');

INSERT INTO public.files (id, organization_id, subaccount_id, space_id, name, path, path_digest, content_type, size_bytes, object_key, metadata, expires_at, created_at) VALUES ('01900000-0000-7000-8000-000000000050', '01900000-0000-7000-8000-000000000001', NULL, '01900000-0000-7000-8000-000000000010', 'a.txt', 'runs/a.txt', '\x221af05d784499b64220b5462691acf72e21163f4fc17d6a41deefca15173361', 'text/plain', 5, '01900000-0000-7000-8000-000000000010/01900000-0000-7000-8000-000000000050', '{"team": "é", "nested": {"a": [1, null, true]}}', '2099-01-01 00:00:00+00', '2026-10-01 08:00:00.123456+00');

INSERT INTO public.gateways (id, version, started_at, heartbeat_at, internal_url) VALUES ('01900000-0000-7000-8000-000000000012', '0.1.0', '2026-10-01 08:00:00.123456+00', '2026-10-01 09:00:00.654321+00', 'http://gateway-1:8787');

INSERT INTO public.lease_sockets (id, lease_id, gateway_id, opened_at, ended_at, close_code, close_reason, bytes_from_client, bytes_to_client, commands) VALUES ('01900000-0000-7000-8000-000000000041', '01900000-0000-7000-8000-000000000040', '01900000-0000-7000-8000-000000000012', '2026-10-01 08:00:00.123456+00', '2026-10-01 09:00:00.654321+00', 1000, 'client_closed', 10, 20, 3);

INSERT INTO public.leases (id, organization_id, subaccount_id, space_id, runtime_id, run_id, protocol, options, prefix, digest, expires_at, closed_at, revoked_at, created_at, attaches, first_attached_at, last_active_at, bytes_from_client, bytes_to_client, commands) VALUES ('01900000-0000-7000-8000-000000000040', '01900000-0000-7000-8000-000000000001', NULL, '01900000-0000-7000-8000-000000000010', '01900000-0000-7000-8000-000000000020', '01900000-0000-7000-8000-000000000030', 'cdp', '{"policy": "standard"}', 'abcdefABCDEF', '\x2d', '2026-10-01 09:00:00.654321+00', '2026-10-01 09:00:00.654321+00', NULL, '2026-10-01 08:00:00.123456+00', 1, '2026-10-01 08:00:00.123456+00', '2026-10-01 09:00:00.654321+00', 10, 20, 3);

INSERT INTO public.organizations (id, name, created_at) VALUES ('01900000-0000-7000-8000-000000000001', 'default', '2026-10-01 08:00:00.123456+00');

INSERT INTO public.recordings (run_id, gateway_id, status, attempts, started_at, duration_ms, width, height, tabs, file_id, error_code, error_message, expires_at, created_at, updated_at) VALUES ('01900000-0000-7000-8000-000000000031', '01900000-0000-7000-8000-000000000012', 'failed', 3, NULL, NULL, NULL, NULL, '[]', NULL, 'recording.encoding', 'The video could not be made.', '2099-01-01 00:00:00+00', '2026-10-01 08:00:00.123456+00', '2026-10-01 08:00:00.123456+00');

INSERT INTO public.run_commands (id, run_id, name, execution_mode, status, actor, input, error_code, error_message, finished_at, created_at) VALUES ('01900000-0000-7000-8000-000000000060', '01900000-0000-7000-8000-000000000030', 'files.stage', 'inline', 'failed', '01900000-0000-7000-8000-000000000004', '{"fileId": "01900000-0000-7000-8000-000000000050"}', 'file.not_found', 'There is no file.', '2099-01-01 00:00:00+00', '2099-01-01 00:00:00+00');

INSERT INTO public.runs (id, organization_id, subaccount_id, space_id, runtime_id, status, end_code, end_message, started_at, finished_at, created_at, egress_bytes_sent, egress_bytes_received, egress_refused) VALUES ('01900000-0000-7000-8000-000000000030', '01900000-0000-7000-8000-000000000001', NULL, '01900000-0000-7000-8000-000000000010', '01900000-0000-7000-8000-000000000020', 'stopped', 'runtime.stopped', 'It was stopped by a request.', '2026-10-01 08:00:00.123456+00', '2026-10-01 09:00:00.654321+00', '2026-10-01 08:00:00.123456+00', 12, 345, 1);
INSERT INTO public.runs (id, organization_id, subaccount_id, space_id, runtime_id, status, end_code, end_message, started_at, finished_at, created_at, egress_bytes_sent, egress_bytes_received, egress_refused) VALUES ('01900000-0000-7000-8000-000000000031', '01900000-0000-7000-8000-000000000001', '01900000-0000-7000-8000-000000000002', '01900000-0000-7000-8000-000000000011', '01900000-0000-7000-8000-000000000021', 'failed', 'browser.crashed', 'The browser ended by itself.', '2026-10-01 08:00:00.123456+00', '2026-10-01 09:00:00.654321+00', '2026-10-01 08:00:00.123456+00', 12, 345, 1);

INSERT INTO public.runtimes (id, organization_id, subaccount_id, space_id, gateway_id, name, region, metadata, config, desired, status, devtools_url, browser_name, browser_version, end_code, end_message, idle_timeout_seconds, max_lifetime_seconds, last_active_at, ended_at, created_at, updated_at) VALUES ('01900000-0000-7000-8000-000000000020', '01900000-0000-7000-8000-000000000001', NULL, '01900000-0000-7000-8000-000000000010', '01900000-0000-7000-8000-000000000012', 'done', 'local', '{"team": "é", "nested": {"a": [1, null, true]}}', '{"proxy": {"host": "proxy.example", "port": 3128, "protocol": "http", "username": "user", "hasPassword": true, "dnsResolution": "local"}, "browser": "chromium", "timezone": "Europe/Berlin", "userAgent": "an agent", "fingerprint": {"locale": "de-DE", "viewport": {"width": 1280, "height": 720}}, "networkTraffic": {"urlAllowlist": ["*.example.com"]}, "idleTimeoutSeconds": 900, "maxLifetimeSeconds": 3600}', 'stopped', 'stopped', NULL, 'chromium', '151.0.1.2', 'runtime.stopped', 'It was stopped by a request.', 900, 3600, '2026-10-01 09:00:00.654321+00', '2026-10-01 09:00:00.654321+00', '2026-10-01 08:00:00.123456+00', '2026-10-01 08:00:00.123456+00');
INSERT INTO public.runtimes (id, organization_id, subaccount_id, space_id, gateway_id, name, region, metadata, config, desired, status, devtools_url, browser_name, browser_version, end_code, end_message, idle_timeout_seconds, max_lifetime_seconds, last_active_at, ended_at, created_at, updated_at) VALUES ('01900000-0000-7000-8000-000000000021', '01900000-0000-7000-8000-000000000001', '01900000-0000-7000-8000-000000000002', '01900000-0000-7000-8000-000000000011', '01900000-0000-7000-8000-000000000012', 'crashed', 'local', NULL, '{"events": "full", "viewport": {"width": 800, "height": 600}, "recording": true}', 'stopped', 'failed', NULL, 'chromium', '151.0.1.2', 'browser.crashed', 'The browser ended by itself.', 900, 3600, '2026-10-01 09:00:00.654321+00', '2026-10-01 09:00:00.654321+00', '2026-10-01 08:00:00.123456+00', '2026-10-01 08:00:00.123456+00');

INSERT INTO public.secrets (id, organization_id, subaccount_id, purpose, master_key_id, wrapped_key, ciphertext, created_at, updated_at) VALUES ('00000000-0000-0000-0000-000000000000', NULL, NULL, 'pepper', 'dumps', '\x3a7176bfefb0035ed2f264e0b437f1aea2fb7e8d7dccbb49666243af96018466ba2133ad65a219af140075e06233a3a908a03a9f810d11e666b649a5', '\x57a3bbd66d44ac572025d21437f5639b94bd947a559ab5e6005be83da71888dd337a697c047f7ac25c63e4c1fcc47646b7e75a2297bdeb7a3a00e0a1', '2026-10-01 08:00:00.123456+00', '2026-10-01 08:00:00.123456+00');
INSERT INTO public.secrets (id, organization_id, subaccount_id, purpose, master_key_id, wrapped_key, ciphertext, created_at, updated_at) VALUES ('01900000-0000-7000-8000-000000000007', '01900000-0000-7000-8000-000000000001', NULL, 'ai_connection.api_key', 'dumps', '\x27319950a5902ea6cea0f45e7cf3838f07f22fb08fb379d98cde1b886605be5fd822899ab57b224e79dc37d6d276a6dc6e28c8147a90327db6649033', '\xc31a28145497312cdaca714d29b976fc8005e7c502c3e4c2603e7fb08e2751f4a28b517953e705e92c292eb612de03b09af4a355be88', '2026-10-01 08:00:00.123456+00', '2026-10-01 08:00:00.123456+00');

INSERT INTO public.spaces (id, organization_id, subaccount_id, name, region, mounts, metadata, created_at, updated_at) VALUES ('01900000-0000-7000-8000-000000000010', '01900000-0000-7000-8000-000000000001', NULL, 'a space', 'local', '{"ai": {"defaults": {"stagehand": {"connection": "main"}}, "allowConnections": ["main", "01900000-0000-7000-8000-000000000007"]}, "vault": {"allow": ["crm/"], "allowRawReads": false}, "storage": {"space": "01900000-0000-7000-8000-000000000010"}}', '{"team": "é", "nested": {"a": [1, null, true]}}', '2026-10-01 08:00:00.123456+00', '2026-10-01 08:00:00.123456+00');
INSERT INTO public.spaces (id, organization_id, subaccount_id, name, region, mounts, metadata, created_at, updated_at) VALUES ('01900000-0000-7000-8000-000000000011', '01900000-0000-7000-8000-000000000001', '01900000-0000-7000-8000-000000000002', 'their space', 'local', '{}', NULL, '2026-10-01 08:00:00.123456+00', '2026-10-01 08:00:00.123456+00');

INSERT INTO public.subaccounts (id, organization_id, name, slug, external_id, status, limits, metadata, archived_at, created_at, updated_at) VALUES ('01900000-0000-7000-8000-000000000002', '01900000-0000-7000-8000-000000000001', 'a customer', 'a-customer-00000002', 'c-1', 'active', '{"maxSpaces": 3, "maxActiveRuns": 2, "monthlyCreditLimitMicroUsd": 5000000}', '{"team": "é", "nested": {"a": [1, null, true]}}', NULL, '2026-10-01 08:00:00.123456+00', '2026-10-01 08:00:00.123456+00');
INSERT INTO public.subaccounts (id, organization_id, name, slug, external_id, status, limits, metadata, archived_at, created_at, updated_at) VALUES ('01900000-0000-7000-8000-000000000003', '01900000-0000-7000-8000-000000000001', 'gone', 'gone-00000003', NULL, 'archived', '{}', NULL, '2026-10-01 09:00:00.654321+00', '2026-10-01 09:00:00.654321+00', '2026-10-01 09:00:00.654321+00');

ALTER TABLE ONLY public.ai_connections
    ADD CONSTRAINT ai_connections_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.alembic_version
    ADD CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num);

ALTER TABLE ONLY public.api_keys
    ADD CONSTRAINT api_keys_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.api_keys
    ADD CONSTRAINT api_keys_prefix_key UNIQUE (prefix);

ALTER TABLE ONLY public.artifacts
    ADD CONSTRAINT artifacts_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.audit_events
    ADD CONSTRAINT audit_events_id_key UNIQUE (id);

ALTER TABLE ONLY public.audit_events
    ADD CONSTRAINT audit_events_pkey PRIMARY KEY (sequence);

ALTER TABLE ONLY public.event_counters
    ADD CONSTRAINT event_counters_pkey PRIMARY KEY (stream_id);

ALTER TABLE ONLY public.events
    ADD CONSTRAINT events_pkey PRIMARY KEY (stream_id, sequence);

ALTER TABLE ONLY public.files
    ADD CONSTRAINT files_object_key_key UNIQUE (object_key);

ALTER TABLE ONLY public.files
    ADD CONSTRAINT files_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.gateways
    ADD CONSTRAINT gateways_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.lease_sockets
    ADD CONSTRAINT lease_sockets_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.leases
    ADD CONSTRAINT leases_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.leases
    ADD CONSTRAINT leases_prefix_key UNIQUE (prefix);

ALTER TABLE ONLY public.organizations
    ADD CONSTRAINT organizations_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.recordings
    ADD CONSTRAINT recordings_pkey PRIMARY KEY (run_id);

ALTER TABLE ONLY public.run_commands
    ADD CONSTRAINT run_commands_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.runs
    ADD CONSTRAINT runs_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.runtimes
    ADD CONSTRAINT runtimes_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.secrets
    ADD CONSTRAINT secrets_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.spaces
    ADD CONSTRAINT spaces_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.subaccounts
    ADD CONSTRAINT subaccounts_pkey PRIMARY KEY (id);

CREATE INDEX ai_connections_organization_id_subaccount_id_idx ON public.ai_connections USING btree (organization_id, subaccount_id);

CREATE INDEX api_keys_organization_id_subaccount_id_idx ON public.api_keys USING btree (organization_id, subaccount_id);

CREATE INDEX artifacts_file_id_idx ON public.artifacts USING btree (file_id);

CREATE INDEX artifacts_run_id_created_at_id_idx ON public.artifacts USING btree (run_id, created_at, id);

CREATE INDEX artifacts_runtime_id_created_at_id_idx ON public.artifacts USING btree (runtime_id, created_at, id);

CREATE INDEX artifacts_space_id_created_at_id_idx ON public.artifacts USING btree (space_id, created_at, id);

CREATE INDEX event_counters_oldest_idx ON public.event_counters USING btree (oldest);

CREATE INDEX events_activity_idx ON public.events USING btree (stream_id, sequence) WHERE in_activity;

CREATE INDEX events_connection_idx ON public.events USING btree (stream_id, connection_id, sequence) WHERE (connection_id IS NOT NULL);

CREATE INDEX events_page_idx ON public.events USING btree (stream_id, page_id, sequence) WHERE (page_id IS NOT NULL);

CREATE INDEX events_stream_id_type_sequence_idx ON public.events USING btree (stream_id, type, sequence);

CREATE INDEX files_expires_at_idx ON public.files USING btree (expires_at) WHERE (expires_at IS NOT NULL);

CREATE INDEX files_listing_idx ON public.files USING btree (space_id, "left"(path, 512), id);

CREATE INDEX files_space_bytes_idx ON public.files USING btree (space_id) INCLUDE (size_bytes);

CREATE UNIQUE INDEX files_space_id_path_key ON public.files USING btree (space_id, path_digest);

CREATE INDEX files_subaccount_bytes_idx ON public.files USING btree (subaccount_id) INCLUDE (size_bytes);

CREATE INDEX lease_sockets_lease_id_opened_at_idx ON public.lease_sockets USING btree (lease_id, opened_at);

CREATE INDEX lease_sockets_open_idx ON public.lease_sockets USING btree (gateway_id) WHERE (ended_at IS NULL);

CREATE INDEX leases_run_id_idx ON public.leases USING btree (run_id);

CREATE INDEX leases_runtime_id_created_at_idx ON public.leases USING btree (runtime_id, created_at);

CREATE INDEX leases_space_id_idx ON public.leases USING btree (space_id);

CREATE INDEX recordings_expires_at_idx ON public.recordings USING btree (expires_at) WHERE (expires_at IS NOT NULL);

CREATE INDEX recordings_file_id_idx ON public.recordings USING btree (file_id);

CREATE INDEX recordings_unfinished_idx ON public.recordings USING btree (gateway_id, created_at) WHERE (status = ANY (ARRAY['recording'::text, 'preparing'::text, 'processing'::text]));

CREATE INDEX run_commands_created_at_idx ON public.run_commands USING btree (created_at);

CREATE INDEX run_commands_run_id_created_at_id_idx ON public.run_commands USING btree (run_id, created_at, id);

CREATE UNIQUE INDEX runs_active_key ON public.runs USING btree (runtime_id) WHERE (status = 'active'::text);

CREATE INDEX runs_organization_id_subaccount_id_created_at_idx ON public.runs USING btree (organization_id, subaccount_id, created_at);

CREATE INDEX runs_runtime_id_idx ON public.runs USING btree (runtime_id);

CREATE INDEX runs_space_id_idx ON public.runs USING btree (space_id);

CREATE INDEX runtimes_live_idx ON public.runtimes USING btree (gateway_id) WHERE (status = ANY (ARRAY['starting'::text, 'active'::text]));

CREATE INDEX runtimes_live_subaccount_idx ON public.runtimes USING btree (subaccount_id) WHERE (status = ANY (ARRAY['starting'::text, 'active'::text]));

CREATE INDEX runtimes_space_id_idx ON public.runtimes USING btree (space_id);

CREATE INDEX secrets_master_key_id_idx ON public.secrets USING btree (master_key_id);

CREATE UNIQUE INDEX secrets_pepper_key ON public.secrets USING btree (purpose) WHERE (purpose = 'pepper'::text);

CREATE INDEX spaces_organization_id_subaccount_id_idx ON public.spaces USING btree (organization_id, subaccount_id);

CREATE UNIQUE INDEX subaccounts_organization_id_external_id_key ON public.subaccounts USING btree (organization_id, external_id) WHERE (external_id IS NOT NULL);

CREATE UNIQUE INDEX subaccounts_organization_id_slug_key ON public.subaccounts USING btree (organization_id, slug);

CREATE TRIGGER audit_events_append_only BEFORE DELETE OR UPDATE OR TRUNCATE ON public.audit_events FOR EACH STATEMENT EXECUTE FUNCTION public.audit_events_refuse();

ALTER TABLE public.audit_events ENABLE ALWAYS TRIGGER audit_events_append_only;

ALTER TABLE ONLY public.ai_connections
    ADD CONSTRAINT ai_connections_organization_id_fkey FOREIGN KEY (organization_id) REFERENCES public.organizations(id);

ALTER TABLE ONLY public.ai_connections
    ADD CONSTRAINT ai_connections_subaccount_id_fkey FOREIGN KEY (subaccount_id) REFERENCES public.subaccounts(id);

ALTER TABLE ONLY public.api_keys
    ADD CONSTRAINT api_keys_organization_id_fkey FOREIGN KEY (organization_id) REFERENCES public.organizations(id);

ALTER TABLE ONLY public.api_keys
    ADD CONSTRAINT api_keys_subaccount_id_fkey FOREIGN KEY (subaccount_id) REFERENCES public.subaccounts(id);

ALTER TABLE ONLY public.artifacts
    ADD CONSTRAINT artifacts_file_id_fkey FOREIGN KEY (file_id) REFERENCES public.files(id) ON DELETE CASCADE;

ALTER TABLE ONLY public.artifacts
    ADD CONSTRAINT artifacts_organization_id_fkey FOREIGN KEY (organization_id) REFERENCES public.organizations(id);

ALTER TABLE ONLY public.artifacts
    ADD CONSTRAINT artifacts_run_id_fkey FOREIGN KEY (run_id) REFERENCES public.runs(id) ON DELETE CASCADE;

ALTER TABLE ONLY public.artifacts
    ADD CONSTRAINT artifacts_space_id_fkey FOREIGN KEY (space_id) REFERENCES public.spaces(id) ON DELETE CASCADE;

ALTER TABLE ONLY public.artifacts
    ADD CONSTRAINT artifacts_subaccount_id_fkey FOREIGN KEY (subaccount_id) REFERENCES public.subaccounts(id);

ALTER TABLE ONLY public.files
    ADD CONSTRAINT files_organization_id_fkey FOREIGN KEY (organization_id) REFERENCES public.organizations(id);

ALTER TABLE ONLY public.files
    ADD CONSTRAINT files_space_id_fkey FOREIGN KEY (space_id) REFERENCES public.spaces(id) ON DELETE CASCADE;

ALTER TABLE ONLY public.files
    ADD CONSTRAINT files_subaccount_id_fkey FOREIGN KEY (subaccount_id) REFERENCES public.subaccounts(id);

ALTER TABLE ONLY public.lease_sockets
    ADD CONSTRAINT lease_sockets_lease_id_fkey FOREIGN KEY (lease_id) REFERENCES public.leases(id) ON DELETE CASCADE;

ALTER TABLE ONLY public.leases
    ADD CONSTRAINT leases_organization_id_fkey FOREIGN KEY (organization_id) REFERENCES public.organizations(id);

ALTER TABLE ONLY public.leases
    ADD CONSTRAINT leases_run_id_fkey FOREIGN KEY (run_id) REFERENCES public.runs(id) ON DELETE CASCADE;

ALTER TABLE ONLY public.leases
    ADD CONSTRAINT leases_runtime_id_fkey FOREIGN KEY (runtime_id) REFERENCES public.runtimes(id) ON DELETE CASCADE;

ALTER TABLE ONLY public.leases
    ADD CONSTRAINT leases_space_id_fkey FOREIGN KEY (space_id) REFERENCES public.spaces(id) ON DELETE CASCADE;

ALTER TABLE ONLY public.leases
    ADD CONSTRAINT leases_subaccount_id_fkey FOREIGN KEY (subaccount_id) REFERENCES public.subaccounts(id);

ALTER TABLE ONLY public.recordings
    ADD CONSTRAINT recordings_file_id_fkey FOREIGN KEY (file_id) REFERENCES public.files(id) ON DELETE SET NULL;

ALTER TABLE ONLY public.recordings
    ADD CONSTRAINT recordings_run_id_fkey FOREIGN KEY (run_id) REFERENCES public.runs(id) ON DELETE CASCADE;

ALTER TABLE ONLY public.runs
    ADD CONSTRAINT runs_organization_id_fkey FOREIGN KEY (organization_id) REFERENCES public.organizations(id);

ALTER TABLE ONLY public.runs
    ADD CONSTRAINT runs_runtime_id_fkey FOREIGN KEY (runtime_id) REFERENCES public.runtimes(id) ON DELETE CASCADE;

ALTER TABLE ONLY public.runs
    ADD CONSTRAINT runs_space_id_fkey FOREIGN KEY (space_id) REFERENCES public.spaces(id) ON DELETE CASCADE;

ALTER TABLE ONLY public.runs
    ADD CONSTRAINT runs_subaccount_id_fkey FOREIGN KEY (subaccount_id) REFERENCES public.subaccounts(id);

ALTER TABLE ONLY public.runtimes
    ADD CONSTRAINT runtimes_organization_id_fkey FOREIGN KEY (organization_id) REFERENCES public.organizations(id);

ALTER TABLE ONLY public.runtimes
    ADD CONSTRAINT runtimes_space_id_fkey FOREIGN KEY (space_id) REFERENCES public.spaces(id) ON DELETE CASCADE;

ALTER TABLE ONLY public.runtimes
    ADD CONSTRAINT runtimes_subaccount_id_fkey FOREIGN KEY (subaccount_id) REFERENCES public.subaccounts(id);

ALTER TABLE ONLY public.secrets
    ADD CONSTRAINT secrets_organization_id_fkey FOREIGN KEY (organization_id) REFERENCES public.organizations(id);

ALTER TABLE ONLY public.secrets
    ADD CONSTRAINT secrets_subaccount_id_fkey FOREIGN KEY (subaccount_id) REFERENCES public.subaccounts(id);

ALTER TABLE ONLY public.spaces
    ADD CONSTRAINT spaces_organization_id_fkey FOREIGN KEY (organization_id) REFERENCES public.organizations(id);

ALTER TABLE ONLY public.spaces
    ADD CONSTRAINT spaces_subaccount_id_fkey FOREIGN KEY (subaccount_id) REFERENCES public.subaccounts(id);

ALTER TABLE ONLY public.subaccounts
    ADD CONSTRAINT subaccounts_organization_id_fkey FOREIGN KEY (organization_id) REFERENCES public.organizations(id);
