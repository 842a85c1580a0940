"""The page of a data set, for people: what came in, what stayed out and why, and what the captions will teach."""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from service.artifacts.kinds.dataset import host_of
from service.dataset.candidates import Record
from service.dataset.notes import Note
from service.dataset.report.caption_statistics import FUSED_FROM, FUSED_SHARE, caption_statistics
from service.dataset.report.figures import (
    ASPECTS,
    MOST_ASPECT,
    aspect_of,
    by_host,
    by_note,
    by_reason,
    histogram,
    side_labels,
    side_of,
)
from service.dataset.report.samples import of_each_reason
from service.templates import rendered

TEMPLATE = Path(__file__).with_name("page.html.jinja")


@dataclass(frozen=True)
class Tile:
    """An image on a contact sheet: a PNG of at most 96 pixels a side, and what stands below it."""

    picture: bytes
    text: str
    origin: str
    split: str = ""

    @property
    def source(self) -> str:
        """The picture as a URL that needs no second file."""
        return "data:image/png;base64," + base64.b64encode(self.picture).decode("ascii")

    @property
    def link(self) -> str | None:
        """The origin where it is the URL of a page or an image, and nothing that a browser would run."""
        return self.origin if self.origin.startswith(("http://", "https://")) else None


class _Unseen(NamedTuple):
    """A candidate of which there is no picture, with what is known of why."""

    reason: str
    detail: str
    origin: str


def write_dataset_report(
    file: Path,
    *,
    name: str,
    style: str,
    records: Sequence[Record],
    captions: Mapping[str, str],
    accepted: Sequence[Tile],
    rejected: Sequence[Tile],
    held_out: int,
    notes: Mapping[Note, int],
    settings: Mapping[str, Any],
) -> None:
    """Writes the page. The same arguments give the same bytes.

    `captions` is by sha256, of accepted records only; `accepted` and `rejected` are the tiles of the contact sheets;
    `held_out` of the accepted images are not trained on; `notes` counts what was not taken of captions as it came.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    good = [record for record in records if record.reason is None]
    page = rendered(
        TEMPLATE,
        name=name,
        style=style,
        candidates=len(records),
        good=len(good),
        held_out=held_out,
        hosts=by_host(records),
        host_count=len({host for record in records if (host := host_of(record.candidate.origin))}),
        reasons=by_reason(records),
        sides=histogram([side_of(record) for record in good], side_labels()),
        aspects=histogram([aspect_of(record) for record in good], [*(label for _, label in ASPECTS), MOST_ASPECT]),
        animated=sum(record.features is not None and record.features.animated for record in good),
        captions=caption_statistics([captions[record.sha256] for record in good if record.sha256 in captions], style),
        fused_share=f"{FUSED_SHARE:.0%}",
        fused_from=FUSED_FROM,
        notes=by_note(notes),
        accepted=accepted,
        rejected=rejected,
        seen=sum(record.reason is not None and record.features is not None for record in records),
        unseen=[
            _Unseen(str(one.reason), one.detail, one.candidate.origin) for one in of_each_reason(records, seen=False)
        ],
        unseen_count=sum(record.features is None for record in records),
        settings={key: "" if value is None else value for key, value in sorted(settings.items())},
    )
    file.write_text(page, encoding="utf-8", errors="replace")
