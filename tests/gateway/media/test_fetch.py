"""Fetching by URL, against real servers: what is fetched, and each way in which it is not."""

from __future__ import annotations

import asyncio
import functools
import gzip
import socket
import ssl
from contextlib import suppress
from ipaddress import IPv4Address, IPv6Network, ip_address
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from launcher.gateway.media import fetch
from launcher.gateway.media.addresses import address_fault, is_own, resolve_by_system
from launcher.gateway.media.hop import FetchLimits, _request
from launcher.gateway.media.targets import Allowed, matches
from launcher.gateway.refusal import Refusal, Refused
from launcher.profile.hosts import Address, pattern_fault, written_address
from tests.gateway.media.sites import Authority, Names, Site, answer, site

PICTURE = bytes(range(256)) * 40
PUBLIC = "93.184.215.14"
NAT64 = IPv6Network("64:ff9b::/96")  # IPv4, for networks without it; reserved to Python


def but_here(address: Address) -> str | None:
    """The real rule, but 127.0.0.1, where the tests' servers are, counts as public."""
    return None if address == IPv4Address("127.0.0.1") else address_fault(address)


# Reading the system's authorities takes some 25 ms, and hardly any test needs them.
Fetcher = functools.partial(fetch.Fetcher, tls=ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT))


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


def plain(*sites: Site, names: Names | None = None, hosts: tuple[str, ...] = ("*",), **limits: float) -> fetch.Fetcher:
    """A fetcher that may speak http with these sites, all of them at example.org."""
    return Fetcher(
        Allowed.of(hosts, http=True, more_ports=[each.port for each in sites]),
        FetchLimits(**limits),
        resolve=names or Names(example_org=["127.0.0.1"]),
        fault_of=but_here,
    )


async def refused(fetcher: fetch.Fetcher, url: str) -> Refusal:
    with pytest.raises(Refused) as caught:
        await fetcher.fetch(url, param="messages.0")
    refusal = caught.value.refusal
    assert refusal.param == "messages.0"
    assert refusal.message.endswith((".", "…"))
    return refusal


# What is fetched


async def test_a_picture_by_http() -> None:
    async with site(a=answer(PICTURE, "Content-Type: text/html")) as there:
        fetched = await plain(there).fetch(f"http://example.org:{there.port}/a")
    assert (fetched.data, fetched.host, fetched.redirects) == (PICTURE, "example.org", 0)
    head = there.heads[0].lower()
    assert b"host: example.org:%d\r\n" % there.port in head
    assert b"accept-encoding: identity\r\n" in head
    assert b"connection: close\r\n" in head
    for word in (b"cookie", b"authorization", b"referer"):
        assert word not in head


async def test_https_with_the_name_in_tls_and_host(authority: Authority) -> None:
    names = Names(pictures_example_org=["127.0.0.1"])
    async with site(authority.server("pictures.example.org"), a=answer(PICTURE)) as there:
        fetcher = Fetcher(
            Allowed.of(["*.example.org"], more_ports=[there.port]),
            tls=authority.trusted,
            resolve=names,
            fault_of=but_here,
        )
        fetched = await fetcher.fetch(f"https://Pictures.example.org.:{there.port}/a")
    assert fetched.data == PICTURE
    assert there.names == ["pictures.example.org"]
    assert b"Host: pictures.example.org:%d\r\n" % there.port in there.heads[0]
    assert names.asked == ["pictures.example.org"]


async def test_chunks_and_a_body_that_ends_with_its_connection() -> None:
    chunked = answer(b"4\r\nabcd\r\n3\r\nefg\r\n0\r\n\r\n", "Transfer-Encoding: chunked", length=-1)
    async with site(chunks=chunked, close=answer(PICTURE, length=-1)) as there:
        fetcher = plain(there)
        assert (await fetcher.fetch(f"http://example.org:{there.port}/chunks")).data == b"abcdefg"
        assert (await fetcher.fetch(f"http://example.org:{there.port}/close")).data == PICTURE


async def test_the_next_address_where_one_takes_no_connection() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # not listening
        port = taken.getsockname()[1]
        names = Names(example_org=["127.0.0.1", "127.0.0.1"])
        fetcher = Fetcher(Allowed.of(["*"], http=True, more_ports=[port]), resolve=names, fault_of=but_here)
        refusal = await refused(fetcher, f"http://example.org:{port}/")
    assert refusal.reason == "url_unreachable"
    assert "example.org takes no connection." in refusal.message

    async with site(a=answer(PICTURE)) as there:
        fetcher = Fetcher(
            Allowed.of(["*"], http=True, more_ports=[there.port]),
            resolve=Names(example_org=["127.0.0.2", "127.0.0.1"]),  # nothing listens at the first
            fault_of=lambda _address: None,
        )
        assert (await fetcher.fetch(f"http://example.org:{there.port}/a")).data == PICTURE


async def test_the_environments_proxy_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("http_proxy", "HTTP_PROXY", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(variable, "http://127.0.0.1:9")
    async with site(a=answer(PICTURE)) as there:
        assert (await plain(there).fetch(f"http://example.org:{there.port}/a")).data == PICTURE


# Redirects


async def test_redirects_are_followed_and_each_is_resolved_and_named_anew() -> None:
    names = Names(example_org=["127.0.0.1"], other_org=["127.0.0.1"])
    async with site(end=answer(PICTURE)) as second, site() as first:
        to = f"Location: http://other.org:{second.port}/end"
        first.scripts["/a"] = answer(b"moved", "Location: /b", "Set-Cookie: a=b", status="302 Found")
        first.scripts["/b"] = answer(b"", to, status="308 Permanent Redirect")
        fetched = await plain(first, second, names=names).fetch(f"http://example.org:{first.port}/a")
    assert (fetched.data, fetched.host, fetched.redirects) == (PICTURE, "other.org", 2)
    assert names.asked == ["example.org", "example.org", "other.org"]
    assert b"Host: other.org" in second.heads[0]
    assert all(b"ookie" not in head for head in first.heads + second.heads)


@pytest.mark.parametrize(
    ("location", "reason", "words"),
    [
        ("http://10.0.0.5/", "url_address_refused", "10.0.0.5 is a private address"),
        ("http://169.254.169.254/latest/meta-data/", "url_address_refused", "metadata service"),
        ("http://inside.example.org/", "url_address_refused", "inside.example.org leads to a private address"),
        ("file:///etc/passwd", "url_scheme_refused", "Files of the server are never read"),
        ("http://elsewhere.net/", "url_host_refused", "does not fetch from elsewhere.net"),
        ("//example.org:22/", "url_port_refused", "port 22"),
        ("http://user@example.org/", "url_with_credentials", "leave that part out"),
        ("http://[::1/", "url_invalid", "is no URL"),
    ],
)
async def test_a_redirect_is_checked_as_a_url_is(location: str, reason: str, words: str) -> None:
    names = Names(example_org=["127.0.0.1"], inside_example_org=["192.168.1.1"])
    async with site(a=answer(b"", f"Location: {location}", status="302 Found")) as there:
        hosts = ("example.org", "*.example.org", "10.0.0.5", "169.254.169.254")
        refusal = await refused(plain(there, names=names, hosts=hosts), f"http://example.org:{there.port}/a")
    assert (refusal.status, refusal.reason) == (400, reason)
    assert words in refusal.message


async def test_https_does_not_lead_to_http_where_that_is_not_allowed(authority: Authority) -> None:
    moved = answer(b"", "Location: http://example.org/", status="301 Moved Permanently")
    async with site(authority.server("example.org"), a=moved) as there:
        fetcher = fetch.Fetcher(
            Allowed.of(["*"], more_ports=[there.port]),
            tls=authority.trusted,
            resolve=Names(example_org=["127.0.0.1"]),
            fault_of=but_here,
        )
        refusal = await refused(fetcher, f"https://example.org:{there.port}/a")
    assert (refusal.reason, "only https" in refusal.message) == ("url_scheme_refused", True)


async def test_redirects_in_a_circle_and_too_many() -> None:
    async with site() as there:
        for number in range(6):
            there.scripts[f"/{number}"] = answer(b"", f"Location: /{number + 1}", status="301 Moved Permanently")
        there.scripts["/circle"] = answer(b"", "Location: /circle", status="307 Temporary Redirect")
        fetcher = plain(there)
        many = await refused(fetcher, f"http://example.org:{there.port}/0")
        circle = await refused(fetcher, f"http://example.org:{there.port}/circle")
    assert many.reason == circle.reason == "url_redirects"
    assert "more than 3 redirects are not followed" in many.message
    assert "go in a circle" in circle.message
    assert len(there.heads) == 4 + 1


# What a URL's text tells


@pytest.mark.parametrize(
    ("url", "reason", "words"),
    [
        ("http://example.org/a", "url_scheme_refused", "http is not fetched here, only https"),
        ("file:///etc/passwd", "url_scheme_refused", "Files of the server are never read"),
        ("ftp://example.org/a", "url_scheme_refused", "FTP is not spoken here"),
        ("gopher://example.org/a", "url_scheme_refused", "Gopher"),
        ("data:text/plain;base64,QQ==", "url_scheme_refused", "it begins with data:image/ or data:audio/"),
        ("dict://example.org/", "url_scheme_refused", "'dict:' is no scheme that is fetched here"),
        ("example.org/a.png", "url_scheme_refused", "has no scheme"),
        ("https://user:secret@example.org/", "url_with_credentials", "leave that part out"),
        ("https://example.org\\@evil.net/", "url_with_credentials", "leave that part out"),
        ("https://example.org:8443/", "url_port_refused", "port 8443 is not fetched from, only from 80 and 443"),
        ("https://evil.net/", "url_host_refused", "does not fetch from evil.net"),
        ("https://example.org.evil.net/", "url_host_refused", "does not fetch from example.org.evil.net"),
        ("https:///a", "url_invalid", "names no host"),
        ("https://2130706433/", "url_invalid", "2130706433 is not how an address is written"),
        ("https://0x7f.1/", "url_invalid", "0x7f.1 is not how an address is written"),
        ("https://127.1/", "url_invalid", "127.1 is not how an address is written"),
        ("https://0177.0.0.1/", "url_invalid", "is no URL"),
        ("https://exa%6dple.org/", "url_invalid", "cannot be a host's name"),
        ("https://a..example.org/", "url_invalid", "cannot be a host's name"),
        ("https://example.org/\r\nX: y", "url_invalid", "is no URL"),
        ("https://example.org/" + "a" * 9000, "url_invalid", "9020 characters is too long: at most 8192"),
        ("https://example.org:99999/", "url_port_refused", "port 99999"),
        ("https://example.org:0/", "url_port_refused", "port 0"),
        ("https://example.org/\ud800", "url_invalid", "a letter that is none"),
        ("", "url_scheme_refused", "has no scheme"),
    ],
)
async def test_a_url_is_refused_by_its_text(url: str, reason: str, words: str) -> None:
    names = Names()
    refusal = await refused(Fetcher(Allowed.of(["example.org", "*.example.org"]), resolve=names), url)
    assert (refusal.status, refusal.reason) == (400, reason)
    assert words in refusal.message
    assert "secret" not in refusal.message
    assert names.asked == []


async def no_trace(_event: str, _info: object) -> None: ...


LETTERS = st.characters()  # with the halves of surrogate pairs
HOSTILE = st.text(LETTERS, max_size=60) | st.text(LETTERS, max_size=60).map("https://example.org".__add__)


@given(HOSTILE, HOSTILE)
@example("https://example.org/\ud800", "")
@example("https://xn--a/%ff", "//xn--b")
async def test_any_text_is_a_target_or_gets_a_sentence(url: str, location: str) -> None:
    fetcher = Fetcher(Allowed.of(["*"], http=True, more_ports=range(1, 65536)))
    with suppress(Refused):
        target = fetcher.allowed.target(url)
        assert target.host in target.authority
        assert _request(target, ip_address("::1"), FetchLimits(), no_trace).url.host == "::1"
        assert fetcher.allowed.target(location, base=target).shown.endswith("(redirect 1)")


async def test_fetching_is_off_unless_hosts_are_named() -> None:
    refusal = await refused(Fetcher(Allowed()), "https://example.org/a.png")
    assert (refusal.status, refusal.reason) == (400, "url_fetch_off")
    assert "data:image/…;base64,…" in refusal.message


async def test_a_query_is_not_repeated_in_a_sentence() -> None:
    fetcher = Fetcher(Allowed.of(["*"]), resolve=Names())
    for url in ("https://example.org/a?signature=secret", "ftp://example.org/?secret", "https://1.2.3/?secret"):
        assert "secret" not in (await refused(fetcher, url)).message


# Addresses


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("http://127.0.0.1/", "127.0.0.1 is a loopback address"),
        ("http://[::1]/", "::1 is a loopback address"),
        ("http://[::ffff:127.0.0.1]/", "a loopback address within an IPv6 address"),
        ("http://169.254.169.254/latest/", "a metadata service's address"),
        ("http://[fd00:ec2::254]/", "a metadata service's address"),
        ("http://0.0.0.0/", "an unspecified address"),
        ("http://[::]/", "an unspecified address"),
        ("http://10.1.2.3/", "a private address"),
        ("http://100.64.0.1/", "an address shared by a provider's customers"),
        ("http://224.0.0.1/", "a multicast address"),
        ("http://[fe80::1%25eth0]/", "a link-local address"),
        ("http://[64:ff9b::a00:1]/", "a private address within an IPv6 address"),
    ],
)
async def test_an_address_in_a_url(url: str, words: str) -> None:
    refusal = await refused(Fetcher(Allowed.of(["*"], http=True)), url)
    assert (refusal.status, refusal.reason) == (400, "url_address_refused")
    assert words in refusal.message
    assert "Only public addresses are fetched from" in refusal.message


@pytest.mark.parametrize(
    "addresses", [[PUBLIC, "10.0.0.5"], ["10.0.0.5", PUBLIC], ["2606:4700::1", "fd00::1"], ["::ffff:10.0.0.5"]]
)
async def test_a_name_with_one_address_that_is_not_public(addresses: list[str]) -> None:
    refusal = await refused(Fetcher(Allowed.of(["*"]), resolve=Names(example_org=addresses)), "https://example.org/a")
    assert refusal.reason == "url_address_refused"
    assert "example.org leads to a private address" in refusal.message
    assert "10.0.0.5" not in refusal.message
    assert "fd00" not in refusal.message


async def test_a_name_is_resolved_once_so_that_it_cannot_change_between_check_and_connection() -> None:
    class Rebinding(Names):
        async def __call__(self, name: str, port: int) -> list[str]:
            await super().__call__(name, port)
            return ["127.0.0.1"] if len(self.asked) == 1 else ["10.0.0.5"]

    names = Rebinding(example_org=[])
    async with site(a=answer(PICTURE)) as there:
        fetched = await plain(there, names=names).fetch(f"http://example.org:{there.port}/a")
    assert fetched.data == PICTURE
    assert names.asked == ["example.org"]


async def test_localhost_through_the_systems_own_resolver() -> None:
    assert "127.0.0.1" in await resolve_by_system("localhost", 80)
    refusal = await refused(Fetcher(Allowed.of(["*"])), "https://localhost/")
    assert "localhost leads to a loopback address" in refusal.message


async def test_a_name_without_an_address_and_one_that_takes_too_long() -> None:
    async def never(_name: str, _port: int) -> list[str]:
        await asyncio.get_running_loop().create_future()
        raise AssertionError

    unknown = await refused(Fetcher(Allowed.of(["*"]), resolve=Names()), "https://example.org/")
    assert (unknown.reason, "no address is known for example.org" in unknown.message) == ("url_unknown_host", True)
    slow = await refused(Fetcher(Allowed.of(["*"]), FetchLimits(connect_s=0.01), resolve=never), "https://example.org/")
    assert (slow.reason, "the name was not resolved within 0.01 s" in slow.message) == ("url_too_slow", True)


@pytest.mark.parametrize(
    "text",
    [
        *(
            "127.0.0.2",
            "0.1.2.3",
            "10.0.0.1",
            "172.16.0.1",
            "172.31.255.255",
            "192.168.0.1",
            "169.254.1.1",
            "100.127.255.255",
        ),
        *(
            "224.0.0.251",
            "239.1.1.1",
            "240.0.0.1",
            "255.255.255.255",
            "192.0.0.8",
            "192.0.2.1",
            "198.18.0.1",
            "203.0.113.9",
        ),
        *("100.100.100.200", "192.0.0.192", "168.63.129.16", "169.254.170.2", "192.88.99.1"),
        *(
            "::1",
            "::",
            "fc00::1",
            "fd12::1",
            "fe80::1",
            "fec0::1",
            "ff02::1",
            "2001:db8::1",
            "3fff::1",
            "100::1",
            "5f00::1",
        ),
        *("::ffff:10.0.0.1", "::ffff:8.8.8.8", "::ffff:0:10.0.0.1", "::10.0.0.1", "64:ff9b::127.0.0.1", "64:ff9b:1::1"),
        *("2002:7f00:1::1", "2002:0a00:0001::", "2002:808:808::1", "2001:0:1:2:3:4:f5ff:fffe", "4000::1", "2001:10::1"),
    ],
)
def test_addresses_that_are_not_fetched_from(text: str) -> None:
    assert address_fault(ip_address(text))


@pytest.mark.parametrize(
    "text", [PUBLIC, "8.8.8.8", "172.32.0.1", "100.128.0.1", "2606:4700::1111", "64:ff9b::8.8.8.8", "2a00::1"]
)
def test_addresses_that_are(text: str) -> None:
    assert address_fault(ip_address(text)) is None


@given(st.ip_addresses(v=4) | st.ip_addresses(v=6))
def test_no_address_passes_that_python_knows_as_special(address: Address) -> None:
    if address_fault(address) is None and address not in NAT64:
        assert address.is_global
        for word in ("private", "loopback", "link_local", "multicast", "reserved", "unspecified"):
            assert not getattr(address, f"is_{word}")


def test_an_address_of_this_machine_is_known_as_such() -> None:
    assert is_own(ip_address("127.0.0.1"))
    assert not is_own(ip_address(PUBLIC))


@given(st.integers(0, 2**32 - 1))
def test_a_number_for_a_host_never_passes_as_a_name(number: int) -> None:
    octets = IPv4Address(number).packed
    forms = [
        str(number),
        hex(number),
        f"0x{octets[0]:x}.{number & 0xFFFFFF}",
        f"{octets[0]}.{octets[1]}.{number & 0xFFFF}",
    ]
    for form in forms:
        with pytest.raises(ValueError, match=r"."):
            written_address(form)
    assert written_address(str(IPv4Address(number))) == IPv4Address(number)


@pytest.mark.parametrize(
    ("host", "pattern", "fits"),
    [
        ("example.org", "example.org", True),
        ("example.org", "Example.ORG.", True),
        ("a.example.org", "example.org", False),
        ("a.example.org", "*.example.org", True),
        ("a.b.example.org", "*.example.org", True),
        ("example.org", "*.example.org", False),
        ("badexample.org", "*.example.org", False),
        ("anything.net", "*", True),
        ("2606:4700::1", "[2606:4700:0::1]", True),
    ],
)
def test_the_list_of_hosts(host: str, pattern: str, fits: bool) -> None:
    assert pattern_fault(pattern) is None
    assert matches(host, pattern) is fits


@pytest.mark.parametrize(
    ("pattern", "words"),
    [
        ("", "is empty"),
        ("https://example.org", "leave out the scheme"),
        ("example.*", "elsewhere than as its first label"),
        ("*example.org", "elsewhere than as its first label"),
        ("example.org:443", "has a port"),
        ("bücher.example", "xn--"),
        ("exa mple.org", "cannot be a host's name"),
    ],
)
def test_an_entry_that_cannot_be_a_host(pattern: str, words: str) -> None:
    with pytest.raises(ValueError, match=r"^allowed host") as caught:
        Allowed.of([pattern])
    assert words in str(caught.value)


# What a server does


async def drip(writer: asyncio.StreamWriter) -> None:
    writer.write(answer(b"", length=1000))
    while True:
        writer.write(b".")
        await asyncio.sleep(0.01)


async def flood(writer: asyncio.StreamWriter) -> None:
    writer.write(answer(b"", length=-1))
    while True:
        writer.write(bytes(8192))
        await writer.drain()


async def endless_head(writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\n")
    while True:
        writer.write(b"X-Line: %s\r\n" % (b"a" * 1000))
        await writer.drain()


async def hang(writer: asyncio.StreamWriter) -> None:
    await asyncio.get_running_loop().create_future()


LIMITS: dict[str, dict[str, float]] = {"drip": {"total_s": 0.3}, "hang": {"read_s": 0.2}}
CASES = {
    "drip": (drip, "url_too_slow", "was not fetched whole within 0.3 s"),
    "hang": (hang, "url_too_slow", "example.org sent nothing for 0.2 s"),
    "flood": (flood, "url_too_large", "goes on: at most 100000 bytes are fetched"),
    "head": (endless_head, "url_broken", "what it sent is not HTTP"),
    "promise": (answer(b"", length=100_001), "url_too_large", "has 100001 bytes: at most 100000"),
    "early": (answer(b"abc", length=10), "url_broken", "closed the connection early"),
    "nothing": (b"", "url_broken", "closed the connection early"),
    "garbage": (b"SSH-2.0-OpenSSH_9.2\r\n\r\n", "url_broken", "what it sent is not HTTP"),
    "gzip": (answer(gzip.compress(bytes(10**6)), "Content-Encoding: gzip"), "url_encoded", "is compressed (gzip)"),
    "digits": (answer(b"x", "Content-Length: " + "9" * 5000, length=-1), "url_broken", "what it sent is not HTTP"),
    "letters": (answer(b"x", "Content-Length: many", length=-1), "url_broken", "what it sent is not HTTP"),
    "strange": (answer(b"x", "Location: http://[\xff", status="302 Found"), "url_invalid", "is no URL"),
    "missing": (
        answer(b"?", status="404 Not Found"),
        "url_status",
        "example.org answered with status 404, not with 200",
    ),
    "failed": (answer(b"?", status="500 Oops"), "url_status", "status 500"),
    "partial": (answer(b"?", status="206 Partial Content"), "url_status", "status 206"),
    "moved": (answer(b"?", status="302 Found"), "url_status", "status 302"),
    "empty": (answer(b""), "url_empty", "the answer has no bytes"),
    "coded": (answer(b"x", "Transfer-Encoding: gzip", length=-1), "url_broken", "what it sent is not HTTP"),
}


@pytest.mark.parametrize("case", CASES)
async def test_a_server_that_does_badly(case: str) -> None:
    script, reason, words = CASES[case]
    async with site(a=script) as there:
        fetcher = plain(there, max_bytes=100_000, **LIMITS.get(case, {}))
        refusal = await refused(fetcher, f"http://example.org:{there.port}/a?secret")
        await asyncio.wait_for(there.closed.wait(), 5)
    assert (refusal.status, refusal.reason) == (400, reason)
    assert words in refusal.message
    assert "secret" not in refusal.message
    assert repr(fetcher) == "<Fetcher running=0/8 waiting=0>"


# Certificates


@pytest.mark.parametrize(
    ("name", "days", "words"),
    [
        ("other.org", (-1, 30), "it is for another name"),
        ("example.org", (-9, -1), "it has expired"),
        ("example.org", (1, 9), "it is not valid yet"),
        ("stranger", (-1, 30), "signed by nobody whom this server trusts"),
    ],
)
async def test_a_wrong_certificate(
    authority: Authority, tmp_path: Path, name: str, days: tuple[int, int], words: str
) -> None:
    signer = Authority(tmp_path, "stranger") if name == "stranger" else authority
    async with site(signer.server("example.org" if name == "stranger" else name, days), a=answer(PICTURE)) as there:
        fetcher = Fetcher(
            Allowed.of(["*"], more_ports=[there.port]),
            tls=authority.trusted,
            resolve=Names(example_org=["127.0.0.1"]),
            fault_of=but_here,
        )
        refusal = await refused(fetcher, f"https://example.org:{there.port}/a")
    assert (refusal.reason, there.heads) == ("url_certificate", [])
    assert words in refusal.message


async def test_https_to_a_server_without_tls_and_one_that_never_answers_it() -> None:
    async def serve(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    with socket.create_server(("127.0.0.1", 0)) as silent:  # takes connections, says nothing
        ports = [server.sockets[0].getsockname()[1], silent.getsockname()[1]]
        fetcher = Fetcher(
            Allowed.of(["*"], more_ports=ports),
            FetchLimits(connect_s=0.2),
            resolve=Names(example_org=["127.0.0.1"]),
            fault_of=but_here,
        )
        spoken = await refused(fetcher, f"https://example.org:{ports[0]}/")
        mute = await refused(fetcher, f"https://example.org:{ports[1]}/")
    server.close()
    assert (spoken.reason, "does not speak TLS" in spoken.message) == ("url_certificate", True)
    assert (mute.reason, "did not take a connection within 0.2 s" in mute.message) == ("url_unreachable", True)


# How many, and for how long


async def test_no_more_at_once_than_allowed_and_the_others_wait() -> None:
    gate = asyncio.Event()

    async def gated(writer: asyncio.StreamWriter) -> None:
        await gate.wait()
        writer.write(answer(PICTURE))
        await writer.drain()

    async with site(a=gated) as there:
        fetcher = plain(there, at_once=2, waiting=2)
        tasks = [asyncio.create_task(fetcher.fetch(f"http://example.org:{there.port}/a")) for _ in range(4)]
        for _ in range(2):
            await there.arrived.acquire()
        assert repr(fetcher) == "<Fetcher running=2/2 waiting=2>"
        busy = await refused(fetcher, f"http://example.org:{there.port}/a")
        gate.set()
        assert [fetched.data for fetched in await asyncio.gather(*tasks)] == [PICTURE] * 4
        assert there.most_open == 2
    assert (busy.status, busy.reason) == (503, "url_fetches_busy")
    assert busy.retry_after_s
    assert repr(fetcher) == "<Fetcher running=0/2 waiting=0>"


async def test_who_waits_too_long_for_a_turn_is_told() -> None:
    async with site(a=hang) as there:
        fetcher = plain(there, at_once=1)
        first = asyncio.create_task(fetcher.fetch(f"http://example.org:{there.port}/a"))
        await there.begun.wait()
        fetcher.limits = FetchLimits(at_once=1, total_s=0.05)
        assert (await refused(fetcher, f"http://example.org:{there.port}/a")).reason == "url_fetches_busy"
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
    assert repr(fetcher) == "<Fetcher running=0/1 waiting=0>"


@pytest.mark.parametrize("when", ["body", "handshake"])
async def test_a_cancelled_fetch_closes_its_connection(when: str) -> None:
    async def hello(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)  # the client's hello
        begun.set()
        while await reader.read(65536):
            pass
        closed.set()
        writer.close()

    async def body(writer: asyncio.StreamWriter) -> None:
        writer.write(answer(b"abc", length=10))
        await hang(writer)

    async with site(a=body) as there:
        begun, closed, port, scheme = there.begun, there.closed, there.port, "http"
        server = None
        if when == "handshake":
            server = await asyncio.start_server(hello, "127.0.0.1", 0)
            port, scheme = server.sockets[0].getsockname()[1], "https"
        fetcher = Fetcher(
            Allowed.of(["*"], http=True, more_ports=[port]), resolve=Names(example_org=["127.0.0.1"]), fault_of=but_here
        )
        task = asyncio.create_task(fetcher.fetch(f"{scheme}://example.org:{port}/a"))
        await begun.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.wait_for(closed.wait(), 5)
        assert repr(fetcher) == "<Fetcher running=0/8 waiting=0>"
        if server is not None:
            server.close()
