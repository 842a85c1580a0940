"""The header of a safetensors file, where programs look for what the file is."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

from service.exits import BadData


def complete_header(file: Path, facts: Mapping[str, str]) -> None:
    """Adds `facts` to the metadata of a safetensors file, with the hashes of its tensors, and sorts it.

    The library writes the metadata in a random order: the same LoRA would differ in its bytes from run to run.
    Format: 8 bytes little-endian length, JSON padded with spaces, the tensors. Hashes: SHA-256 of all after the header, as
    Stability's ModelSpec 1.0.0 defines `hash_sha256`, and as kohya's scripts and Civitai (AutoV3) name a LoRA.
    Raises BadData for a file without such a header.
    """
    content = file.read_bytes()
    end = 8 + int.from_bytes(content[:8], "little")
    try:
        header = json.loads(content[8:end])
        before = dict(header.get("__metadata__", {}))
    except (ValueError, AttributeError) as error:
        raise BadData(f"{file.name} is no safetensors file: {error}") from error
    digest = hashlib.sha256(content[end:]).hexdigest()
    hashes = {"modelspec.hash_sha256": f"0x{digest}", "sshs_model_hash": digest}
    header["__metadata__"] = dict(sorted({**before, **facts, **hashes}.items()))
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    file.write_bytes(len(text).to_bytes(8, "little") + text + content[end:])
