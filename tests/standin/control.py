"""The control port: a small JSON API with which a test steers and questions the stand-in."""
import asyncio
import collections
import hashlib
import json

from . import gojson, journal
from .store import ObjectStore


def _json(value, status=200):
    return status, [('Content-Type', 'application/json')], json.dumps(value).encode()


class Control:
    def __init__(self, app):
        self.app = app
        self.tasks = set()
        self.routes = {
            ('GET', '/ping'): lambda q, b: _json({'ok': True}),
            ('GET', '/faults'): self.faults_list, ('POST', '/faults'): self.faults_add,
            ('DELETE', '/faults'): self.faults_clear,
            ('GET', '/state'): self.state, ('GET', '/counts'): self.counts,
            ('GET', '/log'): self.log,
            ('DELETE', '/log'): self.log_clear, ('GET', '/lines'): self.lines,
            ('GET', '/blob-bytes'): self.blob_bytes, ('POST', '/clock'): self.clock,
            ('POST', '/tokens'): self.tokens, ('POST', '/foreign'): self.foreign,
            ('POST', '/config'): self.config, ('POST', '/listeners'): self.listeners,
            ('POST', '/reset'): self.reset, ('POST', '/ws'): self.ws,
            ('POST', '/link'): self.link, ('POST', '/replay'): self.replay}

    async def handle(self, req):
        body = await req.read()
        route = self.routes.get((req.method, req.path))
        if route is None:
            await req.respond(*_json({'error': 'no such control call'}, 404))
            return
        try:
            spec = json.loads(body) if body else {}
            result = route(gojson.query(req.query), spec)
            if asyncio.iscoroutine(result):
                result = await result
        except (ValueError, KeyError, TypeError) as exc:
            result = _json({'error': '%s: %s' % (type(exc).__name__, exc)}, 400)
        await req.respond(*result)

    def later(self, coroutine):
        task = asyncio.get_running_loop().create_task(coroutine)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    # -- faults

    def faults_list(self, query, spec):
        known = self.app.faults
        return _json({'armed': [f.dump() for f in known.armed],
                      'spent': [f.dump() for f in known.spent]})

    def faults_add(self, query, spec):
        numbers = []
        for one in spec if isinstance(spec, list) else [spec]:
            if one.get('kind') == 'refuse':
                args = one.get('args', {})
                self.app.refuse(args.get('seconds', 1), args.get('which', ('main', 'store')),
                                args.get('drop', True))
                numbers.append(0)
                continue
            numbers.append(self.app.faults.add(one).number)
        return _json({'ids': numbers})

    def faults_clear(self, query, spec):
        self.app.faults.clear(int(query['id']) if 'id' in query else None)
        return _json({})

    # -- questions

    def state(self, query, spec):
        app, part = self.app, query.get('key', '')
        with_lines = query.get('lines', '1') != '0'
        records = {name: record for name, record in app.log.records.items() if part in name}
        return _json({
            'clock': app.clock(), 'offset': app.offset,
            'streams': {name: self.stream(name, with_lines) for name in list(app.log.streams)
                        if part in name and app.log.find(name) is not None},
            'records': {name: self.record(name, record, with_lines)
                        for name, record in records.items()},
            'blobs': {name: self.blob(blob) for name, blob in app.store.objects.items()
                      if part in name},
            'opens': {name: r.opens for name, r in records.items() if r.opens},
            'wipes': {name: r.wipes for name, r in records.items() if r.wipes},
            'requests': {call: {str(status): count for status, count in counter.items()}
                         for call, counter in app.counts.items()},
            'started': dict(app.started), 'running': app.running,
            'running_peak': app.running_peak, 'overlaps': dict(app.overlaps),
            'info_calls': app.log.info_calls,
            'store': {'leaks': app.store.leaks, 'refused': app.store.refused,
                      'puts': app.store.puts, 'gets': app.store.gets},
            'connections': {'main': app.main.counters.dump(), 'store': app.stores.counters.dump()},
            'ws': app.delegates.dump(),
            'errors': app.main.errors + app.stores.errors})

    def counts(self, query, spec):
        """A cheap summary, to poll on."""
        app = self.app
        return _json({
            'lines': {name: len(r.lines) for name, r in app.log.records.items() if r.lines},
            'streams': len(app.log.streams),
            'blobs': {name: len(blob.data) for name, blob in app.store.objects.items()},
            'requests': {call: {str(status): count for status, count in counter.items()}
                         for call, counter in app.counts.items()},
            'started': dict(app.started), 'running': app.running, 'leaks': len(app.store.leaks),
            'wipes': sum(r.wipes for r in app.log.records.values())})

    def stream(self, name, with_lines):
        stream = self.app.log.streams[name]
        result = {'open': True, 'generation': stream.generation, 'created': stream.created,
                  'count': len(stream.lines()), 'total': stream.total,
                  'tails': len(stream.tails)}
        if with_lines:
            result['lines'] = [line['out'] for line in stream.lines()]
        return result

    @staticmethod
    def record(name, record, with_lines):
        result = {key: value for key, value in vars(record).items() if key != 'lines'}
        outs = [line['out'] for _, line in record.lines]
        result['count'] = len(outs)
        repeated = {out: times for out, times in collections.Counter(outs).items() if times > 1}
        result['duplicates'] = sum(repeated.values()) - len(repeated)
        if with_lines:
            result['lines'] = outs
            result['repeated'] = repeated
        return result

    @staticmethod
    def blob(blob):
        if blob.digests is None:
            content = ObjectStore.inflate(blob)
            blob.digests = {'sha256': hashlib.sha256(blob.data).hexdigest(),
                            'content_size': len(content),
                            'content_sha256': hashlib.sha256(content).hexdigest()}
        return {**blob.digests, 'size': len(blob.data), 'encoding': blob.encoding,
                'via': blob.via, 'puts': blob.puts,
                'history': blob.history, 'headers': blob.headers}

    def log(self, query, spec):
        since, call = int(query.get('since', 0)), query.get('call')
        key = query.get('key')
        return _json([entry for entry in self.app.requests
                      if entry['seq'] > since and (call is None or entry['call'] == call)
                      and (key is None or key in (entry.get('key') or entry.get('object') or ''))])

    def log_clear(self, query, spec):
        self.app.clear_log()
        return _json({})

    def lines(self, query, spec):
        """Every line ever stored under a name, in order, with the generation it was stored in."""
        record = self.app.log.records.get(query['name'])
        return _json([dict(line, generation=generation)
                      for generation, line in (record.lines if record else ())])

    def blob_bytes(self, query, spec):
        blob = self.app.store.get(query['name'])
        if blob is None:
            return _json({'error': 'no such blob'}, 404)
        data = ObjectStore.inflate(blob) if query.get('inflate') else blob.data
        return 200, [('Content-Type', 'application/octet-stream')], data

    # -- orders

    def clock(self, query, spec):
        if 'advance' in spec:
            self.app.offset += float(spec['advance'])
        if 'offset' in spec:
            self.app.offset = float(spec['offset'])
        return _json({'clock': self.app.clock(), 'offset': self.app.offset})

    def tokens(self, query, spec):
        log = self.app.log
        if spec.get('clear'):
            log.bad_tokens.clear()
            log.expired_tokens.clear()
            log.token_accounts.clear()
        log.bad_tokens.update(spec.get('bad', ()))
        log.expired_tokens.update(spec.get('expired', ()))
        log.token_accounts.update(spec.get('accounts', {}))
        for token in spec.get('good', ()):
            log.bad_tokens.discard(token)
            log.expired_tokens.discard(token)
        return _json({})

    async def foreign(self, query, spec):
        if spec.get('after'):
            self.later(self.app.foreign(spec))
            return _json({'later': True})
        return _json({'status': await self.app.foreign(spec)})

    def config(self, query, spec):
        self.app.options.update(spec)
        self.app.configured()
        return _json({})

    def listeners(self, query, spec):
        """{"main": "shut"|"open"|"hang"|"speak"|"alert"|"greet", "store": ..., "drop": true}"""
        for name, listener in (('main', self.app.main), ('store', self.app.stores)):
            order = spec.get(name)
            if order == 'shut':
                listener.shut(spec.get('drop', True))
            elif order == 'open':
                listener.open()
            elif order in ('hang', 'speak'):
                listener.stall_accept = order == 'hang'
            elif order in ('alert', 'greet'):
                listener.alert(order == 'alert')
            elif order is not None:
                raise ValueError('unknown order: %s' % order)
        return _json({})

    def reset(self, query, spec):
        self.app.reset()
        return _json({})

    async def ws(self, query, spec):
        return _json(await self.app.delegates.order(spec))

    def link(self, query, spec):
        """A signed link as the service would hand it out: {"name": ..., "method": "PUT"}"""
        return _json({'link': self.app.store.sign(spec.get('method', 'PUT'), spec['name'])})

    def replay(self, query, spec):
        """What a journal says happened: {"journal": path, "until": mark}"""
        return _json({'calls': journal.replay(self.app, spec['journal'], spec['until'])})
