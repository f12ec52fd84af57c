"""Rules that may not apply."""

import logging
from collections.abc import Callable

from treadle.base.errors import ScheduleError
from treadle.schedule.trace import Schedule

LOG = logging.getLogger("treadle.tune")


def attempt(s: Schedule, rule: Callable[[Schedule], object], *, optional: bool = False) -> bool:
    """Apply a rule; a schedule that refuses one of its instructions stays as it was. Unless the
    rule is ``optional``, code without it is slow, and the log says why.
    """
    trial = Schedule(s.function, s.trace)
    try:
        applied = rule(trial)
    except ScheduleError as error:
        level = logging.DEBUG if optional else logging.INFO
        LOG.log(level, "%s: the default schedule does not apply: %s", s.function.name, error)
        return False
    s.function, s.trace = trial.function, trial.trace
    return applied is not False
