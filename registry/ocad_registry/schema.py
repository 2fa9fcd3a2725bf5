"""The JSON Schema of `metadata.json`, made from the manifest models: `python -m ocad_registry.schema [FILE]`."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from ocad_registry.manifest import Manifest


def metadata_schema() -> str:
    """The schema as the text that stands in `registry/schema/metadata.schema.json`."""
    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema", **Manifest.model_json_schema()}
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"


def main() -> None:
    """Writes the schema to the file that is named, or to standard output."""
    if len(sys.argv) > 1:
        Path(sys.argv[1]).write_text(metadata_schema(), encoding="utf-8")
    else:
        sys.stdout.write(metadata_schema())


if __name__ == "__main__":
    main()
