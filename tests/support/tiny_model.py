"""Builds a tiny Llama-like model for tests: about 1M random weights, no download, the same every time.

    python tests/support/tiny_model.py DIR

The tokenizer is a byte-level BPE trained on the spot; the chat template is ChatML. Both transformers
and vLLM load the result. What the model says is noise, but readable noise of about a dozen tokens that
ends by itself: its output layer is shifted towards the end token and away from broken UTF-8, because
answers that never end or never decode would be dropped by every later stage.
"""

from __future__ import annotations

import sys
from pathlib import Path

VOCABULARY = 448
CONTEXT = 1024
SPECIAL_TOKENS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]

CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)

# Enough text for a few hundred merges. Digits stay single tokens, as in SmolLM2 and Llama 3.
CORPUS = [
    "system user assistant Score: 0 Score: 1 Score: 2 Score: 3 Score: 4 Score: 5",
    "The answer is relevant and addresses the question of the user in a useful way.",
    "What is the capital of France? The capital of France is Paris.",
    "Write a short story about a cat who learns to swim in the river.",
    "How do I boil an egg? Put it into boiling water and wait for eight minutes.",
    "Explain why the sky is blue: sunlight is scattered by the air, blue light the most.",
    "1. Name three fruits. 2. Describe a good morning. 3. Give advice on how to sleep well.",
]


def build_tiny_model(directory: Path, *, chat_template: bool = True, seed: int = 0, context: int = CONTEXT) -> Path:
    """Writes model and tokenizer to ``directory`` and returns it; under 3 s beside importing torch.

    ``context`` is the longest input in tokens. Without ``chat_template`` it is a base model that has none.
    """
    import torch
    from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM

    tokenizer = build_tokenizer(chat_template=chat_template, context=context)
    end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    start = tokenizer.convert_tokens_to_ids("<|im_start|>")
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=128,
        intermediate_size=320,
        num_hidden_layers=5,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=32,
        max_position_embeddings=context,
        rms_norm_eps=1e-5,
        tie_word_embeddings=False,
        bos_token_id=start,
        eos_token_id=end,
        pad_token_id=end,
        dtype=torch.float32,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = LlamaForCausalLM(config)
        _shift_output(model, tokenizer)
    model.generation_config = GenerationConfig(bos_token_id=start, eos_token_id=end, pad_token_id=end)
    directory.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    (directory / "model.safetensors").chmod(0o644)  # written so that only its owner can read it
    return directory


def _shift_output(model, tokenizer) -> None:  # type: ignore[no-untyped-def]
    """Makes channel 0 a constant that the output layer uses as a bias for each token (Llama has none)."""
    import torch

    with torch.no_grad():
        embedding = model.model.embed_tokens.weight
        embedding.normal_(0.0, 0.3)
        embedding[:, 0] = 1.0
        model.lm_head.weight.normal_(0.0, 0.1)
        probe = torch.arange(VOCABULARY).reshape(7, -1)
        channel = model.model(probe).last_hidden_state[..., 0].mean()
        bias = torch.tensor([_token_bias(tokenizer, token) for token in range(VOCABULARY)])
        model.lm_head.weight[:, 0] = bias / channel


def _token_bias(tokenizer, token: int) -> float:  # type: ignore[no-untyped-def]
    """Logit shift of a token: the end token is likely, text stays, everything unreadable is out."""
    text = tokenizer.decode([token])
    if text == "<|im_end|>":
        return 3.0
    return 0.0 if text.isascii() and (text.isprintable() or text == "\n") and "<|" not in text else -20.0


def build_tokenizer(*, chat_template: bool = True, context: int = CONTEXT):  # type: ignore[no-untyped-def]
    """A byte-level BPE tokenizer of ``VOCABULARY`` tokens (every byte is in it: nothing is unknown)."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=SPECIAL_TOKENS,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(CORPUS, trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token="<|im_start|>",
        eos_token="<|im_end|>",
        pad_token="<|im_end|>",
        unk_token="<|endoftext|>",
        model_max_length=context,
        clean_up_tokenization_spaces=False,
    )
    if chat_template:
        tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


if __name__ == "__main__":
    print(build_tiny_model(Path(sys.argv[1])))
