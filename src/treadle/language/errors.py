"""Short cuts to the errors that this room raises."""

from treadle.base.errors import LanguageModelError


def unsupported(setting: str, value: object, help: str) -> LanguageModelError:  # noqa: A002
    """E0902: a setting of a model's configuration that there is no program for."""
    return LanguageModelError(
        "E0902", f"the setting '{setting}' = {value!r} is not supported", help=help
    )
