"""The far side's stand-in, asked directly: the log service, the store, the faults."""
import asyncio
import concurrent.futures
import gzip
import hashlib
import http.client
import json
import socket
import threading
import time
from types import SimpleNamespace
from urllib.parse import quote, urlsplit

import pytest

from standin import gojson
from standin.store import ObjectStore, crc32c
from standin.transport import Body, Transport, TransportError

ACC, KEY, TOKEN = 'acct0', 'accountId:acct0/orgId:default/level0:pipeline/level6:step', 'tok'
STREAM = '/log-service/stream?accountID=%s&key=%s' % (ACC, KEY)
BLOB = '/log-service/blob?accountID=%s&key=%s' % (ACC, KEY)
NAME = ACC + '/' + KEY


def ask(far, method, target, body=None, headers=None, token=TOKEN, port=None, timeout=10):
    """One request over a connection of its own; (status, headers, body)."""
    conn = http.client.HTTPConnection(far.host, port or far.port, timeout=timeout)
    try:
        conn.putrequest(method, target, skip_accept_encoding=True)
        if token:
            conn.putheader('X-Harness-Token', token)
        if body is not None:
            conn.putheader('Content-Length', str(len(body)))
        for name, value in (headers or {}).items():
            conn.putheader(name, value)
        conn.endheaders(body)
        answer = conn.getresponse()
        return answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read()
    finally:
        conn.close()


def rows(*outs):
    return json.dumps([{'level': 'info', 'pos': n, 'out': out, 'args': None,
                        'time': '2026-08-21T09:56:10.123456789Z'}
                       for n, out in enumerate(outs)]).encode()


def opened(far, *outs):
    assert ask(far, 'POST', STREAM)[0] == 204
    if outs:
        assert ask(far, 'PUT', STREAM, rows(*outs))[0] == 204


def put_object(far, link, data, headers=None, token=None, method='PUT'):
    parts = urlsplit(link)
    return ask(far, method, link[link.index(parts.netloc) + len(parts.netloc):], data,
               headers, token, port=far.store_port)


def link_of(far, method='upload'):
    status, _, body = ask(far, 'POST', '/log-service/blob/link/%s?accountID=%s&key=%s'
                          % (method, ACC, KEY))
    assert status == 200
    return json.loads(body)['link']


# -- streams

def test_stream_life(far):
    opened(far, 'a\n', 'b\n')
    state = far.state()['streams'][NAME]
    assert state['lines'] == ['a\n', 'b\n']
    status, headers, body = ask(far, 'DELETE', STREAM)
    assert (status, body) == (204, b'') and set(headers) == {'date'}
    assert NAME not in far.state()['streams']


def test_second_close_is_500(far):
    opened(far)
    ask(far, 'DELETE', STREAM)
    status, headers, body = ask(far, 'DELETE', STREAM)
    assert (status, body) == (500, b'{\n  "error_msg": "stream: not found"\n}\n')
    assert headers['content-type'] == 'application/json' and 'cache-control' in headers


def test_write_to_unknown_stream_is_200_and_lost(far):
    status, headers, body = ask(far, 'PUT', STREAM, rows('gone'))
    assert (status, body, headers['content-length']) == (200, b'', '0')
    record = far.state()['records'][NAME]
    assert record['discarded'] == ['gone'] and record['lines'] == []


def test_second_open_wipes(far):
    opened(far, 'old')
    opened(far, 'new')
    state = far.state()
    assert state['streams'][NAME]['lines'] == ['new']
    assert (state['opens'][NAME], state['wipes'][NAME]) == (2, 1)
    assert far.lines(ACC, KEY) == ['old', 'new']


def test_replay_duplicates(far):
    opened(far, 'x', 'y')
    ask(far, 'PUT', STREAM, rows('x', 'y'))
    assert far.state()['records'][NAME]['duplicates'] == 2


def test_ring_and_snapshot(far):
    opened(far)
    for start in range(0, 5200, 1300):
        ask(far, 'PUT', STREAM, rows(*('%d <\n' % n for n in range(start, start + 1300))))
    assert ask(far, 'DELETE', STREAM + '&snapshot=true')[0] == 204
    blob = far.blob(ACC, KEY).splitlines()
    assert len(blob) == 5000 and json.loads(blob[0])['out'] == '200 <\n'
    assert b'\\u003c' in blob[0] and list(json.loads(blob[0])) == list(gojson.FIELDS)
    assert len(far.lines(ACC, KEY)) == 5200


def test_expiry_counts_from_creation(far):
    opened(far, 'early')
    far.advance(5 * 3600 - 60)
    assert ask(far, 'PUT', STREAM, rows('late'))[0] == 204
    far.advance(61)
    assert ask(far, 'PUT', STREAM, rows('too late'))[0] == 200
    assert far.state()['records'][NAME]['expired'] == 1
    far.call('POST', '/clock', {'offset': 0})


def test_close_by_prefix_and_by_list(far):
    base = '/log-service/stream?accountID=%s&key=' % ACC
    for key in ('p/1', 'p/2', 'q/1', 'q/2', 'q/3'):
        ask(far, 'POST', base + key)
    assert ask(far, 'DELETE', base + 'p/&prefix=true')[0] == 204
    assert ask(far, 'DELETE', base + 'zzz&prefix=true&snapshot=true')[0] == 204
    assert ask(far, 'DELETE', base + 'x&keys=q/1,q/2')[0] == 204
    assert list(far.state()['streams']) == [ACC + '/q/3']
    assert ask(far, 'DELETE', base + 'x&snapshot=true')[0] == 500


def test_info_is_counted(far):
    assert ask(far, 'GET', '/log-service/stream/info?accountID=a&key=k')[0] == 200
    assert far.state()['info_calls'] == 1


BODIES = [
    (b'[]', 204, []), (b'null', 204, []), (b'', 400, None), (b' \n', 400, None),
    (b'{}', 400, None), (b'[1]', 400, None), (b'["x"]', 400, None), (b'[{"out":1}]', 400, None),
    (b'[{"out":"a"}][{"out":"b"}]', 204, ['a']), (b'[{"out":"a"}] garbage', 204, ['a']),
    (b'[null,{"out":null}]', 204, ['', '']), (b'[{"OUT":"a","more":{"x":[1]}}]', 204, ['a']),
    (b'[{"out":"\xff\xfe!"}]', 204, ['\ufffd\ufffd!']), (b'[{"out":"\\ud800"}]', 204, ['\ufffd']),
    (b'[{"out":"a\nb"}]', 400, None), (b'[{"pos":1.0}]', 400, None), (b'[{"pos":true}]', 400, None),
    (b'[{"pos":9223372036854775807,"out":"m"}]', 204, ['m']),
    (b'[{"pos":9223372036854775808}]', 400, None), (b'[{"args":{"a":"b"},"out":"c"}]', 204, ['c']),
    (b'[{"args":{"a":1}}]', 400, None), (b'[{"args":[]}]', 400, None), (b'[NaN]', 400, None),
    (b'[{"time":"2026-08-21T09:56:10+02:00","out":"t"}]', 204, ['t']),
    (b'[{"time":"yesterday"}]', 400, None), (b'[{"time":""}]', 400, None),
    (b'[{"out":"a"},', 400, None), (b'[{"out":"a"},]', 400, None), (b'\xef\xbb\xbf[]', 400, None),
    (gzip.compress(b'[{"out":"z"}]', mtime=0), 400, None), (b'[' * 50000, 400, None),
]


@pytest.mark.parametrize('body,status,outs', BODIES)
def test_decoder(far, body, status, outs):
    opened(far)
    got = ask(far, 'PUT', STREAM, body)
    assert got[0] == status
    assert far.lines(ACC, KEY) == (outs or [])
    if status == 400:
        assert list(json.loads(got[2])) == ['error_msg']


def test_content_type_and_encoding(far):
    opened(far)
    form = {'Content-Type': 'application/x-www-form-urlencoded'}
    assert ask(far, 'PUT', STREAM, rows('a'), form)[0] == 400
    assert ask(far, 'PUT', STREAM, gzip.compress(rows('a')), {'Content-Encoding': 'gzip'})[0] == 400
    assert ask(far, 'POST', BLOB, b'text', form)[0] == 204
    assert far.blob(ACC, KEY) == b''
    squeezed = gzip.compress(b'text')
    assert ask(far, 'POST', BLOB, squeezed, {'Content-Encoding': 'gzip'})[0] == 204
    assert far.blob(ACC, KEY) == squeezed == ask(far, 'GET', BLOB)[2]


# -- who may

@pytest.mark.parametrize('target,headers,token,status', [
    ('?key=k', {}, TOKEN, 400), ('?accountID=a&key=k', {}, None, 400),
    ('?accountID=a', {}, TOKEN, 400), ('?accountID=a&key=k', {}, TOKEN, 204),
    ('?accountID=a&key=k&X-Harness-Token=tok', {}, None, 204),
    ('?accountID=a&key=k', {'x-api-key': 'pat'}, None, 204),
    ('?accountID=a&key=k', {}, 'bad', 400), ('?accountID=a&key=k', {}, 'old', 400),
    ('?accountID=a&key=k', {}, 'of-b', 400), ('?accountID=b&key=k', {}, 'of-b', 204),
    ('?accountID=a&key=k;k', {}, TOKEN, 400)])
def test_credentials(far, target, headers, token, status):
    far.tokens(bad=['bad'], expired=['old'], accounts={'of-b': 'b'})
    got, _, body = ask(far, 'POST', '/log-service/stream' + target, None, headers, token)
    assert got == status
    if status == 400:
        assert 'error_msg' in json.loads(body)


def test_key_spellings_are_one_key(far):
    opened(far)
    other = '/gateway/log-service//stream/?key=%s&accountID=%s' % (quote(KEY, safe=''), ACC)
    assert ask(far, 'PUT', other, rows('x'))[0] == 204
    assert far.lines(ACC, KEY) == ['x']
    assert gojson.query('k=a+b%2Bc&k=2&x=%zz&y=1;2') == {'k': 'a b+c'}


# -- blobs and links

def test_blob_calls(far):
    exists = '/log-service/blob/exists?accountID=%s&key=%s' % (ACC, KEY)
    assert ask(far, 'GET', exists)[2] == b'false'
    assert ask(far, 'GET', BLOB)[0] == 404
    assert ask(far, 'POST', BLOB, b'one\n')[0] == 204
    assert ask(far, 'GET', exists)[2] == b'true'
    assert ask(far, 'GET', BLOB)[2] == b'one\n'
    assert ask(far, 'DELETE', BLOB)[0] == 204 and ask(far, 'DELETE', BLOB)[0] == 404


def test_other_calls(far):
    account = '?accountID=' + ACC
    assert ask(far, 'GET', '/log-service/healthz', token=None)[2] == b'OK'
    assert ask(far, 'GET', '/log-service/token' + account)[0] == 200
    assert ask(far, 'GET', '/log-service/blob/download' + account)[0] == 404
    assert ask(far, 'GET', '/log-service/blob/download' + account + '&prefix=a')[0] == 400
    good = '&prefix=pipeline/runSequence:7'
    assert b'"link"' in ask(far, 'POST', '/log-service/blob/download' + account + good)[2]
    assert ask(far, 'POST', '/log-service/rca' + account)[0] == 200
    assert ask(far, 'GET', '/log-service/nothing' + account)[0] == 404


def test_link_text(far):
    _, _, body = ask(far, 'POST', '/log-service/blob/link/upload?accountID=%s&key=%s' % (ACC, KEY))
    assert body.startswith(b'{\n  "link": "http://') and b'"expires": 3600000000000' in body
    assert b'\\u0026' in body and b'&' not in body and b'accountId%3Aacct0/' in body


def test_published_signature():
    """The worked example of a presigned URL in the vendor's documentation of Signature V4."""
    store = ObjectStore(lambda: 0, SimpleNamespace(link_form='aws'))
    store.secret, store.region = 'wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY', 'us-east-1'
    query = ('X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=AKIAIOSFODNN7EXAMPLE%2F20130524'
             '%2Fus-east-1%2Fs3%2Faws4_request&X-Amz-Date=20130524T000000Z&X-Amz-Expires=86400'
             '&X-Amz-SignedHeaders=host')
    assert store.signature('GET', 'examplebucket.s3.amazonaws.com', '/test.txt', query, '20130524',
                           '20130524T000000Z') == \
        'aeeed9bbccd4d02ee5c0109b86d86835f995330da4c265957d157751f604d404'
    assert crc32c(b'123456789') == 0xE3069283


def test_object_put_and_hash(far):
    status, headers, _ = put_object(far, link_of(far), b'hello\n')
    assert status == 200
    assert headers['x-goog-hash'] == 'crc32c=NT3Yvg==,md5=sZRqySSS0jR8YjW00mERhA=='
    assert far.blob(ACC, KEY) == b'hello\n'
    assert put_object(far, link_of(far, 'download'), None, method='GET')[2] == b'hello\n'


@pytest.mark.parametrize('form,style', [('goog', 'path'), ('aws', 'virtual')])
def test_other_link_forms(far, form, style):
    far.config(link_form=form, store_style=style)
    try:
        link = link_of(far)
        host = urlsplit(link).netloc
        assert ('X-Goog-Signature=' in link) == (form == 'goog')
        status = ask(far, 'PUT', link.split(host, 1)[1], b'x', {}, None, far.store_port)[0]
        assert status == (200 if style == 'path' else 403)      # the test's Host is the address
        assert (far.blob(ACC, KEY) == b'x') == (style == 'path')
    finally:
        far.config(link_form='aws', store_style='path')


@pytest.mark.parametrize('change,reason', [
    (lambda link: (link[:-1] + ('0' if link[-1] != '0' else '1'), {}), 'wrong signature'),
    (lambda link: (link.replace('%3A', ':'), {}), 'wrong signature'),
    (lambda link: (link.replace('X-Amz-Expires=3600', 'X-Amz-Expires=9999'), {}),
     'wrong signature'),
    (lambda link: (link.replace('/level0', '//level0'), {}), 'wrong signature'),
    (lambda link: (link.split('&X-Amz-Signature')[0], {}), 'no signature'),
    (lambda link: (link, {'x-goog-meta-a': 'b'}), 'unsigned header'),
    (lambda link: (link, {'X-Amz-Acl': 'public'}), 'unsigned header')])
def test_store_refuses(far, change, reason):
    link, headers = change(link_of(far))
    status, _, body = put_object(far, link, b'x', headers)
    assert status == 403 and b'<Error>' in body
    assert far.state()['store']['refused'] == {reason: 1}
    assert far.blob(ACC, KEY) is None


def test_store_refuses_other_host_and_old_links(far):
    link = link_of(far)
    target = link[link.index('/harness'):]
    conn = http.client.HTTPConnection(far.host, far.store_port)
    conn.request('PUT', target, b'x', {'Host': 'elsewhere.example'})
    assert conn.getresponse().status == 403
    conn.close()
    far.advance(3601)
    assert put_object(far, link, b'x')[0] == 403
    far.call('POST', '/clock', {'offset': 0})
    assert far.state()['store']['refused'] == {'wrong host': 1, 'expired': 1}
    assert put_object(far, link, b'x')[0] == 200


def test_leaked_token_is_counted(far):
    put_object(far, link_of(far), b'x', token='secret')
    assert [leak['header'] for leak in far.state()['store']['leaks']] == ['X-Harness-Token']


def test_gzip_objects(far):
    squeezed = gzip.compress(b'text\n' * 100)
    put_object(far, link_of(far), squeezed, {'Content-Encoding': 'gzip'})
    link = link_of(far, 'download')
    status, headers, body = put_object(far, link, None, method='GET')
    assert body == b'text\n' * 100 and 'content-length' not in headers
    status, headers, body = put_object(far, link, None, {'Accept-Encoding': 'gzip'}, method='GET')
    assert body == squeezed and headers['content-encoding'] == 'gzip'
    assert ask(far, 'GET', BLOB)[2] == b'text\n' * 100 == far.blob(ACC, KEY)
    far.config(transcode=False, blob_get_inflates=False)
    try:
        assert put_object(far, link, None, method='GET')[2] == squeezed == ask(far, 'GET', BLOB)[2]
    finally:
        far.config(transcode=True, blob_get_inflates=True)


# -- tail

def tail(far, target=STREAM):
    sock = socket.create_connection((far.host, far.port), 10)
    sock.sendall(('GET %s HTTP/1.1\r\nHost: x\r\nX-Harness-Token: t\r\n\r\n' % target).encode())
    return sock


def until(sock, mark):
    data = b''
    while mark not in data:
        piece = sock.recv(65536)
        assert piece, data
        data += piece
    return data


def test_tail(far):
    far.config(ping_interval=0.2)
    opened(far, 'first')
    with tail(far) as sock:
        assert b'text/event-stream' in until(sock, b': ping\n')
        # Backlog, then a ping in the silence, then a line, then the end.
        far.wait(lambda h: h.state()['streams'][NAME]['tails'])
        assert b': ping\n' in until(sock, b': ping\n')
        ask(far, 'PUT', STREAM, rows('second'))
        data = until(sock, b'\n\n')
        assert json.loads(data[data.index(b'data: ') + 6:data.index(b'}') + 1])['out'] == 'second'
        ask(far, 'DELETE', STREAM)
        assert b'event: error\ndata: eof\n\r\n' in until(sock, b'0\r\n\r\n')
    far.config(ping_interval=30)


def test_tail_of_nothing_and_client_gone(far):
    with tail(far) as sock:
        assert until(sock, b'eof\n')
    opened(far)
    sock = tail(far)
    until(sock, b': ping\n')
    sock.close()
    ask(far, 'PUT', STREAM, rows('a'))
    ask(far, 'PUT', STREAM, rows('b'))
    far.wait(lambda h: h.log(call='tail')[-1].get('tail') == 'client gone')


# -- faults

def test_fault_matching(far):
    far.fault('status', 'open', key='level6', code=503, retry_after=7)
    far.fault('status', ['open', 'close'], account='other', count=None, code=418)
    far.fault('status', 'lines', skip=1, code=500)
    status, headers, body = ask(far, 'POST', STREAM)
    assert (status, headers['retry-after']) == (503, '7') and b'error_msg' in body
    opened(far, 'passes')
    assert ask(far, 'PUT', STREAM, rows('x'))[0] == 500
    for _ in range(2):
        assert ask(far, 'POST', '/log-service/stream?accountID=other&key=k')[0] == 418
    assert [f['left'] for f in far.faults()['armed']] == [None]
    far.clear_faults()
    assert ask(far, 'POST', '/log-service/stream?accountID=other&key=k')[0] == 204
    with pytest.raises(RuntimeError):
        far.fault('no-such-kind')
    with pytest.raises(RuntimeError):
        far.fault('status', 'no-such-call')


def test_delay_and_stall(far):
    far.fault('delay', 'open', seconds=0.3)
    begun = time.monotonic()
    opened(far)
    assert time.monotonic() - begun >= 0.3
    far.fault('stall', 'lines')
    with pytest.raises(socket.timeout):
        ask(far, 'PUT', STREAM, rows('x'), timeout=0.3)
    far.fault('stall', 'lines', execute=True)
    with pytest.raises(socket.timeout):
        ask(far, 'PUT', STREAM, rows('y'), timeout=0.3)
    assert far.lines(ACC, KEY) == ['y']


def test_hold(far):
    opened(far)
    for where, during in (('before', []), ('after', ['x', 'y'])):
        held = far.fault('hold', 'lines', where=where)
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            answer = pool.submit(ask, far, 'PUT', STREAM, rows('x' if where == 'before' else 'y'))
            far.wait(lambda h: h.state()['running'] == 1)
            far.wait(lambda h: h.lines(ACC, KEY) == during)
            assert not answer.done()
            far.clear_faults(held)
            assert answer.result(10)[0] == 204
    assert far.lines(ACC, KEY) == ['x', 'y']
    far.fault('hold', 'lines')
    with pytest.raises(socket.timeout):
        ask(far, 'PUT', STREAM, rows('z'), timeout=0.3)
    far.wait(lambda h: h.state()['running'] == 0)
    assert far.lines(ACC, KEY) == ['x', 'y'], 'who has left is not served'


LOST = (ConnectionResetError, http.client.RemoteDisconnected, http.client.BadStatusLine,
        BrokenPipeError)


@pytest.mark.parametrize('kind,args,executed', [
    ('reset', {}, False), ('reset', {'where': 'before'}, False),
    ('reset', {'where': 'after'}, True),
    ('close', {}, False), ('close', {'where': 'after'}, True), ('execute_lost', {}, True),
    ('execute_lost', {'how': 'fin'}, True), ('execute_late', {'seconds': 0.2}, None),
    ('corrupt', {}, False), ('corrupt', {'execute': True}, True), ('rst_stream', {}, False)])
def test_lost_answers(far, kind, args, executed):
    opened(far)
    far.fault(kind, 'lines', **args)
    with pytest.raises(LOST):
        ask(far, 'PUT', STREAM, rows('x'))
    if executed is None:
        assert far.lines(ACC, KEY) == []
        far.wait(lambda h: h.lines(ACC, KEY) == ['x'])
    else:
        assert far.lines(ACC, KEY) == (['x'] if executed else [])


def test_reset_is_rst_and_close_is_fin(far):
    for kind, how in (('reset', ConnectionResetError), ('close', None)):
        far.fault(kind, 'open')
        sock = socket.create_connection((far.host, far.port), 5)
        sock.sendall(('POST %s HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n'
                      % STREAM).encode())
        if how is None:
            assert sock.recv(100) == b''
        else:
            with pytest.raises(how):
                sock.recv(100)
        sock.close()


def test_truncated_and_garbage_answers(far):
    far.fault('corrupt', 'link', mode='body')
    with pytest.raises(ValueError):
        link_of(far)
    far.fault('corrupt', 'link', mode='truncated')
    with pytest.raises(http.client.IncompleteRead):
        link_of(far)
    far.fault('reset', 'link', where='mid_answer')
    with pytest.raises((http.client.IncompleteRead, ConnectionResetError)):
        link_of(far)
    far.fault('trickle', 'link', seconds=0.0005)
    assert link_of(far)


def test_status_before_body(far):
    far.fault('status', 'lines', when='before_body', code=413)
    sock = socket.create_connection((far.host, far.port), 5)
    sock.sendall(('PUT %s HTTP/1.1\r\nHost: x\r\nX-Harness-Token: t\r\nContent-Length: 99\r\n\r\n'
                  % STREAM).encode())
    assert until(sock, b'\r\n\r\n').startswith(b'HTTP/1.1 413')
    sock.close()


def test_half_then_500(far):
    opened(far)
    far.fault('half_then_500', 'lines')
    assert ask(far, 'PUT', STREAM, rows('1', '2', '3', '4'))[0] == 500
    assert far.lines(ACC, KEY) == ['1', '2']


def test_ok_on_error(far):
    opened(far)
    far.fault('ok_on_error', 'lines')
    assert ask(far, 'PUT', STREAM, rows('1'))[0] == 200
    assert ask(far, 'PUT', STREAM, rows('2'))[0] == 204
    assert far.lines(ACC, KEY) == ['2']


def test_wrong_crc(far):
    far.fault('wrong_crc', 'put-object')
    good = 'crc32c=NT3Yvg==,md5=sZRqySSS0jR8YjW00mERhA=='
    assert put_object(far, link_of(far), b'hello\n')[1]['x-goog-hash'] != good
    assert put_object(far, link_of(far), b'hello\n')[1]['x-goog-hash'] == good


def test_snapshot_fail(far):
    opened(far, 'kept')
    far.fault('snapshot_fail', 'close')
    assert ask(far, 'DELETE', STREAM + '&snapshot=true')[0] == 500
    assert NAME in far.state()['streams'] and far.blob(ACC, KEY) is None
    assert ask(far, 'DELETE', STREAM + '&snapshot=true')[0] == 204


def test_slow_body(far):
    far.fault('slow_body', 'blob', rate=1000)
    begun = time.monotonic()
    assert ask(far, 'POST', BLOB, b'x' * 300)[0] == 204
    assert time.monotonic() - begun >= 0.3 and len(far.blob(ACC, KEY)) == 300


def test_slow_reader_pushes_back(far):
    far.fault('slow_body', 'blob', rate=20000)
    with socket.create_connection((far.host, far.port), 5) as sock:
        sock.sendall(('POST %s HTTP/1.1\r\nHost: x\r\nX-Harness-Token: t\r\n'
                      'Content-Length: 90000000\r\n\r\n' % BLOB).encode())
        sock.settimeout(0.3)
        sent = 0
        with pytest.raises(socket.timeout):
            while sent < 90000000:
                sent += sock.send(b'x' * 65536)
        assert sent < 30000000


def test_connections_that_end_unannounced(far):
    far.config(idle_timeout=0.2)
    try:
        with socket.create_connection((far.host, far.port), 5) as sock:
            sock.sendall(b'GET /log-service/healthz HTTP/1.1\r\nHost: x\r\n\r\n')
            until(sock, b'OK')
            assert sock.recv(10) == b''
        far.config(idle_timeout=None, max_requests=2)
        with socket.create_connection((far.host, far.port), 5) as sock:
            for _ in range(2):
                sock.sendall(b'GET /log-service/healthz HTTP/1.1\r\nHost: x\r\n\r\n')
                assert b'close' not in until(sock, b'OK')
            assert sock.recv(10) == b''
    finally:
        far.config(idle_timeout=None, max_requests=None)


def test_interim_answer(far):
    far.fault('interim', 'open')
    with socket.create_connection((far.host, far.port), 5) as sock:
        sock.sendall(('POST %s HTTP/1.1\r\nHost: x\r\nX-Harness-Token: t\r\n\r\n'
                      % STREAM).encode())
        assert until(sock, b' 204 ').startswith(b'HTTP/1.1 103 ')


def test_large_blob(far):
    data = bytes(range(256)) * 4096 * 50
    begun = time.monotonic()
    assert put_object(far, link_of(far), data)[0] == 200
    assert far.counts()['blobs'] == {NAME: len(data)} and time.monotonic() - begun < 10
    assert far.state()['blobs'][NAME]['sha256'] == hashlib.sha256(data).hexdigest()


def test_outage_on_the_same_ports(far):
    opened(far, 'before')
    far.stop()
    for port in (far.port, far.store_port):
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection((far.host, port), 5)
    far.start()
    assert ask(far, 'PUT', STREAM, rows('after'))[0] == 204
    assert far.lines(ACC, KEY) == ['before', 'after']
    far.fault('refuse', seconds=0.3, which=['main'])
    with pytest.raises(ConnectionRefusedError):
        ask(far, 'POST', STREAM)
    far.wait(lambda h: _answers(h))


def _answers(far):
    try:
        return ask(far, 'GET', '/log-service/healthz')[0] == 200
    except OSError:
        return False


def test_hang(far):
    far.hang(store=False)
    with pytest.raises(socket.timeout):
        ask(far, 'POST', STREAM, timeout=0.2)
    far.speak(store=False)
    assert ask(far, 'POST', STREAM)[0] == 204


def test_foreign_hand(far):
    opened(far, 'mine')
    far.foreign(ACC, KEY, write=['theirs'])
    assert far.lines(ACC, KEY) == ['mine', 'theirs']
    far.foreign(ACC, KEY[:-4], close=True, prefix=True, snapshot=True, after=0.1)
    far.wait(lambda h: NAME not in h.state()['streams'])
    assert far.blob(ACC, KEY).count(b'\n') == 2
    assert ask(far, 'PUT', STREAM, rows('late'))[0] == 200


# -- bookkeeping

def test_log_and_counts(far):
    opened(far, 'x')
    first, second = far.log()
    assert (first['call'], second['call'], second['status']) == ('open', 'lines', 204)
    assert second['target'] == STREAM and ['X-Harness-Token', TOKEN] in second['headers']
    assert second['body_len'] == len(rows('x')) and second['version'] == '1.1'
    assert second['conn'] != first['conn'] and far.log(since=first['seq']) == [second]
    state = far.state()
    assert state['requests'] == {'open': {'204': 1}, 'lines': {'204': 1}}
    assert far.state(key='nothing')['records'] == {}


def test_overlapping_writes_are_seen(far):
    opened(far)
    far.fault('delay', 'lines', seconds=0.3)
    other = threading.Thread(target=ask, args=(far, 'PUT', STREAM, rows('slow')))
    other.start()
    far.wait(lambda h: h.state()['running'])
    ask(far, 'PUT', STREAM, rows('fast'))
    other.join()
    assert far.state()['overlaps'] == {NAME: 1} and far.lines(ACC, KEY) == ['fast', 'slow']


def test_hub_announcement(far):
    zstandard = pytest.importorskip('zstandard')
    opened(far)
    squeezed = zstandard.ZstdCompressor().compress(rows('z'))
    headers = {'Content-Encoding': 'zstd'}
    status, answer, _ = ask(far, 'PUT', STREAM, squeezed, headers)
    assert status == 400 and 'accept-encoding' not in answer
    far.config(decode_zstd=True, extra_headers=[['Accept-Encoding', 'zstd']])
    try:
        status, answer, _ = ask(far, 'PUT', STREAM, squeezed, headers)
        assert status == 204 and answer['accept-encoding'] == 'zstd'
    finally:
        far.config(decode_zstd=False, extra_headers=[])


# -- HTTP/1 details, HTTP/2

def test_chunked_expect_and_pipelining(far):
    head = 'X-Harness-Token: t\r\nHost: x\r\n'
    with socket.create_connection((far.host, far.port), 5) as sock:
        sock.sendall(('POST %s HTTP/1.1\r\n%s\r\n' % (STREAM, head)).encode()
                     + ('PUT %s HTTP/1.1\r\n%sTransfer-Encoding: chunked\r\n\r\n'
                        '5\r\n[{"ou\r\n8;x=y\r\nt":"c"}]\r\n0\r\nTrailer: 1\r\n\r\n'
                        % (STREAM, head)).encode())
        far.wait(lambda h: h.lines(ACC, KEY) == ['c'])
    with socket.create_connection((far.host, far.port), 5) as sock:
        sock.sendall(('PUT %s HTTP/1.1\r\n%sExpect: 100-continue\r\nContent-Length: 2\r\n\r\n'
                      % (STREAM, head)).encode())
        until(sock, b'100 Continue\r\n\r\n')
        sock.sendall(b'[]')
        until(sock, b'204')
    with socket.create_connection((far.host, far.port), 5) as sock:
        sock.sendall(b'PUT / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n')
        until(sock, b' 400 ')


def over_h2(far, ca, work):
    """Runs work(transport) with HTTP/2 over TLS."""
    async def go():
        transport = Transport(ca=ca.ca, header_timeout=5)
        try:
            return await work(transport)
        finally:
            transport.close()
            await asyncio.sleep(0)
    return asyncio.run(go())


def test_h2(far_tls, ca):
    url = far_tls.url + STREAM
    data = rows(*('line %d' % n for n in range(30000)))

    async def work(transport):
        assert (await transport.request('POST', url, TOKEN)).version == '2'
        answers = await asyncio.gather(*(
            transport.request('PUT', url, TOKEN, Body(rows('n%d' % n))) for n in range(50)))
        assert {a.status for a in answers} == {204}
        assert (await transport.request('PUT', url, TOKEN, Body(data))).status == 204
        return (await transport.request('GET', far_tls.url + '/api/x?respond=5000000')).body

    body = over_h2(far_tls, ca, work)
    assert len(body) == 5000000 and body[300:302] == bytes([44, 45])
    lines = far_tls.lines(ACC, KEY)
    assert len(lines) == 30050 and lines[-1] == 'line 29999'
    seen = far_tls.log()[-1]
    assert seen['tls'] and seen['version'] == '2' and seen['stream'] > 1
    assert len({entry['conn'] for entry in far_tls.log()}) == 1


@pytest.mark.parametrize('kind,args,error,executed', [
    ('goaway', {}, None, 1), ('goaway', {'execute': False}, None, 1),
    ('rst_stream', {'code': 7}, None, 1), ('rst_stream', {'code': 2}, 'stream', 0),
    ('rst_stream', {'code': 2, 'execute': True}, 'stream', 1), ('reset', {}, 'reset', 0),
    ('execute_lost', {'how': 'stream'}, 'stream', 1), ('corrupt', {}, 'protocol', 0),
    ('interim', {}, None, 1), ('status', {'code': 503, 'when': 'before_body'}, None, 0)])
def test_h2_faults(far_tls, ca, kind, args, error, executed):
    url = far_tls.url + STREAM

    async def work(transport):
        await transport.request('POST', url, TOKEN)
        far_tls.fault(kind, 'lines', **args)
        try:
            answer = await transport.request('PUT', url, TOKEN, Body(rows('x')))
            if executed:
                assert answer.status == 204
            assert (await transport.request('PUT', url, TOKEN, Body(rows('y')))).status == 204
            return None
        except TransportError as exc:
            return exc.kind

    got = over_h2(far_tls, ca, work)
    assert got == error
    assert far_tls.lines(ACC, KEY)[:1] == (['x'] if executed else ['y'] if not error else [])


def test_tls_counters_and_client_certificate(far_tls, ca):
    cert = ca.issue('delegate-1', client=True)

    async def go():
        transport = Transport(ca=ca.ca, cert=cert, h2=False)
        answer = await transport.request('GET', far_tls.url + '/api/who')
        transport.close()
        with pytest.raises(TransportError):
            await Transport(h2=False).request('GET', far_tls.url + '/api/who')
        return json.loads(answer.body)

    before = far_tls.state()['connections']['main']
    said = asyncio.run(go())
    after = far_tls.state()['connections']['main']
    assert 'delegate-1' in json.dumps(said['peer_cert']) and said['version'] == '1.1'
    assert after['tcp'] - before['tcp'] == 2


# -- relayed calls

def test_echo(far):
    target = '/gratis/api/agent/a%2Fb/../x;y?q=%20+&z'
    status, _, body = ask(far, 'PUT', target, b'\x00\xff' * 1000, {'Authorization': 'Delegate j'})
    said = json.loads(body)
    assert (status, said['method'], said['target']) == (200, 'PUT', target)
    assert said['body_sha256'] == hashlib.sha256(b'\x00\xff' * 1000).hexdigest()
    assert ['Authorization', 'Delegate j'] in said['headers']
    assert ask(far, 'GET', '/api/account/acct0/status')[0] == 200
    assert ask(far, 'GET', '/api/x?status=418&h=X-Y:z')[1]['x-y'] == 'z'


def test_echo_streams_both_ways(far):
    with socket.create_connection((far.host, far.port), 5) as sock:
        sock.sendall(b'POST /api/x?mirror=1 HTTP/1.1\r\nHost: x\r\nContent-Length: 6\r\n\r\nabc')
        assert until(sock, b'abc')              # before the second half was sent
        sock.sendall(b'def')
        assert until(sock, b'def')
    big = bytes(range(256)) * 20000
    status, headers, body = ask(far, 'POST', '/api/x?respond=3000000&chunked=1', big)
    assert headers['x-body-sha256'] == hashlib.sha256(big).hexdigest()
    assert body == big[:3000000]


def test_in_process(ca):
    from standin.harness import Harness
    with Harness(inprocess=True, ping_interval=1.5) as far:
        opened(far, 'x')
        assert far.lines(ACC, KEY) == ['x'] and far.app.options.ping_interval == 1.5
