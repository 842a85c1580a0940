"""A Stable Diffusion, a BLIP and a CLIP of a few million parameters each, really trained, with sample images in 8-bit style.

The folders are what `from_pretrained` loads; `build` is the script that made them.
"""

import hashlib
import json
from functools import cache
from pathlib import Path

_HERE = Path(__file__).parent

STABLE_DIFFUSION = _HERE / "models" / "stable-diffusion"
CAPTIONER = _HERE / "models" / "blip"
CLIP = _HERE / "models" / "clip"
SAMPLES = _HERE / "samples"

REVISIONS = _HERE / "models" / "revisions.json"


@cache
def revisions() -> dict[str, str]:
    """The `content_revision` of each model by the name of its folder, as `build` wrote it down."""
    revisions: dict[str, str] = json.loads(REVISIONS.read_text(encoding="utf-8"))
    return revisions


def content_revision(folder: Path) -> str:
    """40 hexadecimal digits, as a commit of a hub has, that tell the files of one edition of a model from another's."""
    digest = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        digest.update(path.relative_to(folder).as_posix().encode() + b"\0")
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()[:40]
