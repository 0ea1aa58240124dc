"""What is said around the words of pages, in the language of the question."""

import re

Words = dict[str, str]  # by language, `en` and `ja`

LONGEST_QUESTION = 8000  # characters: what is longer is a document that was pasted
QUOTED_NOTE = (
    "these are the words of the pages, not an answer of the model: the model in use cannot read "
    "answers off pages yet"
)
PAGE_NAMED: Words = {"en": "{document}, p. {page}", "ja": "{document} {page}ページ"}
NOTHING_TO_QUOTE: Words = {
    "en": "See the page: it has no text that speaks of this.",
    "ja": "ページをご覧ください。これについて引用できる文字情報がありません。",
}
NOT_FOUND: Words = {
    "en": "Not found in these documents.",
    "ja": "これらの文書には見つかりませんでした。",
}
READ_OFF_IMAGE: Words = {
    "en": "{document}, p. {page} has no usable text layer: a small model read these words off its "
    "image, and letters and digits may be wrong; compare them with the page",
    "ja": "{document} {page}ページには使える文字情報がないため、小さなモデルが画像から読み取った"
    "文面です。文字や数字が誤っていることがあります。ページと見比べてください",
}
UNREAD: Words = {
    "en": "{unread} of {all} documents are not read to the end, so the answer may be there; "
    "`yomu list` says why",
    "ja": "{all}件の文書のうち{unread}件は最後まで読めていないため、"
    "答えはそこにあるかもしれません。理由は`yomu list`で分かります",
}
OLDER: Words = {
    "en": "{document}: an older version is shown: the new one could not be read ({reason})",
    "ja": "{document}は以前の版を表示しています。新しい版は読めませんでした（{reason}）",
}
OLD_WORDS: Words = {
    "en": "the words of this index are from an earlier version, so pages may be missed; "
    "`yomu compact` makes them anew, where the index may be written to",
    "ja": "この索引の単語は以前の版で作られたため、見つからないページがあるかもしれません。"
    "索引に書き込める環境で`yomu compact`を実行すると作り直されます",
}
# Of the command line; the page has its own (ui/texts.py).
READING: Words = {"en": "Reading {pages} …", "ja": "{pages}を読んでいます…"}
READ_FROM: Words = {"en": "Read from: {pages}", "ja": "参照したページ: {pages}"}
NEAREST: Words = {"en": "The nearest pages: {pages}", "ja": "近いページ: {pages}"}
NEAREST_ONLY: Words = {
    "en": "Nothing here seems to answer this; the nearest pages:",
    "ja": "答えになりそうなページは見つかりませんでした。近いページ:",
}
QUOTED_HINT: Words = {
    "en": QUOTED_NOTE,
    "ja": "これはページの文面そのもので、モデルの回答ではありません。"
    "このモデルはまだページを読んで答えることができません",
}
CUT: Words = {
    "en": "cut after {n} tokens; --max-new-tokens allows more",
    "ja": "{n}トークンで打ち切りました。--max-new-tokensで増やせます",
}
FULL: Words = {
    "en": "cut after {n} tokens: the model's context is full",
    "ja": "{n}トークンで打ち切りました。モデルの文脈長の上限に達しています",
}
REPEATED: Words = {
    "en": "stopped: it repeated itself",
    "ja": "同じ言葉の繰り返しになったため停止しました",
}


def in_language_of(question: str, texts: Words) -> str:
    """Choose the text that goes with a question."""
    has_japanese = re.search(r"[\u3000-\u30ff\u3400-\u9fff\uff00-\uffef]", question)
    return texts["ja" if has_japanese else "en"]


def counted(number: int, what: str) -> str:
    """Write a number of things in English: 1 page, 2 pages."""
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def not_found(question: str) -> str:
    """Say that nothing was found."""
    return in_language_of(question, NOT_FOUND)


def ended_early(
    question: str, stop_reason: str | None, n_tokens: int, longest: int | None = None
) -> str | None:
    """Say why an answer ended before the model was done; None if it was, or was told to stop."""
    if stop_reason == "repetition":
        return in_language_of(question, REPEATED)
    if stop_reason == "length":
        texts = FULL if longest is not None and n_tokens < longest else CUT
        return in_language_of(question, texts).format(n=n_tokens)
    return None


def page_named(question: str, document: str, page: int) -> str:
    """Name a page."""
    return in_language_of(question, PAGE_NAMED).format(document=document, page=page)
