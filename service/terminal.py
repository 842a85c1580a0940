"""What a job answers, on standard output: JSON for programs, tables for people; never a secret."""

import os
import sys
from collections.abc import Callable
from typing import TypeVar

from pydantic import BaseModel
from rich.console import Console, RenderableType
from rich.table import Column, Table

from service.redaction import redacted_values, secrets_of

Answer = TypeVar("Answer", bound=BaseModel)


def tell(answer: Answer, laid_out: Callable[[Answer], RenderableType], *, as_json: bool) -> None:
    """Writes the answer as JSON, or as rich prints what `laid_out` makes of it; secrets are starred out before."""
    plain = redacted_values(answer.model_dump(mode="json"), secrets_of(os.environ))
    if as_json:
        sys.stdout.write(type(answer).model_validate(plain).model_dump_json(indent=2) + "\n")
    else:
        Console().print(laid_out(type(answer).model_validate(plain)))


def table(title: str, *head: str) -> Table:
    """An empty table in which nothing is cut off: what is too long goes on in the next line."""
    return Table(*(Column(name, overflow="fold") for name in head), title=title, title_justify="left")
