"""In tests, every pass is checked: the rules of programs, and types that can be deduced again."""

from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True, scope="session")
def _checked_passes() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TREADLE_VERIFY", "1")
        yield
