"""What changed from one data set to another, image by image: by the content of the images, whatever their files are called."""

from collections import Counter
from collections.abc import Iterable, Sequence
from operator import attrgetter

from pydantic import Field

from service.artifacts.documents import Detail, Document
from service.artifacts.kinds.dataset import Split
from service.lineage.listing import ListedImage, Listing

FILES = "files"
"""In place of a host, for images that came from no host."""
UNTOLD = "not told"
"""In place of a licence."""


class GoneImage(ListedImage):
    """An image that the later data set has no more."""

    reason: str | None = Field(description="Why the later one left it out; null where it was not offered to it.")


class Recaptioned(Detail):
    """An image that is in both with different captions."""

    file_name: str = Field(description="Its file below imagefolder/ of the later data set.")
    before: str = Field(description="The caption that it had.")
    after: str = Field(description="The caption that it has.")


class Moved(Detail):
    """An image that is in both on different sides of the split."""

    file_name: str = Field(description="Its file below imagefolder/ of the later data set.")
    before: Split = Field(description="The side on which it was.")
    after: Split = Field(description="The side on which it is.")


class Count(Detail):
    """How many images, before and after."""

    name: str = Field(description="Of what.")
    before: int
    after: int


class DatasetDifference(Document):
    """All that changed from one data set to another. Lists are in the order of the data sets' own tables."""

    before: str = Field(description="Path of the earlier data set below ARTIFACTS_URI.")
    after: str = Field(description="Path of the later one.")
    added: list[ListedImage] = Field(description="Images of the later one alone.")
    gone: list[GoneImage] = Field(description="Images of the earlier one alone.")
    recaptioned: list[Recaptioned] = Field(description="Images of both whose caption is another.")
    moved: list[Moved] = Field(description="Images of both that were trained on and are held out, or the reverse.")
    splits: list[Count] = Field(description="Images of each side of the split.")
    hosts: list[Count] = Field(description=f"Images of each host; `{FILES}`: of none.")
    licences: list[Count] = Field(description=f"Images under each licence; `{UNTOLD}`: where the source told none.")

    @property
    def empty(self) -> bool:
        """Whether both hold the same images with the same captions on the same sides."""
        return not (self.added or self.gone or self.recaptioned or self.moved)


def difference(before: Listing, after: Listing) -> DatasetDifference:
    """Images are compared by their pixels, or by their files where one of the data sets does not tell the hash of all pixels.

    Of images of one data set with equal content the first counts.
    """
    everything = (*before.images, *after.images)
    content = attrgetter("sha256" if all(image.sha256 for image in everything) else "file_sha256")
    old, new = ({content(image): image for image in reversed(images)} for images in (before.images, after.images))
    both = [(old[key], image) for image in after.images if (key := content(image)) in old and new[key] is image]
    return DatasetDifference(
        before=before.path,
        after=after.path,
        added=[image for image in after.images if (key := content(image)) not in old and new[key] is image],
        gone=[
            GoneImage(**image.model_dump(), reason=after.left_out.get(image.origin or ""))
            for image in before.images
            if (key := content(image)) not in new and old[key] is image
        ],
        recaptioned=[
            Recaptioned(file_name=now.file_name, before=then.caption, after=now.caption)
            for then, now in both
            if then.caption != now.caption
        ],
        moved=[
            Moved(file_name=now.file_name, before=then.split, after=now.split)
            for then, now in both
            if then.split != now.split
        ],
        splits=counts(*([image.split for image in images] for images in (before.images, after.images))),
        hosts=counts(*([image.host or FILES for image in images] for images in (before.images, after.images))),
        licences=counts(*([image.licence or UNTOLD for image in images] for images in (before.images, after.images))),
    )


def counts(before: Iterable[str], after: Iterable[str]) -> list[Count]:
    """How often each name occurs before and after, the commonest first, then by name."""
    then, now = Counter(before), Counter(after)
    names = sorted(then | now, key=lambda name: (-max(then[name], now[name]), name))
    return [Count(name=name, before=then[name], after=now[name]) for name in names]


def changed(rows: Sequence[Count]) -> list[Count]:
    """The rows whose number is another."""
    return [row for row in rows if row.before != row.after]
