"""The root of the container image, made of the installed package, run as its user on a read-only file system without
any other file in sight."""
import json
import os
import signal
import subprocess
import urllib.request
from pathlib import Path

import pytest
from calls import Api
from gateway import free_port, key, to_yaml, wait_for
from standin.harness import Harness
from tree import TOP, run

CONTAINER = TOP / 'contrib' / 'container'
USER = 65532

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason='needs root')

# In a mount namespace of its own: the root read-only, the volume, the configuration, /proc; and no more rights.
ENTER = '''
set -e
mount --make-rprivate /
mount --bind "$1" "$1"
mount --bind "$2" "$1/var/lib/tailrace"
mount --bind "$3" "$1/etc/tailrace"
mount -o remount,bind,ro "$1/etc/tailrace"
mount -t proc proc "$1/proc"
mount -o remount,bind,ro "$1"
root=$1
shift 3
exec chroot --userspec=65532:65532 --groups= "$root" "$@"
'''


@pytest.fixture(scope='module')
def image(unpacked, tmp_path_factory):
    root = tmp_path_factory.mktemp('image') / 'root'
    run(str(CONTAINER / 'make-root.sh'), str(unpacked), str(root))
    return root


def enter(image, spool, etc, *args, **kw):
    """`args` in the image. What rights are left until it is the user's go with that."""
    return subprocess.Popen(['setpriv', '--no-new-privs', '--bounding-set=-all,+sys_chroot,+setuid,+setgid,+sys_admin',
                             'unshare', '--mount', '--pid', '--fork', '--kill-child', '/bin/sh', '-c', ENTER, 'sh', str(image),
                             str(spool), str(etc), *args],
                            env={'PATH': os.environ['PATH'], 'CREDENTIALS_DIRECTORY': '/run/secrets/tailrace'}, **kw)


@pytest.fixture
def place_for(tmp_path):
    os.chmod(tmp_path, 0o755)
    spool, etc = tmp_path / 'spool', tmp_path / 'etc'
    for d in (spool, etc):
        d.mkdir()
    os.chown(spool, USER, USER)
    return spool, etc


def test_it_is_small_and_has_nothing_to_run_besides(image):
    files = [f for f in image.rglob('*') if f.is_file() and not f.is_symlink()]
    assert sum(f.stat().st_size for f in files) < 48 << 20
    runnable = {str(f.relative_to(image)) for f in files if os.access(f, os.X_OK) and '.so' not in f.name}
    assert runnable == {'usr/sbin/tailrace', 'usr/sbin/tailracectl'}
    assert not [f for f in files if f.stat().st_mode & 0o7022]     # nobody may write, nothing is setuid
    assert (image / 'usr/share/doc/libssl3/copyright').is_file()


def test_it_runs_read_only_as_nobody_and_carries_logs(image, place_for, tmp_path):
    spool, etc = place_for
    up, admin = free_port(), free_port()
    with Harness() as far, open(tmp_path / 'log', 'wb') as log:
        (etc / 'tailrace.yaml').write_text(to_yaml({
            'harness': {'url': far.url}, 'sandbox': 'required',
            'listen': {'upstream': {'address': f'127.0.0.1:{up}'}, 'admin': {'address': f'127.0.0.1:{admin}'}},
            'spool': {'directory': '/var/lib/tailrace/spool'}}))
        process = enter(image, spool, etc, '/usr/sbin/tailrace', 'serve', '-c', '/etc/tailrace/tailrace.yaml',
                        stdout=log, stderr=log)
        try:
            wait_for(lambda: answers(admin, '/readyz') or process.poll() is not None, what='it to be ready')
            assert process.poll() is None, (tmp_path / 'log').read_text()
            inside = Path(f'/proc/{gateway_of(process.pid)}')
            status = dict(l.split(':\t', 1) for l in (inside / 'status').read_text().splitlines() if ':\t' in l)
            assert status['Uid'].split() == [str(USER)] * 4 and status['Gid'].split() == [str(USER)] * 4
            assert int(status['CapEff'], 16) == int(status['CapPrm'], 16) == 0
            assert status['NoNewPrivs'].strip() == '1'
            assert not os.access(inside / 'root' / 'bin', os.F_OK)
            mounts = [l.split() for l in (inside / 'mountinfo').read_text().splitlines()]
            assert {m[4]: 'ro' in m[5].split(',') for m in mounts if m[4] in ('/', '/etc/tailrace', '/var/lib/tailrace')} == {
                '/': True, '/etc/tailrace': True, '/var/lib/tailrace': False}
            api = Api(f'http://127.0.0.1:{up}/log-service')
            for status, text, _ in (api.open(key()), api.put(key(), 'one'), api.blob(key(), b'{"out":"one"}\n'), api.delete(key())):
                assert status in (200, 204), text
            api.close()
            far.wait(lambda h: h.blob('acct', key()))
            def inside_says(*args):
                with enter(image, spool, etc, *args, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as p:
                    return p.communicate(timeout=60)[0], p.returncode

            out, status = inside_says('/usr/sbin/tailracectl', 'version')       # the health check of the Dockerfile
            assert status == 0, out
            out, status = inside_says('/usr/sbin/tailracectl', 'status', '--json')
            assert status == 0 and json.loads(out)['ledger'], out
            out, status = inside_says('/usr/sbin/tailrace', 'check', '--harness-side', 'yaml', '--address', 'gateway.example')
            assert status == 0 and f'http://gateway.example:{up}' in out, out
            out, status = inside_says('/usr/sbin/tailrace', 'doctor', '--json')
            found = {(f['flow'], f['step']): f for f in json.loads(out)['findings']}
            assert {found[f]['verdict'] for f in found if f[0] in ('harness', 'spool', 'listen', 'gateway')} == {'ok'}, out
            os.kill(gateway_of(process.pid), signal.SIGTERM)
            assert process.wait(40) == 0
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()


def gateway_of(pid):
    """The process behind unshare."""
    while True:
        children = Path(f'/proc/{pid}/task/{pid}/children').read_text().split()
        if not children:
            return pid
        pid = int(children[0])


def answers(port, path):
    try:
        with urllib.request.urlopen(f'http://127.0.0.1:{port}{path}', timeout=5) as page:
            return page.status == 200
    except OSError:
        return False


def test_the_dockerfile_and_the_script_agree():
    text = (CONTAINER / 'Dockerfile').read_text()
    words = [line.split()[0] for line in text.replace('\\\n', ' ').splitlines() if line and not line.startswith('#')]
    assert set(words) <= {'FROM', 'WORKDIR', 'COPY', 'RUN', 'USER', 'ENV', 'VOLUME', 'EXPOSE', 'STOPSIGNAL', 'HEALTHCHECK',
                          'ENTRYPOINT', 'CMD'}
    assert f'USER {USER}:{USER}' in text and 'FROM scratch' in text
    for path in ('contrib/container/make-root.sh', 'tests/deps.sh', 'autogen.sh'):
        assert path.split('/')[-1] in text and os.access(TOP / path, os.X_OK)
    assert f'{USER}:{USER}' in (CONTAINER / 'make-root.sh').read_text()
