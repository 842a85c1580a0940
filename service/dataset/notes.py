"""What the operator should know of captions that were not taken as they came: a closed set, counted in logs and report."""

from enum import StrEnum


class Note(StrEnum):
    """What was passed over, cut or not understood. Report and logs use these words and no others."""

    UNREAD_CAPTION_FILES = "unread_caption_files"
    ROWS_WITHOUT_IMAGE = "rows_without_image"
    CAPTIONED_TWICE = "captioned_twice"
    LINES_JOINED = "lines_joined"
    CUT_TO_FIT = "cut_to_fit"
    LOOPS_CUT = "loops_cut"
    INVENTED_WORDS_CUT = "invented_words_cut"
