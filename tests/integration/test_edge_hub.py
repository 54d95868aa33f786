"""An edge in front of a hub: a tailrace whose upstream is a tailrace. Lines travel as zstd, and each is journaled once."""
import gzip
import json
import select
import socket
import threading

import pytest
from calls import Api, body_of
from gateway import key, wait_for

MB = 1 << 20


class Wire:
    """A TCP relay that a test can cut, and that keeps what the client side sent."""

    def __init__(self, to):
        self.to, self.pairs, self.heard, self.carried = to, [], b'', 0
        self.cut_after, self.refuse, self.over, self.cuts = None, False, False, 0
        self.listener = socket.create_server(('127.0.0.1', 0))
        self.port = self.listener.getsockname()[1]
        self.lock = threading.Lock()
        threading.Thread(target=self.run, daemon=True).start()

    def run(self):
        while not self.over:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            if self.refuse:
                client.close()
                continue
            try:
                server = socket.create_connection(('127.0.0.1', self.to), 5)
            except OSError:
                client.close()
                continue
            with self.lock:
                self.pairs.append((client, server))
            threading.Thread(target=self.carry, args=(client, server), daemon=True).start()

    def carry(self, client, server):
        try:
            while True:
                ready, _, _ = select.select([client, server], [], [], 30)
                for s in ready:
                    data = s.recv(65536)
                    if not data:
                        return
                    if s is client:
                        self.carried += len(data)
                        self.heard += data[:65536] if len(self.heard) < 4 * MB else b''
                    elif self.cut_after is not None:
                        # An answer is on its way: swallow it, so that its sender has done the work for nothing.
                        self.cut_after -= 1
                        if self.cut_after <= 0:
                            self.cut_after = None
                            self.cuts += 1
                            return
                    (server if s is client else client).sendall(data)
        except (OSError, ValueError):   # closed meanwhile, by cut()
            pass
        finally:
            self.end(client, server)

    def end(self, *socks):
        for s in socks:
            try:
                s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b'\1\0\0\0\0\0\0\0')  # with a reset
                s.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
            s.close()

    def cut(self):
        """Now, all of them, whatever is under way."""
        with self.lock:
            pairs, self.pairs = self.pairs, []
        for pair in pairs:
            self.end(*pair)

    def close(self):
        self.over = True
        self.listener.close()
        self.cut()


@pytest.fixture
def hub(far, gateway_at):
    return gateway_at(far.url, name='hub')


@pytest.fixture
def wire(hub):
    w = Wire(hub.port)
    yield w
    w.close()


@pytest.fixture
def edge(wire, gateway_at):
    return gateway_at(f'http://127.0.0.1:{wire.port}', name='edge', upstream={'http': '1.1'})


@pytest.fixture
def api(edge):
    a = Api(edge.log_url)
    yield a
    a.close()


def put_all(api, name, n, start=0):
    for i in range(start, start + n):
        assert api.put(name, f'line {i}\n', start=i)[0] == 204


def expect(n):
    return [f'line {i}\n' for i in range(n)]


def through(edge, hub):
    edge.wait_delivered(60)
    hub.wait_delivered(60)


def test_lines_and_blob_arrive_unchanged_and_in_order(far, hub, edge, api):
    assert api.open(key())[0] == 204
    put_all(api, key(), 100)
    through(edge, hub)
    data = b''.join(json.dumps({'out': t}).encode() + b'\n' for t in expect(100))
    assert api.blob(key(), data)[0] == 204 and api.delete(key())[0] == 204
    through(edge, hub)
    far.wait(lambda h: h.counts()['requests'].get('close'), 30, what='the close, which the ledger does not know')
    assert far.lines('acct', key()) == expect(100)
    assert far.blob('acct', key()) == data
    record = far.state()['records']['acct/' + key()]
    assert (record['opens'], record['wipes'], record['closes']) == (1, 0, 1)
    for gw in (edge, hub):
        ledger = gw.ledger()
        assert ledger['accepted'] == 100 == ledger['delivered'] + ledger['superseded']


def test_bodies_travel_as_zstd(far, hub, edge, wire, api):
    """Once the hub has said so on that connection; the real service never does, and gets plain bodies."""
    assert api.open(key())[0] == 204
    put_all(api, key(), 3)
    through(edge, hub)
    before = wire.carried
    text = 'the same words again and again ' * 100 + '\n'
    for i in range(20):
        assert api.put(key(), *[text] * 10, start=3 + 10 * i)[0] == 204
    through(edge, hub)
    assert b'ontent-Encoding: zstd' in wire.heard and b'\x28\xb5\x2f\xfd' in wire.heard
    assert wire.carried - before < 200 * len(text) / 10, 'compressed'
    assert far.lines('acct', key()) == expect(3) + [text] * 200
    for entry in far.log():
        names = {k.lower() for k, _ in entry['headers']}
        assert not {'content-encoding', 'tailrace-delivery'} & names


def test_no_zstd_towards_what_is_no_tailrace(far, gateway_at, tmp_path):
    """Even where something in between says Accept-Encoding: that alone is not enough."""
    far.config(extra_headers=[['Accept-Encoding', 'zstd, gzip']])
    edge = gateway_at(far.url)
    api = Api(edge.log_url)
    assert api.open(key())[0] == 204
    put_all(api, key(), 20)
    edge.wait_delivered()
    assert far.lines('acct', key()) == expect(20)
    for entry in far.log('lines'):
        names = {k.lower() for k, _ in entry['headers']}
        assert not {'content-encoding', 'tailrace-delivery'} & names
    api.close()


@pytest.mark.parametrize('form', ['blob', 'link'])
def test_the_form_of_an_upload_is_kept(far, hub, edge, api, form):
    """The hub's setting decides the route, not the edge; no gzip and no reading back between the two."""
    data = b'{"out":"x"}\n' * 50000
    assert (api.blob(key(), data)[0] if form == 'blob' else api.put_link(key(), data)[0]) in (200, 204)
    through(edge, hub)
    wait_for(lambda: far.blob('acct', key()) == data, timeout=30)
    started = hub.metrics()
    call = 'blob' if form == 'blob' else 'ticket'
    assert [v for k, v in started.items() if k.startswith('client_requests_total') and f'call="{call}"' in k and v > 0]
    assert ('put-object' if form == 'link' else 'blob') in far.counts()['started']


def test_cut_in_the_middle_again_and_again(far, hub, edge, wire, api):
    """Answers get lost: the edge asks again, the hub knows what it has taken."""
    assert api.open(key())[0] == 204
    put_all(api, key(), 5)
    through(edge, hub)
    n = 5
    for _ in range(15):
        wire.cut_after = 1
        put_all(api, key(), 10, start=n)
        n += 10
        wait_for(lambda: wire.cut_after is None, what='the loss of an answer')
        edge.wait_delivered()
    through(edge, hub)
    assert wire.cuts == 15
    assert far.lines('acct', key()) == expect(n)
    assert hub.ledger()['accepted'] == n == hub.ledger()['delivered']
    assert edge.metric('lines_resent_total') > 0


def test_cut_at_any_byte(far, hub, edge, wire, api):
    assert api.open(key())[0] == 204
    put_all(api, key(), 5)
    through(edge, hub)          # it knows what it talks to, and sends delivery ids
    names = [key(f's{i}') for i in range(5)]
    for name in names:
        assert api.open(name)[0] == 204
    stop = threading.Event()

    def cutter():
        while not stop.wait(0.15):
            wire.cut()
    t = threading.Thread(target=cutter)
    t.start()
    try:
        for i in range(100):
            for name in names:
                assert api.put(name, f'line {i}\n', start=i)[0] == 204
    finally:
        stop.set()
        t.join()
    through(edge, hub)
    for name in names:
        assert far.lines('acct', name) == expect(100)
    assert hub.ledger()['accepted'] == 505


@pytest.mark.parametrize('victim', ['hub', 'edge', 'both'])
def test_killed_in_the_middle(far, hub, edge, api, victim):
    """Each line is in the edge's spool or the hub's, or in both; the hub tells."""
    assert api.open(key())[0] == 204
    put_all(api, key(), 5)
    through(edge, hub)
    n = 5
    for round_ in range(4):
        put_all(api, key(), 30, start=n)
        n += 30
        for gw in (hub, edge):
            if victim in ('both', gw.directory.name):
                gw.kill()
        if victim != 'hub':
            api.close()
        for gw in (hub, edge):
            if gw.process.poll() is not None:
                gw.start()
    through(edge, hub)
    lines = far.lines('acct', key())
    # The hub's own last batch may reach the service twice: that one knows no delivery ids.
    unique = list(dict.fromkeys(lines))
    assert unique == expect(n)
    assert len(lines) - n <= hub.metric('lines_resent_total') + 4 * 30 and (victim == 'edge') <= (len(lines) == n)
    assert edge.ledger()['accepted'] == n


def test_hub_away_for_a_while(far, hub, edge, wire, api):
    assert api.open(key())[0] == 204
    put_all(api, key(), 5)
    through(edge, hub)
    wire.refuse = True
    wire.cut()
    put_all(api, key(), 50, start=5)
    data = b'{"out":"all of it"}\n'
    assert api.put_link(key(), data)[0] == 200
    assert edge.get('/readyz')[0] == 200, 'upstream is down, and it is ready all the same'
    wire.refuse = False
    through(edge, hub)
    assert far.lines('acct', key())[:5] == expect(5)
    wait_for(lambda: far.blob('acct', key()) == data)
    assert api.delete(key())[0] == 204
    ledger = edge.ledger()
    assert ledger['accepted'] == 55 == ledger['delivered'] + ledger['superseded'] + ledger['spooled']


def test_clients_bodies_stay_what_they_are(far, hub, edge, api):
    """A client that compresses is decoded at the edge; what the hub gets is the edge's own."""
    assert api.open(key())[0] == 204
    assert api.put_raw(key(), gzip.compress(body_of('line 0\n')), {'Content-Encoding': 'gzip'})[0] == 204
    assert api.put_raw(key(), b'[{"out":"line 1\\n"},null] rest')[0] == 204
    through(edge, hub)
    assert far.lines('acct', key()) == ['line 0\n', 'line 1\n', '']


def test_a_forged_delivery_id_harms_nobody_else(far, hub):
    """Delivery ids are the sender's own: nonsense is as good as none, and another's stream is not touched."""
    api = Api(hub.log_url)
    assert api.open(key())[0] == 204
    for n, field in enumerate(['', 'x', '0-0 1:1', 'ffffffffffffffffff-1 1:1', '1-1', '1-1 1:0', '1-1 1:1,', '1-1 ' + '1:1,' * 6000 + '1:1',
                               '1-1 18446744073709551616:1']):
        assert api.put_raw(key(), body_of(f'{n}\n', start=n), {'Tailrace-Delivery': field})[0] in (204, 400)
    assert api.put_raw(key(), body_of('a\n', 'b\n', start=50), {'Tailrace-Delivery': '1-1 7:9'})[0] == 400
    assert api.put_raw(key(), body_of('fine\n', start=60), {'Tailrace-Delivery': 'abc-1 1:1'})[0] == 204
    assert api.put_raw(key(), body_of('fine\n', start=60), {'Tailrace-Delivery': 'abc-1 1:1'})[0] == 204
    hub.wait_delivered()
    assert far.lines('acct', key()).count('fine\n') == 1
    api.close()
