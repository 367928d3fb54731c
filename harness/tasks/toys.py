"""Made-up texts whose words tell their topic: what examples of kinds are made of."""

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
    """Draw made-up texts. The tiny backbones of `harness.testing` know every word of them, and few others.

    Args:
        draw: the random numbers.

    Attributes:
        draw: the same, for what else an example needs.
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
        """Return words without a topic, and those given, in some order."""
        words = [*self.draw.choices(FILLER, k=n_words), *more]
        self.draw.shuffle(words)
        return " ".join(words)
