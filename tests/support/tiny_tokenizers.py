"""Tokenizers of several makes, trained on the spot: what they have in common is tested on all of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from support.tiny_model import CORPUS

CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
MAKES = ("bytes", "metaspace", "unigram", "words")


def build(
    make: str = "bytes",
    *,
    template: str = CHATML,
    special: Sequence[str] = SPECIAL,
    plain: Sequence[str] = (),
    begins: bool = False,
    ends: bool = False,
    bos: str = "<|endoftext|>",
    eos: str = "<|im_end|>",
) -> Any:
    """A tokenizer with a chat template.

    make: byte-level BPE (GPT, Llama 3, Qwen), BPE with blanks as ▁ and bytes for the rest (Llama 2, Mistral, Gemma),
    Unigram (T5), or WordPiece in lower case (BERT). special: control tokens, in the vocabulary. plain: tokens added
    to it that are not called special. begins, ends: whether a document gets `bos` before and `eos` after it.
    """
    from tokenizers import AddedToken, processors
    from transformers import PreTrainedTokenizerFast

    backend = {"bytes": _bytes, "metaspace": _metaspace, "unigram": _unigram, "words": _words}[make](list(special))
    backend.add_tokens([AddedToken(text, special=False, normalized=False) for text in plain])
    if begins or ends:
        single = " ".join([bos] * begins + ["$A"] + [eos] * ends)
        ids = [(text, backend.token_to_id(text)) for text in (bos, eos)]
        backend.post_processor = processors.TemplateProcessing(single=single, special_tokens=ids)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, bos_token=bos, eos_token=eos, pad_token=eos)
    tokenizer.chat_template = template
    return tokenizer


def _bytes(special: list[str]) -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    backend.train_from_iterator(
        CORPUS,
        trainers.BpeTrainer(vocab_size=420, special_tokens=special, initial_alphabet=alphabet, show_progress=False),
    )
    return backend


def _metaspace(special: list[str]) -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    backend = Tokenizer(models.BPE(byte_fallback=True, fuse_unk=True, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    backend.decoder = decoders.Sequence([decoders.Metaspace(), decoders.ByteFallback(), decoders.Fuse()])
    bytes_ = [f"<0x{byte:02X}>" for byte in range(256)]
    backend.train_from_iterator(
        CORPUS,
        trainers.BpeTrainer(vocab_size=700, special_tokens=["<unk>", *special, *bytes_], show_progress=False),
    )
    return backend


def _unigram(special: list[str]) -> Any:
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

    backend = Tokenizer(models.Unigram())
    backend.normalizer = normalizers.NFKC()
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    backend.decoder = decoders.Metaspace()
    alphabet = sorted(set("".join(CORPUS) + "".join(special)))
    backend.train_from_iterator(
        CORPUS,
        trainers.UnigramTrainer(
            vocab_size=300, special_tokens=["<unk>", *special], unk_token="<unk>",
            initial_alphabet=alphabet, show_progress=False,
        ),
    )  # fmt: skip
    return backend


def _words(special: list[str]) -> Any:
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

    backend = Tokenizer(models.WordPiece(unk_token="<unk>"))
    backend.normalizer = normalizers.Lowercase()
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.decoder = decoders.WordPiece()
    backend.train_from_iterator(
        CORPUS,
        trainers.WordPieceTrainer(
            vocab_size=400, special_tokens=["<unk>", *special], initial_alphabet=list("<|_>[]/:;"), show_progress=False
        ),
    )
    return backend
