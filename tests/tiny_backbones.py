"""The tiny language models, under the names that tests import."""

from harness.testing.backbones import SPECIAL, WORDS, save_tiny_llama, save_tiny_t5, word_tokenizer

__all__ = ["SPECIAL", "WORDS", "save_tiny_llama", "save_tiny_t5", "word_tokenizer"]
