"""All tables and the page of all papers from made-up records, timed: run as a program, it prints seconds and sizes as JSON.

``python tests/benchmarks/papers_page.py 10000`` writes about so many records to a folder that is removed afterwards. With the
name of a data set behind it (``50 mosi``), only its tables are made. Processes that draw import the program that started
them: like ``harness``, this one imports nothing before it is asked to do something.
"""

from __future__ import annotations

import json
import sys


def main() -> None:
    from made_up_papers import measure

    print(json.dumps(measure(int(sys.argv[1]), *sys.argv[2:]), indent=1))


if __name__ == "__main__":
    main()
