"""An outage whose backlog is far larger than what may stay in memory for each record."""
import socket
import threading
from pathlib import Path

import pytest
from calls import TOKEN, Api, body_of
from gateway import BINARY, key, wait_for

STREAMS = 8
SANITIZED = any(name in Path(BINARY).read_bytes() for name in (b'__asan_init', b'__tsan_init'))
# Records of each stream; a sanitizer's memory is not measured, and a part of them is paged all the same.
WARM, FULL = (2000, 7000) if not SANITIZED else (1000, 2500)
BYTES_A_RECORD = 60             # of memory


def read_answer(file):
    status = file.readline().split()[1]
    while True:
        line = file.readline()
        assert line, 'the connection ended'
        if line == b'\r\n':
            return status
        assert not line.lower().startswith((b'transfer-encoding', b'content-length: 1'))


def put_lines(gw, name, first, last):
    """One connection that makes PUT after PUT of one line, each as soon as the one before is answered."""
    with socket.create_connection(('127.0.0.1', gw.port), 30) as s, s.makefile('rb') as answers:
        for i in range(first, last):
            body = body_of(f'{i}\n', start=i)
            s.sendall(b'PUT /log-service/stream?accountID=acct&key=%s HTTP/1.1\r\nHost: x\r\nX-Harness-Token: %s\r\n'
                      b'Content-Length: %d\r\n\r\n%s' % (key(name).encode(), TOKEN.encode(), len(body), body))
            assert read_answer(answers) == b'204'


def fill(gw, first, last):
    failed = []

    def run(name):
        try:
            put_lines(gw, name, first, last)
        except Exception as e:              # noqa: BLE001 - reported in the test's own thread
            failed.append(e)
    threads = [threading.Thread(target=run, args=(f's{i}',)) for i in range(STREAMS)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not failed, failed[0]


def assert_memory(gw, below):
    """What pages does so within a second or so."""
    wait_for(lambda: SANITIZED or gw.rss_kb() < below, 6, what=f'less than {below} kB in memory')


@pytest.mark.parametrize('crash', [False, True], ids=['on', 'kill'])
def test_a_backlog_does_not_live_in_memory(far, gateway_at, crash):
    gw = gateway_at(far.url, spool={'sync': 'normal'}, log={'level': 'info'})
    api = Api(gw.log_url)
    assert [api.open(key(f's{i}'))[0] for i in range(STREAMS)] == [204] * STREAMS
    api.close()
    far.wait(lambda h: h.counts()['started'].get('open') == STREAMS)
    far.stop()
    fill(gw, 0, WARM)
    before = gw.rss_kb()
    fill(gw, WARM, FULL)
    room = STREAMS * (FULL - WARM) * BYTES_A_RECORD // 1024
    assert_memory(gw, before + room)
    if crash:
        gw.kill()
        gw.start()
    assert_memory(gw, before + room)
    assert gw.ledger()['spooled'] == STREAMS * FULL
    far.start()
    gw.wait_delivered(90)
    for i in range(STREAMS):
        assert far.lines('acct', key(f's{i}')) == [f'{n}\n' for n in range(FULL)]
    assert gw.ledger()['delivered'] == STREAMS * FULL
