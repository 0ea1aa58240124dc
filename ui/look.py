"""Theme, words and files of the page, and what `mount_gradio_app` is to be given of them."""

from functools import cache
from pathlib import Path
from typing import Any

import gradio as gr

from ui import visit
from ui.texts import TEXTS

FOLDER = Path(__file__).parent
# Fonts of the reader's system only: nothing is fetched. Those after system-ui have Japanese.
FONTS = ["system-ui", "Hiragino Sans", "Noto Sans JP", "Noto Sans CJK JP", "Yu Gothic UI",
         "Meiryo", "sans-serif"]  # fmt: skip
MONOSPACE = ["ui-monospace", "Menlo", "Consolas", "Noto Sans Mono CJK JP", "monospace"]
HEAD = '<meta name="description" content="Ask a folder of PDFs; see the pages it was read from.">'

I18N = gr.I18n(**TEXTS)

_INDIGO = gr.themes.Color(
    c50="#eef3f9", c100="#dbe6f2", c200="#b9cee5", c300="#8fb2d6", c400="#6290c2", c500="#3f71a8",
    c600="#27568c", c700="#1f4773", c800="#1b3a5c", c900="#172f49", c950="#0f1f31", name="indigo",
)  # fmt: skip
_PAPER = gr.themes.Color(
    c50="#faf9f7", c100="#f3f1ed", c200="#e4e1da", c300="#cfcbc2", c400="#9d988d", c500="#6f6a61",
    c600="#575249", c700="#3a3731", c800="#24262b", c900="#1b1d22", c950="#131519", name="paper",
)  # fmt: skip


def theme() -> gr.themes.Base:
    """Return a calm theme: paper, ink and one indigo, light and dark."""
    return gr.themes.Base(
        primary_hue=_INDIGO, secondary_hue=_INDIGO, neutral_hue=_PAPER,
        font=FONTS, font_mono=MONOSPACE, radius_size="md", text_size="md",
    ).set(
        body_background_fill="*neutral_50", body_background_fill_dark="*neutral_950",
        block_background_fill="white", block_background_fill_dark="*neutral_900",
        block_border_width="1px", block_shadow="none", block_label_text_weight="600",
        block_label_background_fill="transparent", block_label_background_fill_dark="transparent",
        block_label_border_width="0px", block_title_text_weight="600",
        block_title_text_color="*neutral_700", block_title_text_color_dark="*neutral_200",
        block_info_text_color="*neutral_600", block_info_text_color_dark="*neutral_300",
        body_text_color_subdued="*neutral_500", body_text_color_subdued_dark="*neutral_400",
        input_background_fill="white", input_background_fill_dark="*neutral_800",
        input_border_width="1px", button_border_width="1px",
        button_large_text_size="*text_md", button_large_text_weight="600",
        input_border_color="*neutral_300", input_border_color_dark="*neutral_700",
        input_placeholder_color="*neutral_500", input_placeholder_color_dark="*neutral_400",
        input_border_color_focus="*primary_500", input_border_color_focus_dark="*primary_300",
        button_primary_background_fill="*primary_600",
        button_primary_background_fill_hover="*primary_700",
        button_primary_background_fill_dark="*primary_500",
        button_primary_background_fill_hover_dark="*primary_600",
        button_primary_text_color="white",
        button_secondary_background_fill="white",
        button_secondary_background_fill_dark="*neutral_800",
        button_secondary_border_color="*neutral_300",
        button_secondary_border_color_dark="*neutral_700",
        checkbox_label_background_fill_selected="*primary_50",
        checkbox_label_background_fill_selected_dark="*primary_900",
        checkbox_label_text_color_selected="*primary_800",
        checkbox_label_text_color_selected_dark="*primary_100",
        slider_color="*primary_600", slider_color_dark="*primary_300",
    )  # fmt: skip


def mount_options() -> dict[str, Any]:
    """Return what `gr.mount_gradio_app` needs for this page to look and speak as it does."""
    return {
        "theme": theme(),
        "css_paths": [FOLDER / "page.css"],
        "head": HEAD,
        "i18n": I18N,
    }


@cache
def script() -> str:
    """Return the JavaScript of every HTML component."""
    constants = f"const MOST_TURNS = {visit.MAX_TURNS};\n"
    return constants + (FOLDER / "page.js").read_text("utf-8")


def panel(elem_id: str, value: str = "") -> gr.HTML:
    """Return an HTML component that shows escaped markup and sends clicks as events."""
    return gr.HTML(
        value, elem_id=elem_id, js_on_load=script(), apply_default_css=False, elem_classes="yomu"
    )


def user_of(request: gr.Request) -> str:
    """Return who is logged in; "" where nobody has to."""
    return str(getattr(getattr(request.request, "state", None), "user", None) or "")


def visitor(request: gr.Request) -> str:
    """Return who takes turns in the queue: the logged-in user, or else this visit."""
    return user_of(request) or str(request.session_hash or "")


def language(request: gr.Request) -> str:
    """Return the language the browser asks for."""
    from ui.texts import language_of

    return language_of(request.headers.get("accept-language"))
