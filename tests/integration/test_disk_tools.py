"""`tailrace spool verify | stats | export`: of a spool at rest, of one in use, and of damaged ones."""
import base64
import contextlib
import json
import os
import sqlite3
import subprocess

import pytest
from calls import Api
from gateway import BINARY, key, wait_for

EVIL = '/tmp/evil/x'


def run(*args, status=0):
    done = subprocess.run([BINARY, 'spool', *map(str, args)], capture_output=True, timeout=60)
    assert done.returncode == status, (done.returncode, done.stdout[-2000:], done.stderr[-2000:])
    return done.stdout.decode(), done.stderr.decode()


@pytest.fixture
def blob():
    return os.urandom(400000)


@pytest.fixture
def gw(far, gateway_at, blob):
    """A gateway with a backlog: 30 lines of a stream, an upload, lines of a stream with a hostile name, a close."""
    gw = gateway_at(far.url)
    api = Api(gw.log_url)
    assert api.open(key('a'))[0] == 204 and api.open(EVIL)[0] == 204
    wait_for(lambda: far.counts()['started'].get('open') == 2)
    gw.wait_delivered()
    far.stop()
    for i in range(10):
        assert api.put(key('a'), f'{i}\n', f'{i} "ä"\n', 'x' * 3000 + '\n', start=3 * i)[0] == 204
    assert api.blob(key('b'), blob)[0] == 204
    assert api.put(EVIL, 'evil\n')[0] == 204
    assert api.delete(key('a'))[0] == 204
    return gw


def spool(gw):
    return gw.directory / 'spool'


def exported(directory):
    return [json.loads(line) for line in (directory / 'index.jsonl').read_text().splitlines()]


def outs(directory, name):
    return [json.loads(line)['out'] for line in (directory / name).read_text().splitlines()]


WANT = [out for i in range(10) for out in (f'{i}\n', f'{i} "ä"\n', 'x' * 3000 + '\n')]


@pytest.mark.parametrize('state', ['running', 'killed'])
def test_verify_stats_and_export_of_a_sound_spool(gw, tmp_path, blob, state):
    if state == 'killed':
        gw.kill()
    before = (spool(gw) / 'spool.db').read_bytes()
    text, err = run('verify', '-c', gw.config_path)
    assert ': sound: 13 records read, 0 things wrong' in text
    assert ('has this spool open' in err) == (state == 'running')
    stats = json.loads(run('stats', '--directory', spool(gw), '--json')[0])
    assert stats['lines'] == 31 and stats['blobs'] == 1 and stats['records'] == 13 and stats['dead_letters'] == 0
    assert stats['lines_spooled'] == 31 and stats['lines_accepted'] == 31 and stats['oldest'].endswith('Z')
    assert stats['used_by_process'] == (gw.pid if state == 'running' else 0)
    assert 'lines_accepted' in run('stats', spool(gw) / 'spool.db')[0]
    out = tmp_path / 'out'
    run('export', '-c', gw.config_path, '--to', out)
    rows = exported(out)
    assert [r['record'] for r in rows] == sorted(r['record'] for r in rows) and len(rows) == 13
    mine = [r for r in rows if r['key'] == key('a') and r['kind'] == 'lines']
    assert {r['account'] for r in mine} == {'acct'} and len(mine) == 10
    assert outs(out, mine[0]['file']) == WANT
    uploads = [r for r in rows if r['kind'] == 'blob']
    assert (out / uploads[0]['file']).read_bytes() == blob
    assert [r['kind'] for r in rows if r['kind'] == 'close'] == ['close']
    if state != 'running':
        assert (spool(gw) / 'spool.db').read_bytes() == before
    run('export', '-c', gw.config_path, '--to', out, status=1)             # not into what is there


def test_names_of_clients_are_no_paths(gw, tmp_path):
    out = tmp_path / 'in' / 'out'
    run('export', '-c', gw.config_path, '--to', out)
    evil = [r for r in exported(out) if 'evil' in r['key']]
    assert len(evil) == 1 and '/' not in evil[0]['file'] and outs(out, evil[0]['file']) == ['evil\n']
    assert sorted(p.name for p in (tmp_path / 'in').iterdir()) == ['out']
    assert all(p.parent == out for p in out.rglob('*'))


def test_export_to_standard_output(gw, blob):
    rows = [json.loads(line) for line in run('export', '-c', gw.config_path, '--to', '-')[0].splitlines()]
    assert [line['out'] for r in rows if r['key'] == key('a') for line in r.get('lines', [])] == WANT
    assert [base64.b64decode(r['base64']) for r in rows if 'base64' in r] == [blob]


def test_it_does_not_disturb_the_gateway(far, gw):
    for _ in range(3):
        run('verify', '-c', gw.config_path)
    api = Api(gw.log_url)
    assert api.open(key('c'))[0] == 204 and api.put(key('c'), 'x\n')[0] == 204
    far.start()
    gw.wait_delivered()
    assert 'sound: 0 records' in run('verify', '-c', gw.config_path)[0]
    assert [line['out'] if isinstance(line, dict) else line for line in far.lines('acct', key('a'))] == WANT


def damage(gw, what):
    with contextlib.closing(sqlite3.connect(spool(gw) / 'spool.db')) as db:        # and its log goes into the file
        db.execute(what)
        db.commit()


DAMAGES = [
    ("UPDATE record SET body=zeroblob(50) WHERE kind=1 AND number=3", 'record'),
    ("UPDATE record SET meta=x'00' WHERE kind=1 AND number=3", 'not understood'),
    ("UPDATE piece SET data=zeroblob(100) WHERE id & 0xffffff = 1", 'piece 1 of'),
    ("DELETE FROM piece WHERE id & 0xffffff = 2", 'piece 2 of'),
    ("UPDATE ledger SET value=7 WHERE name='lines_spooled'", 'lines_spooled is 7 and should be 31'),
    ("DELETE FROM record WHERE number=3", 'lines_spooled is 31 and should be 28'),
]


def test_verify_finds_what_is_wrong(gw, tmp_path):
    gw.stop()
    sound = (spool(gw) / 'spool.db').read_bytes()
    for i, (what, words) in enumerate(DAMAGES):
        (spool(gw) / 'spool.db').write_bytes(sound)
        damage(gw, what)
        text = run('verify', '-c', gw.config_path, status=1)[0]
        assert words in text and ': damaged: ' in text, (what, text)
        status = 0 if 'ledger' in what or 'DELETE FROM record' in what else 1
        run('export', '-c', gw.config_path, '--to', tmp_path / f'out{i}', status=status)
        assert sum('error' in r for r in exported(tmp_path / f'out{i}')) == status, what
    (spool(gw) / 'spool.db').write_bytes(sound)


def test_export_reads_around_damaged_pages(far, gw, tmp_path, blob):
    """Of a set-aside file, given by its path."""
    api = Api(gw.log_url)
    for i in range(40):
        assert api.put(key('p'), os.urandom(1500).hex() + '\n', start=i)[0] == 204
    gw.stop()
    file = spool(gw) / 'spool.db'
    data = bytearray(file.read_bytes())
    with sqlite3.connect(file) as db:                 # two leaves of the records, in the middle
        leaves = [n - 1 for n, in db.execute("SELECT pageno FROM dbstat WHERE name='record' AND pagetype='leaf' "
                                             "ORDER BY path")]
    assert len(leaves) > 6
    for page in leaves[3], leaves[5]:
        data[page * 4096:(page + 1) * 4096] = os.urandom(4096)
    file.write_bytes(data)
    far.start()
    gw.start()
    aside = next(spool(gw).glob('spool.db.damaged-*Z'))
    before = aside.read_bytes()
    text = run('verify', aside, status=1)[0]
    assert 'structure: ' in text
    err = run('export', aside, '--to', tmp_path / 'out', status=1)[1]
    assert 'cannot be read' in err
    rows = exported(tmp_path / 'out')
    assert 45 <= len(rows) <= 51                      # of 53: the others are all there
    assert [r['record'] for r in rows] == sorted(r['record'] for r in rows)
    assert aside.read_bytes() == before


def test_what_is_no_spool(tmp_path):
    assert 'No such file' in run('stats', tmp_path / 'none', status=1)[1]
    (tmp_path / 'text').write_text('no database at all\n' * 500)
    assert 'not a database' in run('verify', tmp_path / 'text', status=1)[1]
    with sqlite3.connect(tmp_path / 'other') as db:
        db.execute('CREATE TABLE x(y)')
    assert 'no spool of ours' in run('export', tmp_path / 'other', '--to', tmp_path / 'out', status=1)[1]


@pytest.mark.parametrize('args', [[], ['mend'], ['export'], ['stats', '--to', 'x'], ['stats', 'a', 'b'],
                                  ['stats', '-c', 'x', '--directory', 'y'], ['stats', '--what']])
def test_usage(args):
    assert 'usage: tailrace spool' in run(*args, status=2)[1]


def test_help():
    assert 'usage: tailrace spool' in run('--help')[0]
