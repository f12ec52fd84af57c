"""Floor 10: language models behind an HTTP interface, one model and many requests at a time.

``model`` says what is needed of a model; ``schedule`` chooses what the next step computes;
``engine`` runs the steps in a thread of its own; ``text`` and ``answers`` turn tokens into text;
``requests`` and ``formats`` are OpenAI's forms; ``service`` joins a model with its limits; ``app``
puts it under Starlette, and ``server`` runs that.
"""
