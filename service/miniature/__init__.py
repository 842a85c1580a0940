"""A Stable Diffusion, a BLIP and a CLIP of a few million parameters each, really trained, with sample images in 8-bit style.

The folders are what `from_pretrained` loads; `build` is the script that made them.
"""

from pathlib import Path

_HERE = Path(__file__).parent

STABLE_DIFFUSION = _HERE / "models" / "stable-diffusion"
CAPTIONER = _HERE / "models" / "blip"
CLIP = _HERE / "models" / "clip"
SAMPLES = _HERE / "samples"
