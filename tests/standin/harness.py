"""The stand-in Harness as a program, and `Harness`, with which a test starts and steers one.

    PYTHONPATH=tests python3 -m standin.harness --tls-cert X --tls-key Y

prints one line of JSON with its ports when it is ready, and serves until SIGTERM."""
import argparse
import asyncio
import http.client
import json
import os
import signal
import ssl
import subprocess
import sys
import threading
import time
from urllib.parse import quote, urlencode

if __package__ in (None, ''):
    sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from standin.app import App, Options                # noqa: E402
from standin.control import Control                 # noqa: E402
from standin.web import Listener                    # noqa: E402


def server_tls(cert, key, alpn=('h2', 'http/1.1'), client_ca=None, require=False):
    """A server context; `client_ca` asks for a client certificate, `require` insists."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    context.set_alpn_protocols(list(alpn))
    if client_ca:
        context.load_verify_locations(client_ca)
        context.verify_mode = ssl.CERT_REQUIRED if require else ssl.CERT_OPTIONAL
    return context


def arguments(argv=None):
    parser = argparse.ArgumentParser(prog='standin.harness', description=__doc__.split('\n')[0])
    parser.add_argument('--host', default='127.0.0.1')
    parser.add_argument('--port', type=int, default=0, help='log service, manager, WebSocket')
    parser.add_argument('--store-port', type=int, default=0)
    parser.add_argument('--control-port', type=int, default=0)
    parser.add_argument('--tls-cert', help='with --tls-key: TLS on the main port')
    parser.add_argument('--tls-key')
    parser.add_argument('--store-tls', action='store_true', help='the same TLS on the store port')
    parser.add_argument('--client-ca', help='ask clients of the main port for a certificate')
    parser.add_argument('--require-client-cert', action='store_true')
    parser.add_argument('--alpn', default='h2,http/1.1')
    parser.add_argument('--watch-stdin', action='store_true', help='end when stdin does')
    parser.add_argument('--config', default='{}', help='JSON of options, as for POST /config')
    return parser.parse_args(argv)


async def build(args):
    """An App with its three listeners; returns (app, ports)."""
    options = Options()
    options.update(json.loads(args.config))
    app = App(options)
    tls = store_tls = None
    if args.tls_cert:
        tls = server_tls(args.tls_cert, args.tls_key, args.alpn.split(','), args.client_ca,
                         args.require_client_cert)
        if args.store_tls:
            store_tls = server_tls(args.tls_cert, args.tls_key, args.alpn.split(','))
    app.listen(args.host, args.port, args.store_port, tls, store_tls)
    control = Listener(Control(app).handle, None, args.host, args.control_port)
    control.open()
    app.control = control
    return app, {'host': args.host, 'port': app.main.port, 'store_port': app.stores.port,
                 'control_port': control.port, 'tls': bool(tls), 'store_tls': bool(store_tls)}


async def serve(args, ready, stop):
    app, ports = await build(args)
    ready(ports)
    await stop(app)
    for listener in (app.main, app.stores, app.control):
        listener.shut()
        listener.placeholder.close()


def main(argv=None):
    args = arguments(argv)

    async def until_signal(app):
        done = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, done.set)
        if args.watch_stdin:
            asyncio.get_running_loop().add_reader(0, done.set)
        await done.wait()

    asyncio.run(serve(args, lambda ports: print(json.dumps(ports), flush=True),
                      until_signal))


class Harness:
    """A running stand-in. `inprocess=True` runs it in a thread instead of a process of its own.

    Keyword arguments: tls=(cert, key), store_tls, client_ca, require_client_cert, alpn, and
    everything in app.Options. Usable as a context manager. Calls raise on control errors."""

    nursery = None          # a nursery.Nursery: processes are forked by it instead of loaded anew

    def __init__(self, inprocess=False, tls=None, store_tls=False, client_ca=None,
                 require_client_cert=False, alpn='h2,http/1.1', port=0, store_port=0,
                 host='127.0.0.1', **options):
        argv = ['--host', host, '--port', str(port), '--store-port', str(store_port),
                '--alpn', alpn, '--config', json.dumps(options)]
        if tls:
            argv += ['--tls-cert', str(tls[0]), '--tls-key', str(tls[1])]
        if store_tls:
            argv.append('--store-tls')
        if client_ca:
            argv += ['--client-ca', str(client_ca)]
        if require_client_cert:
            argv.append('--require-client-cert')
        self.process = self.thread = None
        self._local = threading.local()
        ports = self._start_thread(argv) if inprocess else self._start_process(argv)
        self.host, self.port = ports['host'], ports['port']
        self.store_port, self.control_port = ports['store_port'], ports['control_port']
        self.url = '%s://%s:%d' % ('https' if ports['tls'] else 'http', self.host, self.port)
        self.log_url = self.url + '/log-service'
        self.store_url = '%s://%s:%d' % ('https' if ports['store_tls'] else 'http', self.host,
                                         self.store_port)

    def _start_process(self, argv):
        argv = ['--watch-stdin'] + argv
        if Harness.nursery:
            self.process = Harness.nursery.start(argv)
        else:
            env = dict(os.environ)
            tests = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
            env['PYTHONPATH'] = tests + os.pathsep + env.get('PYTHONPATH', '')
            self.process = subprocess.Popen([sys.executable, '-m', 'standin.harness'] + argv,
                                            stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=env)
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError('the stand-in did not start')
        return json.loads(line)

    def _start_thread(self, argv):
        box, ready = {}, threading.Event()

        async def until_closed(app):
            box['loop'], box['done'] = asyncio.get_running_loop(), asyncio.Event()
            self.app = app
            ready.set()
            await box['done'].wait()

        def run():
            asyncio.run(serve(arguments(argv), lambda ports: box.update(ports=ports),
                              until_closed))

        self.thread = threading.Thread(target=run, daemon=True, name='standin')
        self.thread.start()
        if not ready.wait(10):
            raise RuntimeError('the stand-in did not start')
        self._box = box
        return box['ports']

    def close(self):
        """Ends it for good."""
        if self.process is not None:
            self.process.terminate()
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
            self.process.stdin.close()
            self.process.stdout.close()
            self.process = None
        elif self.thread is not None:
            self._box['loop'].call_soon_threadsafe(self._box['done'].set)
            self.thread.join(10)
            self.thread = None

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.close()

    # -- control

    def call(self, method, path, spec=None, raw=False):
        """One control call; returns its JSON (or bytes). Connections are kept per thread."""
        body = None if spec is None else json.dumps(spec)
        for attempt in (0, 1):
            conn = getattr(self._local, 'conn', None)
            if conn is None:
                conn = self._local.conn = http.client.HTTPConnection(
                    self.host, self.control_port, timeout=60)
            try:
                conn.request(method, path, body)
                answer = conn.getresponse()
                data = answer.read()
                break
            except (OSError, http.client.HTTPException):
                conn.close()
                self._local.conn = None
                if attempt:
                    raise
        if answer.status != 200:
            raise RuntimeError('%s %s: %d %s' % (method, path, answer.status, data[:300]))
        return data if raw else json.loads(data)

    def fault(self, kind, call='any', count=1, skip=0, match=None, **args):
        """Arms a fault; count None means always. key=, account= go into the match, the rest into
        the kind's arguments. Returns its id."""
        match = dict(match or {}, call=call)
        for name in ('key', 'account', 'target', 'token', 'version', 'header', 'method'):
            if name in args:
                match[name] = args.pop(name)
        spec = {'kind': kind, 'match': match, 'args': args, 'skip': skip,
                'count': 'always' if count is None else count}
        return self.call('POST', '/faults', spec)['ids'][0]

    def faults(self):
        return self.call('GET', '/faults')

    def clear_faults(self, number=None):
        self.call('DELETE', '/faults' + ('' if number is None else '?id=%d' % number))

    def state(self, key=None, lines=True):
        query = {'lines': '1' if lines else '0'}
        if key is not None:
            query['key'] = key
        return self.call('GET', '/state?' + urlencode(query))

    def counts(self):
        """Cheap to poll: lines per stream name, blob sizes, requests by call and status."""
        return self.call('GET', '/counts')

    def log(self, call=None, since=0, key=None):
        """Recent requests, oldest first."""
        query = {'since': since}
        if call:
            query['call'] = call
        if key:
            query['key'] = key
        return self.call('GET', '/log?' + urlencode(query))

    def clear_log(self):
        self.call('DELETE', '/log')

    def lines(self, account, key, full=False):
        """Every line ever stored in a stream, in order: texts, or whole lines."""
        found = self.call('GET', '/lines?name=' + quote(account + '/' + key, safe=''))
        return found if full else [line['out'] for line in found]

    def blob(self, account, key, inflate=True):
        """Content of a blob, or None; inflate=False gives the bytes as they are stored."""
        name = quote(account + '/' + key, safe='')
        try:
            return self.call('GET', '/blob-bytes?name=%s%s'
                             % (name, '&inflate=1' if inflate else ''), raw=True)
        except RuntimeError as exc:
            if ': 404 ' in str(exc):
                return None
            raise

    def advance(self, seconds):
        return self.call('POST', '/clock', {'advance': seconds})

    def tokens(self, **lists):
        """bad=[...], expired=[...], good=[...], accounts={token: account}, clear=True"""
        self.call('POST', '/tokens', lists)

    def foreign(self, account, key, **what):
        """SaaS's own hand: write=[...], close=True, prefix=True, snapshot=True, after=0.5"""
        return self.call('POST', '/foreign', dict(what, account=account, key=key))

    def config(self, **options):
        self.call('POST', '/config', options)

    def ws(self, **order):
        return self.call('POST', '/ws', order)

    def link(self, name, method='PUT'):
        return self.call('POST', '/link', {'name': name, 'method': method})['link']

    def reset(self):
        self.call('POST', '/reset', {})

    def replay(self, journal, until):
        """Does what another stand-in's journal says, up to that mark."""
        return self.call('POST', '/replay', {'journal': str(journal), 'until': until})['calls']

    def stop(self, main=True, store=True, drop=True):
        """An outage: the ports refuse connections, the ones there are get reset (drop='requests':
        but for WebSockets); state is kept."""
        self._listeners('shut', main, store, drop)

    def start(self, main=True, store=True):
        self._listeners('open', main, store, False)

    def hang(self, main=True, store=True):
        """New connections are accepted by the kernel and then ignored, until speak()."""
        self._listeners('hang', main, store, False)

    def speak(self, main=True, store=True):
        self._listeners('speak', main, store, False)

    def alert(self, main=True, store=True):
        """TLS handshakes fail with an alert, until greet()."""
        self._listeners('alert', main, store, False)

    def greet(self, main=True, store=True):
        self._listeners('greet', main, store, False)

    def _listeners(self, order, main, store, drop):
        spec = {'drop': drop}
        if main:
            spec['main'] = order
        if store:
            spec['store'] = order
        self.call('POST', '/listeners', spec)

    def wait(self, condition, timeout=10.0, what='condition', every=0.02):
        """Polls `condition(self)` until it is true; returns its value; raises AssertionError."""
        end = time.monotonic() + timeout
        while True:
            value = condition(self)
            if value:
                return value
            if time.monotonic() > end:
                raise AssertionError('%s not met within %.1f s' % (what, timeout))
            time.sleep(every)


if __name__ == '__main__':
    main()
