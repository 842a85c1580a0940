"""What descends from an image, for a terminal."""

from rich.console import Group, RenderableType
from rich.markup import escape

from service.lineage.tracing import Trace, TracedDataset, TracedImage
from service.terminal import table


def summary(found: Trace) -> str:
    """One line: how much of what descends from the image."""
    if not found.descends:
        return "no data set holds it"
    holding = sum(dataset.holds for dataset in found.datasets)
    pictures = sum(len(drawn.pictures) for drawn in found.drawn)
    reigning = sum(champion.reigns for champion in found.champions)
    return (
        f"data sets that hold it: {holding}; LoRAs: {len(found.loras)}, champions now: {reigning}, drawn pictures: {pictures}, "
        f"evaluations: {len(found.evaluations)}"
    )


def tables(found: Trace) -> RenderableType:
    """What holds the image, and what descends from that."""
    parts: list[RenderableType] = [f"{escape(found.image)}: {summary(found)}"]
    if found.datasets:
        shown = table("data sets", "data set", "image", "recognised by", "from")
        for dataset in found.datasets:
            for cells in _rows(dataset):
                shown.add_row(*map(escape, cells))
        parts.append(shown)
    rows = [
        *(("LoRA", path, "") for path in found.loras),
        *(
            ("champion", f"{one.model}, entry {one.number}: {one.lora}", "reigns" if one.reigns else "")
            for one in found.champions
        ),
        *(("pictures", drawn.path, f"{len(drawn.pictures)} files") for drawn in found.drawn),
        *(("evaluation", path, "") for path in found.evaluations),
        *(("other", path, "") for path in found.others),
        *(("unreadable", path, "may descend from it as well") for path in found.unreadable),
    ]
    if rows:
        shown = table("what descends from them", "kind", "what", "")
        for row in rows:
            shown.add_row(*map(escape, row))
        parts.append(shown)
    return Group(*parts)


def _rows(dataset: TracedDataset) -> list[tuple[str, str, str, str]]:
    if not dataset.images:
        return [(dataset.path, "drawn pictures", "made of what descends from it", "")]
    return [(dataset.path, _where(image), str(image.how), image.origin) for image in dataset.images]


def _where(image: TracedImage) -> str:
    if image.file_name is None:
        return f"left out: {image.reason}"
    return image.file_name + (" (held out)" if image.file_name.startswith("validation/") else "")
