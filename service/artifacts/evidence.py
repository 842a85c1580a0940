"""On what evidence a LoRA is the champion: told by the model card and the headers of the weights of the champion's copy.

The LoRA itself is older than its evaluation, and never changes.
"""

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import structlog

from service.artifacts.fetching import fetch, read_file
from service.artifacts.kinds import evaluation
from service.artifacts.kinds.dataset import PROVENANCE, provenance_of
from service.artifacts.kinds.evaluation import Evaluation
from service.artifacts.kinds.registry import Entry
from service.artifacts.manifest import Manifest
from service.exits import BadData
from service.storage.interface import NotFound, ObjectStore
from service.templates import rendered

log = structlog.get_logger(__name__)

TEMPLATE = Path(__file__).with_name("evidence.md.jinja")
NOT_SAID = "not said"


@dataclass(frozen=True)
class Evidence:
    """Why a LoRA was promoted. report: the evaluation's report.md; licences: how many of its images have each, most first."""

    model: str
    promotion: Entry
    found: Evaluation
    report: str
    dataset: str | None
    licences: Mapping[str, int] | None
    """None where nothing is known of the images that it was trained on."""

    @classmethod
    def read(
        cls, store: ObjectStore, model: str, promotion: Entry | None, lora: Manifest, work_dir: Path
    ) -> "Evidence | None":
        """The evidence of the entry that promoted the LoRA; None where the entry names none, or it is gone or damaged."""
        if promotion is None or promotion.evaluation is None:
            return None
        path, dataset = promotion.evaluation, lora.parents[0] if lora.parents else None
        try:
            found = evaluation.read(store, path, work_dir)
            report = fetch(store, path, work_dir) / evaluation.REPORT_FILE
        except (NotFound, BadData) as error:
            # Whoever rolls back wants the former champion at once, with its evidence or without.
            log.warning("champion without its evidence", evaluation=path, reason=str(error))
            return None
        text = report.read_text(encoding="utf-8") if report.exists() else f"{found.decision}: {found.reason}\n"
        return cls(model, promotion, found, text, dataset, licences_of(store, dataset) if dataset else None)


def licences_of(store: ObjectStore, dataset: str) -> dict[str, int] | None:
    """How many images of a data set have each licence, as their sources told it, most first; None where that is not known."""
    try:
        candidates = provenance_of(read_file(store, dataset, PROVENANCE), dataset)
    except (NotFound, BadData) as error:
        log.warning("licences are not known", dataset=dataset, reason=str(error))
        return None
    counts = Counter(candidate.licence or NOT_SAID for candidate in candidates if candidate.file_name)
    return dict(sorted(counts.items(), key=lambda counted: (-counted[1], counted[0])))


def header_facts(evidence: Evidence) -> dict[str, str]:
    """For the header of a file of weights; `sdlora.findings` are those of evaluation.json, with their intervals."""
    found, promotion = evidence.found, evidence.promotion
    facts = {
        "sdlora.champion_of": evidence.model,
        "sdlora.evaluation": promotion.evaluation,
        "sdlora.decision": found.decision,
        "sdlora.reason": found.reason,
        "sdlora.overruled": promotion.overruled or None,
        "sdlora.confidence": str(found.confidence),
        "sdlora.findings": json.dumps([json.loads(finding.model_dump_json()) for finding in found.findings]),
        "sdlora.dataset": evidence.dataset,
        "sdlora.licences": None if evidence.licences is None else json.dumps(evidence.licences),
        "sdlora.scale": str(promotion.scale),
    }
    return {name: fact for name, fact in facts.items() if fact is not None}


def with_evidence(card: str, evidence: Evidence) -> str:
    """The model card with a section on the evidence at its end."""
    return f"{card.rstrip()}\n\n{rendered(TEMPLATE, evidence=evidence)}".lstrip()
