"""The charts of the page."""

from service.dataset.candidates import Reason
from service.dataset.notes import Note
from service.dataset.report.figures import EXPLAINED_NOTES, EXPLANATIONS, by_host, by_reason
from tests.unit.dataset.records import record


def test_every_reason_is_explained() -> None:
    assert set(EXPLANATIONS) == set(Reason)
    assert set(EXPLAINED_NOTES) == set(Note)


def test_hosts_and_reasons_come_by_number() -> None:
    records = [record(rank, f"https://{host}.example/{rank}") for rank, host in enumerate("abbcccc")]
    records += [record(9, "file.png"), record(10, "https://a.example/x", Reason.DNS)]
    assert [(bar.label, bar.number, bar.note) for bar in by_host(records)] == [
        ("c.example", 4, "4 accepted"),
        ("a.example", 2, "1 accepted"),
        ("b.example", 2, "2 accepted"),
    ]
    assert by_host([record(0)]) == []
    assert [(bar.label, bar.number, bar.share) for bar in by_reason(records)] == [("dns", 1, 100.0)]
