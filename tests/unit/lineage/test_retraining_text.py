"""The report of a retraining: the decision first, the time in hours, and no word of strangers that links or formats."""

from typing import Any

import pytest

from service.artifacts.kinds.retraining import Retraining
from service.lineage.difference import difference
from service.lineage.listing import ListedImage, Listing
from service.lineage.retraining_text import headline, in_hours, page, report

HOSTILE = "<img src=x onerror=alert(1)> [click](https://a.example) </main>"
PAGE = "<body><main><header>h</header>the decision and the pictures</main></body>"


def came_to(**changes: Any) -> Retraining:
    facts: dict[str, Any] = {
        "model": "pixel-art",
        "decision": "hold",
        "reason": "Held: too few images.",
        "entry": None,
        "lora": "runs/new/lora",
        "evaluation": "runs/new/evaluation/k",
        "dataset": "datasets/a/2",
        "champion": "runs/old/lora",
        "champion_dataset": "datasets/a/1",
        "seconds": {"data-prep": 59.6, "train": 7200.0},
        "price": None,
    }
    return Retraining(**facts | changes)


def images(*captions: str) -> tuple[ListedImage, ...]:
    return tuple(
        ListedImage(
            sha256=caption,
            file_sha256=caption,
            file_name=f"train/{number}.png",
            split="train",
            caption=caption,
            origin="https://a.example/x.png",
            licence=None,
        )
        for number, caption in enumerate(captions)
    )


CHANGED = difference(
    Listing(path="datasets/a/1", images=images("a")), Listing(path="datasets/a/2", images=images("a", HOSTILE))
)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, "pixel-art: not promoted, runs/old/lora stays the champion"),
        ({"champion": None}, "pixel-art: not promoted, there is still no champion"),
        ({"entry": 3}, "pixel-art: runs/new/lora was promoted in the place of runs/old/lora, entry 3"),
        ({"entry": 1, "champion": None}, "pixel-art: runs/new/lora was promoted as the first champion, entry 1"),
    ],
)
def test_the_headline_says_who_reigns_now(changes: dict[str, Any], said: str) -> None:
    assert headline(came_to(**changes)) == said


@pytest.mark.parametrize(
    ("seconds", "shown"), [(0.4, "0:00:00"), (59.6, "0:01:00"), (3723, "1:02:03"), (360_000, "100:00:00")]
)
def test_times_are_hours_minutes_and_seconds(seconds: float, shown: str) -> None:
    assert in_hours(seconds) == shown


def test_the_report_has_the_decision_first_then_what_was_measured_what_changed_and_what_it_took() -> None:
    text = report(came_to(price=4.5), "## hold\n\n| Measurement |", CHANGED)
    order = [
        "# pixel-art: not promoted",
        "## hold",
        "### What changed in the data set",
        "1 added",
        "| train | 2:00:00 |",
    ]
    places = [text.index(part) for part in [*order, "| all | 2:01:00 |", "Price: 4.50"]]
    assert places == sorted(places)


def test_without_a_champion_it_says_that_there_is_nothing_to_compare_with() -> None:
    for text in (report(came_to(), "", None), page(came_to(), PAGE, None)):
        assert "no champion whose data set" in text
        assert "Price" not in text


def test_captions_of_strangers_neither_link_nor_format_nor_end_the_page() -> None:
    text = page(came_to(), PAGE, CHANGED)
    assert "<img" not in text
    assert text.count("</main>") == 1
    assert "&lt;img" in text
    assert f"`{HOSTILE}`" in report(came_to(), "", CHANGED)


def test_the_page_has_the_decision_above_that_of_the_evaluation_and_the_rest_below() -> None:
    text = page(came_to(), PAGE, CHANGED)
    parts = [
        "</header>",
        "not promoted, runs/old/lora stays",
        "the decision and the pictures",
        "1 added",
        "2:00:00",
        "</main>",
    ]
    places = [text.index(part) for part in parts]
    assert places == sorted(places)
