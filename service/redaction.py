"""The second line of defence for secrets: whatever the environment holds as one is starred out of what a job says.

The first is to say none: secrets are never settings, and nothing of ours formats them. But a library may put a proxy's
address into its error, and a stack trace shows what it will.
"""

import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote

STARS = "***"
SHORTEST = 6
"""Letters. A shorter value is no secret worth the name, and would be found inside of every other word."""

NAMES = re.compile(
    r"(NOTIFY_URL|SECRET|TOKEN|PASSWORD|PASSWD|PASSPHRASE|CREDENTIALS?|API_?KEY|ACCESS_?KEY|PRIVATE_?KEY|AUTH_?KEY)(_ID)?$",
    re.I,
)
USER_INFO = re.compile(r"(?<=://)[^/?#\s@'\"]+(?=@)")


def secrets_of(environment: Mapping[str, str]) -> list[str]:
    """What must not be shown, the longest first: values of variables named like secrets, and passwords in addresses."""
    found: set[str] = set()
    for name, value in environment.items():
        if NAMES.search(name):
            found |= {value, value.strip()}
        for user_info in USER_INFO.findall(value):
            password = user_info.partition(":")[2]
            # A single word before the @ may be a token as well as a name: as good as a password.
            found |= {user_info, unquote(user_info), password, unquote(password)}
    return sorted((secret for secret in found if len(secret) >= SHORTEST), key=len, reverse=True)


def redacted(text: str, secrets: list[str]) -> str:
    """The text with stars in place of the secrets, and of the user and password of every address."""
    for secret in secrets:
        text = text.replace(secret, STARS)
    return USER_INFO.sub(STARS, text) if "://" in text else text


def redacted_values(value: Any, secrets: list[str]) -> Any:
    """The same for values as JSON has them, of any depth; anything else stays as it is."""
    if isinstance(value, str):
        return redacted(value, secrets)
    if isinstance(value, dict):
        return {key: redacted_values(inner, secrets) for key, inner in value.items()}
    if isinstance(value, list):
        return [redacted_values(inner, secrets) for inner in value]
    return value
