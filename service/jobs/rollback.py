"""`sdlora rollback`: a champion of before reigns again."""

import structlog

from service.artifacts.history import History
from service.artifacts.kinds.registry import Entry
from service.artifacts.releasing import follow, is_followed, release
from service.exits import BadConfiguration, MissingInput, Rejected
from service.notification import notify_champion
from service.outcome import add_facts
from service.settings.promote import RollbackSettings
from service.storage.opening import open_store

log = structlog.get_logger(__name__)


def rollback(settings: RollbackSettings) -> str:
    """Appends an entry with the champion of before, or of entry ROLLBACK_TO. Returns the key of the champion's entry.

    A rollback that was interrupted before the copy of the LoRA followed is finished, and not done twice. Raises MissingInput
    when nobody reigned before, Rejected for one that was withdrawn.
    """
    store, model = open_store(settings.artifacts_uri), settings.named_model()
    history = History.read(store, model)
    if not history.number:
        raise MissingInput(f"the registry of {model!r} in {store.uri} is empty: there is nothing to roll back")
    last = history.entry(history.number)
    interrupted = last.action == "rollback" and not is_followed(store, history)
    target = history.entry(settings.to) if settings.to else last if interrupted else history.next_best()
    if target is None:
        raise MissingInput(
            f"nobody reigned before {last.lora or 'the last retirement'} in {model}; name an entry in ROLLBACK_TO"
        )
    if target.lora is None:
        raise BadConfiguration(f"ROLLBACK_TO={settings.to}: since that entry there was no champion; name another one")
    if target.version in history.retired:
        raise Rejected(f"{target.lora} of entry {settings.to} was withdrawn from {model}, for ever: name another one")
    if history.champion and target.promotion == history.champion.promotion:
        log.info("already the champion", model=model, number=history.number, lora=target.lora)
        follow(store, model, settings.work_dir)
        add_facts(model=model, champion=target.lora)
        return history.key(history.number)
    entry = Entry.made_now(
        action="rollback",
        **target.of_the_lora(),
        previous=last.lora,
        reason=settings.reason,
        by=settings.who(),
        image=settings.image or None,
    )
    key = release(store, history, entry, settings.work_dir)
    notify_champion(model, key, entry.model_dump(mode="json"))
    add_facts(model=model, champion=target.lora)
    return key
