"""The programs of a customer's build network, as far as the network sees them: delegate, lite engine
and step container. Each is a process that says on standard output, a line of JSON at a time, what it
did, and ends when its standard input does.

    python3 -m standin.actors delegate|lite-engine|step REACH.json

REACH says how it gets out: `manager` and `log_url` (URLs); `proxy` for these, `other_proxy` for
everything else (URLs or null); `ca`: what it trusts; `lite_engine`, `step`, `database`: where those
are; `listen`: the address of a server. gRPC messages are JSON in bytes: what is inside is nobody's
business on the way."""
import asyncio
import base64
import concurrent.futures
import hashlib
import json
import os
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import urllib.error
import urllib.request
from urllib.parse import urlsplit

if __package__ in (None, ''):
    sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from standin.clients import JavaDelegateClient, LegacyClient    # noqa: E402

ACCOUNT, DELEGATE = 'acct', 'd1'
ENGINE = '/io.harness.product.ci.engine.proto.LiteEngine/ExecuteStep'
ADDON = '/io.harness.product.ci.addon.proto.Addon/ExecuteStep'
QUERY = ('delegateId=d1&delegateTokenName=default_token&delegateConnectionId=c1'
         '&token=eyJhbGciOiJkaXIi.planted-websocket-token&sequenceNum=1&delegateToken=&version=24.01.82')
AGENT = {'Authorization': 'Delegate eyJhbGciOiJkaXIi.planted-delegate-token', 'accountId': ACCOUNT,
         'delegateId': DELEGATE, 'User-Agent': 'delegate/24.01.82'}
SPEAKING = threading.Lock()


def say(event, **what):
    with SPEAKING:
        print(json.dumps(dict(what, event=event)), flush=True)


class Reach:
    def __init__(self, path):
        with open(path) as config:
            self.__dict__.update(json.load(config))

    def context(self):
        return ssl.create_default_context(cafile=self.ca)

    def call(self, method, url, body=None, headers=(), proxy=None, timeout=20):
        """An HTTPS call with what Python has: (status, body, fields)."""
        proxies = {'https': proxy, 'http': proxy} if proxy else {}
        opener = urllib.request.build_opener(urllib.request.ProxyHandler(proxies),
                                             urllib.request.HTTPSHandler(context=self.context()))
        request = urllib.request.Request(url, body, dict(headers), method=method)
        try:
            with opener.open(request, timeout=timeout) as answer:
                return answer.status, answer.read(), dict(answer.headers)
        except urllib.error.HTTPError as exc:
            return exc.code, exc.read(), dict(exc.headers)

    def tunnel(self, host, port):
        """A TCP connection to there, by the proxy if there is one."""
        if not self.proxy:
            return socket.create_connection((host, port), 10)
        via = urlsplit(self.proxy)
        s = socket.create_connection((via.hostname, via.port), 10)
        s.sendall(b'CONNECT %b:%d HTTP/1.1\r\nHost: %b:%d\r\n\r\n' % (host.encode(), port, host.encode(), port))
        head = b''
        while b'\r\n\r\n' not in head:
            piece = s.recv(1)
            if not piece:
                raise ConnectionError('the proxy closed the connection')
            head += piece
        if not head.startswith(b'HTTP/1.1 200'):
            raise ConnectionError(head.split(b'\r\n')[0].decode())
        return s


def channel(address):
    import grpc
    # As the real ones: in clear, and never by a proxy (HP 3.3).
    return grpc.insecure_channel(address, options=[('grpc.enable_http_proxy', 0),
                                                   ('grpc.max_receive_message_length', -1)])


class Delegate:
    """Hears of a task on its WebSocket, fetches it by HTTPS, does it, says how it went."""

    def __init__(self, reach):
        self.reach = reach

    async def run(self):
        import websockets
        url = urlsplit(self.reach.manager)
        port = url.port or 443
        target = self.reach.manager.replace('https:', 'wss:') + '/stream/delegate/%s?%s' % (ACCOUNT, QUERY)
        sock = await asyncio.to_thread(self.reach.tunnel, url.hostname, port)
        async with websockets.connect(target, sock=sock, ssl=self.reach.context(), server_hostname=url.hostname,
                                      ping_interval=None, compression=None, user_agent_header=None,
                                      extra_headers=list(AGENT.items())) as ws:
            issuer = ws.transport.get_extra_info('peercert')['issuer']
            say('connected', issuer=str(issuer))
            await ws.send(json.dumps({'delegateId': DELEGATE, 'accountId': ACCOUNT, 'lastHeartBeat': 1,
                                      'version': '24.01.82'}))
            running = set()
            async for text in ws:
                event = json.loads(text)
                say('frame', type=event['eventType'])
                if event['eventType'] == 'DelegateTaskEvent':
                    task = asyncio.ensure_future(self.task(event['delegateTaskId']))
                    running.add(task)
                    task.add_done_callback(running.discard)

    def manager(self, method, path, body=None, kind='application/json'):
        return self.reach.call(method, self.reach.manager + '/api/' + path, body,
                               dict(AGENT, **{'Content-Type': kind}), self.reach.proxy)

    async def task(self, number):
        result = {'status': 'FAILED'}
        try:
            status, body, _ = await asyncio.to_thread(
                self.manager, 'PUT', 'agent/delegates/%s/tasks/%s/acquire/v2?accountId=%s&delegateInstanceId=i1'
                % (DELEGATE, number, ACCOUNT))
            say('acquired', status=status)
            payload = json.loads(body)
            result = await self.work(payload)
            status, body, _ = await asyncio.to_thread(
                self.manager, 'POST', 'agent/tasks/%s/delegates/%s/v2?accountId=%s' % (number, DELEGATE, ACCOUNT),
                json.dumps(result).encode(), 'application/x-kryo-v2')
            say('answered', status=status)
        except Exception as exc:                    # the test wants to see it, whatever it is
            say('error', error='%s: %s' % (type(exc).__name__, exc))
        say('done', result=result)

    async def work(self, payload):
        client = JavaDelegateClient(self.reach.log_url, payload['log_token'], ca=self.reach.ca,
                                    proxy=self.reach.proxy)
        log = client.step(ACCOUNT, payload['log_key'] + '/delegate')
        await log.open()
        result = {'status': 'SUCCESS'}
        for name, do in (('git', self.clone), ('image', self.pull), ('engine', self.engine)):
            if name in payload.get('skip', ()):
                continue
            try:
                result[name] = await asyncio.to_thread(do, payload)
            except Exception as exc:
                result[name] = result['status'] = 'FAILED'
                result[name + '_error'] = '%s: %s' % (type(exc).__name__, str(exc)[-300:])
            log.write('%s: done\n' % name)
        await log.close()
        result['log_errors'] = [str(e) for e in log.errors]
        client.close_connections()
        return result

    def clone(self, payload):
        with tempfile.TemporaryDirectory() as directory:
            command = ['git', '-c', 'http.sslCAInfo=' + self.reach.ca]
            if self.reach.other_proxy:
                command += ['-c', 'http.proxy=' + self.reach.other_proxy]
            env = {'PATH': os.environ['PATH'], 'HOME': directory, 'GIT_CONFIG_NOSYSTEM': '1',
                   'GIT_TERMINAL_PROMPT': '0'}
            done = subprocess.run(command + ['clone', '-q', payload['git'], directory + '/x'], env=env,
                                  capture_output=True, text=True, timeout=30)
            if done.returncode:
                raise RuntimeError(done.stderr)
            with open(directory + '/x/changelog.sql') as sql:
                return hashlib.sha256(sql.read().encode()).hexdigest()

    def pull(self, payload):
        """An image's manifest and its layer, with the credential of the payload's .dockercfg."""
        (registry, entry), = json.loads(base64.b64decode(payload['dockercfg'])).items()
        fields = {'Authorization': 'Basic ' + entry['auth']}
        base = '%s/v2/library/builder' % registry
        status, manifest, _ = self.reach.call('GET', base + '/manifests/latest', None, fields, self.reach.other_proxy)
        if status != 200:
            raise RuntimeError('manifest: %d' % status)
        wanted = json.loads(manifest)['layers'][0]['digest']
        status, layer, _ = self.reach.call('GET', base + '/blobs/' + wanted, None, fields, self.reach.other_proxy)
        if status != 200 or 'sha256:' + hashlib.sha256(layer).hexdigest() != wanted:
            raise RuntimeError('layer: %d, %d bytes' % (status, len(layer)))
        return wanted

    def engine(self, payload):
        with channel(self.reach.lite_engine) as c:
            order = json.dumps({k: payload.get(k) for k in ('log_key', 'log_token', 'indirect', 'sql', 'secret', 'speed')})
            answer = json.loads(c.unary_unary(ENGINE)(order.encode(), timeout=payload.get('patience', 40), wait_for_ready=True,
                                                      metadata=[('x-execution', payload['execution'])]))
        if answer['status'] != 'SUCCESS':
            raise RuntimeError(str(answer))
        return answer


def serve(address, method, work):
    """A gRPC server with the one method; `work(request)` yields or returns answers."""
    import grpc
    service, _, name = method[1:].rpartition('/')
    stream = method == ADDON
    make = grpc.unary_stream_rpc_method_handler if stream else grpc.unary_unary_rpc_method_handler
    server = grpc.server(concurrent.futures.ThreadPoolExecutor(8))
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(service, {name: make(work)})])
    server.add_insecure_port(address)
    server.start()
    say('listening', address=address)
    sys.stdin.read()
    server.stop(0).wait(5)


def lite_engine(reach):
    def execute(body, context):
        order = json.loads(body)
        say('execute', peer=context.peer())
        return json.dumps(asyncio.run(run(order))).encode()

    async def run(order):
        client = LegacyClient(reach.log_url, order['log_token'], ca=reach.ca, proxy=reach.proxy,
                              indirect=order['indirect'], speed=order['speed'] or 1)
        log = client.step(ACCOUNT, order['log_key'])
        await log.start()
        lines = await asyncio.to_thread(step, order)
        for line in lines:
            # Secrets are masked before anything leaves the process (HP 2.3).
            log.write(line.replace(order['secret'], '**************'))
        failed = await log.close()
        await log.settle()
        answer = {'status': 'FAILED' if failed or log.errors else 'SUCCESS', 'lines': len(lines),
                  'errors': [str(e) for e in log.errors], 'outcomes': client.outcomes(),
                  'written': log.written}
        client.close_connections()
        say('executed', **answer)
        return answer

    def step(order):
        with channel(reach.step) as c:
            answers = c.unary_stream(ADDON)(json.dumps({'sql': order['sql'], 'secret': order['secret']}).encode(),
                                            timeout=30, wait_for_ready=True)
            return [line.decode() for line in answers]

    serve(reach.listen, ENGINE, execute)


def step_container(reach):
    def execute(body, context):
        order = json.loads(body)
        say('execute', peer=context.peer())
        yield ('+ psql with password %s\n' % order['secret']).encode()
        done = subprocess.run(['psql', '-X', '-At', '-v', 'ON_ERROR_STOP=1', '-d', reach.database],
                              input=order['sql'], capture_output=True, text=True, timeout=20)
        for line in (done.stdout + done.stderr).splitlines():
            yield (line + '\n').encode()
        say('sql', status=done.returncode)
        if done.returncode:
            import grpc
            context.abort(grpc.StatusCode.INTERNAL, 'psql: %d' % done.returncode)

    serve(reach.listen, ADDON, execute)


def main(kind, path):
    reach = Reach(path)
    if kind == 'delegate':
        threading.Thread(target=lambda: (sys.stdin.read(), os._exit(0)), daemon=True).start()
        try:
            asyncio.run(Delegate(reach).run())
        except Exception as exc:
            say('error', error='%s: %s' % (type(exc).__name__, exc))
        say('gone')
    elif kind == 'lite-engine':
        lite_engine(reach)
    else:
        step_container(reach)


if __name__ == '__main__':
    main(*sys.argv[1:3])
