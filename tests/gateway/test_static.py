"""The web page's files as the gateway serves them: to whom, in which form, and with which policy."""

from __future__ import annotations

import gzip
import json
import re
import ssl
import zipfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from launcher.gateway.auth import Gatekeeper
from launcher.gateway.certificate import ServerCertificate
from launcher.gateway.heads import RequestHead, parse_request_head
from launcher.gateway.keyring import KeyRing
from launcher.gateway.refusal import Refused
from launcher.gateway.static import FOLDER, TYPES, Site, wants_page, web_page
from tests.fakes.process import FakeEngine
from tests.gateway.certificates import make_pair
from tests.gateway.harness import Desk, RawClient, chat, gateway_to, request_bytes

ROOT = Path(__file__).parents[2]
POLICY = (
    "default-src 'self'; img-src 'self' blob: data:; style-src 'self'; script-src 'self'; connect-src 'self'; "
    "object-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types dompurify"
)
# As Chromium 140 opens a page of a site whose cookies are many: they are for the host, whatever the port.
NAVIGATION = (
    "Connection: keep-alive",
    "Cache-Control: max-age=0",
    'sec-ch-ua: "Chromium";v="140", "Not=A?Brand";v="24"',
    "sec-ch-ua-mobile: ?0",
    'sec-ch-ua-platform: "Linux"',
    "Upgrade-Insecure-Requests: 1",
    "User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Safari/537.36",
    "Accept: text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,image/apng,*/*;q=0.8",
    "Sec-Fetch-Site: none",
    "Sec-Fetch-Mode: navigate",
    "Sec-Fetch-User: ?1",
    "Sec-Fetch-Dest: document",
    "Accept-Encoding: gzip, deflate, br, zstd",
    "Accept-Language: zh-CN,zh;q=0.9,en;q=0.8",
    "Cookie: " + "; ".join(f"session{number}={'c' * 400}" for number in range(10)),
    "Priority: u=0, i",
)
HTML, GZIP = "Accept: text/html", "Accept-Encoding: gzip"
SCRIPT = "export const answer = 42;\n" * 40


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page of a few files, and some that are none of it."""
    folder = tmp_path_factory.mktemp("ui")
    (folder / "chat" / "deep").mkdir(parents=True)
    files = {
        "index.html": "<!doctype html><title>chat</title>" + "<p>" * 200,
        "ops.html": "<!doctype html><title>ops</title>",
        "style.css": "p { color: red }\n" * 40,
        "chat/chat.js": SCRIPT,
        "chat/deep/a.mjs": "export {};",
        "icon.svg": "<svg xmlns='http://www.w3.org/2000/svg'/>",
        "versions.json": "{}",
        "LICENSES.md": "# Licences",
        "__init__.py": "SECRET = 1",
        "chat/chat.js.orig": "old",
        ".hidden": "no",
        "Makefile": "all:",
    }
    for name, text in files.items():
        (folder / name).write_text(text)
    (folder / "dot.png").write_bytes(b"\x89PNG" + bytes(100))
    (folder / "font.woff2").write_bytes(b"wOF2" + bytes(100))
    (folder / "folder.js").mkdir()
    return folder


@pytest.fixture(scope="module")
def site(folder: Path) -> Site:
    return Site(folder)


@pytest.fixture
async def desk(engine: FakeEngine, site: Site) -> AsyncIterator[Desk]:
    async with gateway_to(engine.url) as desk:
        desk.gateway.site = site
        yield desk


@pytest.fixture
async def locked(desk: Desk) -> Desk:
    """The same, and requests need keys."""
    desk.gateway.gatekeeper = Gatekeeper(KeyRing(None), True)
    return desk


def head_with(target: str, *lines: str) -> RequestHead:
    return parse_request_head("\r\n".join([f"GET {target} HTTP/1.1", "Host: x", *lines, ""]).encode())


class TestSite:
    @pytest.mark.parametrize(
        ("path", "kind"),
        [
            ("/", "text/html; charset=utf-8"),
            ("/ops", "text/html; charset=utf-8"),
            ("/ui/style.css", "text/css; charset=utf-8"),
            ("/ui/chat/chat.js", "text/javascript; charset=utf-8"),
            ("/ui/chat/deep/a.mjs", "text/javascript; charset=utf-8"),
            ("/ui/chat/chat.js?v=2", "text/javascript; charset=utf-8"),
            ("/ui/icon.svg", "image/svg+xml"),
            ("/ui/versions.json", "application/json"),
            ("/ui/LICENSES.md", "text/plain; charset=utf-8"),
            ("/ui/dot.png", "image/png"),
            ("/ui/font.woff2", "font/woff2"),
        ],
    )
    def test_files(self, site: Site, path: str, kind: str) -> None:
        status, lines, body = site.answer(head_with(path))
        assert status == 200
        assert lines[0] == b"content-type: " + kind.encode()
        assert body

    @pytest.mark.parametrize(
        "path",
        [
            "/ui/",
            "/ui/index.html",
            "/ui/ops.html",
            "/ui/__init__.py",
            "/ui/chat",
            "/ui/chat/",
            "/ui/folder.js",
            "/ui/chat/chat.js.orig",
            "/ui/.hidden",
            "/ui/Makefile",
            "/ui/chat/../style.css",
            "/ui/../ui/style.css",
            "/ui/%2e%2e/gateway/auth.py",
            "/ui//style.css",
            "/ui/style.css/",
            "/ui/Style.css",
            "/ui/style.css%00",
            "/ui//etc/passwd",
        ],
    )
    def test_nothing_else(self, site: Site, path: str) -> None:
        with pytest.raises(Refused) as caught:
            site.answer(head_with(path))
        assert (caught.value.refusal.status, caught.value.refusal.reason) == (404, "unknown_path")
        assert caught.value.refusal.message == f"{path} is no file of the web page. The page itself is at /."

    def test_small_and_packed_files_are_not_packed_again(self, site: Site) -> None:
        for path in ("/ui/chat/deep/a.mjs", "/ui/dot.png", "/ui/font.woff2"):
            assert b"content-encoding: gzip" not in site.answer(head_with(path, GZIP))[1]
        assert b"content-encoding: gzip" in site.answer(head_with("/ui/style.css", GZIP))[1]

    @pytest.mark.parametrize(
        ("value", "packed"),
        [
            ("gzip, deflate, br, zstd", True),
            ("GZIP", True),
            ("br;q=1.0, gzip;q=0.8, *;q=0.1", True),
            ("gzip;q=0.001", True),
            ("gzip;q=0", False),
            ("gzip; q=0.0", False),
            ("identity", False),
            ("x-gzip", False),
            ("*", False),
            ("", False),
        ],
    )
    def test_who_gets_gzip(self, site: Site, value: str, packed: bool) -> None:
        _, lines, body = site.answer(head_with("/ui/chat/chat.js", f"Accept-Encoding: {value}"))
        assert (b"content-encoding: gzip" in lines) is packed
        assert (gzip.decompress(body) if packed else body) == SCRIPT.encode()

    def test_tags_are_of_the_bytes_alone(self, site: Site, folder: Path, tmp_path: Path) -> None:
        """So that they are the same after a restart, and on every host."""
        (tmp_path / "other.js").write_bytes((folder / "chat" / "chat.js").read_bytes())
        (tmp_path / "changed.js").write_bytes((folder / "chat" / "chat.js").read_bytes() + b" ")
        other = Site(tmp_path)
        one, two = site.answer(head_with("/ui/chat/chat.js", GZIP)), other.answer(head_with("/ui/other.js", GZIP))
        assert one == two
        assert other.answer(head_with("/ui/changed.js", GZIP))[1] != two[1]

    @pytest.mark.parametrize(
        ("value", "status"),
        [
            ("{etag}", 304),
            ("W/{etag}", 304),
            ('"other", {etag}', 304),
            ("*", 304),
            ('"other"', 200),
            ("", 200),
            ("{etag}x", 200),
            ('"*"', 200),
        ],
    )
    def test_if_none_match(self, site: Site, value: str, status: int) -> None:
        for more in ((), (GZIP,)):
            lines = site.answer(head_with("/ui/style.css", *more))[1]
            etag = next(line for line in lines if line.startswith(b"etag: "))[6:].decode()
            asked = head_with("/ui/style.css", f"If-None-Match: {value.format(etag=etag)}", *more)
            got, lines, body = site.answer(asked)
            assert got == status
            assert f"etag: {etag}".encode() in lines
            if status == 304:
                assert body == b""
                assert not [line for line in lines if line.startswith((b"content-type", b"content-encoding"))]

    def test_a_form_does_not_stand_for_the_other(self, site: Site) -> None:
        tags = {
            line for more in ((), (GZIP,)) for line in site.answer(head_with("/ui/style.css", *more))[1]
            if line.startswith(b"etag")
        }  # fmt: skip
        assert len(tags) == 2
        assert all(re.fullmatch(rb'etag: "[0-9a-f]{32}(-gzip)?"', tag) for tag in tags)

    def test_an_empty_folder_is_no_crash(self, tmp_path: Path) -> None:
        with pytest.raises(Refused, match="/ is no file of the web page"):
            Site(tmp_path).answer(head_with("/", HTML))

    def test_repr(self, site: Site) -> None:
        assert repr(site) == "<Site 10 files>"


class TestServed:
    async def test_browsers_get_the_page_at_the_root_and_others_what_it_was(self, desk: Desk) -> None:
        page = await desk.get("/", *NAVIGATION)
        assert (page.status, page.headers["content-type"]) == (200, "text/html; charset=utf-8")
        assert gzip.decompress(page.body).startswith(b"<!doctype html><title>chat</title>")
        assert page.headers["vary"] == "accept, accept-encoding"
        for lines in ((), ("Accept: */*",), ("Accept: application/json",), ("Accept: text/html;q=0, */*",)):
            index = await desk.get("/", *lines)
            assert index.headers["content-type"] == "application/json"
            assert index.headers["vary"] == "accept"
            assert {"/ops", "/ui/{path}", "/api/about"} < set(index.json()["paths"])

    @pytest.mark.parametrize("path", ["/", "/ops", "/ui/style.css", "/ui/icon.svg", "/ui/dot.png", "/favicon.ico"])
    async def test_each_answer_has_the_policy(self, desk: Desk, path: str) -> None:
        answer = await desk.get(path, HTML)
        again = answer
        if "etag" in answer.headers:
            again = await desk.get(path, HTML, f"If-None-Match: {answer.headers['etag']}")
            assert again.status == 304
        for headers in (answer.headers, again.headers):
            assert headers["content-security-policy"] == POLICY
            assert headers["x-content-type-options"] == "nosniff"
            assert headers["referrer-policy"] == "no-referrer"
            assert headers["permissions-policy"].startswith("camera=(self), microphone=()")
            assert headers["cache-control"] == "no-cache"
            assert headers["x-request-id"]

    async def test_head_304_and_204_leave_the_connection_in_order(self, desk: Desk) -> None:
        client = await desk.client()
        whole = await desk.get("/ops", GZIP)
        await client.send(request_bytes("HEAD", "/ops", b"", GZIP))
        head = await client.read(head_only=True)
        same = ("etag", "content-type", "content-length", "vary")
        assert [head.headers[name] for name in same] == [whole.headers[name] for name in same]
        for path, line, status in (
            ("/ops", f"If-None-Match: {head.headers['etag']}", 304),
            ("/favicon.ico", HTML, 204),
            ("/ui/no.js", HTML, 404),
            ("/ui/style.css", HTML, 200),
        ):
            for method in ("GET", "HEAD"):
                await client.send(request_bytes(method, path, b"", line, *((GZIP,) if status == 304 else ())))
                answer = await client.read(head_only=method == "HEAD")
                assert answer.status == status, (method, path)
                assert ("content-length" in answer.headers) is (status not in (204, 304))
        pipelined = request_bytes("GET", "/ops") * 3 + request_bytes("GET", "/health")
        await client.send(pipelined)
        assert [(await client.read()).status for _ in range(4)] == [200] * 4

    async def test_unknown_files_and_wrong_methods_are_told_as_ever(self, desk: Desk) -> None:
        answer = await desk.get("/ui/nothing.js")
        assert (answer.status, answer.error["reason"], answer.error["src"]) == (404, "unknown_path", "gateway")
        for path in ("/ops", "/ui/style.css", "/favicon.ico"):
            answer = await desk.raw(request_bytes("POST", path))
            assert (answer.status, answer.headers["allow"]) == (405, "GET, HEAD")

    async def test_one_label_for_all_files(self, desk: Desk) -> None:
        for path in ("/ui/style.css", "/ui/chat/chat.js", "/ui/none.js"):
            await desk.get(path)
        await desk.get("/", HTML)
        assert await desk.metric('launcher_requests_total{code="200",route="/ui/{path}"}') == 2
        assert await desk.metric('launcher_requests_total{code="200",route="/"}') == 1
        assert await desk.metric('launcher_requests_total{code="404",route="other"}') == 1
        assert "chat.js" not in (await desk.get("/metrics")).body.decode()

    async def test_strangers_get_the_files_and_nothing_else(self, locked: Desk, engine: FakeEngine) -> None:
        client = await locked.client()
        for lines in ((), ("Authorization: Bearer wrong",), ("Authorization: Basic YTpi",), ("x-api-key: wrong",)):
            for path, status in (("/", 200), ("/ops", 200), ("/ui/style.css", 200), ("/favicon.ico", 204)):
                await client.send(request_bytes("GET", path, b"", *NAVIGATION, *lines))
                assert (await client.read()).status == status, path
            for path in ("/v1/models", "/metrics", "/api/about", "/api/state", "/api/upload/x", "/nowhere"):
                await client.send(request_bytes("GET", path, b"", *NAVIGATION, *lines))
                assert (await client.read()).status == 401, path
            await client.send(request_bytes("GET", "/ui/none.js", b"", *lines))
            assert (await client.read()).status == 404
            await client.send(request_bytes("GET", "/", b"", "Accept: */*", *lines))
            assert (await client.read()).status == 401
        assert (await engine.seen())["requests"] == []

    async def test_while_draining_and_without_engines(self, engine: FakeEngine, site: Site) -> None:
        async with gateway_to(engine.url, ready=False) as desk:
            desk.gateway.site = site
            desk.gateway.stop_admitting("the test says so")
            assert (await desk.post(chat())).status == 503
            for path in ("/", "/ops", "/ui/style.css"):
                assert (await desk.get(path, HTML)).status == 200

    async def test_over_tls(self, engine: FakeEngine, site: Site, tmp_path: Path) -> None:
        pair = make_pair(tmp_path)
        async with gateway_to(engine.url, parts={"certificate": ServerCertificate(pair.cert, pair.key)}) as desk:
            desk.gateway.site = site
            client = await tls_client(desk, pair.trusted())
            for method in ("GET", "HEAD"):
                await client.send(request_bytes(method, "/", b"", *NAVIGATION))
                assert (await client.read(head_only=method == "HEAD")).status == 200
            await client.send(request_bytes("GET", "/ui/chat/chat.js"))
            assert (await client.read()).body == SCRIPT.encode()
            client.close()


async def tls_client(desk: Desk, context: ssl.SSLContext) -> RawClient:
    import asyncio

    return RawClient(*await asyncio.open_connection(*desk.address, ssl=context))


class TestShipped:
    """The page that comes with the launcher."""

    def test_every_file_is_served(self) -> None:
        others = {path.name for path in FOLDER.rglob("*") if path.is_file() and path.suffix not in TYPES}
        assert {name for name in others if not name.endswith(".pyc")} == {"__init__.py"}
        for place in ("/", "/ops"):
            assert web_page().answer(head_with(place))[0] == 200

    def test_html_has_no_script_or_style_that_the_policy_forbids(self) -> None:
        for place in ("/", "/ops"):
            text = web_page().answer(head_with(place))[2].decode()
            assert not re.search(r"<style|\sstyle=|\son\w+=|javascript:", text), place
            assert all("src=" in tag for tag in re.findall(r"<script[^>]*>", text)), place
            assert not re.search(r"(?:src|href)=[\"']?(?:https?:)?//", text), place

    def test_every_path_that_the_html_names_is_there(self) -> None:
        for place in ("/", "/ops"):
            text = web_page().answer(head_with(place))[2].decode()
            for path in re.findall(r"(?:src|href)=\"(/ui/[^\"#?]+)", text):
                assert web_page().answer(head_with(path))[0] == 200

    def test_every_module_that_is_imported_is_there(self) -> None:
        for path in [*FOLDER.rglob("*.js"), *FOLDER.rglob("*.mjs")]:
            for name in re.findall(r"(?:from|import)\s*\(?\s*['\"](\.{1,2}/[^'\"]+)['\"]", path.read_text()):
                assert (path.parent / name).is_file(), f"{path.relative_to(FOLDER)} imports {name}"

    def test_the_wheel_has_it(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        if not (ROOT / "hatch_build.py").exists():
            pytest.skip("not a checkout")
        from hatchling.builders.wheel import WheelBuilder

        monkeypatch.delenv("LAUNCHER_COMPILE", raising=False)
        (wheel,) = WheelBuilder(str(ROOT)).build(directory=str(tmp_path), versions=["standard"])
        with zipfile.ZipFile(wheel) as file:
            packed = {name for name in file.namelist() if name.startswith("launcher/ui/")}
        there = {path.relative_to(ROOT).as_posix() for path in FOLDER.rglob("*") if path.is_file()}
        assert packed == {name for name in there if "__pycache__" not in name}


def test_who_wants_the_page() -> None:
    assert wants_page(head_with("/", *NAVIGATION))
    assert wants_page(head_with("/", "Accept: application/json", "Accept: text/html"))  # two lines are one list
    assert not wants_page(head_with("/"))


async def test_a_browsers_request_for_an_answer(desk: Desk) -> None:
    """What fetch() adds changes nothing, and what the page reads of the answer is there."""
    lines = [line for line in NAVIGATION if not line.startswith(("Accept:", "Sec-Fetch", "Upgrade"))]
    more = ("Accept: */*", "Sec-Fetch-Site: same-origin", "Sec-Fetch-Mode: cors", "Sec-Fetch-Dest: empty",
            f"Origin: {desk.url}", f"Referer: {desk.url}/", "Content-Type: application/json",
            "X-Mode: low-latency", "X-Request-Id: page-1")  # fmt: skip
    answer = await desk.post(chat(stream=True), *lines, *more)
    assert (answer.status, answer.headers["content-type"]) == (200, "text/event-stream; charset=utf-8")
    assert answer.headers["x-request-id"] == "page-1"
    assert {"queue", "engine"} <= {part.split(";")[0] for part in answer.headers["server-timing"].split(", ")}
    assert json.loads(answer.body.decode().split("data: ")[1].split("\n")[0])["choices"]
