"""The platform's services, the name server and the repositories, without any gateway."""
import asyncio
import io
import json
import struct
import threading

import pytest
from standin import names, repos
from standin.app import App, Options
from standin.platform import Platform, fetch


def query(name, kind=1):
    labels = b''.join(bytes([len(x)]) + x.encode() for x in name.split('.')) + b'\0'
    return struct.pack('!6H', 7, 0x0100, 1, 0, 0, 0) + labels + struct.pack('!HH', kind, 1)


@pytest.mark.parametrize('name,kind,code,found', [
    ('app.test', 1, 0, ['1.2.3.4']), ('APP.test', 1, 0, ['1.2.3.4']), ('x.wild.test', 1, 0, ['5.6.7.8', '5.6.7.9']),
    ('app.test', 28, 0, []), ('other.test', 1, 3, []), ('wild.test', 1, 3, [])])
def test_names(name, kind, code, found):
    log = io.StringIO()
    out = names.answer(query(name, kind), {'app.test': ['1.2.3.4'], '*.wild.test': ['5.6.7.8', '5.6.7.9']}, log)
    number, flags, questions, answers = struct.unpack('!4H', out[:8])
    assert (number, flags & 15, questions, answers) == (7, code, 1, len(found))
    assert out.endswith(bytes(int(x) for x in found[-1].split('.')) if found else query(name, kind)[-4:])
    assert log.getvalue() == name.lower() + '\n'


def run(work):
    """work(platform) with the services listening; its result."""
    async def main():
        app = App(Options())
        app.listen()
        platform = Platform(app)
        return await work(platform)
    return asyncio.run(main())


class Socket:
    """A delegate that is connected."""

    def __init__(self, account):
        self.info, self.texts = {'open': True, 'account': account}, []

    def text(self, text):
        self.texts.append(json.loads(text))


EXECUTE = '/gateway/pipeline/api/pipeline/execute/demo?accountIdentifier=acct'


def test_an_execution_goes_through_all_services():
    async def work(platform):
        sock = Socket('acct')
        platform.app.delegates.sockets.append(sock)
        platform.payload = {'secret': 'x'}
        status, body = await fetch(platform.ports['gateway'], 'POST', EXECUTE, 'outside', '')
        return status, json.loads(body), sock.texts, platform
    status, body, texts, platform = run(work)
    assert (status, body['data']) == (200, {'planExecutionId': 'exec1'})
    assert [(t['eventType'], t['delegateTaskId']) for t in texts] == [('DelegateTaskEvent', 'task-exec1')]
    assert [(e['from'], e['to']) for e in platform.seen] == [
        ('outside', 'gateway'), ('gateway', 'ng-core'), ('gateway', 'log-service'), ('gateway', 'pipeline'),
        ('pipeline', 'ng-manager'), ('ng-manager', 'dbdevops'), ('ng-manager', 'scm')]
    task = platform.tasks['task-exec1']
    assert task['secret'] == 'x' and task['log_token'] and task['plan']['schema']['schema'] == 'orders'


def test_without_a_delegate_nothing_is_started():
    async def work(platform):
        status, _ = await fetch(platform.ports['gateway'], 'POST', EXECUTE, 'outside', '')
        return status
    assert run(work) == 502


def test_the_registry_asks_for_a_credential():
    class Server:
        name, lock = 'registry', threading.Lock()
        spec = {'users': {'puller': 'pass'}, 'log': '/dev/null'}

    def ask(path, authorization=None):
        handler = repos.Registry.__new__(repos.Registry)
        handler.server, handler.path, handler.command, handler.client_address = Server, path, 'GET', ('127.0.0.1', 1)
        handler.headers = {'Authorization': authorization} if authorization else {}
        handler.request_version, handler.wfile, handler.close_connection = 'HTTP/1.1', io.BytesIO(), False
        handler.requestline = 'GET ' + path
        handler.serve(b'')
        head, _, body = handler.wfile.getvalue().partition(b'\r\n\r\n')
        return int(head.split()[1]), body
    good = 'Basic cHVsbGVyOnBhc3M='
    assert ask('/v2/')[0] == ask('/v2/', 'Basic x')[0] == 401
    status, manifest = ask('/v2/library/builder/manifests/latest', good)
    layer = json.loads(manifest)['layers'][0]
    assert status == 200 and layer['size'] == len(repos.LAYER)
    assert ask('/v2/library/builder/blobs/' + layer['digest'], good) == (200, repos.LAYER)
    assert ask('/v2/library/builder/blobs/sha256:0', good)[0] == 404
