"""`yomu ingest` under the name users expect: `uv run ingest.py FOLDER`."""

import sys

from rag.cli import main

if __name__ == "__main__":
    main(["ingest", *sys.argv[1:]])
