"""Short names for results that follow from their settings."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any


def content_key(recipe: Mapping[str, Any]) -> str:
    """Twelve hexadecimal digits that are the same for the same recipe, whatever the order of its entries."""
    canonical = json.dumps(dict(recipe), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()[:12]
