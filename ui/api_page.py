"""The OpenAPI document as a plain page: FastAPI's own loads its scripts from the network."""

import json
from collections.abc import Mapping
from html import escape
from typing import Any

STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}"
    "code,pre{font-family:ui-monospace,monospace;font-size:.9em}pre{overflow:auto;padding:.5rem;"
    "background:#8882}h2{margin-top:2rem}"
)


def api_page(schema: Mapping[str, Any]) -> str:
    """Return HTML that lists every route with its parameters and bodies."""
    routes = "".join(
        _operation(path, method, operation)
        for path, methods in schema["paths"].items()
        for method, operation in methods.items()
    )
    bodies = "".join(
        f"<h3 id='{escape(name)}'>{escape(name)}</h3><pre>{_json(body)}</pre>"
        for name, body in schema.get("components", {}).get("schemas", {}).items()
    )
    title = escape(schema["info"]["title"])
    return (
        f"<!doctype html><html lang=en><meta charset=utf-8><title>{title}</title>"
        f"<style>{STYLE}</style><h1>{title}</h1>"
        "<p>The same as <a href=/api/openapi.json>OpenAPI</a>.</p>"
        f"{routes}<h2>Bodies</h2>{bodies}</html>"
    )


def _operation(path: str, method: str, operation: Mapping[str, Any]) -> str:
    rows = "".join(
        f"<li><code>{escape(each['name'])}</code> ({escape(each['in'])}"
        f"{', required' if each.get('required') else ''}) {escape(each.get('description', ''))}"
        for each in operation.get("parameters", ())
    )
    content = operation.get("requestBody", {}).get("content", {})
    body = "".join(
        f"<li>body <code>{escape(kind)}</code>: {_ref(of)}" for kind, of in content.items()
    )
    return (
        f"<h2><code>{method.upper()} {escape(path)}</code></h2>"
        f"<p>{escape(operation.get('description', operation.get('summary', '')))}</p>"
        f"<ul>{rows}{body}</ul>"
    )


def _ref(media: Mapping[str, Any]) -> str:
    name = str(media.get("schema", {}).get("$ref", "")).rsplit("/", 1)[-1]
    return f"<a href='#{escape(name)}'>{escape(name)}</a>" if name else ""


def _json(value: object) -> str:
    return escape(json.dumps(value, indent=1, ensure_ascii=False))
