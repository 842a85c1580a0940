"""What a data-prep that is under way has done so far, kept in the store: a killed one goes on, and shards find each other."""

import hashlib
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import structlog

from service import stopping
from service.artifacts import preparation_layout
from service.artifacts.keys import content_key
from service.artifacts.kinds.dataset import read as read_dataset
from service.artifacts.lines import CandidateLine, FeaturesLine, OutcomeLine, ShardHead, from_lines, to_lines
from service.artifacts.notes import PublishedNote
from service.artifacts.runs import Run
from service.dataset.candidates import Candidate, Features, Reason, Record
from service.dataset.sources.interface import Source
from service.exits import BadData, MissingInput
from service.settings.data_prep import DataPrepSettings
from service.settings.identity import for_key, identity, same
from service.storage.interface import NotFound
from service.storage.parallel import for_each

log = structlog.get_logger(__name__)


class Preparation:
    """The state of one data-prep of a run, the same for all processes with the same settings and the same source."""

    def __init__(self, run: Run, settings: DataPrepSettings, source: Source) -> None:
        # Of the same images another style, limit or captioner makes another data set, without a new search or download.
        collected = identity(settings, "collecting", max_candidates=settings.max_candidates, state=source.state())
        key = content_key(for_key(DataPrepSettings, collected))
        self._run = run
        self._store = run.store
        self._at = (run.run_id, key)
        self._chosen = {name: value for name, value in identity(settings).items() if name not in collected}
        # Shards that left out different images do not go together.
        self._excluded = "\n".join(settings.exclude).encode()
        self._list_digest = ""

    def published(self) -> str | None:
        """The path of the data set that was made of these candidates with these very settings, if it is still there."""
        ours = self._published_note()
        for key in sorted(self._keys_of("published"), key=lambda key: key != ours):
            try:
                path = PublishedNote.from_bytes(self._store.get(key), key).dataset
                recipe = read_dataset(self._store, path).recipe
                # Under our own key it is ours, whatever its recipe says: others may have come to the same images.
                if key == ours or same(DataPrepSettings, recipe, self._chosen):
                    return path
            except (NotFound, BadData):
                continue
        return None

    def candidates(self, source: Source) -> list[Candidate]:
        """The source's candidates as they were when the first process of this preparation asked."""
        key = preparation_layout.Candidates(*self._at).path
        try:
            content = self._store.get(key)
        except NotFound:
            lines = (CandidateLine(**asdict(candidate)) for candidate in source.candidates())
            self._store.put_if_absent(key, to_lines(lines))
            content = self._store.get(key)  # another process may have been faster
        self._list_digest = hashlib.sha256(content + self._excluded).hexdigest()
        return [
            Candidate(**dict(line))
            for line in from_lines(CandidateLine, content.splitlines(), f"{self._store.uri}/{key}")
        ]

    def outcomes(self, candidates: Sequence[Candidate]) -> list[Record]:
        """The records of those candidates whose outcome is final, by rank. One whose picture is missing counts as open."""
        by_rank = {candidate.rank: candidate for candidate in candidates}
        pictures = {*self._keys_of("images"), *self._keys_of("thumbnails")}
        found: dict[int, Record] = {}

        def read(key: str) -> None:
            stopping.check()
            try:
                for line in from_lines(OutcomeLine, self._store.get(key).splitlines(), key):
                    if line.rank in by_rank:
                        record = _record_of(line, by_rank[line.rank])
                        if record.features is None or self._picture(record) in pictures:
                            found[record.candidate.rank] = record
            except (BadData, ValueError) as error:
                log.warning("outcomes are read as none", key=key, error=str(error))

        for_each(read, self._keys_of("outcomes"), "resuming")
        return [found[rank] for rank in sorted(found)]

    def keep_png(self, record: Record, png: bytes) -> None:
        """Stores the canonical image of a good candidate, or the thumbnail of one that is left out.

        Its outcome must be stored before, which this makes final: an image that is there is never fetched again.
        """
        self._store.put(self._picture(record), png)

    def keep_outcomes(self, records: Sequence[Record]) -> None:
        """Stores outcomes, which are final at once where no picture belongs to them."""
        content = to_lines(map(_line_of, records))
        digest = hashlib.sha256(content).hexdigest()[:8]
        self._store.put(preparation_layout.Outcomes(*self._at, records[0].candidate.rank, digest).path, content)

    def finish_shard(self, index: int, count: int, records: Sequence[Record]) -> None:
        """Notes that a shard is done, with the outcomes of all its candidates."""
        head = ShardHead(candidates=self._list_digest)
        self._store.put(self._shard(index, count), to_lines([head, *map(_line_of, records)]))

    def shard_records(self, candidates: Sequence[Candidate], count: int) -> list[Record]:
        """The records of all shards, by rank.

        Raises MissingInput, naming them, when some of the `count` shards are not done, or were done with another list of
        candidates.
        """
        by_rank = {candidate.rank: candidate for candidate in candidates}
        records: list[Record] = []
        missing = []
        for index in range(count):
            found = self._shard_records_of(index, count, by_rank)
            if found is None:
                missing.append(index)
            else:
                records += found
        if missing:
            raise MissingInput(
                f"{len(missing)} of {count} shards are not done: {', '.join(map(str, missing[:20]))}; run data-prep with "
                f"DATA_PREP_STEP=shard, DATA_PREP_SHARDS={count} and each of them as JOB_COMPLETION_INDEX"
            )
        return sorted(records, key=lambda record: record.candidate.rank)

    def _shard_records_of(self, index: int, count: int, by_rank: dict[int, Candidate]) -> list[Record] | None:
        key = self._shard(index, count)
        where = f"{self._store.uri}/{key}"
        try:
            content = self._store.get(key).splitlines()
            [head] = from_lines(ShardHead, content[:1], where)
            if head.candidates != self._list_digest:
                return None
            return [_record_of(line, by_rank[line.rank]) for line in from_lines(OutcomeLine, content[1:], where)]
        except NotFound:
            return None
        except BadData as error:
            raise BadData(f"{error}; delete it and do the shard again") from error
        except (ValueError, KeyError) as error:
            raise BadData(f"{where} is damaged: {error}; delete it and do the shard again") from error

    def image(self, record: Record) -> bytes:
        """The canonical PNG of a good image."""
        return self._store.get(self._image(record))

    def download(self, record: Record, target: Path) -> None:
        """Writes the canonical PNG of a good image to a file."""
        self._store.download(self._image(record), target)

    def picture(self, record: Record) -> bytes | None:
        """A PNG of a candidate that was decoded, whatever became of it."""
        if record.features is None:
            return None
        for key in (self._thumbnail(record), self._image(record)):
            try:
                return self._store.get(key)
            except NotFound:
                continue
        return None

    def finish(self, dataset: str) -> None:
        """Notes the data set, for this run's next jobs and for its own next start, and drops what it was made of."""
        self._run.remember_dataset(dataset)
        if self.published() != dataset:
            self._store.put(self._published_note(), PublishedNote(dataset=dataset).to_bytes())
        for part in ("shards", "outcomes", "thumbnails", "images"):
            for_each(self._clear, self._keys_of(part), f"clearing {part}")

    def _published_note(self) -> str:
        return preparation_layout.PublishedNote(*self._at, content_key(for_key(DataPrepSettings, self._chosen))).path

    def _clear(self, key: str) -> None:
        stopping.check()  # the next start clears the rest
        self._store.delete(key)

    def _keys_of(self, part: str) -> list[str]:
        return [entry.key for entry in self._store.list(f"{preparation_layout.PreparationPart(*self._at, part).path}/")]

    def _picture(self, record: Record) -> str:
        """Where the picture of a decoded candidate is kept while it is only known by itself."""
        return self._image(record) if record.reason is None else self._thumbnail(record)

    def _thumbnail(self, record: Record) -> str:
        return preparation_layout.Thumbnail(*self._at, record.candidate.rank).path

    def _image(self, record: Record) -> str:
        return preparation_layout.CanonicalImage(*self._at, record.sha256).path

    def _shard(self, index: int, count: int) -> str:
        return preparation_layout.Shard(*self._at, index, count).path


def _line_of(record: Record) -> OutcomeLine:
    features = FeaturesLine(**asdict(record.features)) if record.features else None
    return OutcomeLine(rank=record.candidate.rank, reason=record.reason, detail=record.detail, features=features)


def _record_of(line: OutcomeLine, candidate: Candidate) -> Record:
    """The opposite of `_line_of`. Raises ValueError for a reason that is none."""
    reason = Reason(line.reason) if line.reason is not None else None
    features = Features(**dict(line.features)) if line.features else None
    return Record(candidate, reason, line.detail, features)
