"""Values as env files, ConfigMaps, Secrets and people deliver them: what stands around a value without being meant."""

import re
from collections.abc import Mapping, MutableMapping

from service.exits import BadConfiguration

QUOTES = "\"'“”‘’`"
INVISIBLE = "\ufeff\u200b\u200c\u200d\u2060"
"""Byte order mark, and blanks without a width."""

CREDENTIALS = re.compile(
    r"AWS_(ACCESS_KEY_ID|SECRET_ACCESS_KEY|SESSION_TOKEN|REGION|DEFAULT_REGION|ENDPOINT_URL(_\w+)?)|HF_(TOKEN|ENDPOINT)"
)
IN_CREDENTIALS = re.compile(r"[A-Za-z0-9+/=_.:~%?&@\[\]-]")
"""What a key, a token, a region or an address consists of."""


def cleaned(value: str) -> str:
    """The value without blanks, line ends and byte order marks around it, and without one pair of quotes."""
    stripped = _stripped(value)
    if len(stripped) > 1 and stripped[0] == stripped[-1] and stripped[0] in "\"'" and stripped[0] not in stripped[1:-1]:
        return _stripped(stripped[1:-1])
    return stripped


def check_characters(value: str) -> None:
    """Raises ValueError for what cannot be meant in a name, a number or a place: the invisible, or a quote at an end."""
    strange = next((sign for sign in value if not sign.isprintable() or sign in INVISIBLE), None)
    strange = strange or next((end for end in (value[:1], value[-1:]) if end and end in QUOTES), None)
    if strange is not None:
        raise ValueError(f"it holds {named(strange)}, which cannot be part of it")


def named(character: str) -> str:
    """The character as a person can look it up."""
    return f"{character!r} (U+{ord(character):04X})"


def clean_foreign(environment: MutableMapping[str, str]) -> None:
    """Cleans what boto3 and the hub's library read by themselves, in place."""
    for name, value in list(environment.items()):
        if name.startswith(("AWS_", "HF_")):
            environment[name] = cleaned(value)


def check_credentials(environment: Mapping[str, str]) -> None:
    """Raises BadConfiguration for a key, a token, a region or an address with a character that none of them has.

    The message shows the character, and nothing else of the value.
    """
    for name in filter(CREDENTIALS.fullmatch, environment):
        wrong = next((character for character in environment[name] if not IN_CREDENTIALS.match(character)), None)
        if wrong is not None:
            raise BadConfiguration(f"{name} holds {named(wrong)}, which cannot be part of it; set it without")


def _stripped(value: str) -> str:
    return value.strip(" \t\r\n\f\v\u00a0" + INVISIBLE)
