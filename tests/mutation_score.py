"""How many mutants of each module the tests killed; exit code 1 where too few in any.

    mutmut results --all true | python -m tests.mutation_score 85

A mutant is killed where a test fails or no longer ends. One that no test reaches, or that was not
tried, counts against the module.
"""

from __future__ import annotations

import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping

KILLED = frozenset({"killed", "timeout", "segfault"})


def tally(lines: Iterable[str]) -> dict[str, Counter[str]]:
    """The mutants of each module by their fate, from lines `module.function__mutmut_1: fate`."""
    fates: dict[str, Counter[str]] = defaultdict(Counter)
    for line in filter(None, map(str.strip, lines)):
        mutant, fate = line.rsplit(": ", 1)
        fates[mutant.rpartition(".")[0]][fate] += 1
    return dict(sorted(fates.items()))


def share_killed(fates: Mapping[str, int]) -> float:
    """Of all mutants of a module, from 0 to 1."""
    return sum(count for fate, count in fates.items() if fate in KILLED) / sum(fates.values())


def main(words: list[str], lines: Iterable[str]) -> int:
    """Print a line a module; 1 where one is below the limit in per cent, or there is none."""
    limit, modules = float(words[0]), tally(lines)
    for module, fates in modules.items():
        told = ", ".join(f"{count} {fate}" for fate, count in fates.most_common())
        print(f"{module:24} {100 * share_killed(fates):5.1f} %  {told}")
    low = [module for module, fates in modules.items() if 100 * share_killed(fates) < limit]
    if not modules:
        print("no mutants: did `mutmut run` end?", file=sys.stderr)
    elif low:
        print(f"below {limit:g} %: {', '.join(low)}", file=sys.stderr)
    return int(bool(low) or not modules)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], sys.stdin))
