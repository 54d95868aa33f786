"""The spool at rest: what its files show, which keys open it, and what a changed row does. And that a crash
leaves no core dump behind."""
import os
import random
import resource
import shutil
import signal
import sqlite3
import subprocess
import tempfile

import pytest
from calls import Api, body_of
from gateway import BINARY, Gateway, key, wait_for

os.environ.pop('TAILRACE_SEALED', None)     # here each test says for itself which spools are

ACCOUNT, TOKEN = 'SECRETaccountSECRET', 'SECRETtokenSECRET'
NAME = 'SECRETstepSECRET'
CREDENTIAL = 'credential:spool.key'


def key_file(tmp_path, name='spool.key', text=None, mode=0o600):
    path = tmp_path / name
    path.write_text(text or os.urandom(32).hex() + '\n')
    path.chmod(mode)
    return str(path)


def api_of(gw):
    return Api(gw.log_url, account=ACCOUNT, token=TOKEN)


def put(gw, name, *texts, start=0):
    api = api_of(gw)
    if start == 0:
        assert api.open(key(name))[0] == 204
    assert api.put(key(name), *texts, start=start)[0] == 204
    api.close()


def files(gw):
    """All there is in the spool's directory, byte by byte."""
    return {p.name: p.read_bytes() for p in (gw.directory / 'spool').iterdir() if p.is_file() and p.name != 'ticket.key'}


def showing(gw, *words):
    return {w for w in words for data in files(gw).values() if w in data}


def database(gw):
    return sqlite3.connect(gw.directory / 'spool' / 'spool.db')


def change(gw, sql, *args):
    """Of a gateway that does not run."""
    db = database(gw)
    assert db.execute(sql, args).rowcount > 0
    db.commit()
    db.close()


def flip(gw, table, column, where):
    db = database(gw)
    (value,) = db.execute(f'SELECT {column} FROM {table} WHERE {where}').fetchone()
    db.close()
    change(gw, f'UPDATE {table} SET {column}=? WHERE {where}', value[:-3] + bytes([value[-3] ^ 4]) + value[-2:])


def lines(far, name):
    return far.lines(ACCOUNT, key(name))


def write_all(gw, rng):
    """Lines, and a log that cannot be compressed, of an upstream that is away."""
    blob = rng.randbytes(200000)
    put(gw, NAME, 'one\n', 'two\n')
    api = api_of(gw)
    assert api.blob(key('bytes'), blob)[0] == 204
    assert api.open(key('second'))[0] == 204
    assert api.put(key('second'), 'three\n')[0] == 204
    api.close()
    return blob


def test_files_show_nothing(far, gateway_at, tmp_path):
    rng = random.Random(7)
    plain = gateway_at(far.url)
    sealed = gateway_at(far.url, spool={'key': key_file(tmp_path)})
    far.stop()
    blob = write_all(plain, random.Random(7))
    assert write_all(sealed, rng) == blob
    plain.kill()
    sealed.kill()
    words = [ACCOUNT.encode(), TOKEN.encode(), NAME.encode()]
    parts = [blob[i:i + 16] for i in range(0, len(blob) - 16, 1000)]
    assert showing(plain, *words) == set(words)         # in clear they can be found
    assert len(showing(plain, *parts)) > len(parts) // 2    # (some lie across pages, or were under way)
    db = database(plain)
    bodies = [bytes(row[0]) for row in db.execute('SELECT body FROM record WHERE length(body)>20')]
    db.close()
    assert bodies and showing(sealed, *words, *parts, *bodies) == set()
    shutil.rmtree(plain.directory / 'spool')
    far.start()
    sealed.start()
    sealed.wait_delivered()
    assert far.blob(ACCOUNT, key('bytes')) == blob and lines(far, 'second') == ['three\n']
    sealed.stop()
    assert showing(sealed, *words, *parts, *bodies) == set()


def test_keys_change(far, gateway_at, tmp_path):
    first, second = key_file(tmp_path, 'first'), key_file(tmp_path, 'second')
    gw = gateway_at(far.url, spool={'key': first})
    far.stop()
    put(gw, 'a', '1\n')
    gw.kill()
    gw.write_config(spool={'key': second, 'old-keys': [first]})
    gw.start()
    put(gw, 'a', '2\n', start=1)
    gw.kill()
    os.unlink(first)
    del gw.options['spool']['old-keys']
    gw.start()
    put(gw, 'a', '3\n', start=2)
    far.start()
    gw.wait_delivered()
    assert lines(far, 'a') == ['1\n', '2\n', '3\n']


def refused(gw, *words):
    """It does not start, says why, and leaves the spool as it is."""
    before = gw.directory / 'spool' / 'spool.db'
    gw.start(wait=False)
    assert gw.process.wait(20) == 1
    said = gw.log(fresh=True)
    assert all(w in said for w in words), said
    assert before.exists() and not list(before.parent.glob('*damaged*'))


def test_without_its_key_it_does_not_start(far, gateway_at, tmp_path):
    right, wrong = key_file(tmp_path), key_file(tmp_path, 'wrong.key')
    gw = gateway_at(far.url, spool={'key': right})
    far.stop()
    put(gw, 'a', '1\n')
    gw.kill()
    gw.write_config(spool={'key': wrong})
    refused(gw, 'spool.key does not open', 'spool.old-keys')
    del gw.options['spool']['key']
    refused(gw, 'is sealed and there is no key', 'spool.key')
    gw.write_config(spool={'key': key_file(tmp_path, 'open.key', mode=0o644)})
    refused(gw, 'spool.key', 'open.key', '0644', 'chmod 600')
    gw.write_config(spool={'key': key_file(tmp_path, 'short.key', text='abcd\n')})
    refused(gw, 'spool.key', 'short.key', 'openssl rand -hex 32')
    check = subprocess.run([BINARY, 'check', '-c', str(gw.config_path)], stderr=subprocess.PIPE, text=True, check=False)
    assert check.returncode == 1 and 'spool.key: ' in check.stderr and 'short.key' in check.stderr
    gw.write_config(spool={'key': right})
    far.start()
    gw.start()
    gw.wait_delivered()
    assert lines(far, 'a') == ['1\n']


def test_a_spool_is_sealed_later_and_opened_again(far, gateway_at, tmp_path):
    """In clear, then with a key (a credential of the service manager), then in clear again."""
    path = key_file(tmp_path)
    gw = gateway_at(far.url)
    far.stop()
    put(gw, 'a', '1\n')
    gw.kill()
    gw.env['CREDENTIALS_DIRECTORY'] = str(tmp_path)
    gw.write_config(spool={'key': CREDENTIAL})
    gw.start()
    put(gw, 'a', '2\n', start=1)
    gw.kill()
    del gw.options['spool']['key']
    gw.write_config(spool={'old-keys': [path]})
    gw.start()
    put(gw, 'a', '3\n', start=2)
    far.start()
    gw.wait_delivered()
    gw.stop()
    gw.start()
    gw.stop()
    del gw.options['spool']['old-keys']
    gw.start()
    put(gw, 'a', '4\n', start=3)
    gw.wait_delivered()
    assert lines(far, 'a') == ['1\n', '2\n', '3\n', '4\n']


def test_what_was_changed_is_never_delivered(far, gateway_at, tmp_path):
    gw = gateway_at(far.url, spool={'key': key_file(tmp_path)})
    far.stop()
    for i in range(5):
        put(gw, f's{i}', f'{i}\n')
    api = api_of(gw)
    assert api.blob(key('b'), b'x' * 1000)[0] == 204
    api.close()
    gw.kill()
    db = database(gw)
    record, stream = zip(*db.execute(
        'SELECT id, stream FROM record WHERE lines=1 AND id NOT IN gone ORDER BY id').fetchall())
    db.close()
    flip(gw, 'record', 'meta', f'id={record[0]}')
    flip(gw, 'record', 'body', f'id={record[1]}')
    flip(gw, 'stream', 'account', f'id={stream[2]}')
    change(gw, f'UPDATE record SET body=(SELECT body FROM record WHERE id={record[4]}) WHERE id={record[3]}')
    if database(gw).execute('SELECT count(*) FROM piece').fetchone()[0]:
        flip(gw, 'piece', 'data', '1')
    far.start()
    gw.start()
    wait_for(lambda: gw.ledger()['dead'] == 4, what='dead letters')
    wait_for(lambda: gw.ledger('blobs')['dead'] == 1, what='the dead blob')
    gw.wait_delivered()
    ledger = gw.ledger()
    assert ledger['accepted'] == 5 and ledger['delivered'] == 1
    assert [lines(far, f's{i}') for i in (0, 1, 3)] == [[], [], []] and lines(far, 's4') == ['4\n']
    assert gw.metric('spool_damaged_values_total') >= 4
    assert 'a sealed value does not open' in gw.log() and TOKEN not in gw.log()
    gw.kill()                   # and they do not come back
    gw.start()
    assert gw.ledger()['dead'] == 4 and gw.ledger()['spooled'] == 0


def tool(gw, *args):
    return subprocess.run([BINARY, 'spool', *args], capture_output=True, text=True, timeout=30, check=False)


def test_tools_open_it_with_its_key(far, gateway_at, tmp_path):
    path = key_file(tmp_path)
    gw = gateway_at(far.url, spool={'key': path})
    far.stop()
    write_all(gw, random.Random(7))
    database = str(gw.directory / 'spool' / 'spool.db')
    sound = tool(gw, 'verify', '-c', str(gw.config_path))
    assert sound.returncode == 0 and ' sound: ' in sound.stdout, sound
    found = tool(gw, 'export', database, '--key', path, '--to', '-')
    assert found.returncode == 0 and 'three' in found.stdout and ACCOUNT in found.stdout
    blind = tool(gw, 'export', database, '--to', '-')
    assert blind.returncode == 1 and 'three' not in blind.stdout and ACCOUNT not in blind.stdout
    assert 'data keys are not opened' in blind.stderr
    assert tool(gw, 'stats', database).returncode == 0
    assert tool(gw, 'verify', database, '--key', key_file(tmp_path, 'other')).returncode == 1


# --- core dumps ------------------------------------------------------------------------------------


def dies(directory, far, **options):
    """Whether a gateway that is aborted leaves a core dump. Its limit is taken away first."""
    gw = Gateway(directory, far.url, start=False, **options)
    gw.write_config()

    def unlimited():
        resource.setrlimit(resource.RLIMIT_CORE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))

    with open(gw.log_path, 'wb') as log:
        process = subprocess.Popen([BINARY, 'serve', '-c', str(gw.config_path)], cwd=directory, stderr=log,
                                   preexec_fn=unlimited)
    wait_for(lambda: 'msg=serving' in gw.log_path.read_text() or process.poll(), what='start')
    process.send_signal(signal.SIGABRT)
    _, status = os.waitpid(process.pid, 0)
    process.returncode = 0
    assert os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGABRT
    return os.WCOREDUMP(status)


@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which('setpriv'), reason='takes another user')
def test_processes_of_its_user_do_not_see_its_memory(far):
    nobody = ['setpriv', '--reuid', '65534', '--regid', '65534', '--clear-groups']
    with tempfile.TemporaryDirectory(dir='/tmp') as directory:
        shutil.copy(BINARY, directory)
        gw = Gateway(directory, far.url, start=False)
        gw.write_config()
        for path in [directory, *gw.directory.iterdir()]:
            os.chown(path, 65534, 65534)
        process = subprocess.Popen([*nobody, f'{directory}/{os.path.basename(BINARY)}', 'serve', '-c',
                                    str(gw.config_path)], stderr=subprocess.PIPE, text=True)
        try:
            for line in process.stderr:
                if 'msg=serving' in line:
                    break
            peek = [*nobody, 'head', '-c', '1', f'/proc/{process.pid}/environ']
            assert os.stat(f'/proc/{process.pid}/mem').st_uid == 0
            assert b'Permission denied' in subprocess.run(peek, stderr=subprocess.PIPE, check=False).stderr
        finally:
            process.terminate()
            process.wait(20)
            process.stderr.close()


def test_no_core_dump(far, tmp_path):
    if resource.getrlimit(resource.RLIMIT_CORE)[1] != resource.RLIM_INFINITY:
        pytest.skip('core dumps are limited here')
    # Inside the sandbox the kernel may not write a file either.
    asked = dies(tmp_path / 'asked', far, debug={'core-dumps': True}, sandbox='off')
    if not asked:
        pytest.skip('the system makes no core dumps')
    assert not dies(tmp_path / 'not', far, sandbox='off')
