"""Captions for the accepted images: their owner's, or a captioner's, which are said once and remembered."""

import hashlib
from collections import Counter, deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from itertools import islice
from typing import NamedTuple

import structlog
from PIL import Image

from service import stopping
from service.artifacts import layout
from service.artifacts.lines import CaptionLine, from_lines, to_lines
from service.dataset.candidates import Record
from service.dataset.captions.text import clean_caption, is_nothing, styled, with_style, within_limit
from service.dataset.notes import Note
from service.diffusion.families import token_counter
from service.exits import BadData, OutOfDeviceMemory, out_of_memory
from service.logs import progress_bar
from service.settings.data_prep import DataPrepSettings
from service.storage.interface import ObjectStore
from service.storage.parallel import for_each

ImageOf = Callable[[Record], Image.Image]

READERS = 8

log = structlog.get_logger(__name__)


class Captions(NamedTuple):
    """Captions by sha256, and how many of them were not taken as they came."""

    texts: dict[str, str]
    notes: Counter[Note]


def captions_for(
    records: Sequence[Record], image_of: ImageOf, settings: DataPrepSettings, store: ObjectStore
) -> Captions:
    """Captions of the good images, without those that would be nothing.

    Raises MissingInput or BadData for a model that does not load, OutOfDeviceMemory when one image is too much.
    """
    good = [record for record in records if record.reason is None]
    captions = {
        record.sha256: styled(settings.style, record.candidate.caption) for record in good if record.candidate.caption
    }
    if settings.captioner != "sidecar":
        others = {record.sha256: record for record in good if record.sha256 not in captions}
        texts = described(others, image_of, settings, store) if others else {}
        for sha256, text in texts.items():
            content = clean_caption(text)
            captions[sha256] = content._replace(text=with_style(settings.style, content.text))
    captions = {sha256: caption for sha256, caption in captions.items() if not is_nothing(caption.text)}
    notes = Counter(note for caption in captions.values() for note in caption.notes)
    whole = {sha256: caption.text for sha256, caption in captions.items()}
    fitting = _shortened(whole, settings) if whole else {}
    if shorter := sum(fitting[sha256] != whole[sha256] for sha256 in whole):
        notes[Note.CUT_TO_FIT] = shorter
    if notes:
        log.warning("captions changed", **{str(note): count for note, count in notes.items()})
    return Captions(fitting, notes)


def described(
    records: Mapping[str, Record], image_of: ImageOf, settings: DataPrepSettings, store: ObjectStore
) -> dict[str, str]:
    """What the captioner says about each image, word for word, by sha256; cached words are not said again."""
    with stopping.nothing_to_save():
        from service.dataset.captions.captioners import open_captioner  # torch takes seconds to import

    captioner = open_captioner(settings)
    cache = CaptionCache(store, captioner.key)
    texts = cache.known(records)
    missing = [sha256 for sha256 in records if sha256 not in texts]
    if texts:
        log.info("captions known", known=len(texts), missing=len(missing))
    size = settings.caption_batch or _default_batch()
    with ThreadPoolExecutor(READERS, thread_name_prefix="read") as readers:
        images = read_ahead(missing, lambda sha256: image_of(records[sha256]).convert("RGB"), 2 * size, readers)
        batches = in_batches(zip(missing, images, strict=True), size, captioner.describe)
        for sha256, text in progress_bar(_remembering(batches, cache), "captioning", len(missing)):
            texts[sha256] = text
    return texts


def _default_batch() -> int:
    """Images at once: enough to fill a GPU; on a CPU more than a few only push one another out of its caches."""
    import torch

    return 32 if torch.cuda.is_available() else 4


def read_ahead(
    items: Iterable[str], read: Callable[[str], Image.Image], count: int, readers: Executor
) -> Iterator[Image.Image]:
    """What `read` makes of the items, in their order; up to `count` of them are read while the others are worked on."""
    waiting: deque[Future[Image.Image]] = deque()
    for item in items:
        waiting.append(readers.submit(read, item))
        if len(waiting) == count:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def in_batches(
    items: Iterable[tuple[str, Image.Image]], size: int, texts_of: Callable[[Sequence[Image.Image]], list[str]]
) -> Iterator[dict[str, str]]:
    """The texts of (name, image) pairs, `size` at once; half as many from then on whenever memory runs out."""
    import torch

    source, waiting = iter(items), list[tuple[str, Image.Image]]()
    while True:
        waiting += islice(source, max(0, size - len(waiting)))
        batch = waiting[:size]
        if not batch:
            return
        try:
            texts = texts_of([image for _, image in batch])
        except RuntimeError as error:
            if not out_of_memory(error):
                raise
            if size == 1:
                raise OutOfDeviceMemory("the captioner needs more device memory than there is for one image") from error
            texts = []
        if not texts:  # outside of the handler, which keeps the tensors of the failed batch alive
            size //= 2
            torch.cuda.empty_cache()
            log.warning("captioning in smaller batches", size=size)
            continue
        waiting = waiting[size:]
        yield dict(zip((name for name, _ in batch), texts, strict=True))


def _remembering(batches: Iterator[dict[str, str]], cache: "CaptionCache") -> Iterator[tuple[str, str]]:
    """Passes the texts on one by one, each batch once it is remembered: a kill costs only the batch under way.

    Raises Stopped between two batches when a stop was requested.
    """
    for texts in batches:
        cache.remember(texts)
        stopping.check()
        yield from texts.items()


class CaptionCache:
    """What one captioner said about images, for every run to come: by the image alone, before style and cleaning."""

    def __init__(self, store: ObjectStore, captioner_key: str) -> None:
        self._store = store
        self._captioner = captioner_key

    def known(self, hashes: Collection[str]) -> dict[str, str]:
        """The texts of those of the images that have any. A damaged entry is as good as none."""
        wanted, found = set(hashes), {}

        def read(key: str) -> None:
            try:
                lines = from_lines(CaptionLine, self._store.get(key).splitlines(), key)
                found.update({line.sha256: line.text for line in lines if line.sha256 in wanted})
            except BadData as error:
                log.warning("cached captions are read as none", key=key, error=str(error))

        below = layout.CaptionsCache(self._captioner).path
        for_each(read, sorted(entry.key for entry in self._store.list(f"{below}/")), "reading captions")
        return found

    def remember(self, texts: Mapping[str, str]) -> None:
        """Stores a batch as one object. Two writers of the same batch write the same bytes under the same key."""
        lines = to_lines(CaptionLine(sha256=sha256, text=text) for sha256, text in texts.items())
        self._store.put(layout.Captions(self._captioner, hashlib.sha256(lines).hexdigest()[:32]).path, lines)


def _shortened(captions: Mapping[str, str], settings: DataPrepSettings) -> dict[str, str]:
    """The captions cut to what the base model's text encoder reads, so that none is cut unnoticed in training."""
    limit, count_tokens = token_counter(settings)
    return {sha256: within_limit(text, count_tokens, limit) for sha256, text in captions.items()}
