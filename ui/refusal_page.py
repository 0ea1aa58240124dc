"""What a person reads in the browser who is not let in; programs get JSON."""

from html import escape

from ui.japanese import in_japanese
from ui.texts import language_of, word

STYLE = (
    ":root{color-scheme:light dark}body{font:16px/1.7 system-ui,sans-serif;max-width:34rem;"
    "margin:18vh auto 0;padding:0 1.25rem}h1{font-size:1.4rem}"
)


def refusal_page(message: str, accept_language: str | None) -> str:
    """Return a page in the reader's language: why, and a link that tries again."""
    language = language_of(accept_language)
    line = in_japanese(message) if language == "ja" else message
    line = line[:1].upper() + line[1:]
    again = escape(word(language, "try_again"))
    return (
        f"<!doctype html><html lang={language}><meta charset=utf-8>"
        "<meta name=viewport content='width=device-width, initial-scale=1'><title>Yomu</title>"
        f"<style>{STYLE}</style><main><h1>Yomu <span lang=ja>読む</span></h1>"
        f"<p>{escape(line)}</p><p><a href='/'>{again}</a></p></main></html>"
    )
