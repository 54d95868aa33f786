"""Full and failing disks, against the running program: what is slowed, refused, relayed and kept; what the log and the
metrics say; and that it goes on by itself (docs/operations.md, "The disk fails or is full").

The disk is made bad under the program while it runs, by tests/tools/baddisk.c; and a really full and a really read-only
file system where root may mount one."""
import errno
import json
import mmap
import os
import sqlite3
import struct
import subprocess
from pathlib import Path

import pytest
from calls import Api
from gateway import BINARY, key, wait_for

SOURCE = Path(__file__).parent.parent / 'tools' / 'baddisk.c'
SANITIZED = any(name in Path(BINARY).read_bytes() for name in (b'__asan_init', b'__tsan_init')) \
    if os.path.exists(BINARY) else False
needs_preload = pytest.mark.skipif(SANITIZED, reason='a sanitizer wants to be loaded first')


@pytest.fixture(scope='session')
def library(tmp_path_factory):
    built = os.environ.get('BADDISK') or Path(BINARY).parent / 'tests/tools/baddisk.so'
    if Path(built).exists():
        return built
    out = tmp_path_factory.mktemp('baddisk') / 'baddisk.so'
    made = subprocess.run(['cc', '-D_GNU_SOURCE', '-shared', '-fPIC', '-O1', '-o', out, SOURCE, '-ldl'],
                          capture_output=True, text=True)
    if made.returncode:
        pytest.skip('no compiler for the bad disk')
    return out


class Disk:
    """The spool's disk. Fields as in struct control of baddisk.c."""
    FIELDS = ['write', 'sync', 'read', 'name', 'sync_ms', 'short', 'sync_times', 'only', 'hits', 'amnesia']
    LOG, DATABASE = 1, 2

    def __init__(self, directory, library):
        self.control = directory / 'control'
        self.control.write_bytes(bytes(4096))
        self.file = open(self.control, 'r+b')
        self.map = mmap.mmap(self.file.fileno(), 4096)
        self.env = {'LD_PRELOAD': str(library), 'BADDISK_CONTROL': str(self.control)}

    def set(self, **fields):
        for name, value in fields.items():
            struct.pack_into('I', self.map, 4 * self.FIELDS.index(name), value)

    def get(self, name):
        return struct.unpack_from('I', self.map, 4 * self.FIELDS.index(name))[0]

    def mend(self):
        self.set(**{name: 0 for name in self.FIELDS if name != 'hits'})


@pytest.fixture
def disk(tmp_path, library):
    return Disk(tmp_path, library)


@pytest.fixture
def gw(far, gateway_at, disk, tmp_path):
    return gateway_at(far.url, name='gw', env=dict(disk.env, BADDISK_DIR=str(tmp_path / 'gw' / 'spool')))


FAULTS = {
    'full': dict(write=errno.ENOSPC),
    'quota': dict(write=errno.EDQUOT),
    'write-error': dict(write=errno.EIO),
    'sync-error': dict(sync=errno.EIO),
    'sync-full': dict(sync=errno.ENOSPC),
    'read-only': dict(write=errno.EROFS, name=errno.EROFS),
}
WORDS = {
    'full': ('disk is full', 'free space'),
    'quota': ('quota', 'raise the quota'),
    'write-error': ('disk fails', 'dmesg'),
    'sync-error': ('disk fails', 'dmesg'),
    'sync-full': ('disk is full', 'free space'),
    'read-only': ('read-only', 'remount'),
}


def started(far, gw, *names):
    """Streams that upstream has and of which nothing waits."""
    api = Api(gw.log_url)
    for name in names:
        assert api.open(key(name))[0] == 204
    wait_for(lambda: far.counts()['started'].get('open', 0) >= len(names))
    gw.wait_delivered()
    return api


def put_all(api, name, n, first=0):
    return [api.put(key(name), f'{i}\n', start=i)[0] for i in range(first, first + n)]


def trouble(gw):
    return [line for line in gw.log(fresh=True).splitlines() if 'cannot make records durable' in line]


@needs_preload
@pytest.mark.parametrize('fault', FAULTS)
def test_calls_are_relayed_while_nothing_can_be_committed_and_all_goes_on_afterwards(far, gw, disk, fault):
    api = started(far, gw, 'a')
    disk.set(**FAULTS[fault])
    assert put_all(api, 'a', 5) == [204] * 5
    assert far.lines('acct', key('a')) == [f'{i}\n' for i in range(5)]       # synchronously
    assert api.open(key('b'))[0] == 204
    assert api.blob(key('c'), b'{"out":"x"}\n')[0] == 204
    assert far.blob('acct', key('c')) == b'{"out":"x"}\n'
    assert api.link(key('c'))[0] == 200
    assert api.delete(key('b'))[0] == 204
    assert gw.metric('direct_calls_total') == 8 and gw.metric('spool_failing') == 1
    assert gw.get('/readyz')[0] == 503
    assert disk.get('hits') > 0
    what, remedy = WORDS[fault]
    assert len(trouble(gw)) == 1
    assert what in trouble(gw)[0] and remedy in trouble(gw)[0] and str(gw.directory / 'spool') in trouble(gw)[0]
    disk.mend()
    wait_for(lambda: gw.get('/readyz')[0] == 200, what='readiness without a call')   # nobody calls meanwhile
    assert put_all(api, 'a', 5, 5) == [204] * 5
    assert api.delete(key('a'))[0] == 204
    gw.wait_delivered()
    assert far.lines('acct', key('a')) == [f'{i}\n' for i in range(10)]
    wait_for(lambda: gw.ledger()['delivered'] == 10)
    assert gw.ledger()['accepted'] == 10
    wait_for(lambda: 'records are made durable again' in gw.log())
    assert len(trouble(gw)) == 1


@needs_preload
@pytest.mark.parametrize('fault', ['full', 'sync-error'])
def test_what_was_acknowledged_survives_a_kill_in_the_middle_of_it(far, gw, disk, fault):
    api = started(far, gw, 'a', 'b')
    far.stop()
    accepted = {name: put_all(api, name, 20).count(204) for name in 'ab'}
    assert accepted == {'a': 20, 'b': 20}
    disk.set(**FAULTS[fault])
    refused = [api.put(key(name), 'not taken\n', start=99)[0] for name in 'ab' for _ in range(4)]
    assert refused == [503] * 8
    assert gw.metric('lines_refused_total', reason='failing') == 8
    gw.kill()
    disk.mend()
    far.start()
    gw.start()
    gw.wait_delivered()
    for name in 'ab':
        assert far.lines('acct', key(name)) == [f'{i}\n' for i in range(20)]
    assert gw.ledger()['delivered'] == 40


@needs_preload
@pytest.mark.parametrize('sync,only', [('full', Disk.LOG), ('full', Disk.DATABASE), ('normal', Disk.DATABASE)],
                         ids=['full-log', 'full-database', 'normal-database'])
def test_a_sync_that_failed_once_is_not_taken_for_good_later(far, gateway_at, disk, tmp_path, only, sync):
    """After it both files are opened anew and the log is copied again: nothing is synced on the old descriptors. With
    full syncs a sync that fails loses what it should have written, as a system does that drops pages."""
    disk.set(amnesia=sync == 'full')
    gw = gateway_at(far.url, name='gw', env=dict(disk.env, BADDISK_DIR=str(tmp_path / 'gw' / 'spool')),
                    spool={'sync': sync, 'limit': '8MiB'})      # a small log: checkpoints come soon
    api = started(far, gw, 'a')
    far.stop()
    sent = 0
    for i in range(30):
        if i % 5 == 2:
            disk.set(sync=errno.EIO, sync_times=1, only=only)
        body = f'{i} ' + os.urandom(30000).hex() + '\n'
        sent += api.put(key('a'), body, start=i)[0] == 204
    hits = disk.get('hits')
    assert hits >= 1
    gw.kill()
    gw.start()
    far.start()
    gw.wait_delivered()
    assert len(far.lines('acct', key('a'))) == sent >= 20
    assert gw.metric('spool_set_aside') == 0
    gw.stop()
    assert ': sound: ' in subprocess.run([BINARY, 'spool', 'verify', '-c', gw.config_path], capture_output=True,
                                         text=True).stdout


@needs_preload
@pytest.mark.parametrize('stays', [False, True], ids=['gone', 'stays'])
def test_pages_of_a_checkpoint_that_a_reader_cut_short_are_synced_in_the_end(far, gateway_at, disk, tmp_path, stays):
    """What SQLite alone would lose: it copies such pages once, and syncs them with the rest, later, once."""
    disk.set(amnesia=1)
    gw = gateway_at(far.url, name='gw', env=dict(disk.env, BADDISK_DIR=str(tmp_path / 'gw' / 'spool')),
                    spool={'limit': '8MiB'})
    api = started(far, gw, 'a')
    far.stop()
    sent = [f'{i} ' + os.urandom(30000).hex() + '\n' for i in range(150)]
    assert [api.put(key('a'), sent[i], start=i)[0] for i in range(30)] == [204] * 30
    reader = sqlite3.connect(f'file:{gw.directory}/spool/spool.db?mode=ro', uri=True, isolation_level=None)
    reader.execute('BEGIN')
    reader.execute('SELECT count(*) FROM record').fetchall()
    assert [api.put(key('a'), sent[i], start=i)[0] for i in range(30, 70)] == [204] * 40
    reader.execute('COMMIT')
    if not stays:
        reader.close()
    disk.set(sync=errno.EIO, sync_times=1, only=Disk.DATABASE)
    got = [s for i, s in enumerate(sent[70:]) if api.put(key('a'), s, start=70 + i)[0] == 204]
    assert disk.get('hits') == 1 and len(got) >= 79
    disk.mend()
    gw.kill()
    reader.close()
    far.start()
    gw.start()
    assert gw.metric('spool_set_aside') == 0
    gw.wait_delivered()
    assert far.lines('acct', key('a')) == sent[:70] + got


@needs_preload
def test_a_slow_sync_slows_lines_and_loses_nothing(far, gw, disk):
    api = started(far, gw, 'a')
    disk.set(sync_ms=300)
    answers = put_all(api, 'a', 5)
    assert answers == [204] * 5 and gw.metric('spool_failing') == 0
    assert api.delete(key('a'))[0] == 204
    disk.mend()
    gw.wait_delivered()
    assert far.lines('acct', key('a')) == [f'{i}\n' for i in range(5)]
    assert trouble(gw) == []


@needs_preload
def test_short_writes_lose_nothing(far, gw, disk):
    api = started(far, gw, 'a')
    disk.set(short=1)
    far.stop()
    assert put_all(api, 'a', 10) == [204] * 10
    gw.kill()
    disk.mend()
    gw.start()
    far.start()
    gw.wait_delivered()
    assert far.lines('acct', key('a')) == [f'{i}\n' for i in range(10)]


@needs_preload
def test_reads_that_fail_are_tried_again(far, gateway_at, disk, tmp_path):
    gw = gateway_at(far.url, name='gw', env=dict(disk.env, BADDISK_DIR=str(tmp_path / 'gw' / 'spool')))
    api = started(far, gw, 'a')
    far.stop()
    blob = os.urandom(1 << 20)
    assert api.blob(key('b'), blob)[0] == 204
    assert put_all(api, 'a', 10) == [204] * 10
    gw.kill()
    gw.start()                          # nothing is in memory any more
    disk.set(read=errno.EIO)
    far.start()
    wait_for(lambda: disk.get('hits') > 0 and 'cannot be read from the spool' in gw.log())
    disk.mend()
    gw.wait_delivered()
    assert far.lines('acct', key('a')) == [f'{i}\n' for i in range(10)]
    assert far.blob('acct', key('b')) == blob
    assert gw.ledger()['dead'] == 0 and gw.ledger('blobs')['dead'] == 0


@needs_preload
@pytest.mark.parametrize('how', ['blob', 'link'])
@pytest.mark.parametrize('when', ['before', 'under it'])
def test_an_upload_is_relayed_whole_while_the_spool_fails(far, gw, disk, how, when):
    """Also when its first pieces were written; by a link, too: clients of links repeat with an empty body."""
    api = started(far, gw, 'a')
    data = b'{"out":"x"}\n' + os.urandom(900000)
    path = api.target('/blob', key('a'))
    if how == 'link':
        path = json.loads(api.link(key('a'))[1])['link'].split(str(gw.port), 1)[1]
    if when == 'before':
        disk.set(write=errno.ENOSPC)
        assert api.put(key('a'), 'x\n')[0] == 204                # noticed
    conn = api.connection()
    conn.putrequest('PUT' if how == 'link' else 'POST', path)
    conn.putheader('X-Harness-Token', api.token)
    conn.putheader('Content-Length', str(len(data)))
    conn.endheaders(data[:500000])
    if when == 'under it':
        wait_for(lambda: gw.metric('spool_transactions_total') > 1)
        disk.set(write=errno.ENOSPC)
    conn.send(data[500000:])
    answer = conn.getresponse()
    answer.read()
    assert answer.status == (200 if how == 'link' else 204)
    assert far.blob('acct', key('a')) == data
    disk.mend()
    wait_for(lambda: gw.ledger('blobs')['delivered'] == 1)
    wait_for(lambda: gw.get('/readyz')[0] == 200)
    api.close()
    assert api.delete(key('a'))[0] == 204
    gw.wait_delivered()
    assert far.blob('acct', key('a')) == data


# --- the limit ----------------------------------------------------------------------------------------------------


def fill_with_lines(gw, far, limit='4MiB'):
    """Line calls until they are refused: (names with their accepted counts, slowed answers seen)."""
    far.stop()
    api = Api(gw.log_url)
    accepted = 0
    for i in range(600):
        status = api.put(key('fill'), os.urandom(60000).hex() + '\n', start=i)[0]
        if status != 204:
            assert status == 503
            return api, accepted
        accepted += 1
    raise AssertionError('never refused')


def test_lines_are_slowed_then_refused_and_all_else_goes_on(far, gateway_at):
    gw = gateway_at(far.url, spool={'limit': '4MiB'})
    started(far, gw, 'fill', 'closed', 'late')
    api, accepted = fill_with_lines(gw, far)
    assert gw.metric('line_calls_slowed_total') > 0
    assert gw.metric('lines_refused_total', reason='full') == 1
    ledger = gw.ledger()
    assert ledger['spooled'] == accepted
    wait_for(lambda: gw.ledger()['refused'] == 1)
    assert gw.get('/readyz')[0] == 200 and gw.metric('spool_failing') == 0
    # The last tenth is for these.
    for i in range(10):
        assert api.open(key(f'new{i}'))[0] == 204
        assert api.link(key(f'new{i}'))[0] == 200
        assert api.blob(key(f'new{i}'), b'{"out":"%d"}\n' % i)[0] == 204
        assert api.delete(key(f'new{i}'))[0] == 204
        accepted += api.put(key('fill'), f'x{i}\n', start=900 + i)[0] == 204    # the log may just have started over
    assert api.delete(key('closed'))[0] == 204
    assert gw.metric('spool_room_bytes') < 4 << 20
    wait_for(lambda: 'lines are refused' in gw.log() and 'raise spool.limit' in gw.log())
    far.start()
    gw.wait_delivered()
    assert len(far.lines('acct', key('fill'))) == accepted
    assert far.blob('acct', key('new9')) == b'{"out":"9"}\n'
    wait_for(lambda: api.put(key('fill'), 'again\n', start=1000)[0] == 204, what='lines are taken again')
    wait_for(lambda: 'room again' in gw.log())
    gw.wait_delivered()
    assert gw.ledger()['delivered'] == accepted + 1


def test_opens_and_closes_go_on_when_blobs_have_used_up_the_rest(far, gateway_at):
    gw = gateway_at(far.url, spool={'limit': '4MiB'}, limits={'blob': '1MiB'})
    api = started(far, gw, 'a', 'b')
    far.stop()
    full = False
    for i in range(20):
        try:
            if api.blob(key(f'blob{i}'), os.urandom(500000))[0] != 204:
                full = True
        except (OSError, Exception):                # noqa: BLE001 - broken off: its client sends it again
            full = True
            api.close()
        if full:
            break
    assert full
    for i in range(20):
        assert api.open(key(f'new{i}'))[0] == 204
        assert api.delete(key(f'new{i}'))[0] == 204
    assert api.delete(key('a'))[0] == 204
    far.start()
    gw.wait_delivered()
    wait_for(lambda: api.put(key('b'), 'x\n')[0] == 204)
    gw.wait_delivered()


# --- real file systems --------------------------------------------------------------------------------------------


@pytest.fixture
def mounted(tmp_path):
    """A small file system: tmpfs of so many bytes, or ext4 in a file."""
    made = []

    def mount(kind, size):
        at = tmp_path / 'mount'
        at.mkdir()
        if kind == 'tmpfs':
            command = ['mount', '-t', 'tmpfs', '-o', f'size={size}', 'tmpfs', str(at)]
        else:
            image = tmp_path / 'image'
            with open(image, 'wb') as f:
                f.truncate(size)
            if subprocess.run(['mkfs.ext4', '-q', '-m', '0', str(image)], capture_output=True).returncode:
                pytest.skip('no mkfs.ext4')
            command = ['mount', '-o', 'loop', str(image), str(at)]
        if os.getuid() != 0 or subprocess.run(command, capture_output=True).returncode:
            pytest.skip('nothing can be mounted here')
        made.append(at)
        return at

    yield mount
    for at in made:
        subprocess.run(['umount', '-l', str(at)], check=True)


@pytest.mark.parametrize('kind', ['tmpfs', 'ext4'])
def test_a_file_system_that_others_fill(far, gateway_at, mounted, kind):
    at = mounted(kind, 40 << 20)
    gw = gateway_at(far.url, spool={'directory': str(at / 'spool'), 'limit': '1GiB'}, drain={'limit': '2s'})
    api = started(far, gw, 'a', 'b')
    far.stop()
    assert put_all(api, 'a', 10) == [204] * 10
    with open(at / 'others', 'wb', buffering=0) as f:
        size = 1 << 20
        while size >= 512:
            try:
                if f.write(bytes(size)) < size:
                    size //= 2
            except OSError:
                size //= 2
    wait_for(lambda: api.put(key('b'), os.urandom(20000).hex() + '\n')[0] == 503, what='lines are refused')
    assert api.open(key('c'))[0] == 204 and api.delete(key('c'))[0] == 204
    gw.kill()
    gw.start(wait=True)                                  # with the disk still full
    far.start()
    gw.wait_delivered()
    assert far.lines('acct', key('a')) == [f'{i}\n' for i in range(10)]
    (at / 'others').unlink()
    wait_for(lambda: api_again(gw).put(key('b'), 'again\n', start=5000)[0] == 204)
    gw.wait_delivered()
    wait_for(lambda: gw.get('/readyz')[0] == 200)


def api_again(gw):
    return Api(gw.log_url)


# --- handing over -------------------------------------------------------------------------------------------------


def called_off(gw, new):
    wait_for(lambda: 'handing over failed; this process goes on' in gw.log(), what='the end of the takeover')
    assert new.wait(20) == 1


@needs_preload
def test_a_mark_that_fails_while_the_spool_is_to_be_handed_over(far, gw, disk):
    """What was delivered is still to be marked so: else the next start sends it again, and nothing says so."""
    api = started(far, gw, 'a')
    far.fault('delay', 'lines', count=1, seconds=1)
    assert put_all(api, 'a', 1) == [204]
    wait_for(lambda: far.counts()['started'].get('lines'), what='the delivery')
    new = gw.take_over(wait=False)
    wait_for(lambda: '"handing over"' in gw.log(), what='the takeover')
    disk.set(sync=errno.EIO, sync_ms=600)
    called_off(gw, new)
    disk.mend()
    gw.wait_delivered()
    gw.kill()
    gw.start()
    assert put_all(api_again(gw), 'a', 1, 1) == [204]
    gw.wait_delivered()
    assert far.lines('acct', key('a')) == ['0\n', '1\n']


@needs_preload
def test_a_close_by_prefix_outlives_a_takeover_that_was_called_off(far, gw, disk):
    """It is about to ask the other streams when the spool is to be handed over, which takes too long."""
    api = started(far, gw, 'a', 'b')
    far.fault('delay', 'lines', count=1, seconds=1, key=key('a'))
    far.fault('delay', 'lines', count=1, seconds=1.2, key=key('b'))
    assert put_all(api, 'a', 1) == put_all(api, 'b', 1) == [204]
    assert api.delete(key('a'), '&prefix=true')[0] == 204
    wait_for(lambda: far.counts()['started'].get('lines', 0) == 2, what='the deliveries')
    disk.set(sync_ms=2000)
    new = gw.take_over(wait=False)
    called_off(gw, new)
    disk.mend()
    wait_for(lambda: far.counts()['requests'].get('close'), what='the close')


# --- the start ----------------------------------------------------------------------------------------------------


def refused_start(gw):
    gw.start(wait=False)
    assert gw.process.wait(20) == 1
    gw.process = None
    return [line for line in gw.log(fresh=True).splitlines() if 'the spool cannot be opened' in line][-1]


@needs_preload
@pytest.mark.parametrize('fault,words', [
    ('read-only', 'mounted for writing'), ('write-error', 'dmesg'), ('full', 'free 16 MiB')])
def test_a_start_on_a_bad_disk_says_where_and_what_to_do(far, gateway_at, disk, tmp_path, fault, words):
    gw = gateway_at(far.url, name='gw', start=False, env=dict(disk.env, BADDISK_DIR=str(tmp_path / 'gw' / 'spool')))
    (tmp_path / 'gw' / 'spool').mkdir()
    disk.set(**FAULTS[fault])
    line = refused_start(gw)
    assert str(tmp_path / 'gw' / 'spool') in line and 'spool.directory' in line and words in line, line
    disk.mend()
    gw.start()
    assert started(far, gw, 'a').put(key('a'), 'x\n')[0] == 204


@needs_preload
def test_a_spool_that_cannot_be_read_at_the_start_is_not_taken_for_damaged(far, gateway_at, disk, tmp_path):
    gw = with_backlog(far, gateway_at, env=dict(disk.env, BADDISK_DIR=str(tmp_path / 'gw' / 'spool')))
    disk.set(read=errno.EIO)
    line = refused_start(gw)
    assert 'dmesg' in line, line
    assert not list((gw.directory / 'spool').glob('*damaged*'))
    disk.mend()
    far.start()
    gw.start()
    gw.wait_delivered()
    assert len(far.lines('acct', key('a'))) == 40


def test_a_spool_directory_that_cannot_be_made(far, gateway_at, tmp_path):
    (tmp_path / 'file').write_text('x')
    gw = gateway_at(far.url, start=False, spool={'directory': str(tmp_path / 'file' / 'spool')})
    line = refused_start(gw)
    assert str(tmp_path / 'file') in line and 'spool.directory' in line
    gw.process = None


@needs_preload
def test_a_stop_on_a_bad_disk_is_orderly_and_keeps_what_was_acknowledged(far, gw, disk):
    api = started(far, gw, 'a')
    far.stop()
    assert put_all(api, 'a', 10) == [204] * 10
    disk.set(write=errno.EIO, sync=errno.EIO)
    assert gw.stop() == 0
    disk.mend()
    far.start()
    gw.start()
    gw.wait_delivered()
    assert far.lines('acct', key('a')) == [f'{i}\n' for i in range(10)]


# --- damage -------------------------------------------------------------------------------------------------------


def with_backlog(far, gateway_at, clean=True, name='gw', **options):
    gw = gateway_at(far.url, name=name, **options)
    api = started(far, gw, 'a', 'b')
    far.stop()
    for i in range(40):
        assert api.put(key('a'), f'{i} ' + os.urandom(3000).hex() + '\n', start=i)[0] == 204
    assert api.blob(key('b'), os.urandom(300000))[0] == 204
    if clean:
        gw.stop()
    else:
        gw.kill()
    return gw


def overwrite(path, at, data):
    with open(path, 'r+b') as f:
        f.seek(at)
        f.write(data)


def size_of(path):
    return path.stat().st_size


DAMAGE = {
    'head': lambda d: overwrite(d / 'spool.db', 0, os.urandom(4096)),
    'schema': lambda d: overwrite(d / 'spool.db', 100, os.urandom(3000)),
    'middle': lambda d: [overwrite(d / 'spool.db', p * 4096, os.urandom(4096))
                         for p in range(3, size_of(d / 'spool.db') // 4096, 3)],
    'cut in a page': lambda d: os.truncate(d / 'spool.db', size_of(d / 'spool.db') // 2 + 77),
    'text': lambda d: (d / 'spool.db').write_text('this is no database\n' * 300),
    'zeros': lambda d: (d / 'spool.db').write_bytes(bytes(size_of(d / 'spool.db'))),
}


def check_fresh(far, gw, how=''):
    """It runs with a fresh spool, says where the other one is, and takes and delivers."""
    aside = sorted((gw.directory / 'spool').glob('spool.db.damaged-*Z'))
    assert aside, how
    assert gw.get('/readyz')[0] == 200
    assert gw.metric('spool_set_aside') == len(aside) and gw.metric('spool_set_aside_bytes') > 0
    assert str(aside[-1]) in gw.log(fresh=True)
    api = Api(gw.log_url)
    assert api.open(key('fresh'))[0] == 204 and api.put(key('fresh'), 'x\n')[0] == 204
    gw.wait_delivered()
    assert far.lines('acct', key('fresh')) == ['x\n']
    return aside


@pytest.mark.parametrize('how', DAMAGE)
def test_a_spool_damaged_before_the_start_is_set_aside_whole(far, gateway_at, how):
    gw = with_backlog(far, gateway_at)
    spool = gw.directory / 'spool'
    DAMAGE[how](spool)
    before = (spool / 'spool.db').read_bytes()
    far.start()
    gw.start()
    aside = check_fresh(far, gw, how)
    assert aside[0].read_bytes() == before                       # whole, and untouched
    if how != 'head':
        return
    gw.stop()
    gw.start()                                                   # and the next start takes the fresh one
    assert len(list(spool.glob('spool.db.damaged-*Z'))) == 1 and gw.metric('spool_set_aside') == 1


@pytest.mark.parametrize('how', ['garbage', 'cut', 'gone'])
def test_a_damaged_log_is_no_reason_not_to_start(far, gateway_at, how):
    gw = with_backlog(far, gateway_at, clean=False)
    log = gw.directory / 'spool' / 'spool.db-wal'
    assert size_of(log) > 4096
    if how == 'garbage':
        overwrite(log, 0, os.urandom(size_of(log)))
    elif how == 'gone':
        log.unlink()
    else:
        os.truncate(log, size_of(log) // 2)
    far.start()
    gw.start()
    api = Api(gw.log_url)
    assert api.open(key('fresh'))[0] == 204 and api.put(key('fresh'), 'x\n')[0] == 204
    gw.wait_delivered()
    assert far.lines('acct', key('fresh')) == ['x\n']


@pytest.mark.parametrize('how', ['middle', 'zeros'])
def test_damage_found_while_running_is_set_aside_and_it_goes_on(far, gateway_at, how):
    gw = gateway_at(far.url, name='gw', spool={'limit': '16MiB'})
    api = started(far, gw, 'a', 'b')
    far.stop()
    assert put_all(api, 'a', 10) == [204] * 10                   # in memory, undelivered
    assert api.blob(key('b'), os.urandom(2 << 20))[0] == 204     # not in memory
    spool = gw.directory / 'spool'
    with sqlite3.connect(spool / 'spool.db') as db:              # so that the pages are in the file
        db.execute('PRAGMA wal_checkpoint(TRUNCATE)')
    pid = gw.pid
    size = size_of(spool / 'spool.db')
    if how == 'middle':
        for p in range(1, size // 4096):
            overwrite(spool / 'spool.db', p * 4096, os.urandom(4096))
    else:
        overwrite(spool / 'spool.db', 0, bytes(size))
    far.start()                                                  # which makes it read
    wait_for(lambda: list(spool.glob('spool.db.damaged-*Z')), what='set aside')
    wait_for(lambda: gw.get('/readyz')[0] == 200)
    check_fresh(far, gw, how)
    assert gw.pid == pid and gw.process.poll() is None
    wait_for(lambda: far.lines('acct', key('a')) == [f'{i}\n' for i in range(10)], what='what was in memory')
    assert put_all(api_again(gw), 'a', 5, 10) == [204] * 5
    gw.wait_delivered()
    gw.ledger()
    gw.kill()
    gw.start()
    assert put_all(api_again(gw), 'a', 5, 15) == [204] * 5
    gw.wait_delivered()
    assert far.lines('acct', key('a')) == [f'{i}\n' for i in range(20)]
