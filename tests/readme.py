"""Brings the tables of the README up to date: `python -m tests.readme`."""

import re
from pathlib import Path

from service.settings.catalogue import SETTINGS, readme_table
from service.settings.common import CommonSettings, ModelSettings

README = Path(__file__).parents[1] / "README.md"
TABLES = {
    "shared": CommonSettings,
    "models": ModelSettings,
    **{job: SETTINGS[job] for job in SETTINGS if job != "demo"},
}


def with_tables(text: str) -> str:
    """The README with every table between its marks as the settings give it now."""
    for name, settings in TABLES.items():
        start, end = f"<!-- settings: {name} -->", f"<!-- end of settings: {name} -->"
        if text.count(start) != 1 or text.count(end) != 1:
            raise ValueError(f"the README has no place for the settings {name!r}, or more than one")
        table = f"{start}\n{readme_table(settings)}\n{end}"
        text = re.sub(f"{re.escape(start)}.*?{re.escape(end)}", lambda _, table=table: table, text, flags=re.DOTALL)
    return text


if __name__ == "__main__":
    README.write_text(with_tables(README.read_text(encoding="utf-8")), encoding="utf-8")
