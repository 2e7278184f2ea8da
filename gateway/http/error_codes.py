"""Meanings of the stable error codes of the API; docs/close-codes.md has those of sockets and viewers' pages."""

from __future__ import annotations

from collections import defaultdict

# By status, as core/errors.py gives it.
CODES: dict[int, dict[str, str]] = {
    400: {
        "request.invalid": "fields are invalid; `details.errors` lists each",
        "request.malformed": "the body is not JSON, or not a form",
        "request.too_many_values": "the body's JSON has more values than the maximum",
        "request.incomplete": "the body ended too early",
        "request.host_untrusted": "no address can be made from the `Host` of the request",
        "request.version_unsupported": "the version in `BCTRL-Version` is not served",
        "request.contract_unsupported": "the generation in `Gateway-Contract` is not served",
        "storage_file.path_invalid": "the path is not one of a stored file",
        "runtime_file.path_invalid": "the path is not below the runtime's directory",
        "vault.invalid_key": "the key of a secret is not one that a path carries unchanged",
        "vault.no_totp": "the secret has no TOTP seed",
        "vault.no_field": "the secret does not have this field",
        "idempotency.key_invalid": "the `Idempotency-Key` is malformed or repeated",
        "idempotency.not_supported": "an upload takes no `Idempotency-Key`",
    },
    401: {
        "auth.required": "there is no API key",
        "auth.invalid": "the API key is unknown, expired or revoked",
        "download_link.unknown": "the address holds no download link of this gateway",
    },
    403: {
        "organization.suspended": "the organization of this key is suspended",
        "auth.forbidden": "this kind of key is not allowed to do this",
        "proxy.not_allowed": "the mounts do not allow the saved proxy; `details.errors` has the field",
        "mounts.proxy_in_use": "the runtime was launched with a saved proxy that the mounts of this execution lack",
        "mounts.widened": "a mount allows more than the mounts around it; `details.errors` lists each",
        "connection.policy_forbidden": "the operator does not permit this policy of commands",
        "connection.auto_renew_forbidden": "the operator does not permit leases that are renewed automatically",
        "vault.key_forbidden": "the mounts do not allow this key of the vault",
        "vault.raw_reads_forbidden": "no mounts allow to read values of the vault as text",
        "vault.origin_refused": "the secret is not for pages of this origin",
        "viewer.origin_refused": "a page of this origin may not use the viewer",
    },
    404: {
        "workspace.not_found": "there is no such workspace, or it is not the caller's",
        "space.not_found": "there is no such space, or it is not the caller's",
        "runtime.not_found": "there is no such runtime, or it is not the caller's",
        "connection.not_found": "there is no such connection, or it is not the caller's",
        "browser_profile.not_found": "there is no such browser profile, or it is not the caller's",
        "run.not_found": "there is no such run, or it is not the caller's",
        "file.not_found": "there is no such stored file, or it is not the caller's",
        "storage_workspace.not_found": "no workspace of the caller has a storage of this name",
        "artifact.not_found": "there is no such artifact, or it is not the caller's",
        "runtime_file.not_found": "the runtime has no such file",
        "ai_connection.not_found": "there is no such AI connection, or it is not the caller's",
        "proxy.not_found": "there is no such proxy, or it is not the caller's",
        "ai_credential.not_found": "there is no such AI credential, or it is not the caller's",
        "operation.not_found": "there is no such operation, or it is not the caller's",
        "invocation.not_found": "there is no such invocation, or it is not the caller's",
        "vault.secrets.not_found": "the vault has no secret with this key",
        "subaccount.not_found": "there is no such subaccount, or it is not the caller's",
        "api_key.not_found": "there is no such API key, or it is not the caller's",
        "viewer.no_activity": "the viewer does not show the activity",
        "page.not_found": "the browser has no such page",
        "recording.not_found": "the runtime was not recorded",
        "recording.video_not_found": "the recording has no video yet",
        "recording.picture_not_found": "the recording has no such picture",
        "route.not_found": "there is no such path",
    },
    405: {"route.method_not_allowed": "the path does not have this method; `Allow` lists those it has"},
    408: {
        "request.timeout": "the request took too long",
        "request.header_timeout": "the head of the request took too long",
        "request.body_timeout": "the body of the request took too long",
        "request.body_too_slow": "the body of the request came too slowly",
        "storage.upload_timeout": "the upload took too long",
        "runtime_file.timeout": "copying the file took too long",
    },
    409: {
        "request.conflict": "the state of the resource does not allow this",
        "runtime.not_active": "the runtime is not live",
        "runtime.alias_active": "a live runtime of the workspace has this alias",
        "runtime.stopped": "the runtime was stopped while it was starting",
        "runtime.staged_full": "the runtime has no room for more files",
        "runtime.busy": "another execution runs on the runtime, for longer than a further one waits",
        "run.live_not_active": "the run has ended, so there is nothing to watch",
        "recording.failed": "no video could be made of the recording",
        "runtime_file.path_exists": "the runtime has a file at this path",
        "storage_file.path_exists": "the space has a file at this path",
        "space.closed": "the space is closed, so nothing is launched in it",
        "workspace.closed": "the workspace is closed, so nothing is launched in it",
        "browser_profile.name_taken": "the owner has a browser profile of this name",
        "browser_profile.in_use": "a runtime uses the profile, or is still saving it; `details` says which",
        "browser_profile.other_browser": "the state of the profile is of another browser than the requested one",
        "organization.profiles_full": "the browser profiles of the organization use all of its bytes",
        "subaccount.profiles_full": "the browser profiles of the subaccount use all of its bytes",
        "space.max_files": "the space has its maximum of files",
        "space.storage_full": "the files of the space use all of its bytes",
        "subaccount.storage_full": "the files of the subaccount use all of its bytes",
        "proxy.conflict": "another proxy has this name",
        "proxy.password_required": "a stored password is for one proxy; with another address goes another password",
        "proxy.login_mismatch": "the username and the password of the proxy do not go together",
        "ai_credential.id_taken": "another AI credential has this id",
        "ai_credential.base_url_mismatch": "an `openai-compatible` provider needs a `baseUrl`, and no other has one",
        "ai_credential.key_required": "a stored key is for one server; with another one goes another key",
        "ai_credential.ambiguous": "several subaccounts have an AI credential with this id",
        "vault.full": "the vault has its maximum of entries",
        "subaccount.archived": "the subaccount is archived",
        "subaccount.conflict": "another subaccount has this `externalId`",
        "idempotency.mismatch": "the idempotency key was used for another request",
        "idempotency.in_progress": "the request with this `Idempotency-Key` is in progress",
    },
    410: {
        "lease.expired": "the lease has expired",
        "download_link.expired": "the download link has expired",
        "viewer.expired": "the address of the viewer has expired",
        "run.live_not_active": "the run has ended, so its viewer shows nothing any more",
    },
    413: {
        "request.too_large": "the body is too large",
        "vault.too_large": "the secret is too large",
        "storage_file.too_large": "the file is too large",
    },
    415: {"request.media_type": "the body has a media type that is not served"},
    416: {"request.range": "the range begins behind the end of the file"},
    429: {
        "limit.rate": "the API key sends too many requests",
        "limit.address_rate": "too many requests without any credential came from this address",
        "limit.auth_failures": "too many requests without a valid key came from this address",
        "limit.reached": "a limit is reached",
        "gateway.max_runtimes": "the gateway has its maximum of live runtimes",
        "gateway.max_starting": "the gateway has its maximum of starting runtimes",
        "gateway.max_event_streams": "the gateway has its maximum of event streams",
        "gateway.max_executions": "the gateway has its maximum of runtimes with executions",
        "subaccount.max_runtimes": "the subaccount has its maximum of live runtimes",
        "subaccount.max_starting": "the subaccount has its maximum of starting runtimes",
        "organization.max_profiles": "the organization has its maximum of browser profiles",
        "subaccount.max_profiles": "the subaccount has its maximum of browser profiles",
        "subaccount.max_spaces": "the subaccount has its maximum of spaces",
        "gateway.max_viewers": "the gateway has its maximum of open viewers",
        "run.max_viewers": "the run has its maximum of open viewers",
        "storage.max_uploads": "there is a maximum of uploads at once",
    },
    431: {"request.headers_too_large": "the head of the request is too large"},
    500: {
        "internal.error": "the gateway failed; its log has the request id",
        "browser_profile.damaged": "the saved state of the profile can't be decrypted, or is not whole",
    },
    501: {
        "gateway.not_supported": "the installation of the gateway lacks something",
        "browser_profile.none": "the launcher of the gateway has no browser profiles",
        "recording.not_installed": "recordings are not installed",
        "docs.not_installed": "the page `/docs` is not installed",
    },
    503: {
        "gateway.unavailable": "the gateway can't do this now",
        "gateway.disk_full": "the disk of the gateway is nearly full, so no runtime starts",
        "gateway.draining": "the gateway is stopping",
        "database.unavailable": "the database can't be reached",
        "database.busy": "the database has no free connection",
        "storage.disk_full": "the disk of the gateway or of the storage is full, so it takes no files",
        "storage.unavailable": "the storage of files can't be reached",
        "runtime.launch_failed": "the browser did not start; `details` has the class of the failure and advice",
        "runtime.host_unavailable": "the gateway that has the browser can't be reached",
        "execute.unavailable": "the process that carries out steps can't be started",
        "runtime.state_unavailable": "the pages of the runtime can't be read now",
        "recording.host_unavailable": "the gateway that makes the recording can't be reached",
        "runtime_file.unavailable": "the files of the runtime can't be read",
    },
}

# Of `details.errors`. Those without `field.` are names of checks of types.
FIELD_CODES: dict[str, str] = {
    "field.missing": "the field is required",
    "field.unknown": "there is no such field or parameter",
    "field.not_served": "the contract has the field, but it is not served yet",
    "field.repeated": "the field or parameter is given more than once",
    "field.invalid": "a rule of the field is broken, such as a UUID, a time, or fields that exclude each other",
    "ai_connection.not_found": "there is no such AI connection, or it is not the caller's",
    "proxy.not_found": "there is no such saved proxy, or the space may not use it",
    "proxy.not_allowed": "the mounts do not allow this saved proxy",
    "mounts.proxy_in_use": "the runtime was launched with a saved proxy that this lacks",
    "mounts.widened": "the mounts around it do not allow this",
    "model_type": "the value is not an object",
    "model_attributes_type": "the value is not an object",
    "dict_type": "the value is not an object",
    "list_type": "the value is not a list",
    "string_type": "the value is not a text",
    "string_unicode": "the text is not valid Unicode",
    "string_sub_type": "the value is not a text",
    "string_too_short": "the text is shorter than the minimum",
    "string_too_long": "the text is longer than the maximum",
    "string_pattern_mismatch": "the text does not have the form of the field",
    "int_type": "the value is not an integer",
    "int_parsing": "the parameter is not an integer",
    "int_parsing_size": "the integer has too many digits",
    "int_from_float": "the number has a fraction",
    "float_type": "the value is not a number",
    "float_parsing": "the parameter is not a number",
    "finite_number": "the number is not finite",
    "greater_than": "the number is too small",
    "greater_than_equal": "the number is too small",
    "less_than": "the number is too large",
    "less_than_equal": "the number is too large",
    "bool_type": "the value is not `true` or `false`",
    "bool_parsing": "the parameter is not `true` or `false`",
    "literal_error": "the value is none of those that are allowed",
    "uuid_type": "the value is not a text with a UUID",
    "timezone_aware": "the time has no offset",
    "too_short": "the list or object has too few entries",
    "too_long": "the list or object has too many entries",
    "union_tag_invalid": "the field that says the kind of the object has none of the allowed values",
    "union_tag_not_found": "the field that says the kind of the object is missing",
}


def field_table() -> str:
    """The codes of `details.errors`, as a table in Markdown."""
    rows = [f"| `{code}` | {meaning} |" for code, meaning in FIELD_CODES.items()]
    return "\n".join(["| code | meaning |", "|---|---|", *rows, ""])


def table() -> str:
    """All codes with their status and meaning, as a table in Markdown."""
    rows = [
        f"| {status} | `{code}` | {meaning} |" for status, codes in CODES.items() for code, meaning in codes.items()
    ]
    return "\n".join(["| status | code | meaning |", "|---|---|---|", *rows, ""])


def statuses() -> dict[str, list[int]]:
    """The statuses that each code comes with."""
    found: dict[str, list[int]] = defaultdict(list)
    for status, codes in CODES.items():
        for code in codes:
            found[code].append(status)
    return dict(found)
