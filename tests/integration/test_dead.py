"""Dead letters: how they come to be, and what tailracectl shows of them and does with them."""
import contextlib
import json
import os
import socket
import subprocess
import threading
from urllib.parse import quote

import pytest

from calls import TOKEN, Api, row
from gateway import BINARY, key, wait_for

CTL = os.environ.get('TAILRACECTL') or os.path.join(os.path.dirname(BINARY), 'tailracectl')
POISON = '{"error_msg":"invalid character \'x\' looking for beginning of value"}'


def ctl(gw, *words, code=0, timeout=30):
    """Run tailracectl; (standard output, standard error)."""
    done = subprocess.run([CTL, '-c', str(gw.config_path), *map(str, words)], capture_output=True, text=True,
                          timeout=timeout, stdin=subprocess.DEVNULL, check=False)
    assert done.returncode == code, (words, done.returncode, done.stdout, done.stderr)
    assert TOKEN not in done.stdout + done.stderr
    return done.stdout, done.stderr


def ctl_json(gw, *words, code=0):
    return json.loads(ctl(gw, '--json', *words, code=code)[0])


def letters(gw):
    return ctl_json(gw, 'dead', 'list')


def as_log(*rows):
    """What a blob holds of these lines: one a line."""
    return [json.loads(json.dumps(r)) for r in rows]


def stored(far, name):
    blob = far.blob('acct', name)
    return None if blob is None else [json.loads(line) for line in blob.splitlines()]


def poison(far, gw, api, name, *texts, start=1, what='lines'):
    """Have upstream refuse these lines for good; the id of their letter."""
    before = gw.metric('dead_letters')
    fault = far.fault('status', what, count=None, key=name, code=400, body=POISON)
    if what == 'lines':
        assert api.put(name, *texts, start=start)[0] == 204
    else:
        assert api.blob(name, texts[0])[0] == 204
    wait_for(lambda: gw.metric('dead_letters') == before + 1, what='the letter')
    far.clear_faults(fault)
    return max(letter['id'] for letter in letters(gw))


def stream_with_poison(far, gw, api, name=None, end=True):
    """Line 0, two lines that are refused, line 3, and the close; the letter's id."""
    name = name or key()
    assert api.open(name)[0] == 204
    assert api.put(name, 'line 0\n')[0] == 204
    gw.wait_delivered()
    letter = poison(far, gw, api, name, 'bad 1\n', 'bad 2\n')
    assert api.put(name, 'line 3\n', start=3)[0] == 204
    gw.wait_delivered()
    if end:
        finish(far, gw, api, name)
    return letter


def finish(far, gw, api, name):
    before = far.counts()['requests'].get('close', {}).get('204', 0)
    assert api.delete(name)[0] == 204
    wait_for(lambda: far.counts()['requests'].get('close', {}).get('204', 0) > before, what='the close')
    wait_for(lambda: not far.counts()['running'], what='the end')


BAD = as_log(row('bad 1\n', 1), row('bad 2\n', 2))


def balanced(gw, **want):
    ledger = gw.ledger()
    gw.ledger('blobs')
    assert {k: ledger[k] for k in want} == want, ledger
    return ledger


def replay(gw, letter, code=0):
    """Once the gateway itself has seen the end of the stream."""
    def tried():
        done = ctl_json_any(gw, 'dead', 'replay', letter)
        return None if 'has not ended' in done[1] else done
    status, err, answer = None, None, None
    status, err, answer = wait_for(tried, what='the end of the stream')
    assert status == code, (status, err, answer)
    return answer[0]


def ctl_json_any(gw, *words):
    done = subprocess.run([CTL, '-c', str(gw.config_path), '--json', *map(str, words)], capture_output=True,
                          text=True, timeout=30, stdin=subprocess.DEVNULL, check=False)
    return done.returncode, done.stderr, json.loads(done.stdout) if done.stdout else None


HOSTILE = 'evil\x9b31m\x9d0;owned\x9c'


def test_nothing_that_a_client_named_speaks_to_the_terminal(far, gw, api):
    """Keys hold what clients put there. Control characters of ASCII get none in; those of Unicode do, and are the
    beginnings of escape sequences as well."""
    assert api.open(quote(key('\x1b[2J')))[0] == 400
    name = quote(key(HOSTILE), safe='')
    assert api.open(name)[0] == 204 and api.put(name, 'good\n')[0] == 204
    gw.wait_delivered()
    far.fault('status', 'lines', count=None, key=key(HOSTILE), code=400, body=POISON)
    assert api.put(name, 'bad\n', start=1)[0] == 204
    wait_for(lambda: gw.metric('dead_letters') == 1, what='the letter')
    letter = letters(gw)[0]['id']
    said = ''.join(ctl(gw, *words)[0] for words in
                   (['dead', 'list'], ['dead', 'explain', letter], ['--json', 'dead', 'list'],
                    ['--json', 'dead', 'explain', letter]))
    assert 'evil' in said
    assert not [c for c in said if c != '\n' and not c.isprintable()], repr(said)
    assert letters(gw)[0]['key'] == key(HOSTILE)


def test_a_gateway_that_stands_still_does_not_hold_tailracectl_up(tmp_path):
    path = str(tmp_path / 'control.sock')
    with socket.socket(socket.AF_UNIX) as s, contextlib.ExitStack() as waiting:
        s.bind(path)
        s.listen(0)
        with pytest.raises(BlockingIOError):
            while True:
                c = waiting.enter_context(socket.socket(socket.AF_UNIX))
                c.setblocking(False)
                c.connect(path)
        done = subprocess.run([CTL, '--socket', path, 'version'], capture_output=True, text=True, timeout=10, check=False)
        assert done.returncode == 3 and 'cannot connect' in done.stderr


# --- looking ------------------------------------------------------------------------------------

def test_list_explain_export(far, gw, api):
    assert ctl(gw, 'dead', 'list')[0] == 'no dead letters\n'
    letter = stream_with_poison(far, gw, api)
    balanced(gw, accepted=4, delivered=2, dead=2)
    found, = letters(gw)
    assert found['id'] == letter and found['kind'] == 'lines' and found['lines'] == 2
    assert found['account'] == 'acct' and found['key'] == key() and found['replays'] == 0
    assert found['status'] == 400 and found['said'] == 'the body was not understood'
    assert found['reason'] == 'upstream refused the lines'
    assert found['accepted'] <= found['buried']
    table = ctl(gw, 'dead', 'list')[0].splitlines()
    assert table[0].split()[:3] == ['ID', 'KIND', 'LINES'] and table[1].split()[:3] == [str(letter), 'lines', '2']
    text = ctl(gw, 'dead', 'explain', letter)[0]
    assert '2 lines' in text and key() in text and 'answered 400 (the body was not understood)' in text
    assert f'tailracectl dead replay {letter}' in text
    exported = ctl(gw, 'dead', 'export', letter)[0]
    assert json.loads(exported) == BAD
    assert len(exported.strip()) == found['bytes'] + 2
    out = gw.directory / 'out.json'
    ctl(gw, 'dead', 'export', letter, '-o', out)
    assert out.read_text() == exported and out.stat().st_mode & 0o777 == 0o600
    # Looking changed nothing.
    assert letters(gw) == [found]
    assert 'kept as a dead letter, see tailracectl dead list' in gw.log()


def test_list_is_paged_and_filtered(far, gw, api):
    assert api.open(key())[0] == 204
    fault = far.fault('status', 'lines', count=None, code=400, body=POISON)
    for i in range(7):
        assert api.put(key(), f'bad {i}\n', start=i)[0] == 204
    other = Api(gw.log_url, account='other')
    assert other.put(key('b'), 'bad\n')[0] == 204
    wait_for(lambda: gw.metric('dead_letters') == 8, what='the letters')
    far.clear_faults(fault)
    everything = [letter['id'] for letter in letters(gw)]
    assert len(everything) == 8 and everything == sorted(everything)
    # The page is the server's, the walk over pages is the client's.
    pages, start = [], 1
    while start:
        page = control(gw, f'dead?limit=3&from={start}')
        assert len(page['letters']) <= 3
        pages += [letter['id'] for letter in page['letters']]
        start = page['next']
    assert pages == everything
    assert len(ctl_json(gw, 'dead', 'list', '--account', 'other')) == 1
    assert len(ctl_json(gw, 'dead', 'list', '--stream', key())) == 7
    assert len(ctl_json(gw, 'dead', 'list', '--reason', 'not understood')) == 8
    assert ctl_json(gw, 'dead', 'list', '--reason', 'too large') == []
    other.close()


def control(gw, path, method='GET'):
    """A call to the control socket by other means than ours."""
    done = subprocess.run(['curl', '-s', '-X', method, '--unix-socket', str(gw.directory / 'spool' / 'control.sock'),
                           f'http://x/api/v1/{path}'], capture_output=True, text=True, timeout=20, check=True)
    return json.loads(done.stdout)


# --- replay -------------------------------------------------------------------------------------

def test_replay_settles(far, gw, api):
    letter = stream_with_poison(far, gw, api)
    opens = far.state()['opens']
    assert replay(gw, letter)['result'] == 'settled'
    assert stored(far, key()) == BAD
    balanced(gw, accepted=4, delivered=2, settled=2, dead=0)
    assert gw.metric('dead_letters') == 0 and letters(gw) == []
    assert far.state()['opens'] == opens and far.counts()['requests']['close'] == {'204': 1}, 'no open, no close'
    assert 'no dead letter' in ctl(gw, 'dead', 'explain', letter, code=1)[1]


def test_poison_at_the_bucket(far, gateway_at):
    """With logs that go to the object store: lines that are refused are settled there, by a link of their own; a log that the
    store refuses for good is put aside, and neither holds what comes after it or other streams of the account."""
    gw = gateway_at(far.url, harness={'upload-logs': 'googleapis'})
    api = Api(gw.log_url)
    assert api.open(key('poisoned'))[0] == 204
    wait_for(lambda: far.counts()['started'].get('open'), what='the open')
    fault = far.fault('status', 'put-object', count=None, code=413, target='poisoned')
    assert api.put(key('poisoned'), 'before\n')[0] == 204
    assert api.blob(key('poisoned'), LOG)[0] == 204
    wait_for(lambda: gw.metric('dead_letters') == 1, what='the letter')
    refused = letters(gw)[0]['id']
    letter = stream_with_poison(far, gw, api, key('lines'), end=False)
    assert api.delete(key('poisoned'))[0] == 204 and api.delete(key('lines'))[0] == 204
    assert api.open(key('other'))[0] == 204 and api.blob(key('other'), LOG)[0] == 204
    gw.wait_delivered()
    assert far.blob('acct', key('other')) == LOG
    assert far.lines('acct', key('poisoned')) == ['before\n'] and far.lines('acct', key('lines')) == ['line 0\n', 'line 3\n']
    far.clear_faults(fault)
    assert replay(gw, letter)['result'] == 'settled'
    assert replay(gw, refused)['result'] == 'delivered'
    assert stored(far, key('lines')) == BAD and far.blob('acct', key('poisoned')) == LOG
    assert far.counts()['requests'].get('blob') is None, 'all of it by links'
    balanced(gw, dead=0, settled=2)
    assert gw.ledger('blobs')['dead'] == 0
    api.close()


def test_replay_adds_to_what_is_stored(far, gw, api):
    """The client's own upload lacks the lines, as a log that was cut does."""
    assert api.open(key())[0] == 204
    assert api.put(key(), 'line 0\n')[0] == 204
    gw.wait_delivered()
    whole = json.dumps(row('line 0\n')).encode() + b'\n'
    assert api.blob(key(), whole)[0] == 204
    gw.wait_delivered()
    letter = poison(far, gw, api, key(), 'bad 1\n', 'bad 2\n')
    finish(far, gw, api, key())
    assert replay(gw, letter)['result'] == 'settled'
    assert stored(far, key()) == as_log(row('line 0\n')) + BAD
    balanced(gw, dead=0, settled=2)


def test_replay_of_all_in_order(far, gw, api):
    names = [key('a'), key('b')]
    for name in names:
        assert api.open(name)[0] == 204
        for i in range(3):
            poison(far, gw, api, name, f'bad {i}\n', start=i + 1)
        finish(far, gw, api, name)
    wait_for(lambda: gw.metric('dead_letters') == 6)
    first = wait_for(lambda: (lambda r: r if r[0] == 0 else None)(
        ctl_json_any(gw, 'dead', 'replay', '--all', '--stream', names[0])), what='the replay')[2]
    assert [r['result'] for r in first] == ['settled'] * 3
    assert stored(far, names[0]) == as_log(*(row(f'bad {i}\n', i + 1) for i in range(3)))
    assert stored(far, names[1]) is None
    out = wait_for(lambda: (lambda r: r if r[0] == 0 else None)(ctl_json_any(gw, 'dead', 'replay', '--all')))[2]
    assert len(out) == 3 and gw.metric('dead_letters') == 0
    assert ctl(gw, 'dead', 'replay', '--all')[0] == 'no dead letters\n'
    balanced(gw, accepted=6, settled=6, dead=0)


def test_replay_while_upstream_still_refuses(far, gw, api):
    letter = stream_with_poison(far, gw, api)
    fault = far.fault('status', 'blob', count=None, code=400, body=POISON)
    answer = replay(gw, letter, code=1)
    assert answer['result'] == 'failed' and answer['status'] == 400
    found, = letters(gw)
    assert found['replays'] == 1 and found['replay_status'] == 400
    assert found['replay_said'] == 'the body was not understood'
    text = ctl(gw, 'dead', 'replay', letter, code=1)[0]
    assert text == f'{letter}: failed: answered 400: the body was not understood\n'
    assert '2 replays' in ctl(gw, 'dead', 'explain', letter)[0]
    balanced(gw, dead=2, settled=0)
    far.clear_faults(fault)
    assert replay(gw, letter)['result'] == 'settled'
    balanced(gw, dead=0, settled=2)
    assert stored(far, key()) == BAD


def test_replay_while_upstream_is_away(far, gw, api):
    letter = stream_with_poison(far, gw, api)
    far.stop()
    answer = replay(gw, letter, code=1)
    assert answer['result'] == 'failed' and answer['status'] is None and 'cannot be reached' in answer['said']
    balanced(gw, dead=2)
    far.start()
    assert replay(gw, letter)['result'] == 'settled'
    assert stored(far, key()) == BAD


def test_replay_waits_for_the_end_of_its_stream(far, gw, api):
    letter = stream_with_poison(far, gw, api, end=False)
    err = ctl(gw, 'dead', 'replay', letter, code=1)[1]
    assert 'its stream has not ended yet' in err and f'letter {letter} stays as it is' in err
    balanced(gw, dead=2)
    assert 'get-blob' not in far.counts()['requests']
    finish(far, gw, api, key())
    assert replay(gw, letter)['result'] == 'settled'


def test_replay_after_the_stream_was_opened_again(far, gateway_at):
    gw = gateway_at(far.url, stream={'hold': '0s'})
    api = Api(gw.log_url)
    letter = stream_with_poison(far, gw, api)
    assert api.open(key())[0] == 204
    assert api.put(key(), 'another run\n')[0] == 204
    gw.wait_delivered()
    finish(far, gw, api, key())
    done = wait_for(lambda: (lambda r: r if 'not ended' not in r[1] else None)(
        ctl_json_any(gw, 'dead', 'replay', letter)), what='the end')
    assert done[0] == 1 and 'opened again' in done[1]
    balanced(gw, dead=2)
    assert json.loads(ctl(gw, 'dead', 'export', letter)[0]) == BAD
    api.close()


def test_a_later_whole_log_has_the_lines(far, gw, api):
    letter = stream_with_poison(far, gw, api, end=False)
    whole = [row('line 0\n'), row('bad 1\n', 1), row('bad 2\n', 2), row('line 3\n', 3)]
    assert api.blob(key(), b''.join(json.dumps(r).encode() + b'\n' for r in whole))[0] == 204
    gw.wait_delivered()
    finish(far, gw, api, key())
    assert replay(gw, letter)['result'] == 'superseded'
    assert stored(far, key()) == as_log(*whole)
    balanced(gw, dead=0, superseded=2)


def test_lines_that_are_stored_are_not_added_twice(far, gateway_at):
    """The gateway has forgotten the stream; what is stored tells."""
    gw = gateway_at(far.url, stream={'idle': '1s'})
    api = Api(gw.log_url)
    letter = stream_with_poison(far, gw, api, end=False)
    whole = [row('line 0\n'), row('bad 1\n', 1), row('bad 2\n', 2), row('line 3\n', 3)]
    assert api.blob(key(), b''.join(json.dumps(r).encode() + b'\n' for r in whole))[0] == 204
    gw.wait_delivered()
    finish(far, gw, api, key())
    wait_for(lambda: gw.metric('streams') == 0, what='forgetting')
    puts = far.counts()['requests']['blob']
    assert replay(gw, letter)['result'] == 'settled'
    assert far.counts()['requests']['blob'] == puts, 'nothing was stored again'
    assert stored(far, key()) == as_log(*whole)
    balanced(gw, dead=0, settled=2)
    api.close()


def test_replay_after_a_restart(far, gw, api):
    letter = stream_with_poison(far, gw, api)
    gw.kill()
    api.close()
    gw.start()
    assert gw.metric('dead_letters') == 1
    assert replay(gw, letter)['result'] == 'settled'
    assert stored(far, key()) == BAD
    balanced(gw, dead=0, settled=2)


@pytest.mark.parametrize('where', ['before', 'after'])
def test_crash_in_the_middle_of_a_replay(far, gw, api, where):
    """Before or after upstream has stored it: it is never lost, and stored once."""
    letter = stream_with_poison(far, gw, api)
    wait_for(lambda: 'x' if 'has not ended' not in ctl_json_any(gw, 'dead', 'explain', letter)[1] else None)
    hold = far.fault('hold', 'blob', where=where)
    done = []
    asker = threading.Thread(target=lambda: done.append(wait_for(
        lambda: (lambda r: r if 'has not ended' not in r[1] else None)(
            ctl_json_any(gw, 'dead', 'replay', letter)))))
    asker.start()
    wait_for(lambda: far.counts()['started'].get('blob'), what='the upload')
    if where == 'after':
        wait_for(lambda: stored(far, key()) == BAD, what='the store')
    gw.kill()
    asker.join(30)
    assert done[0][0] == 3 and 'broke the answer off' in done[0][1]
    far.clear_faults(hold)
    api.close()
    gw.start()
    balanced(gw, dead=2, settled=0)
    assert letters(gw)[0]['id'] == letter
    assert replay(gw, letter)['result'] == 'settled'
    assert stored(far, key()) == BAD
    balanced(gw, dead=0, settled=2)


def test_lost_answer_to_a_replay(far, gw, api):
    letter = stream_with_poison(far, gw, api)
    far.fault('execute_lost', 'blob')
    answer = replay(gw, letter, code=1)
    assert answer['result'] == 'failed' and 'the next replay will see' in answer['said']
    balanced(gw, dead=2)
    assert replay(gw, letter)['result'] == 'settled'
    assert stored(far, key()) == BAD


def test_ledger_balances_at_every_sample(far, gw, api):
    names = [key(f's{i}') for i in range(4)]
    for name in names:
        stream_with_poison(far, gw, api, name)
    stop, samples = threading.Event(), []

    def sample():
        while not stop.is_set():
            samples.append(gw.ledger()['dead'])
    sampler = threading.Thread(target=sample)
    sampler.start()
    try:
        wait_for(lambda: ctl_json_any(gw, 'dead', 'replay', '--all')[0] == 0, what='the replay')
    finally:
        stop.set()
        sampler.join(20)
    assert samples and samples[-1] in (0, 2), samples
    balanced(gw, dead=0, settled=8)


def test_nothing_of_the_stream_is_sent_during_a_replay(far, gateway_at):
    """Both would write the same object: what a client brings meanwhile waits, and comes after it."""
    gw = gateway_at(far.url, stream={'hold': '0s'})
    api = Api(gw.log_url)
    letter = stream_with_poison(far, gw, api)
    opens = far.counts()['started']['open']
    hold = far.fault('hold', 'get-blob')
    done = []
    asker = threading.Thread(target=lambda: done.append(replay(gw, letter)))
    asker.start()
    wait_for(lambda: far.counts()['started'].get('get-blob'), what='the replay')
    again = json.dumps(row('another run\n')).encode() + b'\n'
    assert api.open(key())[0] == 204
    assert api.put(key(), 'another run\n')[0] == 204
    assert api.blob(key(), again)[0] == 204
    # Another stream goes its way, and by then this one would have, too.
    assert api.open(key('b'))[0] == 204 and api.put(key('b'), 'x\n')[0] == 204
    wait_for(lambda: far.lines('acct', key('b')), what='another stream')
    assert far.counts()['started']['open'] == opens + 1 and not far.counts()['started'].get('blob')
    far.clear_faults(hold)
    asker.join(30)
    assert done[0]['result'] == 'settled'
    wait_for(lambda: far.blob('acct', key()) == again, what='the other run')
    wait_for(lambda: gw.ledger('blobs')['spooled'] == 0)
    balanced(gw, settled=2, dead=0)
    api.close()


def test_replay_uses_a_newer_credential_of_the_account(far, gw, api):
    letter = stream_with_poison(far, gw, api)
    far.tokens(bad=[TOKEN])
    assert replay(gw, letter, code=1)['status'] == 400
    assert 'brought a credential' in ctl(gw, 'dead', 'explain', letter)[0]
    # The gateway learns of the refusal from live calls, and of the new token.
    assert api.put(key('c'), 'x\n')[0] == 204
    wait_for(lambda: gw.metric('credentials_refused') == 1, what='the refusal')
    newer = Api(gw.log_url, token='token-2')
    assert newer.open(key('b'))[0] == 204 and newer.put(key('b'), 'x\n')[0] == 204
    wait_for(lambda: far.lines('acct', key('b')), what='the newer token')
    assert replay(gw, letter)['result'] == 'settled'
    assert stored(far, key()) == BAD
    newer.close()


def test_replay_borrows_nothing_for_a_wrong_token(far, gw, api):
    """Refused as too large before anybody asked whether the token is good: it is not."""
    assert api.open(key())[0] == 204 and api.put(key(), 'x\n')[0] == 204
    gw.wait_delivered()
    bad = Api(gw.log_url, token='wrong')
    fault = far.fault('status', 'lines', count=None, key=key(), code=413)
    assert bad.put(key(), 'injected\n', start=1)[0] == 204
    wait_for(lambda: gw.metric('dead_letters') == 1, what='the letter')
    far.clear_faults(fault)
    far.tokens(bad=['wrong'])
    assert bad.put(key('c'), 'x\n')[0] == 204
    wait_for(lambda: gw.metric('credentials_refused') == 1, what='the refusal')
    finish(far, gw, api, key())
    letter = letters(gw)[0]['id']
    assert letters(gw)[0]['said'] == 'it is too large'
    assert replay(gw, letter, code=1)['said'] == 'the credential was not accepted'
    asked = [str(e['headers']) for e in far.log('get-blob')]
    assert asked and all('wrong' in e and TOKEN not in e for e in asked), asked
    assert stored(far, key()) is None and gw.metric('dead_letters') == 1
    bad.close()


# --- blobs --------------------------------------------------------------------------------------

LOG = b''.join(json.dumps(row(f'line {i}\n', i)).encode() + b'\n' for i in range(3000))


@pytest.mark.parametrize('route', ['blob', 'link', 'object'])
def test_blob_is_uploaded_again(far, gw, api, route):
    assert api.open(key())[0] == 204
    if route == 'blob':
        letter = poison(far, gw, api, key(), LOG, what='blob')
    else:
        fault = (far.fault('status', 'link', count=None, code=400, body=POISON) if route == 'link' else
                 far.fault('status', 'put-object', count=None, code=413))
        assert api.put_link(key(), LOG)[0] == 200
        wait_for(lambda: gw.metric('dead_letters') == 1, what='the letter')
        far.clear_faults(fault)
        letter = letters(gw)[0]['id']
    finish(far, gw, api, key())
    found, = letters(gw)
    assert found['kind'] == 'blob' and found['bytes'] == len(LOG) and found['status'] == (413 if route == 'object' else 400)
    assert 'A finished log of' in ctl(gw, 'dead', 'explain', letter)[0]
    assert ctl(gw, 'dead', 'export', letter)[0].encode() == LOG
    assert gw.ledger('blobs')['dead'] == 1
    assert replay(gw, letter)['result'] == 'delivered'
    assert far.blob('acct', key()) == LOG
    ledger = gw.ledger('blobs')
    assert ledger['dead'] == 0 and ledger['delivered'] == 1
    assert gw.metric('dead_letters') == 0


# --- the end of them ----------------------------------------------------------------------------

def test_drop(far, gw, api):
    letter = stream_with_poison(far, gw, api)
    assert 'say --yes' in ctl(gw, 'dead', 'drop', letter, code=2)[1]
    assert gw.metric('dead_letters') == 1
    assert ctl(gw, 'dead', 'drop', letter, '--yes')[0] == f'{letter}: dropped\n'
    assert gw.metric('dead_letters') == 0 and letters(gw) == []
    balanced(gw, accepted=4, dead=2)
    assert 'no dead letter' in ctl(gw, 'dead', 'drop', letter, '--yes', code=1)[1]
    gw.kill()
    api.close()
    gw.start()
    assert gw.metric('dead_letters') == 0
    balanced(gw, accepted=4, dead=2)


def test_drop_takes_no_record_that_waits(far, gw, api):
    """Records have ids of the same kind; only letters can be dropped or replayed."""
    letter = stream_with_poison(far, gw, api)
    hold = far.fault('hold', 'open', key=key('b'))
    assert api.open(key('b'))[0] == 204
    assert api.put(key('b'), 'waits\n')[0] == 204
    for waiting in range(letter + 1, letter + 6):
        ctl(gw, 'dead', 'drop', waiting, '--yes', code=1)
        ctl(gw, 'dead', 'replay', waiting, code=1)
        ctl(gw, 'dead', 'export', waiting, code=1)
    far.clear_faults(hold)
    gw.wait_delivered()
    assert [r['out'] for r in far.lines('acct', key('b'), full=True)] == ['waits\n']


# --- the program itself -------------------------------------------------------------------------

def test_ctl_reload_version_drain(far, gw):
    assert 'tailracectl ' in ctl(gw, 'version')[0]
    assert ctl_json(gw, 'version')['pid'] == gw.pid
    assert ctl(gw, 'reload')[0] == 'reloaded: generation 2\n'
    good = gw.config_path.read_text()
    gw.config_path.write_text(good.replace('limit: "10s"', 'limit: "10 parsecs"'))
    done = subprocess.run([CTL, '--socket', str(gw.directory / 'spool' / 'control.sock'), 'reload'],
                          capture_output=True, text=True, timeout=20, check=False)
    assert done.returncode == 1 and '10 parsecs' in done.stderr
    gw.config_path.write_text(good)
    assert ctl_json(gw, 'version')['generation'] == 2
    assert 'an action was called for' in gw.log() and f'uid={os.getuid()} pid=' in gw.log()
    assert ctl(gw, 'drain')[0] == 'draining\n'
    assert gw.process.wait(20) == 0
    assert not (gw.directory / 'spool' / 'control.sock').exists()
    err = ctl(gw, 'version', code=3)[1]
    assert 'control.sock' in err and 'is tailrace running?' in err


def test_ctl_usage(far, gw):
    for words in [(), ('nix',), ('dead',), ('dead', 'nix'), ('dead', 'explain'), ('dead', 'explain', '1', '2'),
                  ('dead', 'replay'), ('dead', 'replay', '--all', '7'), ('dead', 'list', '--all'), ('--nix',),
                  ('dead', 'replay', 'x'), ('version', 'x')]:
        ctl(gw, *words, code=2)
    assert 'dead explain ID' in ctl(gw, '--help')[0]
    assert 'is a number' in ctl(gw, 'dead', 'explain', 'x', code=1)[1]
    missing = subprocess.run([CTL, '-c', '/nowhere/tailrace.yaml', 'version'], capture_output=True, text=True,
                             timeout=20, check=False)
    assert missing.returncode == 3 and '--socket' in missing.stderr


def test_control_socket_elsewhere_and_in_use(far, gateway_at, tmp_path):
    at = tmp_path / 'run'
    at.mkdir()
    gw = gateway_at(far.url, control={'socket': str(at / 's')})
    assert (at / 's').stat().st_mode & 0o777 == 0o600
    assert ctl_json(gw, 'version')['pid'] == gw.pid
    assert not (gw.directory / 'spool' / 'control.sock').exists()
    other = gateway_at(far.url, start=False, control={'socket': str(at / 's')})
    other.start(wait=False)
    assert other.process.wait(20) == 1
    assert f'is in use by process {gw.pid}' in other.log()
    other.process = None
    # After a crash the name is there still; the next start takes it.
    gw.kill()
    assert (at / 's').exists()
    gw.start()
    assert ctl_json(gw, 'version')['pid'] == gw.pid
