"""The near side's stand-ins against the far side's: do they have the faults they should have?"""
import asyncio
import json
import time

import pytest

from standin.clients import (ALL, CUT, HISTORY, MAX_LINE, GoCIClient, JavaDelegateClient,
                             LegacyClient, OptimizedClient)

ACC, SPEED = 'acct0', 20
KEY = 'accountId:acct0/orgId:default/pipelineId:b/level6:step'
LINES = ['line %d <&>\n' % n for n in range(20)]


def drive(far, kind, lines=LINES, arm=None, rate=None, tls=None, work=None, step=None, **more):
    """One step of one client, from open to close; returns (client, step)."""
    async def go():
        client = kind(far.log_url, 'tok', speed=more.pop('speed', SPEED), ca=tls, **more)
        driver = client.step(ACC, KEY, **(step or {}))
        try:
            if work is not None:
                await work(client, driver)
            else:
                await driver.run(lines, rate=rate)
                await driver.settle()
        finally:
            client.close_connections()
            await asyncio.sleep(0.01)
        return client, driver

    for fault in arm or ():
        far.fault(*fault[:2], **fault[2])
    return asyncio.run(go())


def aside(function, *args):
    """A blocking call beside the loop."""
    return asyncio.get_running_loop().run_in_executor(None, function, *args)


async def slowly(client, step):
    """Lines over several flushes, so that every one of them meets an opened stream."""
    opening = step.start()
    if opening is not None:
        await opening
    for line in LINES:
        step.write(line)
        await asyncio.sleep(step.interval / 4)
    await step.close()
    await step.settle()


def seen(far, call):
    return [entry for entry in far.log(call=call)]


@pytest.mark.parametrize('indirect', [False, True])
@pytest.mark.parametrize('name', sorted(ALL))
@pytest.mark.parametrize('secure', [False, True])
def test_healthy(far, far_tls, ca, name, indirect, secure):
    target, tls = (far_tls, ca.ca) if secure else (far, None)
    work = None if name == 'java' else slowly
    client, step = drive(target, ALL[name], tls=tls, indirect=indirect, work=work)
    state = target.state()
    assert step.errors == [] and step.acked == LINES == target.lines(ACC, KEY)
    rows = [json.loads(row) for row in target.blob(ACC, KEY).splitlines()]
    assert [row['out'] for row in rows] == LINES and not state['streams']
    assert target.state()['errors'] == []
    versions = {record.version for record in client.records}
    assert versions == ({'2'} if secure and name != 'optimized' else {'1.1'})
    if name == 'java':
        assert [row['pos'] for row in rows] == [0] * 20
        assert state['blobs'][ACC + '/' + KEY]['via'] == 'snapshot'
    else:
        assert [row['pos'] for row in rows] == list(range(20))
        assert state['blobs'][ACC + '/' + KEY]['via'] == ('blob' if indirect else 'put-object')
        assert rows[0]['args'] == ({} if name == 'goci' else None)
        assert bool(state['store']['leaks']) == (not indirect)


def test_headers_of_go(far, far_tls, ca):
    drive(far, LegacyClient)
    entries = {entry['call']: entry for entry in far.log()}
    host = ['Host', '%s:%d' % (far.host, far.port)]
    agent, token, gz = (['User-Agent', 'Go-http-client/1.1'], ['X-Harness-Token', 'tok'],
                        ['Accept-Encoding', 'gzip'])
    assert entries['open']['headers'] == [host, agent, ['Content-Length', '0'], token, gz]
    assert entries['close']['headers'] == [host, agent, token, gz]
    assert entries['open']['target'] == '/log-service/stream?accountID=%s&key=%s' % (ACC, KEY)
    assert ['X-Harness-Token', 'tok'] in entries['put-object']['headers']
    drive(far_tls, LegacyClient, tls=ca.ca)
    opened = far_tls.log(call='open')[0]
    assert [name for name, _ in opened['headers']] == [
        'host', 'x-harness-token', 'content-length', 'accept-encoding', 'user-agent']
    assert opened['headers'][-1][1] == 'Go-http-client/2.0'


def test_headers_of_java(far):
    drive(far, JavaDelegateClient)
    entries = {entry['call']: entry for entry in far.log()}
    names = [name for name, _ in entries['lines']['headers']]
    assert names == ['X-Harness-Token', 'Content-Type', 'Content-Length', 'Host', 'Connection',
                     'Accept-Encoding', 'User-Agent']
    assert ['Content-Type', 'application/json; charset=UTF-8'] in entries['lines']['headers']
    assert 'key=accountId%3Aacct0%2ForgId%3Adefault' in entries['open']['target']
    assert entries['close']['target'].endswith('&snapshot=true&prefix=false')


def test_trailing_slash(far):
    far.log_url += '/'
    try:
        drive(far, LegacyClient)
        drive(far, GoCIClient)
    finally:
        far.log_url = far.log_url[:-1]
    targets = [entry['target'].split('?')[0] for entry in far.log(call='open')]
    assert targets == ['/log-service/stream', '/log-service//stream']


# -- open

def test_open_503_once_is_retried(far):
    for kind in (LegacyClient, OptimizedClient, GoCIClient):
        far.reset()
        client, step = drive(far, kind, arm=[('status', 'open', {'code': 503})], work=slowly)
        assert far.lines(ACC, KEY) == LINES and client.records[0].tries == 2


def test_failed_open_loses_the_log(far):
    for code in (429, 403, 302):
        far.reset()
        _, step = drive(far, LegacyClient, arm=[('status', 'open', {'code': code})], work=slowly)
        assert step.dropped == LINES and far.blob(ACC, KEY) == b''
        assert step.blob_ok and not step.step_failed
    _, step = drive(far, GoCIClient, arm=[('status', 'open', {'code': 429})], work=slowly)
    assert far.blob(ACC, KEY).count(b'\n') == 20


def test_open_that_hangs(far):
    client, step = drive(far, LegacyClient, arm=[('stall', 'open', {})], work=slowly)
    first = client.records[0]
    assert (first.tries, first.error) == (1, 'timeout') and step.dropped == LINES
    assert 0.4 < first.latency < 1.5
    far.reset()
    client, step = drive(far, OptimizedClient, arm=[('stall', 'open', {})], work=slowly)
    assert client.records[0].tries == 2 and far.lines(ACC, KEY) == LINES


def test_java_sends_after_a_failed_open(far):
    _, step = drive(far, JavaDelegateClient, arm=[('status', 'open', {'code': 500})])
    assert step.acked == LINES and far.lines(ACC, KEY) == []
    assert far.state()['records'][ACC + '/' + KEY]['discarded'] == LINES


# -- lines

def test_failed_flush_is_lost_live(far):
    _, step = drive(far, LegacyClient, arm=[('status', 'lines', {'code': 503})], work=slowly)
    assert step.failed and far.lines(ACC, KEY) == step.acked != LINES
    assert far.blob(ACC, KEY).count(b'\n') == 20 and not step.step_failed
    far.reset()
    _, step = drive(far, OptimizedClient, arm=[('status', 'lines', {'code': 503})], work=slowly)
    assert not step.failed and sorted(far.lines(ACC, KEY)) == sorted(LINES)


def test_optimized_duplicates(far):
    _, step = drive(far, OptimizedClient, arm=[('execute_lost', 'lines', {})], work=slowly)
    assert far.state()['records'][ACC + '/' + KEY]['duplicates'] > 0


def test_java_drops_a_failed_push(far):
    _, step = drive(far, JavaDelegateClient, rate=100,
                    arm=[('status', 'lines', {'code': 503, 'skip': 1})], speed=5)
    assert step.failed and far.lines(ACC, KEY) == step.acked
    assert far.blob(ACC, KEY).count(b'\n') == len(step.acked) < 20


def test_java_repeats_on_a_broken_pooled_connection(far):
    _, step = drive(far, JavaDelegateClient, arm=[('execute_lost', 'lines', {'how': 'fin'})])
    assert step.acked == LINES
    assert far.state()['records'][ACC + '/' + KEY]['duplicates'] == 20


# -- blobs

BIG = ['%05d %s\n' % (n, 'x' * 190) for n in range(5000)]


@pytest.mark.parametrize('indirect,call', [(True, 'blob'), (False, 'put-object')])
def test_legacy_overwrites_with_nothing(far, indirect, call):
    client, step = drive(far, LegacyClient, indirect=indirect,
                         arm=[('status', call, {'code': 503})])
    assert far.blob(ACC, KEY) == b'' and step.blob_ok and len(step.blob) > 1000
    upload = [r for r in client.records if r.call in ('blob', 'upload')][0]
    assert upload.sizes == [len(step.blob), 0]
    assert [e['body_len'] for e in far.log(call=call)] == [len(step.blob), 0]


def test_legacy_overwrites_after_a_late_answer(far):
    _, step = drive(far, LegacyClient, indirect=True,
                    arm=[('delay', 'blob', {'seconds': 0.7, 'where': 'after'})])
    assert far.state()['blobs'][ACC + '/' + KEY]['history'] == [
        ['blob', len(step.blob), None], ['blob', 0, None]] and step.blob_ok


def test_legacy_sends_the_rest_after_a_reset(far):
    _, step = drive(far, LegacyClient, BIG, indirect=True,
                    arm=[('reset', 'blob', {'after_bytes': 100000})])
    stored = far.blob(ACC, KEY)
    assert step.blob_ok and len(stored) < len(step.blob) and step.blob.endswith(stored)


def test_legacy_h2_overwrites_too(far_tls, ca):
    _, step = drive(far_tls, LegacyClient, tls=ca.ca, indirect=True,
                    arm=[('rst_stream', 'blob', {'code': 2})])
    assert far_tls.blob(ACC, KEY) == b'' and step.blob_ok


def test_optimized_uploads_whole(far):
    for fault in (('status', 'blob', {'code': 503}), ('reset', 'blob', {}),
                  ('execute_lost', 'blob', {}), ('stall', 'blob', {})):
        far.reset()
        _, step = drive(far, OptimizedClient, BIG, indirect=True, arm=[fault])
        assert far.blob(ACC, KEY) == step.blob and step.blob_ok


@pytest.mark.parametrize('kind', [LegacyClient, OptimizedClient])
@pytest.mark.parametrize('code', [302, 403, 429])
def test_refused_upload_counts_as_success(far, kind, code):
    _, step = drive(far, kind, arm=[('status', 'put-object', {'code': code})])
    assert step.blob_ok and not step.step_failed and far.blob(ACC, KEY) is None


def test_link_failures_fail_the_step(far):
    for fault in (('status', 'link', {'code': 429}), ('stall', 'link', {}),
                  ('corrupt', 'link', {'mode': 'body'}), ('status', 'link', {'code': 204})):
        far.reset()
        _, step = drive(far, LegacyClient, arm=[fault])
        assert step.step_failed and not step.blob_ok and far.blob(ACC, KEY) is None
    far.reset()
    _, step = drive(far, LegacyClient, arm=[('status', 'link', {'code': 503})])
    assert step.blob_ok and far.blob(ACC, KEY) == step.blob


# -- close

def test_close_is_tried_once_by_legacy(far):
    client, step = drive(far, LegacyClient, arm=[('status', 'close', {'code': 503})])
    assert [r.tries for r in client.records if r.call == 'close'] == [1]
    assert far.state()['streams'] and not step.step_failed


def test_optimized_spends_a_minute_on_a_lost_close(far):
    client, step = drive(far, OptimizedClient, speed=60, arm=[('execute_lost', 'close', {})])
    record = [r for r in client.records if r.call == 'close'][0]
    assert not record.ok and record.status == 500 and record.tries > 4
    assert 0.3 < record.latency < 2


def test_snapshot_and_flush_only_steps(far):
    drive(far, LegacyClient, work=slowly, step={'skip_open': True})
    assert [e['call'] for e in far.log()][-1] == 'close'
    assert far.log()[-1]['target'].endswith('&snapshot=true') and not seen(far, 'link')
    far.reset()
    drive(far, LegacyClient, work=slowly, step={'skip_close': True})
    assert not seen(far, 'close') and not seen(far, 'link') and far.state()['streams']


def test_close_can_overtake_the_open(far):
    async def work(client, step):
        step.start()
        await aside(far.wait, lambda h: h.counts()['started'].get('open'))
        step.write('short\n')
        await step.close()
        await aside(far.clear_faults)
        await step.settle()

    drive(far, LegacyClient, work=work, arm=[('hold', 'open', {})], hurry=1)
    assert far.state()['streams'] and far.lines(ACC, KEY) == []
    assert far.blob(ACC, KEY).count(b'\n') == 1


# -- limits, outage, proxy

def test_history_and_line_limits(far):
    long = 'y' * (MAX_LINE + 5000) + '\n'
    lines = [long] + ['%06d %s\n' % (n, 'z' * 1000) for n in range(5500)]
    _, step = drive(far, LegacyClient, lines, indirect=True)
    assert step.written[0] == 'y' * MAX_LINE + CUT
    stored = far.blob(ACC, KEY)
    assert HISTORY - 2000 < len(stored) <= HISTORY and b'005499' in stored
    assert b'"000000 ' not in stored


def test_outage_and_return(far):
    async def work(client, step):
        await step.start()
        step.write('one\n')
        await aside(far.wait, lambda h: h.lines(ACC, KEY) == ['one\n'])
        loop = asyncio.get_running_loop()
        await aside(far.stop)
        loop.call_later(0.3, lambda: loop.run_in_executor(None, far.start))
        step.write('two\n')
        await step.close()

    _, step = drive(far, OptimizedClient, work=work)
    assert far.lines(ACC, KEY) == ['one\n', 'two\n'] and far.blob(ACC, KEY) == step.blob


async def tiny_proxy(seen):
    """CONNECT and absolute form, just enough."""
    async def pump(reader, writer):
        try:
            while True:
                data = await reader.read(65536)
                if not data:
                    break
                writer.write(data)
                await writer.drain()
        except OSError:
            pass
        finally:
            writer.close()

    async def serve(reader, writer):
        head = await reader.readuntil(b'\r\n\r\n')
        line = head.split(b'\r\n')[0].decode()
        seen.append(line)
        method, target, _ = line.split(' ')
        address = target if method == 'CONNECT' else target.split('/')[2]
        host, port = address.split(':')
        far_reader, far_writer = await asyncio.open_connection(host, int(port))
        if method == 'CONNECT':
            writer.write(b'HTTP/1.1 200 OK\r\n\r\n')
        else:
            far_writer.write(head.replace(b'http://' + address.encode(), b'', 1))
        await asyncio.gather(pump(reader, far_writer), pump(far_reader, writer))

    return await asyncio.start_server(serve, '127.0.0.1', 0)


@pytest.mark.parametrize('secure', [False, True])
def test_through_a_proxy(far, far_tls, ca, secure):
    target, lines = (far_tls if secure else far), []

    async def go():
        server = await tiny_proxy(lines)
        port = server.sockets[0].getsockname()[1]
        client = LegacyClient(target.log_url, 'tok', speed=SPEED, ca=ca.ca if secure else None,
                              proxy='http://127.0.0.1:%d' % port)
        await client.open(ACC, KEY)
        await client.upload(ACC, KEY, b'blob\n')
        client.close_connections()
        server.close()
        await asyncio.sleep(0.05)

    asyncio.run(go())
    assert target.blob(ACC, KEY) == b'blob\n'
    assert lines[0].startswith('CONNECT ' if secure else 'POST http://')


def test_many_steps_share_a_client(far_tls, ca):
    async def go():
        client = LegacyClient(far_tls.log_url, 'tok', speed=SPEED, ca=ca.ca)
        steps = [client.step(ACC, '%s%d' % (KEY, n)) for n in range(40)]
        begun = time.monotonic()
        for step in steps:
            await step.start()
        for step in steps:
            for line in LINES:
                step.write(line)
        await asyncio.gather(*(step.close() for step in steps))
        client.close_connections()
        await asyncio.sleep(0.01)
        return client, steps, time.monotonic() - begun

    client, steps, took = asyncio.run(go())
    assert all(step.acked == LINES and step.blob_ok for step in steps)
    assert client.transport.dialled == 2 and took < 20      # the service, and the store
    state = far_tls.state(lines=False)
    assert len(state['blobs']) == 40 and not state['streams'] and not state['wipes']
