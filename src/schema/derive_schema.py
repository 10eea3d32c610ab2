#!/usr/bin/env python3
"""Derives schema.json from the discovery document of the Generative Language API.

Usage: derive_schema.py DISCOVERY.json > schema.json

Only what batches and files can reach is kept. A field's type is one word:
string, bool, int32, int64, number, bytes, time, duration, any, struct, "#Message",
"[T]" for a list, "{T}" for a map, "=A|B" for an enum.
"""
import json
import sys

ROOTS = [
    "AsyncBatchEmbedContentRequest",
    "BatchGenerateContentRequest",
    "CreateFileRequest",
    "CreateFileResponse",
    "EmbedContentBatchOutput",
    "EmbedContentResponse",
    "GenerateContentBatchOutput",
    "GenerateContentResponse",
    "ListFilesResponse",
    "ListOperationsResponse",
    "Model",
]

# Known from clients of the service, but not in the document (API contract, 0.2 and 3.2).
ADDED = {
    "GenerateContentBatch": {"webhookConfig": "#WebhookConfig"},
    "WebhookConfig": {"uris": "[string]", "userMetadata": "struct"},
    "MediaResolution": {
        "level": "=MEDIA_RESOLUTION_UNSPECIFIED|MEDIA_RESOLUTION_LOW|MEDIA_RESOLUTION_MEDIUM"
        "|MEDIA_RESOLUTION_HIGH|MEDIA_RESOLUTION_ULTRA_HIGH"
    },
    "UsageMetadata": {"serviceTier": "string"},
    "EmbedContentRequest": {"embedContentConfig": "#EmbedContentConfig"},
    "EmbedContentConfig": {
        "taskType": "string",
        "title": "string",
        "outputDimensionality": "int32",
        "autoTruncate": "bool",
        "documentOcr": "bool",
        "audioTrackExtraction": "bool",
    },
    "EmbedContentResponse": {"usageMetadata": "#EmbeddingUsageMetadata", "tokenCount": "int64"},
    "EmbeddingUsageMetadata": {
        "promptTokenCount": "int32",
        "promptTokenDetails": "[#ModalityTokenCount]",
    },
}

SCALARS = {
    ("string", None): "string",
    ("string", "byte"): "bytes",
    ("string", "google-datetime"): "time",
    ("string", "google-duration"): "duration",
    ("string", "int64"): "int64",
    ("integer", "int32"): "int32",
    ("number", "float"): "number",
    ("number", "double"): "number",
    ("boolean", None): "bool",
    ("any", None): "any",
}


def word(field):
    if "$ref" in field:
        return "#" + field["$ref"]
    if "enum" in field:
        return "=" + "|".join(field["enum"])
    if field["type"] == "array":
        return "[" + word(field["items"]) + "]"
    if field["type"] == "object":
        values = word(field["additionalProperties"])
        return "struct" if values == "any" else "{" + values + "}"
    return SCALARS[(field["type"], field.get("format"))]


def main():
    with open(sys.argv[1], encoding="utf-8") as document:
        schemas = json.load(document)["schemas"]
    derived, waiting = {}, list(ROOTS)
    while waiting:
        name = waiting.pop()
        if name in derived:
            continue
        fields = {n: word(f) for n, f in schemas.get(name, {}).get("properties", {}).items()}
        fields.update(ADDED.get(name, {}))
        if name not in schemas and name not in ADDED:
            sys.exit(f"{name} is referred to, but neither in the document nor added here")
        derived[name] = dict(sorted(fields.items()))
        for kind in fields.values():
            inner = kind.strip("[]{}")
            if inner.startswith("#"):
                waiting.append(inner[1:])
    lines = [f"{json.dumps(n)}: {json.dumps(f)}" for n, f in sorted(derived.items())]
    print("{\n" + ",\n".join(lines) + "\n}")


main()
