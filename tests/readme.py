"""Brings the README's table of exit codes and the pages of settings and of formats up to date: `python -m tests.readme`."""

import re
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from pydantic_settings import BaseSettings

from service.exits import MEANINGS
from service.settings.base import flag_name, is_positional, variable_name
from service.settings.catalogue import all_settings
from service.settings.common import CommonSettings
from service.settings.declaring import role_of
from service.settings.models import FamilySettings
from service.settings.notify import NotifySettings
from service.settings.promote import ChangeSettings
from service.settings.s3 import S3Settings
from tests import formats

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
SETTINGS_PAGE = ROOT / "service" / "settings" / "README.md"
INTRODUCTION = r"""# Settings

Every variable is also a flag, and `sdlora JOB --help` explains it; `sdlora config` shows them all with their values. A misspelt
variable with one of our prefixes is an error. What *decides* is part of the result's identity: of two values come two results,
and a training that is half done does not go on with another. Everything else may be turned between two attempts.

What cannot be meant is refused in under a second, before anything is written:

| Given | Taken for |
|---|---|
| `'"miniature"'`, `'x\n'`, `' /tmp/x'`, a byte order mark: as env files, ConfigMaps and Secrets deliver values | what is inside; keys of AWS and the hub too |
| a quote at one end alone, a control or invisible character | 78 that shows the character |
| nothing (`TRAIN_RANK=`) | the default; `DATA_PREP_STYLE=` means no style |
| `gs://b`, `s3:/b`, `S3://b`, or whatever else is neither `s3://bucket/prefix` nor meant as a folder | 78, and no folder of that name |
| `inf`, `nan`, a seed over 2^63 − 1, a billion processes | 78 with the bound |
| `TRAIN_MAX_STEP`: a name with one of our prefixes that is no setting | 78 with the nearest one |
| `TRAIN_SERVICE_HOST`, `TRAIN_PORT=tcp://…`: what Kubernetes tells of a service named `train` | ignored, with one line |
| `MODEL_BASE=miniature` beside a `MODEL_VAE` that does not fit | 78 with the pair |
| `DATA_PREP_EXTRA_FORMATS=heic` where its decoder is not installed | 78 with the way to get it |

`make readme` writes this page from the classes in this folder, where each setting is declared once."""  # noqa: E501
SECTIONS: dict[str, type[BaseSettings]] = {
    "All jobs": CommonSettings,
    "Notification": NotifySettings,
    "S3": S3Settings,
    "Models": FamilySettings,
    "Registry": ChangeSettings,
    **{job: settings for job, settings in all_settings().items() if job != "demo"},
}
SHARED = (FamilySettings, ChangeSettings, CommonSettings, NotifySettings, S3Settings)


def settings_page() -> str:
    """The page with a table for each job, and for what several share."""
    parts = [INTRODUCTION, *(f"## {title}\n\n{table_of(settings)}" for title, settings in SECTIONS.items())]
    return "\n\n".join(parts) + "\n"


def table_of(settings: type[BaseSettings]) -> str:
    """Markdown table of the fields that `settings` does not share with the other jobs."""
    bases = [base for base in SHARED if not issubclass(base, settings)]
    shared = {(name, variable_name(base, name)) for base in bases for name in base.model_fields}
    rows = ["| Variable | Flag | Default | Decides | Meaning |", "|---|---|---|---|---|"]
    for name, field in settings.model_fields.items():
        if (name, variable_name(settings, name)) not in shared:
            role = role_of(field)
            cells = (
                f"`{variable_name(settings, name)}`",
                "an argument" if is_positional(field) else f"`{flag_name(settings, name)}`",
                shown(field.default),
                "yes" if role is not None and role.decides else "",
                (field.description or "") + choices(field.annotation),
            )
            rows.append("| {} | {} | {} | {} | {} |".format(*(cell.replace("|", "\\|") for cell in cells)))
    return "\n".join(rows)


def choices(annotation: Any) -> str:
    """What a setting may be, where that is one of a few words."""
    words = get_args(annotation) if get_origin(annotation) is Literal else ()
    return f" One of {', '.join(f'`{word}`' for word in words)}." if words else ""


def shown(default: Any) -> str:
    """A default as a user would write it in the environment."""
    if default is None or default == []:
        return ""
    if isinstance(default, list):
        return "`" + ("\\n" if any("," in item for item in default) else ",").join(default) + "`"
    return f"`{str(default).lower() if isinstance(default, bool) else default}`"


def with_exit_codes(text: str) -> str:
    """The README with its table of exit codes as they are now."""
    start, end = "<!-- exit codes -->", "<!-- end of exit codes -->"
    if text.count(start) != 1 or text.count(end) != 1:
        raise ValueError("the README has no place for the exit codes, or more than one")
    rows = ["| Code | Meaning | What to do |", "|---|---|---|"]
    rows += [f"| {code:d} | {meaning.what} | {meaning.next} |" for code, meaning in sorted(MEANINGS.items())]
    marked = "\n".join([start, *rows, end])
    return re.sub(f"{re.escape(start)}.*?{re.escape(end)}", lambda _: marked, text, flags=re.DOTALL)


if __name__ == "__main__":
    README.write_text(with_exit_codes(README.read_text(encoding="utf-8")), encoding="utf-8")
    SETTINGS_PAGE.write_text(settings_page(), encoding="utf-8")
    formats.PAGE.write_text(formats.page(), encoding="utf-8")
