"""Bad input, over HTTP/1.1 and in the log API itself: a clear answer, a counter, and nothing else disturbed."""
import concurrent.futures
import gzip
import itertools
import json
import socket
import ssl
import threading
import time
from urllib.parse import quote, urlsplit

import pytest
import zstandard
from calls import Api, body_of, error_of, raw, row
from gateway import Gateway, key, wait_for
from shared import far, gw, pair_at, watch  # noqa: F401

MB = 1 << 20


@pytest.fixture(scope='module')
def pair(tmp_path_factory, ca):
    cert, tls_key = ca.issue('127.0.0.1')
    tls = {'address': '127.0.0.1:0', 'mode': 'upstream', 'certificate': str(cert), 'key': str(tls_key)}
    with pair_at(tmp_path_factory.mktemp('bad') / 'gw', listen={'tls': tls},
                 limits={'body': '32MiB', 'expand': '48MiB', 'blob': '64MiB'}) as both:
        yield both


def fresh(api=None, number=itertools.count()):
    """A key that no test has used; with `api` its stream is open."""
    name = key(f'bad{next(number)}')
    if api:
        assert api.open(name)[0] == 204
    return name


def answers(data):
    """[(status, head, body)] of raw HTTP/1.1 answers with Content-Length."""
    out = []
    while data:
        head, _, rest = data.partition(b'\r\n\r\n')
        n = 0
        for line in head.split(b'\r\n')[1:]:
            if line.lower().startswith(b'content-length:'):
                n = int(line.split(b':')[1])
        out.append((int(head.split(b' ')[1]), head, rest[:n]))
        data = rest[n:]
    return out


def refused(gw, request, timeout=10):
    """The only answer to a request after which the connection is closed: (status, error_msg)."""
    found = answers(raw(gw.port, request, timeout=timeout))
    assert len(found) == 1, found
    status, head, body = found[0]
    assert b'connection: close' in head.lower()
    return status, error_of(body.decode())


# --- heads that are no HTTP/1.1 ---------------------------------------------------------------------

def put(*fields, target=None, body=b'[]', end=b'\r\n', version=b'HTTP/1.1', length=True):
    target = target or f'/log-service/stream?accountID=acct&key={key()}'.encode()
    lines = [b'PUT ' + target + b' ' + version, b'Host: x', b'X-Harness-Token: t']
    if length:
        lines.append(b'Content-Length: %d' % len(body))
    return end.join(lines + list(fields) + [b'', b'']) + body


def chunked(body, *fields):
    return put(b'Transfer-Encoding: chunked', *fields, length=False, body=body)


HEADS = {
    'both-lengths': (put(b'Transfer-Encoding: chunked', body=b'2\r\n[]\r\n0\r\n\r\n'), 400),
    'two-lengths-that-differ': (put(b'Content-Length: 3'), 400),
    'two-equal-lengths': (put(b'Content-Length: 2'), 400),
    'list-of-lengths': (put(b'Content-Length: 2, 2', length=False), 400),
    'negative-length': (put(b'Content-Length: -2', length=False), 400),
    'signed-length': (put(b'Content-Length: +2', length=False), 400),
    'hexadecimal-length': (put(b'Content-Length: 0x2', length=False), 400),
    'length-with-space': (put(b'Content-Length: 2 2', length=False), 400),
    'empty-length': (put(b'Content-Length:', length=False), 400),
    'length-beyond-64-bits': (put(b'Content-Length: 18446744073709551618', length=False), 400),
    'coding-before-chunked': (chunked(b'2\r\n[]\r\n0\r\n\r\n').replace(b'chunked', b'gzip, chunked'), 400),
    'chunked-twice': (chunked(b'2\r\n[]\r\n0\r\n\r\n').replace(b'chunked', b'chunked, chunked'), 400),
    'identity-coding': (chunked(b'[]').replace(b'chunked', b'identity'), 501),
    'chunked-misspelled': (chunked(b'[]').replace(b'chunked', b'xchunked'), 501),
    'chunked-in-http-1.0': (chunked(b'2\r\n[]\r\n0\r\n\r\n').replace(b'HTTP/1.1', b'HTTP/1.0'), 400),
    'obs-fold': (put(b'X-A: b', b' folded'), 400),
    'obs-fold-at-once': (b'PUT / HTTP/1.1\r\n Host: x\r\n\r\n', 400),
    'space-before-colon': (put(b'X-A : b'), 400),
    'space-in-name': (put(b'X A: b'), 400),
    'no-colon': (put(b'nothing'), 400),
    'empty-name': (put(b': b'), 400),
    'bare-lf': (put(end=b'\n'), 400),
    'bare-lf-in-one-field': (put(b'X-A: b\nX-B: c'), 400),
    'bare-cr': (put(b'X-A: b\rX-B: c'), 400),
    'nul-in-value': (put(b'X-A: a\0b'), 400),
    'control-in-value': (put(b'X-A: a\x07b'), 400),
    'nul-in-target': (put(target=b'/log-service/stream?accountID=a&key=b\0c'), 400),
    'control-in-target': (put(target=b'/log-service/stream?accountID=a&key=b\x1bc'), 400),
    'fragment-in-target': (put(target=b'/log-service/stream?accountID=a&key=b#c'), 400),
    'space-in-target': (put(target=b'/log-service/stream?accountID=a&key=b c'), 400),
    'no-host': (b'GET / HTTP/1.1\r\n\r\n', 400),
    'two-hosts': (put(b'Host: x'), 400),
    'host-with-slash': (b'GET / HTTP/1.1\r\nHost: a/b\r\n\r\n', 400),
    'host-list': (b'GET / HTTP/1.1\r\nHost: a, b\r\n\r\n', 400),
    'no-version': (b'GET /\r\nHost: x\r\n\r\n', 400),
    'two-spaces': (b'GET  / HTTP/1.1\r\nHost: x\r\n\r\n', 400),
    'tab-in-request-line': (b'GET\t/ HTTP/1.1\r\nHost: x\r\n\r\n', 400),
    'bad-method': (b'G(T / HTTP/1.1\r\nHost: x\r\n\r\n', 400),
    'lower-case-version': (b'GET / http/1.1\r\nHost: x\r\n\r\n', 400),
    'version-2': (b'GET / HTTP/2.0\r\nHost: x\r\n\r\n', 505),
    'version-1.2': (b'GET / HTTP/1.2\r\nHost: x\r\n\r\n', 505),
    'version-1.10': (b'GET / HTTP/1.10\r\nHost: x\r\n\r\n', 400),
    'tls-to-a-clear-port': (b'\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n', 400),
    'long-request-line': (b'GET /' + b'a' * 20000 + b' HTTP/1.1\r\nHost: x\r\n\r\n', 414),
    'endless-request-line': (b'GET /' + b'a' * 200000, 414),
    'long-field': (put(b'X-A: ' + b'a' * 70000), 431),
    'many-fields': (put(*[b'X-%d: a' % i for i in range(200)]), 431),
    'endless-fields': (b'GET / HTTP/1.1\r\nHost: x\r\n' + b'X-A: 0123456789\r\n' * 20000, 431),
}


@pytest.mark.parametrize('name', HEADS)
def test_head(gw, watch, name):
    request, status = HEADS[name]
    got, text = refused(gw, request)
    assert got == status, text
    watch.disturbed_nothing(glitch='bad_request')


def test_connect_is_not_for_this_listener(far, gw, watch):
    before = far.state(lines=False)['connections']['main']['h1']
    data = raw(gw.port, b'CONNECT 127.0.0.1:%d HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n' % far.port)
    status, _, body = answers(data)[0]
    assert status == 400 and error_of(body.decode())
    assert far.state(lines=False)['connections']['main']['h1'] == before
    watch.disturbed_nothing()


CHUNKS = {
    'size-not-hexadecimal': b'zz\r\n[]\r\n0\r\n\r\n',
    'size-empty': b'\r\n[]\r\n0\r\n\r\n',
    'size-negative': b'-2\r\n[]\r\n0\r\n\r\n',
    'size-with-0x': b'0x2\r\n[]\r\n0\r\n\r\n',
    'size-of-17-digits': b'00000000000000002\r\n[]\r\n0\r\n\r\n',
    'size-beyond-63-bits': b'ffffffffffffffff\r\n[]\r\n0\r\n\r\n',
    'space-before-size': b' 2\r\n[]\r\n0\r\n\r\n',
    'bare-lf-behind-size': b'2\n[]\r\n0\r\n\r\n',
    'no-end-behind-data': b'2\r\n[]0\r\n\r\n',
    'bare-lf-behind-data': b'2\r\n[]\n0\r\n\r\n',
    'extension-without-end': b'2;' + b'a' * 5000 + b'\r\n[]\r\n0\r\n\r\n',
    'control-in-extension': b'2;a=\0\r\n[]\r\n0\r\n\r\n',
    'trailer-without-colon': b'2\r\n[]\r\n0\r\nnothing\r\n\r\n',
    'trailers-without-end': b'2\r\n[]\r\n0\r\n' + b'X-A: b\r\n' * 5000,
}


@pytest.mark.parametrize('name', CHUNKS)
def test_chunking(gw, watch, name):
    status, text = refused(gw, chunked(CHUNKS[name]))
    assert status in (400, 431), text
    watch.disturbed_nothing(glitch='bad_request')


def test_what_follows_a_bad_head_is_not_read_as_a_request(far, gw, watch):
    """Smuggling: the second request stands in what one parser takes for a body."""
    name = fresh()
    inner = put(target=f'/log-service/stream?accountID=acct&key={name}'.encode(), body=body_of('smuggled\n'))
    for outer in (put(b'Transfer-Encoding: chunked', body=b'0\r\n\r\n'), put(b'Content-Length: 0'), chunked(b'zz\r\n')):
        assert len(answers(raw(gw.port, outer + inner))) == 1
    watch.disturbed_nothing(glitch='bad_request')
    assert far.lines('acct', name) == []


def test_a_cut_request_is_counted(gw, watch):
    with socket.create_connection(('127.0.0.1', gw.port)) as s:
        s.sendall(put(body=b'[' * 100)[:-50])
    watch.disturbed_nothing(glitch='cut_request')


# --- targets and names ----------------------------------------------------------------------------

def call(api, query, path='/stream', method='PUT', body=b'[]', headers=None):
    return api.request(method, f'{api.base}{path}?{query}', body, headers)


NAMES = {
    'no-account': ('key=k', 'account ID'),
    'empty-account': ('accountID=&key=k', 'accountID'),
    'no-key': ('accountID=acct', 'key'),
    'empty-key': ('accountID=acct&key=', 'key'),
    'no-query': ('', 'account ID'),
    'account-twice': ('accountID=acct&key=k&accountID=acct', 'accountID'),
    'key-twice': ('accountID=acct&key=k&key=l', 'key'),
    'account-dotdot': ('accountID=..&key=k', 'accountID'),
    'account-dotdot-in-path': ('accountID=a/../b&key=k', 'accountID'),
    'account-slash': ('accountID=a%2Fb&key=k', 'accountID'),
    'account-double-slash': ('accountID=a//b&key=k', 'accountID'),
    'account-nul': ('accountID=a%00b&key=k', 'accountID'),
    'account-control': ('accountID=a%0Ab&key=k', 'accountID'),
    'account-8k': ('accountID=' + 'a' * 8192 + '&key=k', 'accountID'),
    'key-dotdot': ('accountID=acct&key=../other/x', 'key'),
    'key-dotdot-encoded': ('accountID=acct&key=a%2F%2e%2e%2Fb', 'key'),
    'key-dotdot-at-end': ('accountID=acct&key=a/..', 'key'),
    'key-nul': ('accountID=acct&key=a%00b', 'key'),
    'key-newline': ('accountID=acct&key=a%0D%0Ab', 'key'),
    'key-escape': ('accountID=acct&key=a%1Bb', 'key'),
    'key-delete': ('accountID=acct&key=a%7Fb', 'key'),
    'key-8k': ('accountID=acct&key=' + 'k' * 8192, 'key'),
    'key-8k-encoded': ('accountID=acct&key=' + '%6B' * 5000, 'key'),
    'key-bad-escape': ('accountID=acct&key=a%zz', 'key'),
    'key-cut-escape': ('accountID=acct&key=a%2', 'key'),
}
CALLS = [('POST', '/stream'), ('PUT', '/stream'), ('DELETE', '/stream'), ('POST', '/blob'), ('POST', '/blob/link/upload')]


@pytest.mark.parametrize('name', NAMES)
def test_account_and_key(far, gw, api, watch, name):
    query, word = NAMES[name]
    before = gw.metric('client_requests_total', code='400')
    for method, path in CALLS:
        status, text, _ = call(api, query, path, method, b'[]' if method != 'DELETE' else None)
        assert status == 400 and word in error_of(text), (method, path, status, text)
    assert gw.metric('client_requests_total', code='400') == before + len(CALLS)
    watch.disturbed_nothing()


def test_double_slashes_in_a_key_are_its_own(far, gw, api, watch):
    """The service keeps them apart for streams (HP §1.11): what is sent is what goes up."""
    name = fresh()
    for spelled in (name.replace('/level0', '//level0'), '/' + name, name + '/'):
        assert api.open(spelled)[0] == 204 and api.put(spelled, 'a\n')[0] == 204
        wait_for(lambda: far.lines('acct', spelled) == ['a\n'])
    assert far.lines('acct', name) == []
    watch.disturbed_nothing()


CREDENTIALS = {
    'none': {},
    'empty': {'X-Harness-Token': ''},
    'too-long': {'X-Harness-Token': 'x' * 9000},
}


@pytest.mark.parametrize('name', CREDENTIALS)
def test_credential(far, gw, api, watch, name):
    for method, path in CALLS:
        status, text, _ = call(api, f'accountID=acct&key={key()}', path, method, b'[]', CREDENTIALS[name])
        assert status == 400, (method, path)
        assert 'token' in error_of(text) or 'credential' in error_of(text)
        assert 'xxxx' not in text
    watch.disturbed_nothing(counted=True)


def test_repeated_credential(far, gw, api, watch):
    """Which of two would count is not ours to guess; the same twice is one."""
    name = fresh()
    target = f'/log-service/stream?accountID=acct&key={name}'.encode()
    status, head, body = answers(raw(gw.port, put(b'X-Harness-Token: other', b'Connection: close', target=target)))[0]
    assert status == 400 and 'token' in error_of(body.decode())
    status, text, _ = call(api, f'accountID=acct&key={name}&X-Harness-Token=a&X-Harness-Token=b', headers={})
    assert status == 400 and 'token' in error_of(text)
    assert answers(raw(gw.port, put(b'X-Harness-Token: t', b'Connection: close', target=target)))[0][0] == 204
    watch.disturbed_nothing(counted=True)


def test_unknown_methods_and_paths_are_upstreams_to_answer(far, gw, api, watch):
    for method, path in (('BREW', '/stream'), ('PATCH', '/stream'), ('PUT', '/blob'), ('DELETE', '/blob/link/upload'),
                         ('POST', '/streams'), ('PUT', '/stream/x')):
        name = fresh()
        status, _, _ = call(api, f'accountID=acct&key={name}', path, method)
        assert 400 <= status < 500, (method, path, status)
        assert [e['method'] for e in far.log() if name in e['target']] == [method], 'it was relayed'
    assert gw.metric('relay_requests_total') >= 6
    watch.disturbed_nothing()


ODD_TARGETS = ['http://other.example/log-service/stream', '@other.example/log-service/stream', '*', 'log-service/stream',
               ':80/log-service/stream', '\\/log-service/stream']


@pytest.mark.parametrize('target', ODD_TARGETS)
def test_a_target_that_is_no_path_leads_nowhere(far, gw, watch, target):
    """Glued behind harness.url such a target would name another host."""
    name = fresh()
    for method in (b'PUT', b'POST', b'DELETE', b'GET'):
        request = put(b'Connection: close', target=f'{target}?accountID=acct&key={name}'.encode()).replace(b'PUT', method, 1)
        status, _, body = answers(raw(gw.port, request))[0]
        assert status == 400 and error_of(body.decode())
    watch.disturbed_nothing()
    assert [e for e in far.log() if name in e['target']] == []


# --- bodies ---------------------------------------------------------------------------------------

BAD_JSON = {
    'empty': b'', 'cut-array': b'[{"out":"a"}', 'cut-object': b'[{"out":"a"', 'cut-string': b'[{"out":"a',
    'object': b'{"out":"a"}', 'string': b'"lines"', 'number': b'1', 'word': b'true', 'garbage': b'\x00\x01\x02',
    'html': b'<html></html>', 'elements-numbers': b'[1,2]', 'elements-strings': b'["a"]', 'elements-arrays': b'[[]]',
    'out-is-a-number': b'[{"out":1}]', 'pos-is-text': b'[{"pos":"1"}]', 'time-is-nonsense': b'[{"time":"yesterday"}]',
    'trailing-comma': b'[{"out":"a"},]', 'no-comma': b'[{"out":"a"}{"out":"b"}]', 'bare-control': b'[{"out":"a\nb"}]',
    'bad-escape': b'[{"out":"\\q"}]', 'single-quotes': b"[{'out':'a'}]", 'deep': b'[{"x":' + b'[' * 100000,
    'bom': b'\xef\xbb\xbf[]',
}


@pytest.mark.parametrize('name', BAD_JSON)
def test_bad_json(far, gw, api, watch, name):
    stream = fresh()
    status, text, headers = api.put_raw(stream, BAD_JSON[name])
    assert status == 400 and error_of(text)
    assert headers['content-type'] == 'application/json'
    assert gw.metric('client_requests_total', call='lines', code='400') >= 1
    watch.disturbed_nothing(counted=True)
    assert far.lines('acct', stream) == []


def test_what_the_service_accepts_is_accepted(far, gw, api, watch):
    bodies = {b'[]': [], b'null': [], b' [ ] ': [], b'[{"out":"a\xff\xfeb\\n"}]': ['a\ufffd\ufffdb\n'],
              b'[null,{"out":"c\\n"}]': ['', 'c\n'], b'[{"out":"d\\n"}] trailing': ['d\n'],
              b'[{"out":"e\\n"}][{"out":"never"}]': ['e\n'], b'[{"OUT":"f\\n","more":{"x":[1]}}]': ['f\n'],
              b'[{"out":"\\ud800\\n"}]': ['\ufffd\n'], b'[{}]': ['']}
    for body, expected in bodies.items():
        stream = fresh(api)
        assert api.put_raw(stream, body)[0] == 204, body
        wait_for(lambda: far.lines('acct', stream) == expected, what=f'{expected}')
    watch.disturbed_nothing()


def test_a_line_of_five_megabytes_passes(far, gw, api, watch):
    stream, line = fresh(api), 'x' * (5 * MB) + '\n'
    assert api.put(stream, 'before\n', line, 'after\n')[0] == 204
    wait_for(lambda: far.lines('acct', stream) == ['before\n', line, 'after\n'])
    watch.disturbed_nothing(mb=160)


def test_a_body_over_the_limit_is_413(far, gw, api, watch):
    """Said before the body is read when its length is known, else as soon as it is too long; the client sees the answer."""
    stream = fresh()
    head = put(b'Content-Length: %d' % (33 * MB), length=False, body=b'')
    assert answers(raw(gw.port, head))[0][0] == 413
    piece = b'%x\r\n' % MB + b' ' * MB + b'\r\n'
    with socket.create_connection(('127.0.0.1', gw.port), 20) as s:
        s.sendall(put(b'Transfer-Encoding: chunked', length=False, body=b''))
        try:
            for _ in range(40):
                s.sendall(piece)
        except OSError:
            pass  # it may have been cut off by now
        try:
            data = s.recv(65536)
        except ConnectionResetError:
            data = b''
    assert not data or data.startswith(b'HTTP/1.1 413')
    assert gw.metric('client_requests_total', call='lines', code='413') >= 2
    watch.disturbed_nothing(mb=160)
    assert far.lines('acct', stream) == []


def test_a_body_of_the_limit_passes(far, gw, api, watch):
    lines = ['y' * 1000 + '\n'] * 30000
    stream = fresh(api)
    assert api.put(stream, *lines)[0] == 204
    wait_for(lambda: far.counts()['lines'].get('acct/' + stream) == len(lines), timeout=60)
    watch.disturbed_nothing(mb=400)


# --- codings --------------------------------------------------------------------------------------

def bomb(coding, mb):
    if coding == 'gzip':
        return gzip.compress(b' ' * (mb * MB), 6)
    return zstandard.ZstdCompressor(level=3).compress(b' ' * (mb * MB))


@pytest.mark.parametrize('coding', ['gzip', 'zstd'])
@pytest.mark.parametrize('path', ['/stream', '/blob'])
def test_a_compression_bomb_is_413_within_bounded_memory(far, gw, watch, coding, path):
    data = bomb(coding, 300)
    assert len(data) < MB

    def send(i):
        a = Api(gw.log_url, timeout=60)
        try:
            return call(a, f'accountID=acct&key={fresh()}', path, 'PUT' if path == '/stream' else 'POST', data,
                        {'X-Harness-Token': 't', 'Content-Encoding': coding})[:2]
        finally:
            a.close()
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        got = list(pool.map(send, range(4 if path == '/stream' else 1)))
    assert all(status == 413 and error_of(text) for status, text in got), got
    watch.disturbed_nothing(mb=400)


@pytest.mark.parametrize('coding,data', [
    ('gzip', b'not gzip at all'), ('zstd', b'not zstd at all'), ('gzip', gzip.compress(body_of('a\n'), mtime=0)[:-6]),
    ('zstd', zstandard.compress(body_of('a\n'))[:-3]), ('gzip', gzip.compress(body_of('a\n'), mtime=0) + b'rest'),
    ('zstd', zstandard.compress(b'{"out":"a"}'))])
def test_a_broken_compressed_body_is_400(far, gw, api, watch, coding, data):
    stream = fresh()
    status, text, headers = api.put_raw(stream, data, {'Content-Encoding': coding})
    assert status == 400 and error_of(text)
    watch.disturbed_nothing(counted=True)
    assert far.lines('acct', stream) == []


def test_a_zstd_frame_that_asks_for_gigabytes_is_413(gw, api, watch):
    """Its window, which a decoder would have to allocate, stands in its head."""
    data = b'\x28\xb5\x2f\xfd\xa4\x00\x00\x00\x80' + b'\0' * 20
    assert api.put_raw(fresh(), data, {'Content-Encoding': 'zstd'})[0] == 413
    watch.disturbed_nothing(counted=True)


@pytest.mark.parametrize('coding', ['br', 'gzip, zstd', 'deflate', 'x' * 4000])
def test_another_coding_is_415(gw, api, watch, coding):
    for method, path in (('PUT', '/stream'), ('POST', '/blob')):
        status, text, headers = call(api, f'accountID=acct&key={key()}', path, method, b'[]',
                                     {'X-Harness-Token': 't', 'Content-Encoding': coding})
        assert status == 415 and error_of(text) and headers['accept-encoding'] == 'zstd, gzip'
    watch.disturbed_nothing(counted=True)


# --- tickets --------------------------------------------------------------------------------------

def flipped(text, at):
    return text[:at] + ('A' if text[at] != 'A' else 'B') + text[at + 1:]


def test_a_forged_ticket_is_refused(far, gw, api, watch, tmp_path):
    stream = fresh()
    link = json.loads(api.link(stream)[1])['link']
    head, _, ticket = link.rpartition('/')
    with Gateway(tmp_path / 'other', far.url) as other:
        foreign = Api(other.log_url)
        theirs = json.loads(foreign.link(stream)[1])['link'].rpartition('/')[2]
        foreign.close()
    bad = ['x', 'A' * len(ticket), 'A' * 9000, ticket[:-1], ticket[:len(ticket) // 2], ticket + 'A', flipped(ticket, 0),
           flipped(ticket, len(ticket) // 2), flipped(ticket, len(ticket) - 2), theirs, quote(ticket[:20] + '/../' + ticket[20:])]
    before = gw.metric('client_requests_total', call='ticket', code='403')
    for forged in bad:
        status, text, _ = api.request('PUT', urlsplit(f'{head}/{forged}').path, b'{"out":"forged"}\n', {})
        assert status == 403 and error_of(text), (forged, status)
    assert gw.metric('client_requests_total', call='ticket', code='403') == before + len(bad)
    assert api.put_to(link, b'{"out":"good"}\n')[0] == 200
    wait_for(lambda: far.blob('acct', stream) == b'{"out":"good"}\n')
    watch.disturbed_nothing()


# --- slow, silent and greedy clients --------------------------------------------------------------

def until_closed(s, timeout):
    """What came until the end, and how long that took."""
    began, out = time.monotonic(), b''
    s.settimeout(timeout)
    try:
        while True:
            piece = s.recv(65536)
            if not piece:
                break
            out += piece
    except ConnectionResetError:
        pass
    return out, time.monotonic() - began


def slow_head(gw):
    with socket.create_connection(('127.0.0.1', gw.port)) as s:
        began = time.monotonic()
        try:
            for byte in b'PUT /log-service/stream?accountID=a HTTP/1.1\r\nHost: x\r\nX-A: ' + b'a' * 100:
                s.sendall(bytes([byte]))
                s.settimeout(0.3)
                try:
                    got = s.recv(1000)
                    return got, time.monotonic() - began
                except socket.timeout:
                    pass
        except OSError:
            pass
    return b'', time.monotonic() - began


def silent_tls(gw):
    with socket.create_connection(('127.0.0.1', gw.ports['tls'])) as s:
        return until_closed(s, 40)


def stalled_body(gw):
    with socket.create_connection(('127.0.0.1', gw.port)) as s:
        s.sendall(put(body=b'[' * 1000)[:-500])
        return until_closed(s, 60)


def trickling_body(gw):
    """A byte now and then, each long before the idle time is over."""
    began = time.monotonic()
    with socket.create_connection(('127.0.0.1', gw.port)) as s:
        s.sendall(put(body=b'[' * 1000)[:-500])
        s.settimeout(2)
        while time.monotonic() - began < 60:
            try:
                s.sendall(b'[')
                return s.recv(1000), time.monotonic() - began
            except socket.timeout:
                pass
            except OSError:
                break
    return b'', time.monotonic() - began


def half_preface(gw):
    with socket.create_connection(('127.0.0.1', gw.port)) as s:
        s.sendall(b'PRI * HTTP/2.0\r\n\r\nSM')
        return until_closed(s, 40)


def test_slow_and_silent_clients_are_closed_and_disturb_nobody(far, gw, api, watch):
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        head, tls, body, trickle, preface = [pool.submit(f, gw) for f in (
            slow_head, silent_tls, stalled_body, trickling_body, half_preface)]
        worst = 0
        while not head.done():
            began = time.monotonic()
            assert api.put(fresh(), 'meanwhile\n')[0] == 204
            worst = max(worst, time.monotonic() - began)
            time.sleep(0.05)  # another client's pace
        assert worst < 10, 'as long as clients wait (HP §2.4)'
        data, took = head.result()
        assert 8 < took < 20 and (not data or data.startswith(b'HTTP/1.1 408'))
        assert 8 < tls.result()[1] < 20
        assert 8 < preface.result()[1] < 20
        data, took = body.result()
        assert 25 < took < 45 and data.startswith(b'HTTP/1.1 408')
        data, took = trickle.result()
        assert 25 < took < 50 and data.startswith(b'HTTP/1.1 408')
    watch.disturbed_nothing(glitch='slow_head')
    assert gw.metric('http_glitches_total', kind='slow_body') >= 2


def test_many_slow_bodies_hold_nothing_up(far, gw, api, watch):
    slow = []
    try:
        for _ in range(200):
            s = socket.create_connection(('127.0.0.1', gw.port))
            s.sendall(put(body=b'[' * 1000)[:-500])
            slow.append(s)
        for i in range(20):
            began = time.monotonic()
            assert api.put(fresh(), 'a\n')[0] == 204
            assert time.monotonic() - began < 10, 'as long as clients wait (HP §2.4)'
    finally:
        for s in slow:
            s.close()
    watch.disturbed_nothing()


def test_a_client_that_never_reads_its_answers(far, gw, api, watch):
    """Pipelined calls without a reader: at some point no more are taken, and memory stays where it is."""
    socks, stop = [], threading.Event()

    def pump(request):
        s = socket.socket()
        s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        s.connect(('127.0.0.1', gw.port))
        s.settimeout(0.5)
        socks.append(s)
        sent = 0
        while not stop.is_set() and sent < 64 * MB:
            try:
                sent += s.send(request * 50)
            except socket.timeout:
                return sent
            except OSError:
                return sent
        return sent
    bad = put(target=b'/log-service/stream?accountID=acct', body=b'[]')
    relayed = b'GET /api/echo?respond=2000000 HTTP/1.1\r\nHost: x\r\n\r\n'
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        jobs = [pool.submit(pump, r) for r in [bad, bad, relayed, relayed]]
        sent = [j.result(60) for j in jobs]
    assert max(sent) < 60 * MB, 'it was read for ever'
    assert api.put(fresh(), 'a\n')[0] == 204
    for s in socks:
        s.close()
    watch.disturbed_nothing(mb=96)
