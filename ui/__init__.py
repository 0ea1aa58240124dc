"""The Gradio page and the HTTP API; gradio is imported nowhere else."""
