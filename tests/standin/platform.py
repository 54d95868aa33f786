"""The services behind app.harness.io that a build's way leads through, besides the log service:
gateway, NG core, pipeline service, NG manager, DB DevOps and SCM service, and the delegate service's
tasks (HP 4.3). Each has a port of its own and calls the others over HTTP, so that what is recorded
is what was really sent. As a program it is the whole far side of a deployment:

    PYTHONPATH=tests python3 -m standin.platform CONFIG.json

prints one line of JSON when it is ready and serves until its standard input ends. CONFIG: `address`
and `port` of the platform, `store_address`, `store_port`, `store_name`, `certificate`, `key`,
`options` (as for app.Options), `client_ca`: the account's own CA, whose certificates the vanity host
asks for on port 8443 (HP 4.6)."""
import asyncio
import json
import os
import re
import sys
import time

if __package__ in (None, ''):
    sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from standin import gojson                              # noqa: E402
from standin.app import App, Options                    # noqa: E402
from standin.control import Control, _json              # noqa: E402
from standin.harness import server_tls                  # noqa: E402
from standin.web import Listener                        # noqa: E402

PREFIXES = {'/gateway/': 'gateway', '/ng/api/': 'ng-core', '/pipeline-service/': 'pipeline',
            '/ng-manager/': 'ng-manager', '/dbdevops/': 'dbdevops', '/scm/': 'scm'}
ACQUIRE = re.compile(r'/api/agent/delegates/([^/]+)/tasks/([^/]+)/acquire/v2$')
RESPONSE = re.compile(r'/api/agent/tasks/([^/]+)/delegates/([^/]+)/v2$')


class Refused(Exception):
    def __init__(self, status, text):
        super().__init__(text)
        self.status = status


async def fetch(port, method, target, caller, execution, body=b'', headers=()):
    """One call between services: (status, body)."""
    reader, writer = await asyncio.open_connection('127.0.0.1', port)
    lines = ['%s %s HTTP/1.1' % (method, target), 'Host: 127.0.0.1:%d' % port, 'Connection: close',
             'X-Caller: ' + caller, 'X-Execution: ' + execution, 'Content-Length: %d' % len(body)]
    lines += ['%s: %s' % pair for pair in headers]
    writer.write('\r\n'.join(lines + ['', '']).encode() + body)
    try:
        answer = await asyncio.wait_for(reader.read(), 20)
    finally:
        writer.close()
    head, _, data = answer.partition(b'\r\n\r\n')
    return int(head.split(b' ', 2)[1]), data


class Platform:
    """All services; `seen` has one entry for each call, in order of arrival."""

    def __init__(self, app):
        self.app = app
        self.seen, self.tasks, self.responses, self.states = [], {}, [], {}
        self.payload = {}               # what a task carries; set by the test
        self.executions = 0
        self.ports = {}
        for name in ('gateway', 'ng-core', 'pipeline', 'ng-manager', 'dbdevops', 'scm'):
            self.open(name, self.handler(name))
        self.open('log-service', self.log_service)
        self.names = {port: name for name, port in self.ports.items()}

    def open(self, name, handler):
        listener = Listener(handler)
        listener.open()
        self.ports[name] = listener.port

    def note(self, req, service):
        entry = {'at': time.time(), 'from': req.get('x-caller', 'outside'), 'to': service,
                 'method': req.method, 'target': req.target, 'execution': req.get('x-execution', ''),
                 'headers': req.headers, 'version': req.version, 'tls': req.tls,
                 'peer_cert': req.peer_cert}
        self.seen.append(entry)
        return entry

    # -- the edge: one name, many services

    async def edge(self, req):
        """What app.harness.io itself does: choose by path. Whoever calls in is "outside"."""
        path = req.path
        for prefix, service in PREFIXES.items():
            if path.startswith(prefix):
                body = await req.read()
                credentials = [(k, v) for k, v in req.headers if k.lower() in ('authorization', 'x-api-key')]
                status, data = await fetch(self.ports[service], req.method, req.target, 'outside', '',
                                           body, credentials)
                await req.respond(status, [('Content-Type', 'application/json')], data)
                return
        acquire, response = ACQUIRE.search(path), RESPONSE.search(path)
        if acquire and req.method == 'PUT':
            self.note(req, 'delegate-service')
            await self.acquire(req, acquire.group(2))
        elif response and req.method == 'POST':
            self.note(req, 'delegate-service')
            await self.response(req, response.group(1))
        else:
            await self.app.handle(req)

    async def log_service(self, req):
        self.note(req, 'log-service')
        await self.app.handle(req)

    async def acquire(self, req, task):
        await req.read()
        if task not in self.tasks:
            await req.respond(404, (), b'')
            return
        await req.respond(200, [('Content-Type', 'application/x-kryo-v2')],
                          json.dumps(self.tasks[task]).encode())

    async def response(self, req, task):
        body = json.loads(await req.read())
        self.responses.append(dict(body, task=task))
        execution = self.tasks[task]['execution']
        self.states[execution] = body.get('status', 'FAILED')
        await req.respond(200, [('Content-Type', 'application/json')], b'{}')

    # -- the services

    def handler(self, name):
        work = getattr(self, name.replace('-', '_'))

        async def handle(req):
            self.note(req, name)
            body = await req.read()
            try:
                answer = await work(req, json.loads(body) if body else {})
                status, data = 200, json.dumps(answer).encode()
            except Refused as exc:
                status, data = exc.status, json.dumps({'message': str(exc)}).encode()
            await req.respond(status, [('Content-Type', 'application/json')], data)
        return handle

    async def ask(self, caller, service, method, target, execution, spec=None, headers=()):
        """A call between services that must succeed; what it answered, decoded if it is JSON."""
        status, data = await fetch(self.ports[service], method, target, caller, execution,
                                   json.dumps(spec).encode() if spec is not None else b'', headers)
        if status != 200:
            raise Refused(502, '%s answered %d' % (service, status))
        try:
            return json.loads(data)
        except ValueError:
            return data.decode()

    async def gateway(self, req, spec):
        """What browsers talk to: starts pipelines, tells how they go."""
        params = gojson.query(req.query)
        found = re.search(r'/pipelines/execution/([^/]+)$', req.path)
        if found:
            return {'status': self.states.get(found.group(1), 'NOT_FOUND')}
        if req.method != 'POST' or '/pipeline/execute/' not in req.path:
            return {'service': 'gateway', 'path': req.path}
        account = params.get('accountIdentifier', '')
        self.executions += 1
        execution = 'exec%d' % self.executions
        await self.ask('gateway', 'ng-core', 'GET', '/ng/api/user/currentUser?accountIdentifier='
                       + account, execution)
        token = await self.ask('gateway', 'log-service', 'GET', '/log-service/token?accountID=' + account,
                               execution, headers=[('x-api-key', 'inside')])
        await self.ask('gateway', 'pipeline', 'POST', '/pipeline-service/api/pipeline/execute', execution,
                       {'account': account, 'log_token': token, 'pipeline': req.path.rsplit('/', 1)[-1]})
        return {'status': 'SUCCESS', 'data': {'planExecutionId': execution}}

    async def pipeline(self, req, spec):
        execution = req.get('x-execution', '')
        if 'account' not in spec:
            return {'service': 'pipeline'}
        plan = await self.ask('pipeline', 'ng-manager', 'POST', '/ng-manager/api/plan', execution, spec)
        task = 'task-' + execution
        self.tasks[task] = dict(self.payload, execution=execution, log_token=spec['log_token'],
                                account=spec['account'], plan=plan)
        self.states[execution] = 'RUNNING'
        self.announce(spec['account'], task)
        return {'task': task}

    def announce(self, account, task):
        """Only the notice travels on the socket (HP 4.2)."""
        text = json.dumps({'eventType': 'DelegateTaskEvent', 'accountId': account, 'delegateTaskId': task,
                           'sync': False}, separators=(',', ':'))
        open_ones = [s for s in self.app.delegates.sockets
                     if s.info['open'] and s.info['account'] == account]
        if not open_ones:
            raise Refused(503, 'no delegate is connected')
        open_ones[-1].text(text)

    async def ng_core(self, req, spec):
        return {'service': 'ng-core', 'user': 'ui'}

    async def ng_manager(self, req, spec):
        execution = req.get('x-execution', '')
        if 'pipeline' not in spec:
            return {'service': 'ng-manager'}
        schema = await self.ask('ng-manager', 'dbdevops', 'GET', '/dbdevops/v1/schema/orders', execution)
        files = await self.ask('ng-manager', 'scm', 'POST', '/scm/file', execution, {'path': 'changelog.sql'})
        return {'schema': schema, 'files': files}

    async def dbdevops(self, req, spec):
        return {'service': 'dbdevops', 'schema': 'orders'}

    async def scm(self, req, spec):
        return {'service': 'scm', 'path': spec.get('path')}


class PlatformControl(Control):
    """The control port, with what the services add."""

    def __init__(self, app, platform):
        super().__init__(app)
        self.platform = platform
        self.routes[('GET', '/seen')] = lambda query, spec: _json(platform.seen)
        self.routes[('GET', '/responses')] = lambda query, spec: _json(platform.responses)
        self.routes[('POST', '/payload')] = self.payload
        self.routes[('POST', '/forget')] = self.forget

    def payload(self, query, spec):
        self.platform.payload = spec
        return _json({})

    def forget(self, query, spec):
        del self.platform.seen[:], self.platform.responses[:]
        return _json({})


def listeners(spec):
    """(app, control): everything bound, as CONFIG says."""
    options = Options()
    options.update(spec.get('options', {}))
    app = App(options)
    platform = Platform(app)
    tls = server_tls(spec['certificate'], spec['key'])
    app.main = Listener(platform.edge, tls, spec['address'], spec.get('port', 443))
    app.stores = Listener(app.handle_store, server_tls(spec['certificate'], spec['key']),
                          spec['store_address'], spec.get('store_port', 443))
    app.main.open()
    app.stores.open()
    if 'client_ca' in spec:
        strict = server_tls(spec['certificate'], spec['key'], client_ca=spec['client_ca'], require=True)
        platform.vanity = Listener(platform.edge, strict, spec['address'], 8443)
        platform.vanity.open()
    app.configured()
    app.store.base = 'https://' + spec['store_name']
    control = Listener(PlatformControl(app, platform).handle)
    control.open()
    return app, control


async def serve(spec):
    _, control = listeners(spec)
    print(json.dumps({'control_port': control.port}), flush=True)
    done = asyncio.Event()
    asyncio.get_running_loop().add_reader(0, done.set)
    await done.wait()


if __name__ == '__main__':
    with open(sys.argv[1]) as config:
        asyncio.run(serve(json.load(config)))
