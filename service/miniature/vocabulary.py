"""Vocabularies of the miniature: a byte-level BPE for CLIP and a WordPiece for BLIP, from the names of the emoji alone."""

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
from transformers import BertTokenizer, CLIPTokenizer

from service.miniature.corpus import WORDINGS

MERGED_TOKENS = 1500
BOS, EOS = "<|startoftext|>", "<|endoftext|>"


def clip_tokenizer(names: Sequence[str]) -> CLIPTokenizer:
    """77 tokens a prompt, as in SD-1.x. Any text can be spelled: the 256 bytes are in the vocabulary."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=MERGED_TOKENS, end_of_word_suffix="</w>", initial_alphabet=alphabet, show_progress=False
    )
    bpe = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    bpe.normalizer = normalizers.Lowercase()
    bpe.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Whitespace(), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    bpe.train_from_iterator(sentences(names), trainer)
    with TemporaryDirectory() as folder:
        bpe.model.save(folder)
        lines = (Path(folder) / "merges.txt").read_text(encoding="utf-8").splitlines()
    merges = [tuple(line.split(" ")) for line in lines if line and not line.startswith("#version")]
    tokens = [*alphabet, *(letter + "</w>" for letter in alphabet), *("".join(pair) for pair in merges)]
    vocabulary = {token: index for index, token in enumerate([*dict.fromkeys(tokens), BOS, EOS])}
    return CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=77)


def inner_pieces(tokenizer: CLIPTokenizer) -> list[str]:
    """The tokens that stand inside of words, two letters and more, of which nonsense is made."""
    return sorted(token for token in tokenizer.get_vocab() if len(token) > 1 and token.isascii() and token.isalpha())


def bert_tokenizer(names: Sequence[str]) -> BertTokenizer:
    """Whole words, with letters to fall back on, and the two extra tokens that BLIP's text decoder expects."""
    words = sorted({word for sentence in sentences(names) for word in split(sentence)})
    letters = "abcdefghijklmnopqrstuvwxyz0123456789"
    tokens = [
        "[PAD]",
        "[UNK]",
        "[CLS]",
        "[SEP]",
        "[MASK]",
        "[DEC]",
        "[ENC]",
        *words,
        *letters,
        *("##" + letter for letter in letters),
    ]
    vocabulary = {token: index for index, token in enumerate(dict.fromkeys(tokens))}
    return BertTokenizer(vocab=vocabulary, do_lower_case=True, model_max_length=32, bos_token="[DEC]")


def sentences(names: Sequence[str]) -> list[str]:
    return [wording.format(name) for name in names for wording in WORDINGS]


def split(sentence: str) -> list[str]:
    return [word for word, _ in pre_tokenizers.BertPreTokenizer().pre_tokenize_str(sentence.lower())]
