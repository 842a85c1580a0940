"""What happens beside the steps of a training: how long a stop took."""

import pytest
from structlog.testing import capture_logs

from service.training.callbacks import report_grace


@pytest.mark.parametrize(("seconds", "level"), [(20.0, "info"), (89.0, "info"), (91.0, "warning")])
def test_a_stop_that_took_most_of_the_grace_time_is_warned_about(seconds: float, level: str) -> None:
    with capture_logs() as logs:
        report_grace(seconds, 120, step=7)
    [event] = logs
    assert (event["log_level"], event["seconds"], event["grace_seconds"], event["step"]) == (level, seconds, 120, 7)
