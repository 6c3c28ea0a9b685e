"""GET /docs: the API's reference as one page of plain HTML.

Drawn from the OpenAPI document, with nothing loaded from elsewhere: fleets are often run where there is no internet.
"""

import json
from collections.abc import Iterator, Mapping
from html import escape
from typing import Any, Final

_STYLE: Final = """
:root { color-scheme: light dark; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; }
h2 { margin-top: 3rem; } h3 { margin-top: 2rem; font: 600 1rem ui-monospace, monospace; }
h3 b { display: inline-block; min-width: 3.5rem; }
pre, code { font: 0.9rem/1.45 ui-monospace, monospace; }
pre { padding: 0.75rem 1rem; border: 1px solid #8886; border-radius: 6px; overflow-x: auto; }
table { border-collapse: collapse; } td, th { padding: 0.2rem 1rem 0.2rem 0; text-align: left; vertical-align: top; }
"""
_DEPTH_MOST: Final = 6
Schema = Mapping[str, Any]


def reference_page(document: Schema) -> str:
    """The page for an OpenAPI 3.1 document; every text of it is escaped."""
    info = document["info"]
    body = "".join(_sections(document))
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(info["title"])} API</title>'
        f'<meta name="viewport" content="width=device-width"><style>{_STYLE}</style></head><body>'
        f"<h1>{escape(info['title'])} {escape(info['version'])}</h1>{_paragraphs(info.get('description', ''))}"
        f'<p>Machine-readable: <a href="/openapi.json">/openapi.json</a></p>{body}</body></html>'
    )


def _sections(document: Schema) -> Iterator[str]:
    for tag in document.get("tags", ()):
        yield f"<h2>{escape(tag['name'])}</h2><p>{escape(tag.get('description', ''))}</p>"
        for path, operations in document["paths"].items():
            for method, operation in operations.items():
                if operation.get("tags", [None])[0] == tag["name"]:
                    yield from _operation(document, method.upper(), path, operation)


def _operation(document: Schema, method: str, path: str, operation: Schema) -> Iterator[str]:
    yield f"<h3><b>{escape(method)}</b> {escape(path)}</h3>{_paragraphs(operation.get('description', ''))}"
    rows = [_parameter(document, parameter) for parameter in operation.get("parameters", ())]
    if rows:
        yield f"<table>{''.join(rows)}</table>"
    for kind, content in operation.get("requestBody", {}).get("content", {}).items():
        yield f"<p>Body, {escape(kind)}</p>{_example(document, content.get('schema', {}))}"
    for status, response in operation.get("responses", {}).items():
        schema = response.get("content", {}).get("application/json", {}).get("schema")
        if status.startswith("2") and schema:
            yield f"<p>Answer, {escape(status)}</p>{_example(document, schema)}"


def _parameter(document: Schema, parameter: Schema) -> str:
    text = _shape(document, parameter.get("schema", {}), 0)
    cells = (parameter["name"], parameter["in"], str(text), parameter.get("description", ""))
    return "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in cells) + "</tr>"


def _example(document: Schema, schema: Schema) -> str:
    return f"<pre>{escape(json.dumps(_shape(document, schema, 0), indent=2, ensure_ascii=False))}</pre>"


def _shape(document: Schema, schema: Schema, depth: int) -> Any:
    """The schema as a value that says of each member what it is."""
    if "$ref" in schema:
        return _shape(document, document["components"]["schemas"][schema["$ref"].rsplit("/", 1)[1]], depth)
    for member in ("anyOf", "oneOf", "allOf"):
        if member in schema:
            found = [_shape(document, each, depth) for each in schema[member]]
            plain = [each for each in found if each != "null"]
            return (
                plain[0] if len(plain) == 1 or not all(isinstance(each, str) for each in found) else " | ".join(found)
            )
    if "enum" in schema:
        return " | ".join(str(value) for value in schema["enum"])
    kind = schema.get("type", "any")
    if kind == "object" and "properties" in schema and depth < _DEPTH_MOST:
        return {name: _shape(document, each, depth + 1) for name, each in schema["properties"].items()}
    if kind == "array" and depth < _DEPTH_MOST:
        return [_shape(document, schema.get("items", {}), depth + 1)]
    return f"{schema['format']} {kind}" if "format" in schema else str(kind)


def _paragraphs(text: str) -> str:
    parts = [part.strip() for part in text.split("\n\n")]
    return "".join(f"<p>{escape(part)}</p>" for part in parts if part)
