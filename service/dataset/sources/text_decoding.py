"""Bytes of text files to text: as it was meant, or refused with the file and the byte; no letter is ever lost."""

import codecs
from collections.abc import Mapping

from charset_normalizer import from_bytes

from service.exits import BadData

MARKS = (  # those of UTF-32 begin like those of UTF-16
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
WESTERN = "cp1252"
WESTERN_LETTERS = [
    set(letters)
    for letters in (
        "àâæçéèêëîïôœùûüÿ", "äöüß", "áéíñóúü", "ãõáàâçéêíóôúü", "àèéìíîòóùú", "åäöæøéèêóòô", "áéëïíóöúüèê",
        "áæéíðóöþúý", "àçèéíïòóúü", "äöõüšž", "âêîôûŵŷäëïöüáéíóú",
    )
]  # fmt: skip
"""Of French, German, Spanish, Portuguese, Italian, the Nordic languages, Dutch, Icelandic, Catalan, Estonian, Welsh."""
WESTERN_SIGNS = set("“”‘’„‚–—…«»‹›€£¥°·•©®™§¡¿½¼¾²³µ×ªº´\xa0")
SIGNS_BETWEEN_WORDS = WESTERN_SIGNS - set("’‘\xa0–—·…")
OPENING_SIGNS = set("„‚¿¡")
OTHER_ENCODINGS = ["cp1250", "cp1251", "cp1253", "cp1254", "cp932", "gb18030", "big5", "euc_kr", "euc_jp", "mac_roman"]
FEWEST = 8
"""Bytes beyond ASCII below which a guess between those is no more than that."""


def texts_of(contents: Mapping[str, bytes]) -> dict[str, str]:
    """Name → text, without byte order mark. Files in one of the old encodings are taken to share it, as those of a folder do.

    Raises BadData, naming the file and the byte, for what is no text, or in an encoding that cannot be told for certain.
    """
    texts: dict[str, str] = {}
    legacy: dict[str, bytes] = {}
    for name, content in contents.items():
        encoding = _unicode_encoding(content)
        try:
            texts[name] = _without_nul(content.decode(encoding), name)
        except UnicodeDecodeError as error:
            if encoding != "utf-8":
                raise _undecodable(name, error.start, f"it begins like {encoding} and is none") from error
            legacy[name] = content
    if legacy:
        encoding = _legacy_encoding(legacy)
        for name, content in legacy.items():
            try:
                texts[name] = _without_nul(content.decode(encoding), name)
            except UnicodeDecodeError as error:
                raise _undecodable(
                    name, error.start, f"neither UTF-8 nor {encoding}, as other files here are"
                ) from error
    return texts


def text_of(content: bytes, name: str) -> str:
    """The text of one file, as `texts_of`."""
    return texts_of({name: content})[name]


def _unicode_encoding(content: bytes) -> str:
    for mark, encoding in MARKS:
        if content.startswith(mark):
            return encoding
    # Without a mark, every other byte of European text in UTF-16 is none.
    half = len(content) // 2
    if half and not len(content) % 2:
        for first, encoding in ((1, "utf-16-le"), (0, "utf-16-be")):
            if content[first::2].count(0) > half / 2 and not content[1 - first :: 2].count(0):
                return encoding
    return "utf-8"


def _legacy_encoding(contents: Mapping[str, bytes]) -> str:
    if all(_is_western(content) for content in contents.values()):
        return WESTERN
    together = b"\n".join(contents.values())
    name, content = next((name, content) for name, content in contents.items() if not _is_western(content))
    start = next(index for index, byte in enumerate(content) if byte > 127)
    if sum(byte > 127 for byte in together) >= FEWEST:
        guess = from_bytes(together, cp_isolation=OTHER_ENCODINGS).best()
        if guess is not None:
            return guess.encoding
    raise _undecodable(name, start, "no UTF-8, and too little to tell the encoding by")


def _is_western(content: bytes) -> bool:
    """Whether the bytes are plausible in Windows' encoding for western Europe: letters of one language, and its signs."""
    try:
        text = content.decode(WESTERN)
    except UnicodeDecodeError:
        return False
    letters = {letter for letter in text.lower() if letter > "\x7f" and letter not in WESTERN_SIGNS}
    return any(letters <= alphabet for alphabet in WESTERN_LETTERS) and _signs_stand_apart(text)


def _signs_stand_apart(text: str) -> bool:
    """Whether no sign stands where another encoding has a letter: inside a word, or at the end of one that it would open."""
    padded = f" {text} "
    return not any(
        before.isalpha() and (sign in OPENING_SIGNS or (sign in SIGNS_BETWEEN_WORDS and after.isalpha()))
        for before, sign, after in zip(padded, padded[1:], padded[2:], strict=False)
    )


def _without_nul(text: str, name: str) -> str:
    if "\0" in text:
        raise _undecodable(name, text.index("\0"), "no text")
    return text


def _undecodable(name: str, start: int, why: str) -> BadData:
    return BadData(f"{name} cannot be read as text at byte {start}: {why}; save it as UTF-8")
