"""The page of formats tells what the code reads and writes."""

import pkgutil
import re

from service.artifacts import kinds
from tests.formats import KINDS, PAGE, page

SHARED = {"kind"}
NO_ARTIFACT = {"votes", "registry", "exclusions"}


def test_the_page_of_formats_has_the_tables_that_the_code_gives() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "run `make readme`"


def test_every_kind_and_every_field_is_described() -> None:
    modules = {module.name for module in pkgutil.iter_modules(kinds.__path__)}
    assert {module.__name__.rpartition(".")[2] for module, _, _ in KINDS} == modules - SHARED - NO_ARTIFACT
    undescribed = re.findall(r"^\| `(\w+)` \| [^|]+ \|  \|$", page(), re.MULTILINE)
    # Of plain classes, whose fields stand in the sentence above the table.
    assert set(undescribed) == {
        "path", "size", "sha256", "value", "low", "high", "prompts", "variations", "held_out_images", "seeds",
        "voted_prompts",
        "prompt", "picture", "training", "cosine",
    }  # fmt: skip
