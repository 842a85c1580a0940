"""What changed between two data sets, for people: a part of a report in Markdown, or tables on a terminal."""

from collections.abc import Iterable, Sequence

from rich.console import Group, RenderableType
from rich.markup import escape

from service import terminal
from service.lineage.difference import Count, DatasetDifference, changed

SHOWN = 20
"""Rows of a list of images; of more, their number is told."""
TITLES = ("added", "gone", "recaptioned", "moved to the other side of the split")

Rows = Sequence[Sequence[str]]


def summary(found: DatasetDifference) -> str:
    """One line: how many images changed in which way."""
    if found.empty:
        return "no image was added, removed, recaptioned or moved"
    numbers = (len(found.added), len(found.gone), len(found.recaptioned), len(found.moved))
    return ", ".join(f"{number} {title}" for number, title in zip(numbers, TITLES, strict=True) if number)


def lists(found: DatasetDifference) -> dict[str, tuple[tuple[str, ...], Rows]]:
    """Head and rows of each list that is not empty, by its title."""
    of_images = ("image", "caption", "from", "licence")
    tables: list[tuple[tuple[str, ...], Rows]] = [
        (of_images, [(i.file_name, i.caption, i.origin or "", i.licence or "") for i in found.added]),
        (
            (*of_images, "left out because"),
            [(i.file_name, i.caption, i.origin or "", i.licence or "", i.reason or "") for i in found.gone],
        ),
        (("image", "before", "after"), [(i.file_name, i.before, i.after) for i in found.recaptioned]),
        (("image", "before", "after"), [(i.file_name, i.before, i.after) for i in found.moved]),
    ]
    return {title: table for title, table in zip(TITLES, tables, strict=True) if table[1]}


def figures(found: DatasetDifference) -> dict[str, list[Count]]:
    """The counts of images before and after by their title: all splits, and hosts and licences where one changed."""
    told = {"images": found.splits, "hosts": found.hosts, "licences": found.licences}
    return {title: rows for title, rows in told.items() if title == "images" or changed(rows)}


def markdown(found: DatasetDifference) -> str:
    """A section of a report. Captions, addresses and names are strangers' words: as code they neither link nor format."""
    parts = [
        "### What changed in the data set",
        f"{code(found.before)} → {code(found.after)}: {summary(found)}.",
    ]
    for title, rows in figures(found).items():
        cells = [(code(row.name), str(row.before), str(row.after), f"{row.after - row.before:+d}") for row in rows]
        parts.append(table((title, "before", "after", "change"), cells))
    for title, (head, lines) in lists(found).items():
        shown = table(head, [[code(cell) for cell in line] for line in lines[:SHOWN]])
        more = [f"… and {len(lines) - SHOWN} more."] if len(lines) > SHOWN else []
        parts += [f"<details><summary>{len(lines)} {title}</summary>", shown, *more, "</details>"]
    return "\n\n".join(parts) + "\n"


def code(text: str) -> str:
    """Text as Markdown code that stays within its cell; nothing for no text."""
    plain = " ".join(text.split()).replace("`", "'").replace("|", "\\|")
    return f"`{plain}`" if plain else ""


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A table in Markdown."""
    titles = list(head)
    lines = [titles, ["---"] * len(titles), *map(list, rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def tables(found: DatasetDifference) -> RenderableType:
    """The same for a terminal, every image of it."""
    parts: list[RenderableType] = [f"{escape(found.before)} → {escape(found.after)}: {summary(found)}"]
    for title, rows in figures(found).items():
        shown = terminal.table(title, "", "before", "after")
        for row in rows:
            shown.add_row(escape(row.name), str(row.before), str(row.after))
        parts.append(shown)
    for title, (head, lines) in lists(found).items():
        shown = terminal.table(f"{len(lines)} {title}", *head)
        for line in lines:
            shown.add_row(*map(escape, line))
        parts.append(shown)
    return Group(*parts)
