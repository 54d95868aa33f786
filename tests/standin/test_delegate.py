"""The delegate WebSocket of the stand-in, spoken to with python3-websockets."""
import asyncio
import json

import pytest
import websockets

PATH = '/gratis/stream/delegate/acct0?delegateId=d1&token=jwe.a%2Fb&version=1.0&x=%20+'
HEADERS = {'accountId': 'acct0', 'delegateId': 'd1', 'User-Agent': 'delegate/1.0'}


def session(far, work, **more):
    """Runs work(socket) over one delegate connection and returns what it returns."""
    async def go():
        url = far.url.replace('http', 'ws') + PATH
        async with websockets.connect(url, extra_headers=HEADERS, compression=None,
                                      ping_interval=None, close_timeout=2, **more) as sock:
            return await work(sock)
    return asyncio.run(go())


def only(far):
    found = far.state()['ws']
    assert len(found) == 1
    return found[0]


async def off(function, *args, **more):
    """A blocking control call beside the loop."""
    return await asyncio.get_running_loop().run_in_executor(None, lambda: function(*args, **more))


def test_upgrade_is_recorded(far):
    async def work(sock):
        assert sock.subprotocol == 'one'
        return await sock.send('hello') or await sock.recv()

    assert session(far, work, subprotocols=['one', 'two']) == 'hello'
    info = only(far)
    assert info['target'] == PATH and info['account'] == 'acct0'
    assert ['accountId', 'acct0'] in info['headers']
    assert info['messages'][0]['text'] == 'hello'
    assert far.log()[0]['status'] == 101 and far.log()[0]['call'] == 'ws'
    far.wait(lambda h: only(h)['closed'])
    assert only(far)['closed'] == {'how': 'close', 'code': 1000, 'reason': ''}


def test_heartbeat_gets_its_response(far):
    async def work(sock):
        await sock.send(json.dumps({'delegateId': 'd1', 'lastHeartBeat': 1, 'token': 't'}))
        return await sock.recv()

    answer = session(far, work)
    assert answer.startswith('{"eventType":"DelegateHeartbeatResponseStreaming"')
    assert json.loads(answer)['delegateId'] == 'd1'


def test_events_and_boundaries(far):
    async def work(sock):
        await off(far.ws, account='acct0', event='task')
        await off(far.ws, account='acct0', event='abort', frames=3)
        await off(far.ws, account='acct0', send='x' * 10240, ping=True)
        got = [await sock.recv() for _ in range(3)]
        await sock.send([b'ab', b'c', b'def'])
        return got + [await sock.recv()]

    task, abort, big, back = session(far, work, max_size=None)
    assert task.startswith('{"eventType":"DelegateTaskEvent"')
    assert abort.startswith('{"eventType":"DelegateTaskAbortEvent"')
    assert len(big) == 10240 and back == b'abcdef'
    info = only(far)
    assert info['messages'][0]['kind'] == 'binary'
    assert [size for size in info['messages'][0]['frames'] if size] == [2, 1, 3]
    assert info['pongs'] == 1


@pytest.mark.parametrize('order,code', [({'close': {'code': 4001, 'reason': 'go'}}, 4001),
                                        ({'fin': True}, 1006), ({'abort': True}, 1006)])
def test_far_side_ends_it(far, order, code):
    async def work(sock):
        await off(far.ws, account='acct0', **order)
        with pytest.raises(websockets.ConnectionClosed) as caught:
            await sock.recv()
        return caught.value.rcvd.code if caught.value.rcvd else 1006

    assert session(far, work) == code
    far.wait(lambda h: not only(h)['open'])


@pytest.mark.parametrize('abort,how', [(False, 'fin'), (True, 'abrupt')])
def test_near_side_vanishes(far, abort, how):
    async def work(sock):
        if abort:
            import socket as so
            import struct
            sock.transport.get_extra_info('socket').setsockopt(
                so.SOL_SOCKET, so.SO_LINGER, struct.pack('ii', 1, 0))
        sock.transport.abort()

    session(far, work)
    far.wait(lambda h: not only(h)['open'])
    assert only(far)['closed']['how'] == how


def test_refused_upgrade(far):
    async def work(sock):
        return None

    far.fault('status', 'ws', code=403)
    with pytest.raises(websockets.InvalidStatusCode) as caught:
        session(far, work)
    assert caught.value.status_code == 403
    session(far, work)
    with pytest.raises(RuntimeError):
        far.ws(account='acct0', send='nobody there')


def test_over_tls(far_tls, ca):
    import ssl
    context = ssl.create_default_context(cafile=ca.ca)

    async def work(sock):
        await sock.send('ü' * 100)
        return await sock.recv()

    assert session(far_tls, work, ssl=context) == 'ü' * 100
    assert only(far_tls)['messages'][0]['frames'] == [200]
