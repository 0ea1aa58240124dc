"""The Gradio page: so far only its place."""

import gradio as gr

from ui.service import Service


def build_app(service: Service) -> gr.Blocks:
    """Return the page."""
    blocks: gr.Blocks
    with gr.Blocks(title="Yomu", analytics_enabled=False) as blocks:
        gr.Markdown("# Yomu")
    return blocks
