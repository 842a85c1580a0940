"""What a host's answer means for the next attempt."""

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from service.dataset.candidates import Reason, Rejection, Transient
from service.dataset.sources.fetching import TryLater, check_robots, check_status, seconds_until


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
def test_what_may_pass_is_tried_again_when_the_host_says(status: int) -> None:
    with pytest.raises(TryLater) as failure:
        check_status(status, "7")
    assert isinstance(failure.value, Transient)
    assert (failure.value.reason, failure.value.detail, failure.value.seconds) == (Reason.HTTP_STATUS, str(status), 7)


@pytest.mark.parametrize("status", [204, 206, 304, 400, 401, 403, 404, 410, 451])
def test_what_will_not_pass_is_not_tried_again(status: int) -> None:
    with pytest.raises(Rejection) as rejection:
        check_status(status, "7")
    assert not isinstance(rejection.value, Transient)


def test_a_good_answer_is_one() -> None:
    check_status(200)


@pytest.mark.parametrize(("header", "seconds"), [("", 0), ("soon", 0), ("-3", 0), ("12", 12), (" 0 ", 0)])
def test_a_host_may_name_the_seconds_or_nothing(header: str, seconds: float) -> None:
    assert seconds_until(header) == seconds


def test_a_host_may_name_a_moment() -> None:
    now = datetime.now(UTC)
    assert 50 < seconds_until(format_datetime(now + timedelta(seconds=60), usegmt=True)) <= 60
    assert seconds_until(format_datetime(now - timedelta(days=1), usegmt=True)) == 0


@pytest.mark.parametrize(
    "header", ["noai", "noindex, NoAI", "noimageai", "somebot: noai", "all, otherbot: noindex, noimageai"]
)
def test_who_forbids_learning_is_heard(header: str) -> None:
    with pytest.raises(Rejection) as rejection:
        check_robots([header])
    assert rejection.value.reason == Reason.ROBOTS_NOAI


def test_who_forbids_something_else_is_not_meant() -> None:
    check_robots(["noindex, nofollow", "unavailable_after: 25 Jun 2010", "noaim"])
    check_robots([])
