"""Brings the tables of the README up to date: `python -m tests.readme`."""

import re
from pathlib import Path

from service.exits import MEANINGS
from service.settings.catalogue import SETTINGS, readme_table
from service.settings.common import CommonSettings
from service.settings.models import FamilySettings

README = Path(__file__).parents[1] / "README.md"
TABLES = {
    "shared": CommonSettings,
    "models": FamilySettings,
    **{job: SETTINGS[job] for job in SETTINGS if job != "demo"},
}


def with_tables(text: str) -> str:
    """The README with every table between its marks as the settings and the exit codes give it now."""
    for name, settings in TABLES.items():
        text = with_table(text, f"settings: {name}", readme_table(settings))
    return with_table(text, "exit codes", exit_codes())


def with_table(text: str, name: str, table: str) -> str:
    start, end = f"<!-- {name} -->", f"<!-- end of {name} -->"
    if text.count(start) != 1 or text.count(end) != 1:
        raise ValueError(f"the README has no place for the {name!r}, or more than one")
    marked = f"{start}\n{table}\n{end}"
    return re.sub(f"{re.escape(start)}.*?{re.escape(end)}", lambda _: marked, text, flags=re.DOTALL)


def exit_codes() -> str:
    rows = ["| Code | Meaning | What to do |", "|---|---|---|"]
    return "\n".join(
        rows + [f"| {code:d} | {meaning.what} | {meaning.next} |" for code, meaning in sorted(MEANINGS.items())]
    )


if __name__ == "__main__":
    README.write_text(with_tables(README.read_text(encoding="utf-8")), encoding="utf-8")
