"""Every path of a preparation: how far a data-prep is, until its data set is published."""

from service.artifacts.places import Place, places_of


class Preparation(Place, template="runs/{run}/preparation/{key}"):
    """What the data-prep of one recipe has done so far."""

    run: str
    key: str


class Candidates(Place, template="runs/{run}/preparation/{key}/candidates.jsonl"):
    """The list that all shards work on."""

    run: str
    key: str


class PreparationPart(Place, template="runs/{run}/preparation/{key}/{part}"):
    """All outcomes, images, thumbnails or shards of a preparation."""

    run: str
    key: str
    part: str


class Outcomes(Place, template="runs/{run}/preparation/{key}/outcomes/{rank:08d}-{digest}.jsonl"):
    """What became of some candidates, of which the first has this rank; final once its picture is there too."""

    run: str
    key: str
    rank: int
    digest: str


class CanonicalImage(Place, template="runs/{run}/preparation/{key}/images/{sha256}.png"):
    """An image that was accepted, by the hash of its pixels."""

    run: str
    key: str
    sha256: str


class Thumbnail(Place, template="runs/{run}/preparation/{key}/thumbnails/{rank:08d}.png"):
    """A picture of a decoded candidate that is left out."""

    run: str
    key: str
    rank: int


class Shard(Place, template="runs/{run}/preparation/{key}/shards/{index:05d}-of-{count:05d}.jsonl"):
    """All outcomes of a shard that is done."""

    run: str
    key: str
    index: int
    count: int


class PublishedNote(Place, template="runs/{run}/preparation/{key}/published/{recipe}.json"):
    """The data set that was made of it with one recipe."""

    run: str
    key: str
    recipe: str


PLACES = places_of(__name__)
