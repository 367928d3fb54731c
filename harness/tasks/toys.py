"""Made-up texts whose words reveal their topic, for examples of kinds."""

from __future__ import annotations

import random
from typing import Final

TOPIC_WORDS: Final = {
    "billing": ["invoice", "refund", "charge", "payment", "price"],
    "shipping": ["parcel", "courier", "delivery", "tracking", "address"],
    "technical": ["crash", "error", "install", "screen", "update"],
}
FILLER: Final = [
    "the",
    "a",
    "my",
    "is",
    "was",
    "please",
    "help",
    "with",
    "about",
    "and",
    "it",
    "not",
    "again",
    "now",
    "when",
]


class Toys:
    """Generator of made-up texts. The vocabulary of the tiny backbones of `harness.testing` holds all their words.

    Args:
        draw: random number generator.

    Attributes:
        draw: the same, for other random choices of an example.
    """

    def __init__(self, draw: random.Random) -> None:
        self.draw = draw

    def topic(self) -> str:
        """Return one of three topics."""
        return self.draw.choice(list(TOPIC_WORDS))

    def word(self, topic: str) -> str:
        """Return a word that only texts of the topic have."""
        return self.draw.choice(TOPIC_WORDS[topic])

    def sentence(self, n_words: int, *more: str) -> str:
        """Return the given words and some without a topic, shuffled."""
        words = [*self.draw.choices(FILLER, k=n_words), *more]
        self.draw.shuffle(words)
        return " ".join(words)
