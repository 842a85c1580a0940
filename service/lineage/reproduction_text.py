"""What came out the same again, for a terminal."""

from rich.console import Group, RenderableType
from rich.markup import escape

from service.lineage.reproduction import Part, Reproduction
from service.terminal import table

MOST_NAMED = 3
"""Files that are named in a row; of more, their number is told."""


def summary(found: Reproduction) -> str:
    """One line: what is the same, and what is not."""
    decision = (
        f"the decision is {found.decision_now} again"
        if found.decision_then == found.decision_now
        else f"the decision was {found.decision_then} and is {found.decision_now}"
    )
    if found.same:
        return f"every file came out with the same hash, and {decision}"
    other = ", ".join(part.name for part in found.parts if not part.same)
    return f"came out with other hashes: {other}; {decision}"


def tables(found: Reproduction) -> RenderableType:
    """A row for each artifact, and what may be the cause of a difference."""
    shown = table(f"again in {escape(found.store)}", "what", "then", "now", "files", "")
    for part in found.parts:
        cells = (part.name, part.then or "gone", part.now or "not made", str(part.files), _verdict(part))
        shown.add_row(*map(escape, cells))
    remarks = [f"- {escape(remark)}" for remark in found.remarks]
    return Group(f"{escape(found.evaluation)}: {summary(found)}", shown, *remarks)


def _verdict(part: Part) -> str:
    if part.same:
        return "the same"
    if part.then is None or part.now is None:
        return "cannot be compared"
    named = ", ".join(part.different[:MOST_NAMED])
    more = f" and {len(part.different) - MOST_NAMED} more" if len(part.different) > MOST_NAMED else ""
    return f"other hashes: {named}{more}"
