"""Checks docs/conformance.md: a row for each item of the checklist, and every test that is named exists under tests/;
so must the tests that docs/flows.md and docs/security.md name, and in the latter each row has one. Each guarantee of
docs/reliability.md has its tests, which exist, and so do the fault points and files named there."""
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


def proofs_in(root, names):
    """What docs/reliability.md may name: tests, functions and programs of unit tests, targets of make."""
    found = set(names)
    for path in (root / 'tests' / 'unit').rglob('*.c'):
        found |= set(re.findall(r'^static void (\w+)\(void \*\*', path.read_text(encoding='utf-8'), re.M))
        found.add(path.stem)
    found |= set(re.findall(r'^(check-[a-z]+):', (root / 'tests' / 'Makefile.inc').read_text(encoding='utf-8'), re.M))
    return found


def points_in(root):
    """Names of the fault points in the sources."""
    names = set()
    for path in (root / 'src').rglob('*.c'):
        for call in re.findall(r'fault_point\(([^;{]*?)\)(?:;|\)\n)', path.read_text(encoding='utf-8'), re.S):
            names |= set(re.findall(r'"([a-z-]+)"', call))
    return names


def unproven(text, proofs, points):
    """Guarantees without a test, and names of nothing."""
    table = text.partition('## Guarantees')[2].partition('\n## ')[0]
    found = []
    for cells in rows_of(table):
        if cells == ['guarantee', 'test']:
            continue
        for name in cells[-1].split(', '):
            if name not in proofs:
                found.append(f'"{cells[0][:60]}": no test is called "{name}"')
    for name in sorted(set(re.findall(r'\b(?:test_[a-z]\w*|check-[a-z]+)\b', text)) - proofs):
        found.append(f'no test is called "{name}"')
    named = set(re.findall(r'`((?:spool|logs|app|takeover|handover)-[a-z-]+)`', text))
    found += [f'no fault point is called "{name}"' for name in sorted(named - points)]
    found += [f'the fault point "{name}" is not listed' for name in sorted(points - named)]
    return found


def untested(text):
    """Rows of tables whose last column is for tests, without one."""
    found, proves = [], False
    for line in text.splitlines():
        if not line.startswith('|'):
            proves = False
            continue
        cells = [cell.strip() for cell in line.strip().strip('|').split('|')]
        if cells[-1] == 'test':
            proves = True
        elif proves and not set(line) <= set('|-: ') and not re.search(r'\btest_\w+', cells[-1]):
            found.append(f'no test for "{cells[0]}"')
    return found


def self_test():
    """The checker must be able to fail."""
    good = ''.join(f'| {n} | x | test_a |\n' for n in range(1, ITEMS)) + f'| {ITEMS} | x | {LATER} |\n'
    assert problems(good, {'test_a'}) == []
    assert problems(good, {'test_b'})
    assert problems(good.replace('| 7 |', '| 6 |'), {'test_a'})
    assert problems(good + '| what | test_none |\n', {'test_a'})
    doc = '## Guarantees\n| guarantee | test |\n|---|---|\n| x | test_a, check-b |\n\n## Rest\n`logs-x`\n'
    assert unproven(doc, {'test_a', 'check-b'}, {'logs-x'}) == []
    assert unproven(doc, {'test_a'}, {'logs-x'}) and unproven(doc.replace('test_a', ''), {'check-b'}, {'logs-x'})
    assert unproven(doc, {'test_a', 'check-b'}, set()) and unproven(doc, {'test_a', 'check-b'}, {'logs-x', 'logs-y'})
    assert untested('| x | test |\n|---|---|\n| a | test_a |\n') == []
    assert untested('| x | test |\n|---|---|\n| a | some day |\n') == ['no test for "a"']
    assert untested('| x | y |\n|---|---|\n| a | b |\n') == []
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
    text = (root / 'docs' / 'reliability.md').read_text(encoding='utf-8')
    found += [f'docs/reliability.md: {x}' for x in unproven(text, proofs_in(root, names), points_in(root))]
    found += [f'docs/reliability.md: there is no {name}' for name in re.findall(r'`(tests/[\w./-]+)`', text)
              if not (root / name).exists()]
    security = (root / 'docs' / 'security.md').read_text(encoding='utf-8')
    found += [f'docs/security.md: {x}' for x in unknown_tests(security, names) + untested(security)]
    for problem in found:
        print(problem)
    return 1 if found else 0


if __name__ == '__main__':
    sys.exit(main())
