"""`sdlora champion`: who is the champion, who was it when, and why."""

import json
import sys
from typing import Any

from service.artifacts.history import History
from service.artifacts.kinds.registry import models
from service.exits import BadConfiguration, MissingInput
from service.settings.promote import ChampionSettings
from service.storage.opening import open_store


def champion(settings: ChampionSettings) -> None:
    """Writes JSON to standard output: the last entry of every model, or what is asked of PROMOTE_MODEL.

    Raises MissingInput where there is no such model or entry, or when nobody had been promoted yet on CHAMPION_ON.
    """
    store = open_store(settings.artifacts_uri)
    if settings.model is None:
        if settings.number or settings.on:
            raise BadConfiguration("PROMOTE_MODEL is not set: CHAMPION_NUMBER and CHAMPION_ON ask about one model")
        histories = [History.read(store, name) for name in models(store)]
        shown: object = {history.model: line(history, history.number) for history in histories}
    else:
        shown = asked_of(History.read(store, settings.model), settings, store.uri)
    sys.stdout.write(json.dumps(shown, indent=2, ensure_ascii=False) + "\n")


def asked_of(history: History, settings: ChampionSettings, uri: str) -> object:
    """One entry, or all of them, the newest first."""
    if not history.number:
        raise MissingInput(f"there is no model {history.model!r} in the registry of {uri}; correct PROMOTE_MODEL")
    if settings.number:
        return line(history, settings.number)
    if settings.on:
        number = history.number_on(settings.on)
        if not number:
            first = history.entry(1).at
            raise MissingInput(
                f"{history.model} had no champion on {settings.on:%F %T %Z}; its first is of {first:%F %T %Z}"
            )
        return line(history, number)
    return [line(history, number) for number in range(history.number, 0, -1)]


def line(history: History, number: int) -> dict[str, Any]:
    """An entry with its number and its key."""
    entry = history.entry(number)
    return {"number": number, "entry": history.key(number), **entry.model_dump(mode="json", exclude={"schema_version"})}
