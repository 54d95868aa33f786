"""Checks docs/conformance.md: a row for each item of the checklist, and every test that is named exists under tests/;
so must the tests that docs/flows.md names."""
import argparse
import re
import sys
from pathlib import Path

ITEMS = 50
LATER = 'egress point'  # the words of an item that has no test yet


def tests_in(root):
    """Names of the functions that are tests, in Python and in C."""
    names = set()
    for path in sorted((root / 'tests').rglob('*')):
        if path.suffix not in ('.py', '.c'):
            continue
        text = path.read_text(encoding='utf-8', errors='replace')
        if path.suffix == '.py':
            names |= set(re.findall(r'^\s*(?:async )?def (test_\w+)', text, re.M))
        else:
            names |= set(re.findall(r'\b(?:cmocka_unit_test\w*|TEST|T)\((\w+)', text))
    return names


def rows_of(text):
    """Cells of each row of each table."""
    for line in text.splitlines():
        if line.startswith('|') and not re.match(r'^\|[-|: ]+\|$', line):
            yield [cell.strip() for cell in line.strip().strip('|').split('|')]


def problems(text, names):
    found, items = [], {}
    for cells in rows_of(text):
        if re.fullmatch(r'\d+', cells[0]):
            items.setdefault(int(cells[0]), []).append(cells)
        if cells[-1] in ('test', LATER):
            continue
        if cells[-1] not in names:
            found.append(f'no test is called "{cells[-1]}"')
    for n in range(1, ITEMS + 1):
        if n not in items:
            found.append(f'item {n} has no row')
    for n, rows in items.items():
        if n > ITEMS or len(rows) > 1 or len(rows[0]) != 3:
            found.append(f'item {n}: not one row of three cells')
    return found


def unknown_tests(text, names):
    """Those a text speaks of that are no test; names of files in tests/ may look like them."""
    return [f'no test is called "{name}"' for name in sorted(set(re.findall(r'\btest_\w+\b(?!\.py)', text)) - names)]


def self_test():
    """The checker must be able to fail."""
    good = ''.join(f'| {n} | x | test_a |\n' for n in range(1, ITEMS)) + f'| {ITEMS} | x | {LATER} |\n'
    assert problems(good, {'test_a'}) == []
    assert problems(good, {'test_b'})
    assert problems(good.replace('| 7 |', '| 6 |'), {'test_a'})
    assert problems(good + '| what | test_none |\n', {'test_a'})
    assert unknown_tests('`tests/test_b.py`, test_a and test_none', {'test_a'}) == ['no test is called "test_none"']


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--root', type=Path, default=Path(__file__).resolve().parent.parent)
    root = parser.parse_args().root
    self_test()
    names = tests_in(root)
    found = [f'docs/conformance.md: {x}'
             for x in problems((root / 'docs' / 'conformance.md').read_text(encoding='utf-8'), names)]
    found += [f'docs/flows.md: {x}' for x in unknown_tests((root / 'docs' / 'flows.md').read_text(encoding='utf-8'), names)]
    for problem in found:
        print(problem)
    return 1 if found else 0


if __name__ == '__main__':
    sys.exit(main())
