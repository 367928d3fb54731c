"""Small causal models with chat templates of several kinds."""

from __future__ import annotations

from pathlib import Path

import torch

MARKS = ("<s>", "</s>", "<pad>", "<|user|>", "<|model|>", "<|end|>", "<think>", "</think>")

TEMPLATES = {
    "chatml": "{{ bos_token }}{% for m in messages %}<|{{ 'model' if m.role == 'assistant' else 'user' }}|>\n"
    "{{ m.content }}<|end|>\n{% endfor %}{% if add_generation_prompt %}<|model|>\n{% endif %}",
    "trims": "{% for m in messages %}<|{{ 'model' if m.role == 'assistant' else 'user' }}|>"
    "{{ m.content | trim }}<|end|>"
    "{% endfor %}{% if add_generation_prompt %}<|model|>{% endif %}",
    "instructs": "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}[INST] {{ m.content }} [/INST]"
    "{% else %} {{ m.content }} {{ eos_token }}{% endif %}{% endfor %}",
    "thinks": "{% for m in messages %}{% if m.role == 'user' %}<|user|>{{ m.content }}<|end|>{% else %}"
    "<|model|><think>\n\n</think>\n\n{{ m.content }}<|end|>{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|model|>{% endif %}",
    "no mark": "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant: {% endif %}",
}


def save_chat_model(folder: Path, template: str | None, *, max_length: int = 256, file: bool = True) -> Path:
    """Save a Llama with a byte-level tokenizer and a chat template."""
    from tokenizers import ByteLevelBPETokenizer
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    trained = ByteLevelBPETokenizer()
    texts = ["alpha beta gamma billing shipping technical\nhelp with the screen", "assistant user: [INST] [/INST]"] * 4
    trained.train_from_iterator(texts, vocab_size=340, min_frequency=2, special_tokens=list(MARKS), show_progress=False)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=trained._tokenizer,
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        additional_special_tokens=list(MARKS[3:]),
        model_max_length=max_length,
    )
    tokenizer.chat_template = template
    tokenizer.save_pretrained(folder, save_jinja_files=file)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        config = LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=2,
            intermediate_size=64,
            max_position_embeddings=max_length,
            initializer_range=0.2,
            pad_token_id=2,
            bos_token_id=0,
            eos_token_id=1,
        )
        LlamaForCausalLM(config).save_pretrained(folder)
    return folder
