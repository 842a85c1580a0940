"""What a retraining came to, for people: before and after what its evaluation says, as a report in Markdown and as a page."""

from collections.abc import Mapping
from pathlib import Path

from service.artifacts.kinds.retraining import Retraining
from service.lineage import difference_text
from service.lineage.difference import DatasetDifference
from service.lineage.difference_text import SHOWN, table
from service.templates import rendered

FIRST = Path(__file__).with_name("retraining_first.html.jinja")
LAST = Path(__file__).with_name("retraining_last.html.jinja")
WITHOUT_CHAMPION = "There was no champion whose data set this one could be compared with."


def headline(found: Retraining) -> str:
    """The decision in one sentence."""
    if not found.promoted:
        stays = f"{found.champion} stays the champion" if found.champion else "there is still no champion"
        return f"{found.model}: not promoted, {stays}"
    place = f"in the place of {found.champion}" if found.champion else "as the first champion"
    return f"{found.model}: {found.lora} was promoted {place}, entry {found.entry}"


def report(found: Retraining, evaluation: str, changed: DatasetDifference | None) -> str:
    """In Markdown. `evaluation`: the report of the evaluation, which begins with its decision."""
    parts = [
        f"# {headline(found)}",
        evaluation.strip(),
        difference_text.markdown(changed).strip()
        if changed
        else f"### What changed in the data set\n\n{WITHOUT_CHAMPION}",
        "### Time",
        table(("Stage", "Time"), times(found.seconds)),
        *([f"Price: {found.price:.2f}"] if found.price is not None else []),
    ]
    return "\n\n".join(parts) + "\n"


def page(found: Retraining, evaluation: str, changed: DatasetDifference | None) -> str:
    """In HTML: the page of the evaluation, with what retrain has to say above its decision and at its end."""
    first = rendered(FIRST, found=found, headline=headline(found))
    last = rendered(
        LAST,
        found=found,
        changed=changed,
        nothing=WITHOUT_CHAMPION,
        summary=difference_text.summary(changed) if changed else "",
        figures=difference_text.figures(changed) if changed else {},
        lists=difference_text.lists(changed) if changed else {},
        shown=SHOWN,
        times=times(found.seconds),
    )
    return evaluation.replace("</header>", f"</header>\n{first}", 1).replace("</main>", f"{last}\n</main>", 1)


def times(seconds: Mapping[str, float]) -> list[tuple[str, str]]:
    """The time of each stage and of all, in hours, minutes and seconds."""
    return [(stage, in_hours(spent)) for stage, spent in (*seconds.items(), ("all", sum(seconds.values())))]


def in_hours(seconds: float) -> str:
    """Such as 1:02:03."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}"
