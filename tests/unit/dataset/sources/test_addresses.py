"""No spelling of a private address gets through."""

import ipaddress
import socket

import pytest

from service.dataset.candidates import Reason, Rejection
from service.dataset.sources.addresses import is_public, public_addresses, require_public_host

PRIVATE = [
    "127.0.0.1", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "0.0.0.0", "240.0.0.1",
    "224.0.0.1", "255.255.255.255", "::1", "::", "fe80::1", "fe80::1%eth0", "fc00::1", "ff02::1", "::ffff:127.0.0.1",
    "::ffff:169.254.169.254", "::127.0.0.1", "64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe", "64:ff9b:1::808:808",
    "2002:7f00:1::", "2001:db8::1",
]  # fmt: skip
PUBLIC = ["8.8.8.8", "2606:4700:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808", "2002:808:808::"]


@pytest.mark.parametrize("address", PRIVATE)
def test_private_addresses_are_not_public(address: str) -> None:
    assert not is_public(ipaddress.ip_address(address))


@pytest.mark.parametrize("address", PUBLIC)
def test_public_addresses_are(address: str) -> None:
    assert is_public(ipaddress.ip_address(address))


@pytest.mark.parametrize(
    "host",
    [
        *PRIVATE,
        "2130706433",
        "0x7f000001",
        "0177.0.0.1",
        "127.1",
        "0x7f.1",
        "localhost",
        "LOCALHOST.",
        "a.localhost",
        "%31%32%37.0.0.1",
        "localhost%2e",
        "",
    ],
)
def test_a_host_is_refused_by_every_spelling_of_a_private_address(host: str) -> None:
    with pytest.raises(Rejection) as rejection:
        require_public_host(host)
    assert rejection.value.reason == Reason.BLOCKED_ADDRESS


@pytest.mark.parametrize("host", ["example.com", "134744072", *PUBLIC])
def test_names_and_public_addresses_pass(host: str) -> None:
    require_public_host(host)


def answering(monkeypatch: pytest.MonkeyPatch, *addresses: str) -> None:
    def answer(_: str, port: int, **__: object) -> list[object]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in addresses]

    monkeypatch.setattr(socket, "getaddrinfo", answer)


def test_a_name_is_refused_when_one_of_its_addresses_is_private(monkeypatch: pytest.MonkeyPatch) -> None:
    answering(monkeypatch, "8.8.8.8", "8.8.4.4")
    assert public_addresses("example.com", 443) == ["8.8.8.8", "8.8.4.4"]
    answering(monkeypatch, "8.8.8.8", "10.0.0.1")
    with pytest.raises(Rejection) as rejection:
        public_addresses("example.com", 443)
    assert rejection.value.reason == Reason.BLOCKED_ADDRESS


def test_a_name_that_does_not_resolve_has_its_own_reason() -> None:
    with pytest.raises(Rejection) as rejection:
        public_addresses("nowhere.invalid", 443)
    assert rejection.value.reason == Reason.DNS
