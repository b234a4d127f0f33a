"""Print the mutation score of each module; exit code 1 if one is below a limit in per cent.

    mutmut results --all true | python -m tests.mutation_score 85

A mutant counts as killed if a test fails or times out. Mutants that no test covers, or that were
not run, count as survived.
"""

import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping

KILLED = frozenset({"killed", "timeout", "segfault"})


def count_by_module(lines: Iterable[str]) -> dict[str, Counter[str]]:
    """Count the mutants of each module by status, from `module.function__mutmut_1: status`."""
    modules: dict[str, Counter[str]] = defaultdict(Counter)
    for line in filter(None, map(str.strip, lines)):
        mutant, status = line.rsplit(": ", 1)
        modules[mutant.rpartition(".")[0]][status] += 1
    return dict(sorted(modules.items()))


def score(statuses: Mapping[str, int]) -> float:
    """Return the percentage of a module's mutants that were killed."""
    killed = sum(count for status, count in statuses.items() if status in KILLED)
    return 100 * killed / sum(statuses.values())


def main(arguments: list[str], lines: Iterable[str]) -> int:
    """Print one line per module; return 1 if one is below the limit or there are no mutants."""
    limit, modules = float(arguments[0]), count_by_module(lines)
    for module, statuses in modules.items():
        details = ", ".join(f"{count} {status}" for status, count in statuses.most_common())
        print(f"{module:24} {score(statuses):5.1f} %  {details}")
    low = [module for module, statuses in modules.items() if score(statuses) < limit]
    if not modules:
        print("no mutants found; did `mutmut run` finish?", file=sys.stderr)
    elif low:
        print(f"below {limit:g} %: {', '.join(low)}", file=sys.stderr)
    return int(bool(low) or not modules)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], sys.stdin))
