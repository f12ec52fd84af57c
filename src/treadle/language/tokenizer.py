"""Text to tokens and back, and conversations as text."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from jinja2 import TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment
from tokenizers import Tokenizer as Encoder

from treadle.base.errors import LanguageModelError
from treadle.language.checkpoint import read_json
from treadle.language.text_stream import TextStream

_FILE = "tokenizer.json"
_SETTINGS = "tokenizer_config.json"
_TEMPLATE = "chat_template.jinja"


class Tokenizer:
    """The tokenizer of a model's folder.

    ``chat_template`` is the Jinja text that makes a prompt of a conversation; ``special`` the
    names that it may use, such as ``bos_token``.
    """

    def __init__(
        self,
        encoder: Encoder,
        chat_template: str | None = None,
        special: Mapping[str, str] | None = None,
    ) -> None:
        self.encoder = encoder
        self.chat_template = chat_template
        self.special = dict(special or {})

    @classmethod
    def read(cls, folder: Path) -> "Tokenizer":
        """The tokenizer of a folder with ``tokenizer.json``.

        Raises:
            LanguageModelError: E0910 for a file that cannot be read.
        """
        path = folder / _FILE
        read_json(path)
        settings = read_json(folder / _SETTINGS) if (folder / _SETTINGS).is_file() else {}
        template = settings.get("chat_template")
        if (folder / _TEMPLATE).is_file():
            template = (folder / _TEMPLATE).read_text(encoding="utf-8")
        if isinstance(template, list):
            named = {t["name"]: t["template"] for t in template}
            template = named.get("default")
        special = {
            name: value["content"] if isinstance(value, dict) else value
            for name, value in settings.items()
            if name.endswith("_token") and value is not None
        }
        return cls(Encoder.from_file(str(path)), template, special)

    def encode(self, text: str, *, special: bool = True) -> list[int]:
        """The tokens of ``text``; with ``special``, also those that begin and end a text."""
        return self.encoder.encode(text, add_special_tokens=special).ids

    def decode(self, tokens: Sequence[int]) -> str:
        """The text of ``tokens``, without special ones."""
        return self.encoder.decode(list(tokens), skip_special_tokens=True)

    def stream(self) -> TextStream:
        """Decode token by token."""
        return TextStream(self.decode)

    def chat(self, messages: Sequence[Mapping[str, str]], *, answer: bool = True) -> list[int]:
        """The tokens of a conversation, each message with its ``role`` and ``content``; with
        ``answer``, the model is to speak next.

        Raises:
            LanguageModelError: E0915 if there is no template, or it refuses the messages.
        """
        if self.chat_template is None:
            raise LanguageModelError(
                "E0915",
                "the model has no chat template",
                help="pass one, or a prompt in the form that the model was trained with",
            )
        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
        )
        try:
            text = environment.from_string(self.chat_template).render(
                messages=list(messages),
                add_generation_prompt=answer,
                raise_exception=_refuse,
                **self.special,
            )
        except TemplateError as error:
            raise LanguageModelError(
                "E0915",
                "the chat template does not take these messages",
                notes=(str(error),),
                help="pass messages as the model's template expects them",
            ) from error
        return self.encode(text, special=False)


def _refuse(message: str) -> str:
    raise TemplateError(message)
