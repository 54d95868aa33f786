#!/usr/bin/python3
"""Breaks each invariant and each promise of a relay on purpose and sees that its test notices.

Numbers 1 to 11 are the invariants of the log path, 36 to 48 the items of docs/conformance.md; the others are of
docs/reliability.md. Every tests/break/NAME.patch says in its head what it breaks and which test must turn red:

    # breaks: TEXT
    # test: tests/integration/FILE.py::NAME     or: tests/unit/DIR/PROGRAM
                                                      or: tests/DIR/PROGRAM.py ARGUMENTS

The tree is copied and built once in a scratch directory; the tests must pass there. Then each patch
in turn is applied, what changed is built, and its test must fail.

    run.py [--source DIR] [--work DIR] [NAME…]"""
import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
JUNK = ('.git', 'autom4te.cache', '.deps', '*.o', '*.a', '*.log', '*.trs', 'config.status', 'config.h',
        'Makefile', 'stamp-h1', '__pycache__', '.pytest_cache', '.dirstamp')
TEST_TIMEOUT = 90
TOOLS = ['tests/tools/load', 'tests/power/look', 'tests/power/recorder.so']


class Breakage:
    def __init__(self, path):
        self.path, self.name = path, path.stem
        head = dict(re.findall(r'^# (\w+): (.*)$', path.read_text(), re.M))
        self.what, self.test = head['breaks'], head['test']
        self.needs = set() if '::' in self.test else set(TOOLS) if '.py' in self.test else {self.test}
        self.files = re.findall(r'^\+\+\+ (\S+)', path.read_text(), re.M)


class Tree:
    """A copy of the sources and one build of it."""

    def __init__(self, source, work):
        self.source, self.build = work / 'source', work / 'build'
        if not self.source.exists():
            shutil.copytree(source, self.source, symlinks=True, ignore=self.junk(source))
        self.build.mkdir(exist_ok=True)
        self.original = source
        if not (self.build / 'Makefile').exists():
            if not (self.source / 'configure').exists():
                self.sh(['./autogen.sh'], self.source)
            self.sh([str(self.source / 'configure'), '--silent', 'CFLAGS=-O0'], self.build)

    @staticmethod
    def junk(source):
        plain = shutil.ignore_patterns(*JUNK)

        def ignore(directory, names):
            skip = set(plain(directory, names))
            # builds below the sources, and where several stand together
            skip.update(n for n in names if (Path(directory) / n / 'config.status').exists()
                        or next((Path(directory) / n).glob('*/config.status'), None))
            return skip
        return ignore

    def sh(self, argv, cwd, timeout=900):
        done = subprocess.run(argv, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                              timeout=timeout)
        if done.returncode:
            raise RuntimeError('%s:\n%s' % (' '.join(argv), done.stdout[-3000:]))
        return done.stdout

    def make(self, targets):
        self.sh(['make', '-s', '-j2'] + sorted(targets), self.build)

    def apply(self, breakage):
        self.sh(['patch', '-p0', '-s', '-F3', '-i', str(breakage.path)], self.source)

    def revert(self, breakage):
        for name in breakage.files:
            shutil.copyfile(self.original / name, self.source / name)   # with a new time
            for more in ('.orig', '.rej'):
                (self.source / (name + more)).unlink(missing_ok=True)

    def test(self, tests):
        """(passed, what it says): unit programs and pytest node ids."""
        env = dict(os.environ, TAILRACE=str(self.build / 'tailrace'), PYTHONDONTWRITEBYTECODE='1')
        env.update(LOAD=str(self.build / 'tests/tools/load'), POWER=str(self.build / 'tests/power'))
        env.pop('MAKEFLAGS', None)
        nodes = [t for t in tests if '::' in t]
        runs = [[sys.executable] + t.split() if '.py' in t else [str(self.build / t)] for t in tests if '::' not in t]
        if nodes:
            runs.append([sys.executable, '-m', 'pytest', '-x', '-q', '-p', 'no:cacheprovider', '--no-header',
                         '--tb=short'] + nodes)
        for argv in runs:
            try:
                done = subprocess.run(argv, cwd=self.source, env=env, stdout=subprocess.PIPE,
                                      stderr=subprocess.STDOUT, text=True, errors='replace',
                                      timeout=TEST_TIMEOUT * max(1, len(tests)))
            except subprocess.TimeoutExpired:
                return False, 'it did not end'
            if 'pytest' in argv and done.returncode > 1:     # not run, or not found: that is no red
                raise RuntimeError('%s:\n%s' % (' '.join(argv), done.stdout[-3000:]))
            if done.returncode:
                return False, self.reason(done.stdout)
        return True, ''

    @staticmethod
    def reason(text):
        found = re.findall(r'^E +(.+)$', text, re.M) or re.findall(r'(?:WRONG: |LOST ).+', text) or re.findall(r'^\[ *(?:ERROR|  FAILED) *\].*$', text, re.M)
        return (found or text.strip().splitlines() or ['?'])[0][:100]


def one(tree, breakage):
    """(good, text)"""
    try:
        tree.apply(breakage)
        tree.make({'tailrace'} | breakage.needs)
        passed, why = tree.test([breakage.test])
    except RuntimeError as e:
        return False, str(e)
    finally:
        tree.revert(breakage)
    return not passed, why or 'STAYS GREEN'


def intact(tree, breakages):
    """None if all tests pass on the tree as it is, else what fails."""
    tree.make({'tailrace'}.union(*(b.needs for b in breakages)))
    passed, why = tree.test(sorted({b.test for b in breakages}))
    return None if passed else why


def run(args, work):
    breakages = [Breakage(p) for p in sorted(HERE.glob('*.patch'))
                 if not args.names or any(n in p.stem for n in args.names)]
    start = time.monotonic()
    tree = Tree(Path(args.source).resolve(), work)
    why = intact(tree, breakages)
    if why:
        print('the tests fail before anything is broken: ' + why)
        return 1
    print('intact: green, after %.0f s' % (time.monotonic() - start), flush=True)
    failed = 0
    for breakage in breakages:
        begun = time.monotonic()
        good, text = one(tree, breakage)
        failed += not good
        print('%-28s %-5s %3.0f s  %s' % (breakage.name, 'red' if good else 'WRONG', time.monotonic() - begun, text),
              flush=True)
    print('%d passed, %d failed' % (len(breakages) - failed, failed))
    return 1 if failed or not breakages else 0


def main():
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('--source', default=HERE.parent.parent)
    parser.add_argument('--work', help='scratch directory to use again; its copy of the sources is kept')
    parser.add_argument('names', nargs='*')
    args = parser.parse_args()
    work = Path(args.work or tempfile.mkdtemp(prefix='break-'))
    work.mkdir(parents=True, exist_ok=True)
    try:
        return run(args, work)
    finally:
        if not args.work:
            shutil.rmtree(work, ignore_errors=True)


if __name__ == '__main__':
    sys.exit(main())
