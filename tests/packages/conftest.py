"""Builds the Debian package once, and boots a throw-away copy of this system to install it in."""
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / 'integration'), str(HERE.parent)]

from box import Machine, cannot_boot            # noqa: E402
from tree import copy_of_the_tree, run          # noqa: E402

@pytest.fixture(scope='session')
def deb(tmp_path_factory):
    """The package; `TAILRACE_DEB` names one that is built already."""
    if os.environ.get('TAILRACE_DEB'):
        return Path(os.environ['TAILRACE_DEB'])
    if not shutil.which('dh'):
        pytest.skip('debhelper is not installed')
    top = tmp_path_factory.mktemp('deb')
    tree = copy_of_the_tree(top / 'tree')
    env = dict(os.environ, DEB_BUILD_OPTIONS=f'nocheck noautodbgsym parallel={os.cpu_count()}')
    env = {k: v for k, v in env.items() if k not in ('MAKEFLAGS', 'MFLAGS', 'CFLAGS', 'LDFLAGS', 'CPPFLAGS')}
    run('dpkg-buildpackage', '-b', '-us', '-uc', cwd=tree, env=env, timeout=600)
    left = [f for f in run('dpkg-deb', '-c', str(next(top.glob('*.deb')))).splitlines() if '.git' in f]
    assert not left, left
    return next(top.glob('tailrace_*.deb'))


@pytest.fixture(scope='session')
def unpacked(deb, tmp_path_factory):
    to = tmp_path_factory.mktemp('unpacked')
    run('dpkg-deb', '-x', str(deb), str(to))
    return to


@pytest.fixture(scope='session')
def newer(deb, tmp_path_factory):
    """newer('0.1.1') is the same package with that version, and a program file of its own."""
    def make(version):
        top = tmp_path_factory.mktemp('newer')
        tree = top / 'tree'
        run('dpkg-deb', '-R', str(deb), str(tree))
        control = tree / 'DEBIAN' / 'control'
        control.write_text(''.join(f'Version: {version}\n' if line.startswith('Version:') else line
                                   for line in control.read_text().splitlines(True)))
        out = top / f'tailrace_{version}.deb'
        run('dpkg-deb', '--root-owner-group', '-Znone', '-b', str(tree), str(out))
        return out
    return make


@pytest.fixture(scope='session')
def machine(tmp_path_factory):
    reason = cannot_boot()
    if reason:
        pytest.skip(reason)
    m = Machine(tmp_path_factory.mktemp('machine'))
    try:
        m.boot(time.monotonic() + 90)
        yield m
    finally:
        m.close()
