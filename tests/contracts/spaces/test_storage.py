"""/v1/spaces/{id}/storage/files: what is kept, what is returned, and what is refused."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import pytest
from sqlalchemy import event, text

from gateway.app import Gateway
from gateway.core.scope import Scope
from gateway.settings import Settings
from gateway.store import files as store
from gateway.store.database import Database
from tests.support.api import NEVER, Json, checked, make_space, make_subaccount, ok, problems, refused

NEVER_ID = UUID(NEVER)


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return settings.model_copy(
        update={
            "max_file_bytes": 4000,
            "space_max_bytes": 10_000,
            "subaccount_max_bytes": 6000,
            "space_max_files": 15,
            "max_uploads": 4,
            "max_body_bytes": 20_000,
        }
    )


@pytest.fixture
async def client(client: httpx.AsyncClient) -> httpx.AsyncClient:
    return checked(client)


@pytest.fixture
async def root(client: httpx.AsyncClient) -> str:
    return f"/v1/spaces/{await make_space(client)}/storage/files"


async def upload(
    client: httpx.AsyncClient,
    root: str,
    body: bytes = b"0123456789",
    *,
    sent_as: str | None = "sent.txt",
    content_type: str | None = "text/plain",
    headers: dict[str, str] | None = None,
    **fields: str,
) -> httpx.Response:
    file = (sent_as, body, content_type) if content_type else (sent_as, body)
    return await client.post(root, files={"file": file}, data=fields, headers=headers)


def parts(*given: tuple[str, bytes], boundary: str = "x") -> dict[str, Any]:
    """A form as one would write it by hand: head and body of each part."""
    body = b"".join(f"--{boundary}\r\n{head}\r\n\r\n".encode() + part + b"\r\n" for head, part in given)
    return {
        "content": body + f"--{boundary}--\r\n".encode(),
        "headers": {"Content-Type": f"multipart/form-data; boundary={boundary}"},
    }


FILE = 'Content-Disposition: form-data; name="file"; filename="a.txt"'


def field(name: str) -> str:
    return f'Content-Disposition: form-data; name="{name}"'


def objects(settings: Settings) -> list[Path]:
    return [path for path in (settings.data_dir / "files").rglob("*") if path.is_file()]


async def test_an_upload_is_returned_as_documented_and_read_back_byte_for_byte(
    client: httpx.AsyncClient, root: str
) -> None:
    body = os.urandom(4000)
    made = await ok(
        upload(client, root, body, name="Report", path="reports/2026/june.csv", metadata='{"source": ["crm", 1]}')
    )
    assert {key: made[key] for key in made if key not in ("id", "createdAt")} == {
        "name": "Report",
        "path": "reports/2026/june.csv",
        "contentType": "text/plain",
        "sizeBytes": 4000,
        "status": "ready",
        "expiresAt": None,
        "metadata": {"source": ["crm", 1]},
    }
    assert await ok(client.get(f"{root}/{made['id']}")) == made
    assert await ok(client.get(root)) == {"files": [made], "nextCursor": None}
    content = await client.get(f"{root}/{made['id']}/content")
    assert (content.status_code, content.content) == (200, body)
    assert content.headers["content-length"] == "4000"


async def test_name_path_and_type_have_defaults(client: httpx.AsyncClient, root: str) -> None:
    cases: list[tuple[str, str | None, Json, tuple[str, str, str]]] = [
        ("a.pdf", None, {}, ("a.pdf", "a.pdf", "application/pdf")),
        ("C:\\own\\b.bin", None, {}, ("b.bin", "b.bin", "application/octet-stream")),
        ("c.txt", "image/png", {"path": "x/y.csv"}, ("y.csv", "x/y.csv", "image/png")),
        ("d.txt", "text/plain; charset=utf-8", {"name": "n"}, ("n", "n", "text/plain; charset=utf-8")),
        ("Größe 🎈.txt", "text/plain", {}, ("Größe 🎈.txt", "Größe 🎈.txt", "text/plain")),
        ("e.txt", "text/plain", {"name": "m", "path": "p"}, ("m", "p", "text/plain")),
    ]
    for sent_as, content_type, fields, expected in cases:
        made = await ok(upload(client, root, sent_as=sent_as, content_type=content_type, **fields))
        assert (made["name"], made["path"], made["contentType"]) == expected
        assert made["metadata"] is None


async def test_parts_come_in_any_order(client: httpx.AsyncClient, root: str) -> None:
    for number, order in enumerate(((0, 1, 2), (2, 1, 0), (1, 0, 2))):
        given = [(FILE, b"bytes"), (field("path"), f"p{number}".encode()), (field("metadata"), b'{"a": 1}')]
        made = await ok(client.post(root, **parts(*(given[place] for place in order))))
        assert (made["path"], made["metadata"], made["sizeBytes"]) == (f"p{number}", {"a": 1}, 5)


async def test_what_is_wrong_with_a_form_is_named(client: httpx.AsyncClient, root: str, settings: Settings) -> None:
    send = client.post
    assert await problems(send(root, **parts((field("path"), b"p")))) == {"file": "field.missing"}
    assert (
        await problems(
            send(
                root,
                **parts((FILE, b"")),
            )
        )
        == {}
    )
    assert await problems(send(root, **parts((FILE, b"a"), (FILE, b"b")))) == {"file": "field.repeated"}
    assert await problems(send(root, **parts((FILE, b"a"), (field("colour"), b"b")))) == {"colour": "field.unknown"}
    for name, value in (("name", b"x" * 256), ("name", b"a\x00b"), ("name", b"a\x85b".decode("latin-1").encode())):
        assert list(await problems(send(root, **parts((FILE, b"a"), (field(name), value))))) == [name]
    for value in (b"[1]", b"{", b'{"a": NaN}', b'{"a": "\\u0000"}', b"[" * 10_000):
        assert list(await problems(send(root, **parts((FILE, b"a"), (field("metadata"), value))))) == ["metadata"]
    assert await problems(upload(client, root, content_type="no type")) == {"file": "field.invalid"}
    assert await problems(upload(client, root, content_type="text/plain\x01")) == {"file": "field.invalid"}
    for broken in (
        parts((FILE, b"a"), (field("name"), b"\xff")),
        parts(("Content-Type: text/plain", b"a")),
        parts(("Content-Disposition: attachment", b"a")),
        parts((FILE, b"a")) | {"headers": {"Content-Type": "multipart/form-data"}},
        {"content": b"no form", "headers": {"Content-Type": "multipart/form-data; boundary=x"}},
    ):
        await refused(send(root, **broken), 400, "request.malformed")
    for behind, right in ((1024, True), (1025, False)):

        async def with_an_end(behind: int = behind) -> AsyncIterator[bytes]:
            yield parts((FILE, b"a"), (field("path"), b"%d" % behind))["content"]
            yield bytes(behind)

        answer = await send(root, headers=parts()["headers"], content=with_an_end())
        assert answer.status_code == (200 if right else 400)
    whole = parts((FILE, b"abc"))
    for length in (10, len(whole["content"]) - 8):
        await refused(send(root, **whole | {"content": whole["content"][:length]}), 400, "request.incomplete")
    await refused(send(root, json={}), 415, "request.media_type")
    fields = parts((FILE, b"a"), (field("metadata"), b"x" * 20_001))
    await refused(send(root, **fields), 413, "request.too_large")
    # All but the two that were right.
    assert len(objects(settings)) == 2


async def test_a_path_stays_below_its_root(client: httpx.AsyncClient, root: str) -> None:
    for path in (
        "/a",
        "../a",
        "a/../b",
        "a/./b",
        ".",
        "a//b",
        "a/",
        "",
        "a\\b",
        "a\x07",
        "a\x7f",
        "a\u0085",
        "x" * 4097,
    ):
        body = await refused(upload(client, root, path=path), 400, "storage_file.path_invalid")
        assert body["details"]["errors"][0]["field"] == "path"
    for path in ("x" * 4096, "🎈" * 1024, "a/b/c", "...", "a..b", " a", "%2e%2e/a"):
        assert (await ok(upload(client, root, path=path)))["path"] == path
    await refused(upload(client, root, sent_as="a/..", name=".."), 400, "storage_file.path_invalid")


async def test_a_path_is_taken_once(client: httpx.AsyncClient, root: str, settings: Settings) -> None:
    made = await asyncio.gather(*(upload(client, root, body=b"%d" % n, path="a/b") for n in range(2)))
    assert sorted(answer.status_code for answer in made) == [200, 409]
    await refused(upload(client, root, path="a/b"), 409, "storage_file.path_exists")
    assert len(objects(settings)) == 1
    other = f"/v1/spaces/{await make_space(client)}/storage/files"
    await ok(upload(client, other, path="a/b"))


async def test_the_largest_file_is_taken_and_none_that_is_larger(
    client: httpx.AsyncClient, root: str, settings: Settings
) -> None:
    under = await ok(upload(client, root, b"x" * 3999, path="under"))
    await ok(client.delete(f"{root}/{under['id']}"))
    await ok(upload(client, root, b"x" * 4000, path="at"))
    body = await refused(upload(client, root, b"x" * 4001, path="over"), 413, "storage_file.too_large")
    assert body["details"] == {"limit": 4000}
    assert len(objects(settings)) == 1


async def test_a_space_takes_so_many_bytes_and_so_many_files(
    client: httpx.AsyncClient, root: str, settings: Settings
) -> None:
    for size, path in ((4000, "a"), (4000, "b"), (1999, "c")):
        await ok(upload(client, root, b"x" * size, path=path))
    body = await refused(upload(client, root, b"xx", path="d"), 409, "space.storage_full")
    assert body["details"] == {"limit": 10_000, "used": 9999}
    last = await ok(upload(client, root, b"x", path="d"))
    await refused(upload(client, root, b"x", path="e"), 409, "space.storage_full")
    await ok(client.delete(f"{root}/{last['id']}"))
    await ok(upload(client, root, b"x", path="e"))
    for number in range(11):
        await ok(upload(client, root, b"", path=f"empty/{number}"))
    await refused(upload(client, root, b"", path="one more"), 409, "space.max_files")
    assert len(objects(settings)) == 15


async def test_uploads_side_by_side_do_not_squeeze_past_a_limit(
    client: httpx.AsyncClient, root: str, gateway: Gateway, settings: Settings
) -> None:
    """Both pass the look at the start; one of them finds no room at its end."""
    await ok(upload(client, root, b"x" * 4000, path="a"))
    await ok(upload(client, root, b"x" * 3000, path="b"))
    first, second = Slow(b"x" * 2000, "c"), Slow(b"x" * 2000, "d")
    sending = [asyncio.create_task(it.send(client, root)) for it in (first, second)]
    await asyncio.gather(first.halfway.wait(), second.halfway.wait())
    # A third one of the key has no place, whatever it is; one of another tenant has.
    error = await refused(upload(client, root, b"", path="e"), 429, "storage.max_uploads")
    assert error["details"] == {"limit": 2, "shareOf": "caller"}
    _, headers = await make_subaccount(client)
    space = (await ok(client.post("/v1/spaces", json={}, headers=headers)))["id"]
    await ok(upload(client, f"/v1/spaces/{space}/storage/files", b"", path="e", headers=headers))
    first.go.set()
    second.go.set()
    answers = await asyncio.gather(*sending)
    assert sorted(answer.status_code for answer in answers) == [200, 409]
    assert next(it for it in answers if it.status_code == 409).json()["code"] == "space.storage_full"
    assert sum(path.stat().st_size for path in objects(settings)) == 9000
    await ok(upload(client, root, b"", path="e"))


class Slow:
    """An upload that waits in the midst of its file."""

    def __init__(self, body: bytes, path: str) -> None:
        self.halfway, self.go = asyncio.Event(), asyncio.Event()
        self._form = parts((field("path"), path.encode()), (FILE, body))

    async def send(self, client: httpx.AsyncClient, root: str) -> httpx.Response:
        async def content() -> AsyncIterator[bytes]:
            whole = self._form["content"]
            yield whole[: len(whole) // 2]
            self.halfway.set()
            await self.go.wait()
            yield whole[len(whole) // 2 :]

        return await client.post(root, headers=self._form["headers"], content=content())


async def test_a_subaccounts_bytes_are_counted_over_its_spaces(client: httpx.AsyncClient) -> None:
    _, headers = await make_subaccount(client)
    roots = []
    for _ in range(2):
        space = (await ok(client.post("/v1/spaces", json={}, headers=headers)))["id"]
        roots.append(f"/v1/spaces/{space}/storage/files")
    await ok(upload(client, roots[0], b"x" * 4000, path="a", headers=headers))
    # By whichever key it is uploaded.
    await ok(upload(client, roots[1], b"x" * 1999, path="a"))
    await refused(upload(client, roots[1], b"xx", path="b", headers=headers), 409, "subaccount.storage_full")
    await ok(upload(client, roots[1], b"x", path="b", headers=headers))


async def test_an_upload_that_breaks_off_leaves_nothing(
    client: httpx.AsyncClient, root: str, settings: Settings
) -> None:
    slow = Slow(b"x" * 2000, "c")
    sending = asyncio.create_task(slow.send(client, root))
    await slow.halfway.wait()
    sending.cancel()
    await asyncio.wait({sending})
    assert objects(settings) == []
    assert (await ok(client.get(root)))["files"] == []


async def test_files_are_listed_by_path_in_pages_and_by_prefix(client: httpx.AsyncClient, root: str) -> None:
    # The order of bytes; a percent sign and an underscore are themselves; longer than what an index takes.
    long = "l" * 600
    paths = ["Z", "a", "a%b", "a/b", "a/c", "a_b", "b", long + "1", long + "2", "ä", "\ud7ff", "\ue000", "🎈"]
    for path in reversed(paths):
        await ok(upload(client, root, b"", path=path, name="n"))

    async def listed(**query: Any) -> list[str]:
        found: list[str] = []
        while True:
            page = await ok(client.get(root, params=query))
            assert len(page["files"]) <= query.get("limit", 50)
            found += [file["path"] for file in page["files"]]
            if page["nextCursor"] is None:
                return found
            query["cursor"] = page["nextCursor"]

    assert sorted(await listed(), key=str.encode) == sorted(paths, key=str.encode)
    assert [path for path in await listed() if not path.startswith("l")] == paths[:7] + paths[9:]
    for limit in (1, 2, 13):
        assert await listed(limit=limit) == await listed()
    for prefix in ("a", "a/", "a%", "a_", "\ud7ff", "🎈", "ä", "zz", "l" * 511, "l" * 512, long, long + "2"):
        found = await listed(prefix=prefix, limit=2)
        assert sorted(found) == sorted(path for path in paths if path.startswith(prefix)), prefix
    assert await problems(client.get(root, params={"cursor": "x"})) == {"cursor": "field.invalid"}
    assert await problems(client.get(root, params={"limit": 0})) == {"limit": "greater_than_equal"}
    assert await problems(client.get(root, params={"limit": 201})) == {"limit": "less_than_equal"}


async def test_a_list_of_a_prefix_reads_an_index_in_its_order(
    client: httpx.AsyncClient, root: str, database: Database
) -> None:
    await ok(upload(client, root, b"", path="a"))
    many = """
        INSERT INTO files (id, organization_id, space_id, name, path, path_digest, content_type, size_bytes, object_key)
        SELECT gen_random_uuid(), organization_id, space_id, 'n', 'p' || n, sha256(n::text::bytea), 't', 0, n::text
        FROM files, generate_series(1, 3000) AS series (n)
    """
    asked: list[tuple[str, Any]] = []
    scope = Scope(UUID((await ok(client.get("/v1/auth/whoami")))["organizationId"]))
    async with database.begin() as connection:
        await connection.execute(text(many))
        await connection.execute(text("ANALYZE files"))

        def record(*arguments: Any) -> None:
            asked.append((arguments[2], arguments[3]))

        event.listen(connection.sync_connection, "before_cursor_execute", record)
        await store.listed(connection, scope, UUID(root.split("/")[3]), prefix="p1", after=("p11", NEVER_ID), limit=10)
        # The one before it asks for the spaces that share the storage.
        statement, parameters = asked[-1]
        plan = "\n".join((await connection.exec_driver_sql(f"EXPLAIN {statement}", parameters)).scalars())
    assert "Index Scan using files_listing_idx" in plan, plan
    assert "Sort" not in plan


async def test_ranges_and_heads(client: httpx.AsyncClient, root: str) -> None:
    made = await ok(upload(client, root, b"0123456789"))
    path = f"{root}/{made['id']}/content"
    tag = (await client.get(path)).headers["etag"]

    async def asked(**headers: str) -> tuple[int, bytes, str | None]:
        answer = await client.get(path, headers={name.replace("_", "-"): value for name, value in headers.items()})
        return answer.status_code, answer.content, answer.headers.get("content-range")

    for given, body, content_range in (
        ("bytes=0-0", b"0", "bytes 0-0/10"),
        ("bytes=2-4", b"234", "bytes 2-4/10"),
        ("bytes=7-", b"789", "bytes 7-9/10"),
        ("bytes=8-99", b"89", "bytes 8-9/10"),
        ("bytes=-3", b"789", "bytes 7-9/10"),
        ("bytes=-99", b"0123456789", "bytes 0-9/10"),
    ):
        assert await asked(range=given) == (206, body, content_range)
    for given in ("bytes=4-2", "bytes=-", "lines=1-2", "bytes=0-1,3-4", "bytes", "bytes=a-b", "bytes=1-" + "9" * 30):
        assert await asked(range=given) == (200, b"0123456789", None)
    for given in ("bytes=10-", "bytes=10-12", "bytes=-0"):
        answer = await client.get(path, headers={"Range": given})
        assert (answer.status_code, answer.headers["content-range"]) == (416, "bytes */10")
    assert (await asked(range="bytes=2-4", if_range=tag))[0] == 206
    # A weak tag and a date don't say that the bytes are the same.
    for other in ('"another"', f"W/{tag}", "Sun, 29 Nov 2026 00:00:00 GMT", ""):
        assert (await asked(range="bytes=2-4", if_range=other))[0] == 200
    for held in (tag, f"W/{tag}", f'"another", {tag}', "*"):
        assert (await asked(if_none_match=held))[:2] == (304, b"")
        assert (await asked(if_none_match=held, range="bytes=2-4"))[0] == 304
    for held in ('"another"', tag.strip('"'), ""):
        assert (await asked(if_none_match=held))[0] == 200
    assert (await asked(if_none_match='"another"', range="bytes=2-4", if_range=tag))[0] == 206
    head = await client.head(path)
    assert (head.status_code, head.content, head.headers["content-length"]) == (200, b"", "10")
    part = await client.head(path, headers={"Range": "bytes=2-4"})
    assert (part.status_code, part.content, part.headers["content-length"]) == (206, b"", "3")


async def test_content_is_to_be_kept_and_never_runs_as_the_gateways_page(client: httpx.AsyncClient, root: str) -> None:
    for name, expected in (
        ("a.html", 'attachment; filename="a.html"'),
        ('q"; x="1.txt', "attachment; filename=\"q_; x=_1.txt\"; filename*=UTF-8''q%22%3B%20x%3D%221.txt"),
        ("Größe 🎈.txt", "attachment; filename=\"Gr__e _.txt\"; filename*=UTF-8''Gr%C3%B6%C3%9Fe%20%F0%9F%8E%88.txt"),
    ):
        made = await ok(upload(client, root, name=name, path=f"p/{len(name)}", content_type="text/html"))
        headers = (await client.get(f"{root}/{made['id']}/content")).headers
        assert headers["content-disposition"] == expected
        assert headers["content-type"] == "text/html"
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["content-security-policy"] == "sandbox; default-src 'none'; frame-ancestors 'none'"
        assert headers["accept-ranges"] == "bytes"
        assert "private" in headers["cache-control"]


TYPES = [
    "text/plain;charset=utf-8",
    'text/plain \t;\t charset="a b;=c"',
    "text/plain;\n charset=utf-8",
    "text/plain;\r charset=utf-8",
    "text/plain\x0b;charset=utf-8",
    "text/plain; a=\u00a0",
    'text/plain; a="\u00fc"',
    'text/plain; a="\u6f22"',
    'text/plain; a="\x00"',
    'text/plain; a="\\\n"',
    "text/plain\n",
    "text/plain; a=1\nX-Other: 1",
]
NAMES = ["a\tb", "a\u0085b", "\u6f22\u2028.txt", '"; filename="x', "a\u202eb", "\ufeffa", "%0d%0aX-Other: 1", "\ufffd"]


@pytest.mark.parametrize("content_type", TYPES)
async def test_what_was_uploaded_can_be_fetched_whatever_its_type(
    client: httpx.AsyncClient, root: str, content_type: str
) -> None:
    head = f'Content-Disposition: form-data; name="file"; filename="a"\r\nContent-Type: {content_type}'
    sent = await client.post(root, **parts((head, b"abc")))
    if sent.status_code == 200:
        answer = await client.get(f"{root}/{sent.json()['id']}/content")
        assert (answer.status_code, answer.content) == (200, b"abc")
        assert answer.headers["content-type"] == sent.json()["contentType"] == content_type
    assert (sent.status_code == 200) == (content_type in TYPES[:2])
    assert sent.status_code in (200, 400)


@pytest.mark.parametrize("name", NAMES)
async def test_what_was_uploaded_can_be_fetched_whatever_its_name(
    client: httpx.AsyncClient, root: str, name: str
) -> None:
    sent = await upload(client, root, name=name, path="p")
    if sent.status_code == 200:
        answer = await client.get(f"{root}/{sent.json()['id']}/content")
        assert (answer.status_code, answer.content) == (200, b"0123456789")
        assert sent.json()["name"] == name
        assert "x-other" not in answer.headers
    assert (sent.status_code == 400) == (name in NAMES[:2])


async def test_a_file_stored_with_a_type_that_no_header_can_have_is_fetched_as_bytes(
    client: httpx.AsyncClient, root: str, database: Database
) -> None:
    made = await ok(upload(client, root))
    for stored in ("text/plain;\n a=b", "text/plain; a=\u6f22", "t"):
        async with database.begin() as connection:
            await connection.execute(text("UPDATE files SET content_type = :stored"), {"stored": stored})
        answer = await client.get(f"{root}/{made['id']}/content")
        assert (answer.status_code, answer.content) == (200, b"0123456789")
        assert answer.headers["content-type"] == "application/octet-stream"


async def test_a_deleted_file_is_gone_with_its_bytes(client: httpx.AsyncClient, root: str, settings: Settings) -> None:
    made = await ok(upload(client, root))
    assert len(objects(settings)) == 1
    assert await ok(client.delete(f"{root}/{made['id']}")) == {"id": made["id"], "deleted": True}
    assert objects(settings) == []
    for path in (f"{root}/{made['id']}", f"{root}/{made['id']}/content", f"{root}/{NEVER}", f"{root}/x"):
        await refused(client.get(path), 404, "file.not_found")
    await refused(client.delete(f"{root}/{made['id']}"), 404, "file.not_found")
    await ok(upload(client, root))


async def test_missing_bytes_are_reported_as_a_failure_of_the_storage(
    client: httpx.AsyncClient, root: str, settings: Settings
) -> None:
    made = await ok(upload(client, root))
    objects(settings)[0].unlink()
    response = await client.get(f"{root}/{made['id']}/content")
    body: Json = json.loads(response.text)
    assert (response.status_code, body["code"]) == (503, "storage.unavailable")
