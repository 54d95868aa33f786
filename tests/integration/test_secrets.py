"""Credentials in memory: gone once they have been used, but for the one place that has to know them."""
import base64
import http.client
import os
import socket
import ssl

import pytest
from calls import Api
from gateway import BINARY, key, wait_for
from h2.connection import H2Connection
from h2.events import StreamEnded
from memory import find

SANITIZED = any(name in open(BINARY, 'rb').read() for name in (b'__asan_init', b'__tsan_init'))
pytestmark = pytest.mark.skipif(SANITIZED or os.geteuid() != 0, reason='freed memory is kept, or not ours to see')


def secret():
    return 'tok' + os.urandom(24).hex()


def gone(gw, word, left=0):
    """No more than `left` copies stay. Workers may have a moment's work left."""
    try:
        wait_for(lambda: len(find(gw.pid, word.encode())) <= left, 5, what='wiping')
    except AssertionError:
        raise AssertionError(find(gw.pid, word.encode())) from None


def test_the_scan_finds_what_is_there(far, gateway_at):
    gw = gateway_at(far.url)
    with socket.create_connection(('127.0.0.1', gw.port)) as s:
        word = secret()
        s.sendall(b'GET / HTTP/1.1\r\nHost: x\r\nX-Harness-Token: ' + word.encode())    # no end
        wait_for(lambda: find(gw.pid, word.encode()), what='the head')


def test_a_log_token_stays_once(far, gateway_at, tmp_path):
    """In the table of credentials, which delivers with it for as long as its streams live. (Without a key it is in
    the pages of the database, too.)"""
    path = tmp_path / 'spool.key'
    path.write_text(os.urandom(32).hex())
    path.chmod(0o600)
    gw = gateway_at(far.url, spool={'key': str(path)})
    api = Api(gw.log_url, token=secret())
    assert api.open(key('a'))[0] == 204
    for i in range(20):
        assert api.put(key('a'), f'{i}\n', start=i)[0] == 204
    assert api.blob(key('a'), b'x' * 1000)[0] == 204
    assert api.delete(key('a'))[0] == 204
    api.close()
    gw.wait_delivered()
    gone(gw, api.token, left=1)


def relayed(gw, word, context=None):
    cls = http.client.HTTPSConnection if context else http.client.HTTPConnection
    conn = cls('127.0.0.1', gw.port, timeout=10, **({'context': context} if context else {}))
    conn.request('HEAD', '/gateway/ng/api/version', headers={'Authorization': 'Bearer ' + word, 'x-api-key': word})
    conn.getresponse().read()
    conn.close()


def test_relayed_credentials_are_gone(far, gateway_at):
    gw = gateway_at(far.url)
    word = secret()
    relayed(gw, word)
    gone(gw, word)


def test_relayed_credentials_are_gone_tls(far, gateway_at, ca):
    cert, path = ca.issue('127.0.0.1')[:2]
    gw = gateway_at(far.url, cert=cert, key=path)
    word = secret()
    relayed(gw, word, ssl._create_unverified_context())
    gone(gw, word)


def test_credentials_of_http_2_are_gone(far, gateway_at):
    """Their tables of fields end with the connection."""
    gw = gateway_at(far.url)
    word = secret()
    h2 = H2Connection()
    with socket.create_connection(('127.0.0.1', gw.port)) as s:
        h2.initiate_connection()
        for stream in (1, 3):
            h2.send_headers(stream, [(':method', 'HEAD'), (':scheme', 'http'), (':authority', 'x'),
                                     (':path', '/gateway/ng/api/version'), ('x-api-key', word)], end_stream=True)
        s.sendall(h2.data_to_send())
        ended = set()
        while ended != {1, 3}:
            ended |= {e.stream_id for e in h2.receive_data(s.recv(65536)) if isinstance(e, StreamEnded)}
    gone(gw, word)


def test_keys_as_they_stand_in_files_are_gone(far, gateway_at, ca, tmp_path):
    """What was read of them; the keys themselves are in use."""
    cert, path = ca.issue('127.0.0.1')[:2]
    sealing = tmp_path / 'spool.key'
    sealing.write_text(os.urandom(32).hex())
    sealing.chmod(0o600)
    gw = gateway_at(far.url, cert=cert, key=path, spool={'key': str(sealing)})
    pem = open(path).read().splitlines()
    gone(gw, pem[1])
    gone(gw, pem[2])
    gone(gw, sealing.read_text())
    assert find(gw.pid, bytes.fromhex(sealing.read_text())) == []


def test_proxy_credentials_are_gone(far, gateway_at):
    gw = gateway_at(far.url, listen={'proxy': {'address': '127.0.0.1:0'}})
    word = secret()
    basic = base64.b64encode(f'user:{word}'.encode()).decode()
    with socket.create_connection(('127.0.0.1', gw.ports['proxy'])) as s:
        s.sendall(f'CONNECT 127.0.0.1:1 HTTP/1.1\r\nHost: 127.0.0.1:1\r\nProxy-Authorization: Basic {basic}\r\n\r\n'
                  .encode())
        assert s.recv(100)
    gone(gw, basic)
    gone(gw, word)
