"""`python -m membound.programs.count_rows FILE TOKENIZER`: prints the token count of each row as JSON."""

from __future__ import annotations

import json
import sys

from membound.errors import MemboundError
from membound.programs.data import row_counts


def main() -> int:
    """The command."""
    try:
        print(json.dumps(row_counts(sys.argv[1], sys.argv[2])))
    except MemboundError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
