"""Which network addresses an image may come from: public ones, however they are spelled."""

import ipaddress
import socket

from service.dataset.candidates import Reason, Rejection, Transient

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
LOCAL_NAT64 = ipaddress.IPv6Network("64:ff9b:1::/48")
V4_COMPATIBLE = ipaddress.IPv6Network("::/96")
LOW_32_BITS = 0xFFFFFFFF


def is_public(address: Address) -> bool:
    """Whether anybody on the internet would reach the same host by this address.

    `is_global` is right about 100.64.0.0/10, where `is_private` is not. It takes IPv6 addresses that carry an IPv4 one
    for public whatever they carry, so the inner address is judged instead.
    """
    if isinstance(address, ipaddress.IPv6Address):
        inner = _embedded(address)
        if inner is not None:
            return is_public(inner)
        if address in LOCAL_NAT64:
            return False
    return address.is_global and not address.is_multicast


def _embedded(address: ipaddress.IPv6Address) -> ipaddress.IPv4Address | None:
    """The IPv4 address inside a v4-mapped, v4-compatible, NAT64 or 6to4 address."""
    if address in NAT64 or address in V4_COMPATIBLE:
        return ipaddress.IPv4Address(int(address) & LOW_32_BITS)
    return address.ipv4_mapped or address.sixtofour


def _literal(host: str) -> Address | None:
    """The address that `host` spells, None for a name.

    Decimal, octal, hexadecimal and shortened IPv4 count as addresses, because the system's resolver takes them for that:
    2130706433, 0177.0.0.1 and 127.1 are all loopback.
    """
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        pass
    try:
        return ipaddress.IPv4Address(socket.inet_aton(host))
    except OSError:
        return None


def require_public_host(host: str) -> None:
    """Refuses a host that is not public by its spelling alone; raises Rejection(blocked_address).

    This is all that can be checked here when a proxy resolves the name.
    """
    name = host.rstrip(".").lower()
    address = _literal(name)
    local = not name or name == "localhost" or name.endswith(".localhost")
    # %31%32%37.0.0.1 is no address here and may be one to a proxy.
    if local or "%" in name or (address is not None and not is_public(address)):
        raise Rejection(Reason.BLOCKED_ADDRESS, host)


def public_addresses(host: str, port: int) -> list[str]:
    """The addresses of `host`, every one of them public; raises Rejection(dns) or Rejection(blocked_address)."""
    require_public_host(host)
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except socket.gaierror as error:
        failure = Transient if error.errno == socket.EAI_AGAIN else Rejection
        raise failure(Reason.DNS, host) from error
    except (OSError, UnicodeError) as error:
        raise Rejection(Reason.DNS, host) from error
    addresses = list(dict.fromkeys(str(sockaddr[0]) for *_, sockaddr in found))
    if not all(is_public(ipaddress.ip_address(address)) for address in addresses):
        # One private address among public ones is how a hostile name gets a second try at the private one.
        raise Rejection(Reason.BLOCKED_ADDRESS, host)
    return addresses
